"""A process that makes cells, one after the other, and keeps decoded images between them.

    python -m cervix_study.execution.cell_process STUDY                serves: reads tasks, one JSON object per line
    python -m cervix_study.execution.cell_process STUDY WORK KEY       does one task and ends (SLURM)

A task is {"work": "make" | "open" | "open and drop weights" | "time", "key": KEY}. The answers are lines of its own:

    {"progress": {...}}   now and then
    {"done": KEY}
    {"failed": {...}}     what broke: kind, what, cause, next_step, trace

It ends when its standard input ends, and so never outlives the study. SIGTERM lets a training keep a checkpoint first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any, TextIO

from cervix_study.execution.cell_execution import make
from cervix_study.execution.classifiers import open_test
from cervix_study.execution.parent_death import end_with_parent
from cervix_study.execution.timing import time_cell
from cervix_study.execution.worker_context import WorkerContext
from cervix_study.study_paths import Places
from fedcervix.disk.files import keep_private
from fedcervix.errors import INTERRUPTED, FedcervixError
from fedcervix.json_text import parsed
from fedcervix.runtime.log import configure
from site_agent.commands.stopping import SIGNALS
from site_agent.training.checkpoints import Checkpoints
from site_agent.training.stopping import Stop, Stoppable

PROGRESS_S = 0.5
"""at most one progress line in this time"""


class Answers:
    """The study's end of standard output."""

    def __init__(self, lines: TextIO) -> None:
        self._lines, self._said_s = lines, 0.0

    def say(self, message: dict[str, Any]) -> None:
        """Answer."""
        self._lines.write(json.dumps(message) + "\n")
        self._lines.flush()

    def progress(self, values: dict[str, Any]) -> None:
        """Tell how far it is, unless that was told just now."""
        now = time.monotonic()
        if now - self._said_s >= PROGRESS_S:
            self._said_s = now
            self.say({"progress": values})


def main() -> None:
    """Serve tasks, or do the one that the command line names."""
    keep_private()
    places, task = Places(Path(sys.argv[1])), sys.argv[2:]
    configure()
    answers = Answers(os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints does not break the protocol
    stop = Stop()
    for number in SIGNALS:
        signal.signal(number, stop.heard)
    bench = WorkerContext(places, (lambda _values: None) if task else answers.progress)
    try:
        if task:
            end_with_parent()
            do(bench, stop, answers, {"work": task[0], "key": task[1]})
            return
        asked = _listen(sys.stdin)
        while True:
            do(bench, stop, answers, parsed(asked.get()))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _listen(lines: TextIO) -> Queue[str]:
    """Return a queue of input lines; when they end, this process is told to end, whatever it is doing."""
    asked: Queue[str] = Queue()

    def read() -> None:
        for line in lines:
            asked.put(line)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=read, daemon=True, name="input").start()
    return asked


def do(bench: WorkerContext, stop: Stop, answers: Answers, task: dict[str, str]) -> None:
    """Do a task and answer."""
    try:
        _WORK[task["work"]](bench, stop, task["key"])
    except Exception as error:  # noqa: BLE001  (whatever breaks here is reported, with its trace, to the study)
        answers.say({"failed": account(error)})
        return
    answers.say({"done": task["key"]})


def _make(bench: WorkerContext, stop: Stop, key: str) -> None:
    @contextlib.contextmanager
    def keeping(folder: Path, contract: str) -> Iterator[Checkpoints]:
        with stop.waits_for_checkpoint():
            yield Stoppable(folder, contract, stop)
        stop.end_if_asked()

    make(bench, key, keeping)


def _open(bench: WorkerContext, _stop: Stop, key: str) -> None:
    open_test(bench, bench.places.planned(key), bench.places.cell(key), keep_weights=True)


def _open_and_drop(bench: WorkerContext, _stop: Stop, key: str) -> None:
    open_test(bench, bench.places.planned(key), bench.places.cell(key), keep_weights=False)


def _time(bench: WorkerContext, _stop: Stop, key: str) -> None:
    cell = bench.places.planned(key)
    recipe = bench.settled(cell.recipe, cell.sites[0], cell.fold)
    timed = dataclasses.replace(cell, recipe=recipe)
    time_cell(timed, bench.machine(cell.sites[0], cell.fold), bench.places)


_WORK: dict[str, Callable[[WorkerContext, Stop, str], None]] = {
    "make": _make,
    "open": _open,
    "open and drop weights": _open_and_drop,
    "time": _time,
}


def account(error: Exception) -> dict[str, str]:
    """Return what the study is told of an error."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, FedcervixError):
        told = {"what": error.what, "cause": error.cause, "next_step": error.next_step}
    else:
        told = {
            "what": f"{type(error).__name__}: {error}",
            "cause": "a bug, or a hardware fault",
            "next_step": "",
        }
    return {"kind": type(error).__name__, **told, "trace": trace}


if __name__ == "__main__":
    main()
