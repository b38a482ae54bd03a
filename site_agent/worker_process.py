"""The worker: a process of its own that trains, and never imports grpc.

It reads one JSON object per line (a task with its plan) and answers with lines of its own:

    {"progress": {...}}   now and then
    {"done": {...}}       the task's numbers
    {"failed": {...}}     what broke: kind, stage, what, cause, next_step, exit_code, trace

It ends when its standard input ends, so it never outlives the agent that started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any, TextIO

from fedcervix.errors import FedcervixError, StorageError, TrainingError
from fedcervix.events import TaskKind, task_from_dict
from fedcervix.plan import Plan
from site_agent.devices import choose, prepare
from site_agent.home import SiteHome
from site_agent.tasks import Bench, do

STAGES = {TaskKind.SEED: "making the first model", TaskKind.TRAIN: "training", TaskKind.SCORE: "validating"}
PROGRESS_S = 0.25
"""at most one progress line in this time"""


def main() -> None:
    """Serve tasks until standard input ends: `python -m site_agent.worker_process HOME SITE`."""
    home, site = SiteHome(Path(sys.argv[1])), sys.argv[2]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints does not break the protocol
    asked = _listen(sys.stdin)
    stage = _Stage(answers)
    bench: Bench | None = None
    while (line := asked.get()) is not None:
        try:
            bench = bench or _bench(home, site, stage.progress)
            request = json.loads(line)
            plan, task = Plan.parse(request["plan"]), task_from_dict(request["task"])
            stage.begin(STAGES[task.kind])
            _say(answers, {"done": do(bench, task, plan)})
        except FedcervixError as error:
            _say(answers, {"failed": _account(error, stage.name)})
        except Exception as error:  # noqa: BLE001  (whatever breaks here is reported, with its trace, to the agent)
            _say(answers, {"failed": _account(_translated(error), stage.name)})


def _listen(lines: TextIO) -> Queue[str | None]:
    """Return a queue of input lines; when they end, so does the process, whatever it is doing."""
    asked: Queue[str | None] = Queue()

    def read() -> None:
        for line in lines:
            asked.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True, name="input").start()
    return asked


def _bench(home: SiteHome, site: str, on_progress: Callable[[dict[str, Any]], None]) -> Bench:
    hardware = home.config().hardware
    device = choose(hardware.device)
    prepare(device, hardware.threads or len(os.sched_getaffinity(0)))
    return Bench(home, site, device, on_progress)


class _Stage:
    """What is being done, for progress lines and failure reports."""

    def __init__(self, answers: TextIO) -> None:
        self._answers, self.name, self._said_s = answers, "starting", 0.0

    def begin(self, name: str) -> None:
        self.name, self._said_s = name, 0.0

    def progress(self, values: dict[str, Any]) -> None:
        stage, last = str(values["stage"]), values["done"] == values["of"]
        now = time.monotonic()
        if stage == self.name and not last and now - self._said_s < PROGRESS_S:
            return
        self.name, self._said_s = stage, now
        _say(self._answers, {"progress": values})


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _translated(error: Exception) -> FedcervixError:
    """Say what a foreign error means for the operator."""
    if isinstance(error, OSError):
        return StorageError(str(error), cause="the disk is full or not readable", next_step="df -h")
    if "out of memory" in str(error).lower() or isinstance(error, MemoryError):
        return TrainingError(
            "not enough memory for this batch", cause=str(error)[:200], next_step="a plan with a smaller batch_images"
        )
    return TrainingError(
        f"the trainer stopped unexpectedly: {type(error).__name__}: {error}",
        cause="a bug, or a defect of the hardware",
        next_step="see the trace under the incident number",
    )


def _account(error: FedcervixError, stage: str) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "stage": stage,
        "what": error.what,
        "cause": error.cause,
        "next_step": error.next_step,
        "exit_code": error.exit_code,
        "trace": traceback.format_exc(),
    }


if __name__ == "__main__":
    main()
