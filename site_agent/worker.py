"""The agent's handle on its worker process: give it a task, hear its progress, or kill it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from fedcervix import errors
from fedcervix.events import Task
from fedcervix.plan import Plan
from site_agent.home import SiteHome

OnProgress = Callable[[dict[str, Any]], None]


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
                raise _failure(message["failed"])
        raise self._died(process)

    def cancel(self) -> None:
        """Kill the process; `do`, if it is waiting, raises CancelledError. The next `do` starts another."""
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def _started(self, cancelled: threading.Event) -> subprocess.Popen[str]:
        with self._lock:
            if cancelled.is_set():
                raise CancelledError
            self._cancelled = False
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "site_agent.worker_process", str(self._home.folder), self._site],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,  # Ctrl-C is for the agent, which then tells the worker
                )
            return self._process

    def _died(self, process: subprocess.Popen[str]) -> Exception:
        code = process.wait()
        if self._cancelled:
            return CancelledError()
        return WorkFailedError(
            f"the training process ended by itself (status {code})",
            cause="it was killed, often because the machine ran out of memory" if code < 0 else "a crash in a library",
            next_step="look at the system's log (dmesg | tail); start site-agent again to go on",
            stage="training",
            trace=f"status {code}",
            exit_code=errors.TrainingError.exit_code,
        )


def _failure(account: dict[str, Any]) -> WorkFailedError:
    return WorkFailedError(
        account["what"],
        cause=account["cause"],
        next_step=account["next_step"],
        stage=account["stage"],
        trace=account["trace"],
        exit_code=account["exit_code"],
    )
