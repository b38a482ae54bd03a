"""Where cells are computed: in processes of this machine, or in jobs of a SLURM cluster.

Either way by `cell_process`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cervix_study.execution.tasks import CellTask, Failed, Order, TaskDone, TaskProgress, Told, error_of
from cervix_study.study_paths import Places
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError, FedcervixError, TrainingError
from fedcervix.extras import missing
from fedcervix.runtime import worker_protocol
from fedcervix.runtime.worker_protocol import Answer, Failure, WorkProgress

MODULE = "cervix_study.execution.cell_process"
ENDS_WITHIN_S = 60.0
"""how long a worker that was told to end may keep its checkpoint, and end its federation"""
LAST_LINES = 12


class Executor(Protocol):
    """Makes cells somewhere."""

    def has_room(self, task: CellTask) -> bool:
        """Return whether a task may begin now."""

    def begin(self, task: CellTask) -> None:
        """Begin a task."""

    def wait(self) -> Told:
        """Wait until something is told of a task that was begun."""

    def close(self) -> None:
        """End all that was begun; what can be kept is kept."""


# --- this machine -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class CellWorker:
    """One process; it does one task at a time."""

    popen: subprocess.Popen[str]
    log: Path
    task: CellTask | None = None


@dataclass(slots=True)
class LocalProcesses:
    """Up to `processes` processes of this machine that train at the same time."""

    places: Places
    processes: int
    _workers: list[CellWorker] = field(default_factory=list)
    _told: queue.Queue[tuple[CellWorker, Answer | FedcervixError | None]] = field(default_factory=queue.Queue)

    def has_room(self, task: CellTask) -> bool:
        """A federation of more sites than there is room for goes alone."""
        taken = sum(worker.task.processes for worker in self._workers if worker.task)
        return taken + min(task.processes, self.processes) <= self.processes

    def begin(self, task: CellTask) -> None:
        """Give a task to a worker; to one that is idle rather than to a new one."""
        idle = [worker for worker in self._workers if worker.task is None]
        worker = idle[0] if idle else self._start()
        worker.task = task
        with contextlib.suppress(BrokenPipeError):  # it died while it was idle: its reader tells
            worker_protocol.ask(worker.popen, dataclasses.asdict(Order(task.work, task.key)))

    def wait(self) -> Told:
        """Wait for the next line of any worker. Raises TrainingError where one has died, or says what is no answer."""
        while True:
            worker, answer = self._told.get()
            if isinstance(answer, FedcervixError):
                raise answer
            if answer is None:
                self._workers.remove(worker)
            told = self._read(worker, answer) if worker.task else None
            if told is not None:
                return told

    def _read(self, worker: CellWorker, answer: Answer | None) -> Told | None:
        task = worker.task
        assert task is not None
        if isinstance(answer, WorkProgress):
            return TaskProgress(task, answer)
        worker.task = None
        if answer is None:
            raise died(worker.popen.wait(), worker.log)
        return ended(task, answer)

    def close(self) -> None:
        """Tell every worker to end, then wait; kill what does not."""
        for worker in self._workers:
            assert worker.popen.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                worker.popen.stdin.close()  # to the worker this is the order to end
        for worker in self._workers:
            try:
                worker.popen.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                worker.popen.kill()
                worker.popen.wait()
        self._workers.clear()

    def _start(self) -> CellWorker:
        log = self.places.logs / f"worker-{len(self._workers) + 1}.log"
        with disk(log, "write"):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as sink:
                popen = subprocess.Popen(
                    [sys.executable, "-m", MODULE, str(self.places.folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=sink,
                    text=True,
                    start_new_session=True,  # Ctrl-C is for the study, which then tells its workers
                )
        worker = CellWorker(popen, log)
        self._workers.append(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True, name=log.stem).start()
        return worker

    def _listen(self, worker: CellWorker) -> None:
        try:
            for answer in worker_protocol.answers(worker.popen, str):
                self._told.put((worker, answer))
            self._told.put((worker, None))
        except FedcervixError as error:
            self._told.put((worker, error))


def ended(task: CellTask, answer: Answer) -> TaskDone | Failed | None:
    """Return how a task ended, if an answer says so."""
    match answer:
        case worker_protocol.RequestDone():
            return TaskDone(task)
        case Failure():
            return Failed(task, error_of(answer), answer.trace)
    return None


def died(code: int, log: Path) -> TrainingError:
    """Return what to tell of a process that ended in the middle of a cell."""
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
    killed = "it was killed, often because the machine ran out of memory"
    return TrainingError(
        f"a worker process ended unexpectedly (status {code})" + "".join(f"\n    {line}" for line in lines),
        cause=killed if code < 0 else "a crash in a library",
        next_step="look at the system's log (dmesg | tail); run the study again to continue, with fewer workers",
    )


# --- SLURM --------------------------------------------------------------------------------------------------------

POLL_S = 1.0
"""how often the cluster is asked about its jobs: it tells nothing by itself"""


@dataclass(slots=True)
class Slurm:
    """Up to `jobs` jobs of a cluster, by way of submitit.

    The study's folder lies where every node finds it under the same path. `options` are submitit's own; one more of
    them, `cluster = "local"`, runs the jobs as processes of this machine: to try a study out before it is sent.
    """

    places: Places
    jobs: int
    options: Mapping[str, object]
    poll_s: float = POLL_S
    _running: dict[str, tuple[CellTask, Any]] = field(default_factory=dict)
    _executor: Any = None

    def has_room(self, _task: CellTask) -> bool:
        """One job makes one cell, however many processes that takes."""
        return len(self._running) < self.jobs

    def begin(self, task: CellTask) -> None:
        """Submit a job."""
        if self._executor is None:
            self._executor = self._launcher()
        import submitit

        command = [sys.executable, "-m", MODULE, str(self.places.folder), task.work, task.key]
        job = self._executor.submit(submitit.helpers.CommandFunction(command, verbose=False))
        self._running[task.key] = (task, job)

    def wait(self) -> Told:
        """Ask again and again until a job has ended."""
        asked = threading.Event()
        while True:
            for key, (task, job) in list(self._running.items()):
                if job.done():
                    del self._running[key]
                    return self._ended(task, job)
            asked.wait(self.poll_s)

    def _ended(self, task: CellTask, job: Any) -> Told:
        error = job.exception()
        if error is None:
            for line in reversed(job.result().splitlines()):
                if told := ended(task, worker_protocol.from_line(line, str)):
                    return told
        raise TrainingError(
            f"job {job.job_id} ended without an answer: {error}",
            cause="the cluster ended it (time, memory), or it could not start",
            next_step=f"read {job.paths.stderr}; run the study again to continue",
        )

    def close(self) -> None:
        """Cancel what runs."""
        for _, job in self._running.values():
            job.cancel(check=False)
        self._running.clear()

    def _launcher(self) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise missing("submitit") from error
        options = dict(self.options)
        cluster = str(options.pop("cluster", "slurm"))
        try:
            executor = submitit.AutoExecutor(folder=self.places.workshop / "slurm", cluster=cluster)
            executor.update_parameters(**options)
        except (RuntimeError, ValueError, TypeError, AssertionError, NameError) as error:
            raise ConfigError(
                f"submitit does not take these [slurm] options: {error}",
                cause="a misspelt option, or no SLURM on this machine (try `sinfo`)",
                next_step='edit [slurm]; `cluster = "local"` there runs the jobs on this machine',
            ) from error
        return executor
