"""The agent's handle on its worker process: give it a task, hear its progress, or kill it.

Where the site's configuration asks for several processes, the worker is torch's elastic launcher and what it starts;
the agent speaks with one of them and need not know. A launcher that is killed takes all of them with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from fedcervix import errors
from fedcervix.events import Task
from fedcervix.plan import Plan
from site_agent.home import HardwareSection, SiteHome

OnProgress = Callable[[dict[str, Any]], None]
PROGRAM = "site_agent.worker_process"
THIS_HOST = ("--standalone", "--local-addr=127.0.0.1")
LOOPBACK = ("lo", "lo0")
GPU_COUNT_S = 120.0
"""how long torch may take to say how many GPUs there are"""


class WorkFailedError(errors.FedcervixError):
    """Work broke in the worker; `stage` is what it was doing, `trace` the whole account (it stays at the site)."""

    def __init__(self, what: str, *, cause: str, next_step: str, stage: str, trace: str, exit_code: int) -> None:
        super().__init__(what, cause=cause, next_step=next_step)
        self.stage, self.trace, self.work_exit_code = stage, trace, exit_code


class CancelledError(Exception):
    """The worker was killed because its task is no longer wanted."""


class Worker:
    """One worker process, started when first needed and kept: its images stay decoded, its libraries loaded."""

    def __init__(self, home: SiteHome, site: str) -> None:
        self._home, self._site = home, site
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._team = False
        self._cancelled = False

    def do(self, task: Task, plan: Plan, on_progress: OnProgress, cancelled: threading.Event) -> dict[str, Any]:
        """Return a task's numbers. Raises WorkFailedError, or CancelledError after `cancel`.

        `cancelled` is set before `cancel` is called: a task that was given up before it came here never begins.
        """
        process = self._started(cancelled)
        request = {"task": dataclasses.asdict(task), "plan": plan.canonical()}
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died(process) from None
        for line in process.stdout:
            message = json.loads(line)
            if "progress" in message:
                on_progress(message["progress"])
            elif "done" in message:
                done: dict[str, Any] = message["done"]
                return done
            else:
                self._failed()
                raise _failure(message["failed"])
        raise self._died(process)

    def cancel(self) -> None:
        """Kill the process; `do`, if it is waiting, raises CancelledError. The next `do` starts another."""
        with self._lock:
            self._cancelled = True
            self._kill()

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
                    [sys.executable, *launcher, "-m", PROGRAM, str(self._home.folder), self._site],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=surroundings(os.environ, hardware) if launcher else None,
                    start_new_session=True,  # Ctrl-C is for the agent, which then tells the worker
                )
            return self._process

    def _kill(self) -> None:
        """End the process and let go of it. What it started ends with it, or when its input is closed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _failed(self) -> None:
        """A team that failed ends; a single worker is ready for the next task."""
        with self._lock:
            if self._team:
                self._kill()

    def _died(self, process: subprocess.Popen[str]) -> Exception:
        code = process.wait()
        if self._cancelled:
            return CancelledError()
        cause = "it was killed, often because the machine ran out of memory" if code < 0 else "a crash in a library"
        if self._team:
            cause = "one of its processes was killed or crashed; the launcher's lines on this screen say which"
        return WorkFailedError(
            f"the training process ended by itself (status {code})",
            cause=cause,
            next_step="look at the system's log (dmesg | tail); start site-agent again to go on",
            stage="training",
            trace=f"status {code}",
            exit_code=errors.TrainingError.exit_code,
        )


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
    """Return how many GPUs torch sees. It is asked in a process of its own: the agent does without torch."""
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


def _failure(account: dict[str, Any]) -> WorkFailedError:
    return WorkFailedError(
        account["what"],
        cause=account["cause"],
        next_step=account["next_step"],
        stage=account["stage"],
        trace=account["trace"],
        exit_code=account["exit_code"],
    )
