"""A process that computes cells, one after the other, and keeps decoded images between them.

    python -m cervix_study.execution.cell_process STUDY                serves: reads tasks, one JSON object per line
    python -m cervix_study.execution.cell_process STUDY WORK KEY       does one task and ends (SLURM)

A task is an `Order`: {"work": "make" | "open" | "open and drop weights" | "time", "key": KEY}. Its answers are those of
`fedcervix.runtime.worker_protocol`. It ends when its standard input ends, and so never outlives the study. SIGTERM lets
a training keep a checkpoint first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from cervix_study.execution.cell_execution import make
from cervix_study.execution.classifiers import open_test
from cervix_study.execution.tasks import Order, Work
from cervix_study.execution.timing import time_cell
from cervix_study.execution.worker_context import WorkerContext
from cervix_study.study_paths import Places
from fedcervix.disk.files import keep_private
from fedcervix.errors import INTERRUPTED, FedcervixError
from fedcervix.json_text import parsed
from fedcervix.runtime.log import configure
from fedcervix.runtime.parent_death import end_with_parent
from fedcervix.runtime.signals import heard_by
from fedcervix.runtime.typed_json import from_json
from fedcervix.runtime.worker_protocol import Answers, Failure, RequestDone, requests
from site_agent.training.checkpoints import Checkpoints
from site_agent.training.stopping import Stop, Stoppable


def main() -> None:
    """Serve tasks, or do the one that the command line names."""
    keep_private()
    places, task = Places(Path(sys.argv[1])), sys.argv[2:]
    configure()
    answers = Answers.on_stdout()
    stop = Stop()
    heard_by(stop.heard)
    bench = WorkerContext(places, (lambda _progress: None) if task else answers.progress)
    try:
        if task:
            end_with_parent()
            do(bench, stop, answers, Order(cast(Work, task[0]), task[1]))
            return
        asked = requests(sys.stdin, on_stop=stop.ask, on_end=lambda: os.kill(os.getpid(), signal.SIGTERM))
        while True:
            do(bench, stop, answers, from_json(Order, parsed(asked.get())))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def do(bench: WorkerContext, stop: Stop, answers: Answers, order: Order) -> None:
    """Do a task and answer."""
    answers.begin(order.work)
    try:
        _WORK[order.work](bench, stop, order.key)
    except Exception as error:  # noqa: BLE001  (whatever breaks here is reported, with its trace, to the study)
        answers.say(failure(error, answers.stage))
        return
    answers.say(RequestDone(order.key))


def _make(bench: WorkerContext, stop: Stop, key: str) -> None:
    @contextlib.contextmanager
    def keeping(folder: Path, contract: str) -> Iterator[Checkpoints]:
        with stop.waits_for_checkpoint():
            yield Stoppable(folder, contract, stop)
        stop.end_if_asked()

    make(bench, key, keeping)


def _open(bench: WorkerContext, _stop: Stop, key: str, *, keep_weights: bool = True) -> None:
    open_test(bench, bench.places.planned(key), bench.places.cell(key), keep_weights=keep_weights)


def _time(bench: WorkerContext, _stop: Stop, key: str) -> None:
    cell = bench.places.planned(key)
    recipe = bench.settled(cell.recipe, cell.sites[0], cell.fold)
    timed = dataclasses.replace(cell, recipe=recipe)
    time_cell(timed, bench.machine(cell.sites[0], cell.fold), bench.places)


_WORK: dict[Work, Callable[[WorkerContext, Stop, str], None]] = {
    "make": _make,
    "open": _open,
    "open and drop weights": functools.partial(_open, keep_weights=False),
    "time": _time,
}


def failure(error: Exception, stage: str) -> Failure:
    """Return what the study is told of an error."""
    if isinstance(error, FedcervixError):
        return Failure.of(error, error, stage)
    known = FedcervixError(f"{type(error).__name__}: {error}", cause="a bug, or a hardware fault")
    return Failure.of(error, known, stage)


if __name__ == "__main__":
    main()
