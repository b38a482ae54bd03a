"""The agent's handle on its worker process: give it a task, hear its progress, or kill it.

Where the site's configuration asks for several processes, the worker is torch's elastic launcher and what it starts;
the agent speaks with one of them and need not know. A launcher that is killed takes all of them with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from fedcervix import errors
from fedcervix.core.events import Task
from fedcervix.core.plan import Plan
from fedcervix.runtime.worker_protocol import (
    STOP_LINE,
    ErrorParts,
    Failure,
    ForeignAnswerError,
    OnProgress,
    RequestDone,
    WorkerStopped,
    WorkProgress,
    answers,
    ask,
    tell,
)
from site_agent.home import HardwareSection, SiteHome
from site_agent.store.task_results import TaskResult, UnusableResult
from site_agent.worker.disk_full_retry import with_room
from site_agent.worker.messages import Request, Result, result_from_json
from site_agent.worker.preflight import Findings

PROGRAM = "site_agent.worker.worker_process"
AGAIN = WorkProgress("starting again")
THIS_HOST = ("--standalone", "--local-addr=127.0.0.1")
LOOPBACK = ("lo", "lo0")
GONE = "GoneError"
"""the kind of failure that says: one process of a team ended by itself (see worker_process)"""
DEATHS_MAX = 3
"""of the process within one task: at the next one the task has failed. It may be the task that kills it"""
KILLED_S = 10.0
"""how long a killed process may take to be gone"""
GPU_COUNT_S = 120.0
"""how long torch may take to say how many GPUs there are"""


class WorkFailedError(errors.FedcervixError):
    """Work broke in the worker; `stage` is what it was doing, `trace` the whole account (it stays at the site)."""

    def __init__(self, failure: Failure) -> None:
        said = failure.trouble
        super().__init__(said.what, cause=said.cause, next_step=said.next_step)
        self.stage, self.trace = failure.stage, failure.trace
        self.exit_code, self.kind = failure.exit_code, failure.kind


class WorkerDiedError(WorkFailedError):
    """The worker ended without a word."""


class CancelledError(Exception):
    """The task is not wanted now: the worker was killed, or has ended as it was asked, and says what it kept."""


class Worker:
    """One worker process, started when first needed and kept: its images stay decoded, its libraries loaded.

    Killed from outside (out of memory, often) it is started again and goes on from its last checkpoint; but not more
    than `deaths_max` times within one task.
    """

    def __init__(self, home: SiteHome, site: str, *, program: str = PROGRAM, deaths_max: int = DEATHS_MAX) -> None:
        self._home, self._site, self._program, self._deaths_max = home, site, program, deaths_max
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._turn = threading.Lock()
        """one request at a time: the process answers them in order"""
        self._team = False
        self._cancelled = False

    def do(
        self, task: Task, plan: Plan, on_progress: OnProgress, cancelled: threading.Event, *, roster: str = ""
    ) -> TaskResult:
        """Return what a task gave. Raises WorkFailedError, or CancelledError after `cancel`.

        `cancelled` is set before `cancel` is called: a task that was given up before it came here never begins.
        `roster`: digest of the run's openings, of which a run with secure sums makes its first model.
        """
        request = Request(plan.canonical(), task, roster)
        found = self._ask(lambda: self._survive(request, on_progress, cancelled), on_progress, cancelled)
        assert not isinstance(found, Findings)
        return found

    def examine(
        self, plan: Plan | None, on_progress: OnProgress, cancelled: threading.Event, *, waits: bool = True
    ) -> Findings:
        """Return what can be known before round 1. Raises as `do`, at the first death of the process.

        A full disk is waited for, or raises FullDiskError unless this `waits`.
        """
        request = Request(plan.canonical() if plan else "")

        def once() -> Result:
            return self._do_once(request, on_progress, cancelled)

        found = self._ask(once, on_progress, cancelled) if waits else once()
        assert isinstance(found, Findings)
        return found

    def _ask(self, attempt: Callable[[], Result], on_progress: OnProgress, cancelled: threading.Event) -> Result:
        def wait(pause_s: float) -> None:
            if cancelled.wait(pause_s):
                raise CancelledError

        with self._turn:
            return with_room(attempt, on_progress, wait)

    def _survive(self, request: Request, on_progress: OnProgress, cancelled: threading.Event) -> Result:
        for _ in range(self._deaths_max):
            try:
                return self._do_once(request, on_progress, cancelled)
            except WorkerDiedError as error:
                on_progress(dataclasses.replace(AGAIN, trouble=ErrorParts.of(error)))
        return self._do_once(request, on_progress, cancelled)

    def _do_once(self, request: Request, on_progress: OnProgress, cancelled: threading.Event) -> Result:
        process = self._started(cancelled)
        try:
            with self._lock:
                ask(process, dataclasses.asdict(request))
        except BrokenPipeError:
            raise self._died(process) from None
        try:
            for answer in answers(process, result_from_json):
                match answer:
                    case WorkProgress():
                        on_progress(answer)
                    case RequestDone(result):
                        return self._taken(result)
                    case WorkerStopped(kept):
                        self._end()
                        what = "is saved" if kept else "could not be saved; the previous one is used"
                        raise CancelledError(f"a checkpoint {what}")
                    case Failure():
                        if self._team:  # a single worker is ready for the next task
                            self._end()
                        raise _failure(answer)
        except ForeignAnswerError:  # nothing that follows can be trusted
            self._end()
            raise
        raise self._died(process)

    def _taken(self, result: Result) -> Result:
        if self._team and isinstance(result, UnusableResult):  # its processes may stand at different steps
            self._end()
        return result

    def stop(self) -> None:
        """Ask the process to end at its next step, with a checkpoint; `do` then raises CancelledError.

        A task that is nearly done is finished instead. What cannot be kept ends at once.
        """
        self._cancelled = True
        with contextlib.suppress(OSError), self._lock:  # it has ended, and its pipe is closed
            if self._process is not None:
                tell(self._process, STOP_LINE)

    def cancel(self) -> None:
        """Kill the process; `do`, if it is waiting, raises CancelledError. The next `do` starts another."""
        with self._lock:
            self._cancelled = True
            self._kill()

    def kill(self) -> None:
        """Kill the process, for good: for a signal's handler, which may wait for no lock."""
        if self._process is not None:
            self._process.kill()

    def _started(self, cancelled: threading.Event) -> subprocess.Popen[str]:
        with self._lock:
            if cancelled.is_set():
                raise CancelledError
            self._cancelled = False
            if self._process is None or self._process.poll() is not None:
                self._kill()
                hardware = self._home.config().hardware
                launcher = launch(hardware, gpus)
                self._team = bool(launcher)
                self._process = subprocess.Popen(
                    [sys.executable, *launcher, "-m", self._program, str(self._home.folder), self._site],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=surroundings(os.environ, hardware) if launcher else None,
                    start_new_session=True,  # Ctrl-C is for the agent, which then tells the worker
                )
            if cancelled.is_set():
                raise CancelledError
            return self._process

    def _kill(self) -> None:
        """End the process and let go of it. What it started ends with it, or when its input is closed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a call to a lost device does not even end then
                process.wait(KILLED_S)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def _end(self) -> None:
        """The process has said its last word."""
        with self._lock:
            self._kill()

    def _died(self, process: subprocess.Popen[str]) -> Exception:
        code = process.wait()
        if self._cancelled:
            return CancelledError()
        cause = "it was killed, often because the machine ran out of memory" if code < 0 else "a crash in a library"
        if self._team:
            cause = "one of its processes was killed or crashed; the launcher's lines on this screen say which"
        known = errors.TrainingError(
            f"the training process ended by itself (status {code})",
            cause=cause,
            next_step="look at the system's log (dmesg | tail); start site-agent again to continue",
        )
        return WorkerDiedError(Failure.of(known, known, "training"))


def launch(hardware: HardwareSection, gpus: Callable[[], int]) -> list[str]:
    """Return the arguments that start torch's launcher before the worker; none where one process is enough."""
    processes = hardware.processes
    if processes == 0:
        processes = max(1, gpus()) if hardware.device != "cpu" else 1
    if processes == 1 and not hardware.launcher:
        return []
    how = hardware.launcher or THIS_HOST
    # The launcher would otherwise leave a folder in /tmp for every start.
    return ["-m", "torch.distributed.run", *how, f"--nproc-per-node={processes}", f"--log-dir={os.devnull}"]


def surroundings(environment: os._Environ[str] | dict[str, str], hardware: HardwareSection) -> dict[str, str]:
    """Return the environment of a launcher: on one host everything stays on it; what the operator set is kept."""
    wanted = {"OMP_NUM_THREADS": "1"}  # the launcher would say that it sets it; the trainer sets its own
    if not hardware.launcher:
        names = {name for _, name in socket.if_nameindex()}
        loopback = next((name for name in LOOPBACK if name in names), None)
        wanted |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback} if loopback else {}
    return {**wanted, **environment}


def gpus() -> int:
    """Return how many GPUs torch sees. It is asked in a process of its own: the agent does without torch.

    Raises TrainingError.
    """
    question = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    try:
        answer = subprocess.run(
            question, stdin=subprocess.DEVNULL, capture_output=True, timeout=GPU_COUNT_S, check=True
        )
        return int(answer.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise errors.TrainingError(
            "torch could not say how many GPUs there are",
            cause="torch or the GPU's driver is broken",
            next_step="look at nvidia-smi; or set the number of processes under [hardware]",
        ) from error


def _failure(failure: Failure) -> errors.FedcervixError:
    """Return what broke in the worker, as an error; of a full disk there is no more to be said than its three lines."""
    if failure.kind == errors.FullDiskError.__name__:
        return failure.trouble.error(errors.FullDiskError)
    return (WorkerDiedError if failure.kind == GONE else WorkFailedError)(failure)
