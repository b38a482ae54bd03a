"""The worker: a process of its own that trains, and never imports grpc.

It reads one JSON object per line (a task with its plan; or a plan alone, to say what it would cost here: see
`preflight`) and answers with lines of its own:

    {"progress": {...}}   now and then
    {"done": {...}}       the task's numbers
    {"failed": {...}}     what broke: kind, stage, what, cause, next_step, exit_code, trace
    {"stopped": {...}}    it was asked to stop, and ends: kept (whether training stands in a checkpoint)

The line "stop" asks it to end: while it trains at the next step, with a checkpoint, else at once. It ends at once when
its standard input ends, so it never outlives the agent that started it.

Started by torch's elastic launcher there are several (see `ddp`). Then the leader alone reads and answers; the others
do what it broadcasts, silently. Whatever breaks in any of them, the leader says so and all end: processes that do not
stand at the same point of the same task cannot go on together.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any, NoReturn, TextIO

import torch
import torch.distributed as dist

from fedcervix.core.events import TaskKind, task_from_dict
from fedcervix.core.plan import Plan
from fedcervix.disk.descriptors import USED_UP
from fedcervix.disk.files import keep_private
from fedcervix.disk.storage import FULL
from fedcervix.errors import FedcervixError, FullDiskError, StorageError, TrainingError
from fedcervix.json_text import parsed
from fedcervix.runtime.printing import say
from site_agent.home import SiteHome
from site_agent.network.devices import accelerate, choose, prepare
from site_agent.training.ddp import ALONE, STEP_S, Team, assemble, hear, lost, tell
from site_agent.training.rank_watchdog import Lifeline, end_with_input, end_with_parent
from site_agent.training.stopping import Stop
from site_agent.worker.examining import examine
from site_agent.worker.tasks import TaskContext, do
from site_agent.worker.worker import STOP_LINE

STAGES = {TaskKind.SEED: "making the first model", TaskKind.TRAIN: "training", TaskKind.SCORE: "validating"}
TOGETHER = (TaskKind.TRAIN,)
"""the tasks of the whole team; others are the leader's"""
LACKS_MEMORY = ("out of memory", "can't allocate memory")
"""what torch says of a GPU, and of a CPU"""
PROGRESS_S = 0.25
"""at most one progress line in this time"""
YIELD_S = 2.0
"""how long a follower that broke waits before it says so: what breaks in all alike, the leader says first"""
END_S = 10.0
"""how long a process of a team waits to be ended by the one that knows why, before it ends by itself"""


def main() -> None:
    """Serve tasks until standard input ends: `python -m site_agent.worker.worker_process HOME SITE`."""
    keep_private()
    home, site = SiteHome(Path(sys.argv[1])), sys.argv[2]
    # Followers keep the agent's pipe open too: it ends when the last process has.
    answers = _Answers(os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints does not break the protocol
    if not dist.is_torchelastic_launched():
        _serve(home, site, answers, ALONE)
    end_with_parent()
    place = Team(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if place.leads:
        _serve(home, site, answers, place)
    _follow(home, site, place)


# --- the one that speaks with the agent ---------------------------------------------------------------------------


def _serve(home: SiteHome, site: str, answers: _Answers, place: Team) -> NoReturn:
    stop = Stop()
    asked = _listen(sys.stdin, stop)
    stage = _Stage(answers)
    bench: TaskContext | None = None
    while True:
        line = asked.get()
        try:
            bench = bench or _leaders_bench(home, site, place, stage, stop)
            answers.say({"done": _answer(bench, stage, parsed(line))})
        except KeyboardInterrupt:
            answers.last({"stopped": {"kept": stop.kept}}, status=0)
        except Exception as error:  # noqa: BLE001  (whatever breaks here is reported, with its trace, to the agent)
            if place.alone and not isinstance(error, torch.AcceleratorError):  # (that GPU is lost)
                answers.say({"failed": _account(error, stage.name)})
                continue
            if lost(error):
                _wait_for_the_lifeline()
            answers.last({"failed": _account(error, stage.name)})


def _answer(bench: TaskContext, stage: _Stage, request: dict[str, Any]) -> dict[str, Any]:
    """Do what was asked: a task, or a look at what can be known before round 1."""
    if "examine" in request:
        stage.begin("checking what the plan needs")
        return examine(bench, Plan.parse(request["examine"]) if request["examine"] else None).to_json()
    plan, task = Plan.parse(request["plan"]), task_from_dict(request["task"])
    stage.begin(STAGES[task.kind])
    if task.kind in TOGETHER:
        tell(request, bench.team)
    return do(bench, task, plan)


def _wait_for_the_lifeline() -> None:
    """It knows who was lost, says so, and ends this process."""
    threading.Event().wait(END_S)


def _listen(lines: TextIO, stop: Stop) -> Queue[str]:
    """Return a queue of tasks; when the input ends, so does the process, whatever it is doing."""
    asked: Queue[str] = Queue()

    def read() -> None:
        for line in lines:
            if line != STOP_LINE:
                asked.put(line)
            elif not stop.ask():
                break
        os._exit(0)

    threading.Thread(target=read, daemon=True, name="input").start()
    return asked


def _leaders_bench(home: SiteHome, site: str, place: Team, stage: _Stage, stop: Stop) -> TaskContext:
    bench = _bench(home, site, place, stage.progress)
    bench.stop = stop
    if not place.alone:

        def on_end(rank: int, account: dict[str, Any] | None) -> None:
            stage.answers.last({"failed": account or _account(_gone(rank, place), stage.name)})

        Lifeline(bench.team, on_end)
        # The launcher ends all when it finds one ended; the lifeline has heard of it before, and says what broke.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return bench


class GoneError(TrainingError):
    """A process of the team ended by itself; the others were in order, and can begin again."""


def _gone(rank: int, place: Team) -> GoneError:
    return GoneError(
        f"training process {rank + 1} of {place.size} ended by itself",
        cause="it was killed, often because the machine ran out of memory, or it crashed",
        next_step="look at the system's log (dmesg | tail); start site-agent again to continue",
    )


# --- the others ---------------------------------------------------------------------------------------------------


def _follow(home: SiteHome, site: str, place: Team) -> NoReturn:
    end_with_input()
    lifeline: Lifeline | None = None
    try:
        bench = _bench(home, site, place, lambda _values: None)
        lifeline = Lifeline(bench.team, lambda _leader, _account: os._exit(0))
        while True:
            request = hear(bench.team)
            do(bench, task_from_dict(request["task"]), Plan.parse(request["plan"]))
    except Exception as error:  # noqa: BLE001  (as above: reported, with its trace)
        account = _account(error, STAGES[TaskKind.TRAIN])
        say(account["trace"], err=True)
        threading.Event().wait(YIELD_S)
        if lifeline and not lost(error):
            lifeline.report(
                {**account, "what": f"training process {place.rank + 1} of {place.size}: {account['what']}"}
            )
        threading.Event().wait(END_S)
        os._exit(1)


# --- what all need ------------------------------------------------------------------------------------------------


def _bench(home: SiteHome, site: str, place: Team, on_progress: Callable[[dict[str, Any]], None]) -> TaskContext:
    hardware = home.config().hardware
    device, cores = choose(hardware.device), len(os.sched_getaffinity(0))
    if place.alone:
        prepare(device, hardware.threads or cores, hardware.deterministic)
        return TaskContext(home, site, device, on_progress, accelerate(hardware.acceleration, device))
    number, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    device = _own_device(device, number, here)
    prepare(device, hardware.threads or max(1, cores // here), hardware.deterministic)
    # A team steps eagerly: neither a graph nor a compiled step may hold what DistributedDataParallel does within it.
    return TaskContext(home, site, device, on_progress, team=assemble(device))


def _own_device(device: torch.device, number: int, here: int) -> torch.device:
    """Return the device of the process of this number, of so many on this host. Raises TrainingError."""
    if device.type == "cpu":
        return device
    found = torch.cuda.device_count()
    if found < here:
        raise TrainingError(
            f"{here} training processes were asked for on a host on which torch sees {found} GPUs",
            cause="processes under [hardware] is too high, or CUDA_VISIBLE_DEVICES hides some",
            next_step="set processes = 0 (one per GPU), and look at nvidia-smi",
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


class _Answers:
    """The agent's end of standard output; whole lines, from whichever thread."""

    def __init__(self, lines: TextIO) -> None:
        self._lines, self._lock = lines, threading.Lock()

    def say(self, message: dict[str, Any]) -> None:
        """Answer."""
        with self._lock:
            self._write(message)

    def last(self, message: dict[str, Any], *, status: int = 1) -> NoReturn:
        """Answer and end the process: nothing is said after this."""
        with self._lock:
            try:
                self._write(message)
            finally:
                os._exit(status)

    def _write(self, message: dict[str, Any]) -> None:
        try:
            self._lines.write(json.dumps(message) + "\n")
            self._lines.flush()
        except BrokenPipeError:  # the agent was killed; our input has ended too, or is about to
            os._exit(0)


class _Stage:
    """What is being done, for progress lines and failure reports."""

    def __init__(self, answers: _Answers) -> None:
        self.answers, self.name, self._said_s = answers, "starting", 0.0

    def begin(self, name: str) -> None:
        self.name, self._said_s = name, 0.0

    def progress(self, values: dict[str, Any]) -> None:
        stage, last = str(values["stage"]), values["done"] == values["of"]
        now = time.monotonic()
        if stage == self.name and not last and now - self._said_s < PROGRESS_S:
            return
        self.name, self._said_s = stage, now
        self.answers.say({"progress": values})


def _translated(error: Exception) -> FedcervixError:
    """Say what a foreign error means for the operator."""
    if isinstance(error, FedcervixError):
        return error
    if lost(error):
        return TrainingError(
            f"the training processes of this site waited {STEP_S:.0f} s for one another",
            cause=f"one of them hangs, or the network between their hosts is cut: {str(error)[:200]}",
            next_step="look at the hosts' logs; start site-agent again to continue",
        )
    if isinstance(error, OSError) and error.errno in USED_UP:
        cause, next_step = USED_UP[error.errno]
        return StorageError(str(error), cause=cause, next_step=next_step)
    if isinstance(error, OSError) and error.errno in FULL:
        return FullDiskError(str(error), cause="the disk is full", next_step="df -h")
    if isinstance(error, OSError):
        return StorageError(str(error), cause="the disk is damaged or not accessible", next_step="df -h")
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in LACKS_MEMORY):
        return TrainingError(
            "not enough memory for this batch", cause=str(error)[:200], next_step="a plan with a smaller batch_images"
        )
    return TrainingError(
        f"the trainer stopped unexpectedly: {type(error).__name__}: {error}",
        cause="a bug, or a hardware fault",
        next_step="see the trace under the incident number",
    )


def _account(error: Exception, stage: str) -> dict[str, Any]:
    known = _translated(error)
    return {
        "kind": type(known).__name__,
        "stage": stage,
        "what": known.what,
        "cause": known.cause,
        "next_step": known.next_step,
        "exit_code": known.exit_code,
        "trace": "".join(traceback.format_exception(error)),
    }


if __name__ == "__main__":
    main()
