"""The worker: a process of its own that trains, and never imports grpc.

It reads requests and answers them, both in lines of JSON (`messages`, `fedcervix.runtime.worker_protocol`). The line
"stop" asks it to end: while it trains at the next step, with a checkpoint, else at once. It ends at once when its
standard input ends, so it never outlives the agent that started it.

Started by torch's elastic launcher there are several (see `ddp`). Then the leader alone reads and answers; the others
do what it broadcasts, silently. Whatever breaks in any of them, the leader says so and all end: processes that do not
stand at the same point of the same task cannot go on together.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist

from fedcervix.core.events import TaskKind
from fedcervix.core.plan import Plan
from fedcervix.disk.descriptors import USED_UP
from fedcervix.disk.files import keep_private
from fedcervix.disk.storage import FULL
from fedcervix.errors import FedcervixError, FullDiskError, StorageError, TrainingError
from fedcervix.json_text import parsed
from fedcervix.runtime.parent_death import end_with_parent
from fedcervix.runtime.printing import say
from fedcervix.runtime.typed_json import from_json
from fedcervix.runtime.worker_protocol import Answers, Failure, OnProgress, RequestDone, WorkerStopped, requests
from site_agent.home import SiteHome
from site_agent.network.devices import accelerate, choose, prepare
from site_agent.training.ddp import ALONE, STEP_S, Team, assemble, hear, lost, tell
from site_agent.training.rank_watchdog import Lifeline, end_with_input
from site_agent.training.stopping import Stop
from site_agent.worker.examining import examine
from site_agent.worker.messages import Request, Result, result_to_json
from site_agent.worker.tasks import TaskContext, do

STAGES = {TaskKind.SEED: "making the first model", TaskKind.TRAIN: "training", TaskKind.SCORE: "validating"}
TOGETHER = (TaskKind.TRAIN,)
"""the tasks of the whole team; others are the leader's"""
LACKS_MEMORY = ("out of memory", "can't allocate memory")
"""what torch says of a GPU, and of a CPU"""
YIELD_S = 2.0
"""how long a follower that broke waits before it says so: what breaks in all alike, the leader says first"""
END_S = 10.0
"""how long a process of a team waits to be ended by the one that knows why, before it ends by itself"""


def main() -> None:
    """Serve tasks until standard input ends: `python -m site_agent.worker.worker_process HOME SITE`."""
    keep_private()
    home, site = SiteHome(Path(sys.argv[1])), sys.argv[2]
    # Followers keep the agent's pipe open too: it ends when the last process has.
    answers = Answers.on_stdout()
    if not dist.is_torchelastic_launched():
        _serve(home, site, answers, ALONE)
    end_with_parent(signal.SIGKILL)
    place = Team(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if place.leads:
        _serve(home, site, answers, place)
    _follow(home, site, place)


# --- the one that speaks with the agent ---------------------------------------------------------------------------


def _serve(home: SiteHome, site: str, answers: Answers, place: Team) -> NoReturn:
    stop = Stop()
    asked = requests(sys.stdin, on_stop=lambda: stop.ask() or os._exit(0), on_end=lambda: os._exit(0))
    bench: TaskContext | None = None
    while True:
        line = asked.get()
        try:
            bench = bench or _leaders_bench(home, site, place, answers, stop)
            answers.say(RequestDone(result_to_json(_answer(bench, answers, from_json(Request, parsed(line))))))
        except KeyboardInterrupt:
            answers.last(WorkerStopped(stop.kept), status=0)
        except Exception as error:  # noqa: BLE001  (whatever breaks here is reported, with its trace, to the agent)
            failure = _failure(error, answers.stage)
            if place.alone and not isinstance(error, torch.AcceleratorError):  # (that GPU is lost)
                answers.say(failure)
                continue
            if lost(error):
                _wait_for_the_lifeline()
            answers.last(failure)


def _wait_for_the_lifeline() -> None:
    """It knows who was lost, says so, and ends this process."""
    threading.Event().wait(END_S)


def _answer(bench: TaskContext, answers: Answers, request: Request) -> Result:
    """Do what was asked: a task, or a look at what can be known before round 1."""
    plan = Plan.parse(request.plan) if request.plan else None
    if plan is None or request.task is None:
        answers.begin("checking what the plan needs")
        return examine(bench, plan)
    answers.begin(STAGES[request.task.kind])
    bench.roster = request.roster
    if request.task.kind in TOGETHER:
        tell(json.dumps(dataclasses.asdict(request), allow_nan=False), bench.team)
    result = do(bench, request.task, plan)
    assert result is not None
    return result


def _leaders_bench(home: SiteHome, site: str, place: Team, answers: Answers, stop: Stop) -> TaskContext:
    bench = _bench(home, site, place, answers.progress)
    bench.stop = stop
    if not place.alone:

        def on_end(rank: int, failure: Failure | None) -> None:
            answers.last(failure or _failure(_gone(rank, place), answers.stage))

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
        lifeline = Lifeline(bench.team, lambda _leader, _failure: os._exit(0))
        while True:
            request = from_json(Request, parsed(hear(bench.team)))
            assert request.task is not None
            do(bench, request.task, Plan.parse(request.plan))
    except Exception as error:  # noqa: BLE001  (as above: reported, with its trace)
        failure = _failure(error, STAGES[TaskKind.TRAIN])
        say(failure.trace, err=True)
        threading.Event().wait(YIELD_S)
        if lifeline and not lost(error):
            what = f"training process {place.rank + 1} of {place.size}: {failure.trouble.what}"
            lifeline.report(dataclasses.replace(failure, trouble=dataclasses.replace(failure.trouble, what=what)))
        threading.Event().wait(END_S)
        os._exit(1)


# --- what all need ------------------------------------------------------------------------------------------------


def _bench(home: SiteHome, site: str, place: Team, on_progress: OnProgress) -> TaskContext:
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


def _translated(error: Exception) -> FedcervixError:
    """Say what a foreign error means for the operator."""
    if isinstance(error, FedcervixError):
        return error
    if lost(error):
        return TrainingError(
            f"the training processes of this site waited {STEP_S:.0f} s for one another",
            cause=f"one of them hangs, or the network between their hosts is interrupted: {str(error)[:200]}",
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
            "not enough memory for this batch",
            cause=str(error)[:200],
            next_step="use a plan with a smaller batch_images",
        )
    return TrainingError(
        f"the trainer stopped unexpectedly: {type(error).__name__}: {error}",
        cause="a bug, or a hardware fault",
        next_step="see the trace under the incident number",
    )


def _failure(error: Exception, stage: str) -> Failure:
    return Failure.of(error, _translated(error), stage)


if __name__ == "__main__":
    main()
