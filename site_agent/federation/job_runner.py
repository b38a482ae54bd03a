"""Does one job at a time beside the loop: a task (download, work) or the delivery of what came of it (upload, report).

Only this module talks to the worker. The result of a job goes into the inbox. So does its error, unless the job is no
longer wanted.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from fedcervix.core import session
from fedcervix.core.events import (
    Answer,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
    Rewrapped,
    ScoreReported,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import FedcervixError, RemoteError, RunError, StorageError
from fedcervix.runtime.worker_protocol import OnProgress, WorkProgress
from fedcervix.transport import codec
from site_agent.federation import compression, shown
from site_agent.federation.accounting import Accounting
from site_agent.federation.context import AgentContext
from site_agent.federation.heartbeat import Reporter
from site_agent.federation.inbox import Broken, Job, JobEnded, Participation
from site_agent.federation.privacy import gauges
from site_agent.federation.secure_run import SecureRun
from site_agent.federation.upload import Uploads
from site_agent.store.audit_sheets import held_back
from site_agent.store.model_store import adopt
from site_agent.store.task_results import ScoreResult, TaskResult, TrainResult, UnusableResult
from site_agent.worker.disk_full_retry import with_room
from site_agent.worker.worker import CancelledError, Worker

T = TypeVar("T")

SIGNED: dict[TaskKind, Callable[[SecureRun, Task], session.Result]] = {
    TaskKind.BOX: SecureRun.box,
    TaskKind.RELEASE: SecureRun.release,
    TaskKind.CLOSE: SecureRun.close,
}
"""tasks of runs with secure sums for which the worker is not needed"""


class JobRunner:
    """What is running now. All but the job itself is called by the loop."""

    def __init__(self, context: AgentContext, worker: Worker, accounting: Accounting, reporter: Reporter) -> None:
        self._context, self._worker, self._accounting, self._reporter = context, worker, accounting, reporter
        self._uploads = Uploads(context, accounting)
        self.job: Job | None = None

    # --- as the loop sees it ---

    def begin(self, action: session.Work | session.Deliver, run: Participation) -> None:
        """Let an action begin."""
        self.job = job = Job(action, run)
        if isinstance(action, session.Work):
            self._reporter.begin(codec.Progress(action.task, "starting", 0, 0, "", 0.0, 0.0))
        self._context.inbox.start("job", lambda: self._run(job))

    def give_up(self) -> None:
        """The job is no longer wanted; it ends soon."""
        if self.job is not None and not self.job.cancelled.is_set():
            self.job.withdrawn = True
            self.job.cancelled.set()
            if self.job.at_work:
                self._worker.cancel()

    @property
    def at_work(self) -> bool:
        """Whether the worker is at work. Everything else can be broken off at any moment."""
        return self.job is not None and self.job.at_work

    def ask_to_stop(self) -> None:
        """Let the worker keep a checkpoint, or finish."""
        if self.job is not None:
            self.job.cancelled.set()
            self._worker.stop()

    def kill_hung(self, task: Task) -> bool:
        """Kill the worker that hangs at a task, and forget the job; False where the job is another one by now."""
        if self.job is None or self.job.action != session.Work(task) or self.job.cancelled.is_set():
            return False
        self.job.cancelled.set()
        self._worker.cancel()
        self.job = None  # whatever its thread still waits for
        return True

    def ended(self, job: Job) -> None:
        """A job has ended; another one may begin."""
        if self.job is job:
            self.job = None
            self._reporter.end()

    def close(self) -> None:
        """The agent ends, and the worker with it."""
        if self.job is not None:
            self.job.cancelled.set()
        self._worker.cancel()

    # --- the job ---

    def _run(self, job: Job) -> None:
        put = self._context.inbox.put
        try:
            action = job.action
            put(self._work(job, action.task) if isinstance(action, session.Work) else self._deliver(job, action.result))
        except CancelledError as cancelled:
            if text := str(cancelled):
                self._context.show(shown.Message(text))
            if job.withdrawn and isinstance(job.action, session.Work):
                with contextlib.suppress(StorageError):  # on a full disk it is work that goes on
                    self._accounting.withdraw(job.run, job.action.task)
            put(JobEnded(job))
        except FedcervixError as error:
            put(JobEnded(job) if job.cancelled.is_set() else Broken(error, job))

    def _work(self, job: Job, task: Task) -> JobEnded:
        self._context.show(shown.Working(task))
        self._with_room(job, task, lambda: self._accounting.begin_work(job.run, task))
        result, lines = self._refused(job, task) or self._done(job, task)
        self._context.show(shown.TaskFinished(task, lines))
        return JobEnded(job, lambda s: session.finished(s, result))

    def _refused(self, job: Job, task: Task) -> tuple[session.Result, tuple[str, ...]] | None:
        """Have a task's model here; return what is said of one under seal that is refused.

        Another site may have made it: what follows is decided by what all sites find, as with a model without a loss.
        """
        if not task.base or task.kind is TaskKind.REWRAP:  # its file is not needed
            return None
        try:
            self._context.again(job.cancelled, lambda: self._bring(job, task))
        except RemoteError as error:
            if job.run.sealed is None or task.kind is TaskKind.ADOPT:
                raise
            said = (f"this site refuses the model that it was given: {error.what}", f"  likely cause: {error.cause}")
            return ModelUnusable(self._context.site, task, 0, time.time()), said
        return None

    def _done(self, job: Job, task: Task) -> tuple[session.Result, tuple[str, ...]]:
        """Do a task whose model is here; return its result, and what a person here is told of it."""
        secure = job.run.secure
        if task.kind is TaskKind.ADOPT:
            home, blobs = self._context.home, self._context.blobs
            self._with_room(job, task, lambda: adopt(home, task, job.run.plan, blobs))
            return ModelAdopted(self._context.site, task, time.time()), ()
        if secure is not None and task.kind in SIGNED:
            return self._context.again(job.cancelled, lambda: SIGNED[task.kind](secure, task)), ()
        if (sealed := job.run.sealed) is not None and task.kind is TaskKind.REWRAP:
            boxes = self._context.again(job.cancelled, lambda: sealed.pass_on(task))
            return Rewrapped(self._context.site, task, boxes, time.time()), ()
        made = self._made(job, task)
        if isinstance(made, TrainResult | ScoreResult) and task.kind is not TaskKind.SEED:
            self._with_room(job, task, lambda: job.run.run_store.note(task.round, made))
            self._hold_back(task, made)
        return self._result(job, task, made), made.said

    def _hold_back(self, task: Task, made: TrainResult | ScoreResult) -> None:
        """End where the site's policy does not let an update leave; nothing of it has left yet. Raises PolicyError."""
        sheet = made.audit if isinstance(made, TrainResult) else None
        why = held_back(sheet, self._context.home.config().policy.audit_max_auc) if sheet else ""
        if why:
            show = self._context.home.command("audit")
            self._accounting.refuse(
                task.run,
                f"the update of round {task.round} stays here",
                [why],
                told=["the site's policy holds its update back"],
                next_step=f"{show} shows what was found. Fewer epochs in a round, or a stronger augmentation, make it "
                "less: agree on another plan with the coordinator's operator; or raise audit_max_auc, if your data "
                "protection officer agrees. The agent then trains this round again from its checkpoint",
            )

    def _made(self, job: Job, task: Task) -> TaskResult:
        """Return what the worker makes of a task."""
        if task.kind is TaskKind.TRAIN:
            folder, report = job.run.run_store.folder, self._context.link.report
            self._context.again(job.cancelled, lambda: compression.settle_earlier(folder, task, report))
            if job.run.secure is not None and (before := job.run.secure.made(task)) is not None:
                return before
        return self._by_worker(job, task)

    def _by_worker(self, job: Job, task: Task) -> TaskResult:
        roster = job.run.secure.roster if job.run.secure is not None and task.kind is TaskKind.SEED else ""
        job.at_work = True
        self._reporter.hand_over()
        made = self._worker.do(task, job.run.plan, self._on_progress(job, task), job.cancelled, roster=roster)
        self._reporter.take_back()
        return made

    def _make_first(self, job: Job) -> str:
        """Make the first model of a run with secure sums, as every site does; return its digest."""
        made = self._by_worker(job, Task(job.run.run, TaskKind.SEED, 0, ""))
        job.at_work = False
        assert isinstance(made, TrainResult)
        return made.digest

    def _bring(self, job: Job, task: Task) -> None:
        """Have the task's model here; neither it nor its packed form is longer than this run's models may be."""
        link, blobs, run_store = self._context.link, self._context.blobs, job.run.run_store
        on_bytes = self._on_bytes(job, task, "downloading")
        bytes_max = codec.model_bytes_max(run_store.model_bytes())

        def fetch(digest: str) -> None:
            link.fetch(digest, blobs, on_bytes, bytes_max=bytes_max)

        if job.run.secure is not None:
            if said := job.run.secure.bring(task, fetch, lambda: self._make_first(job)):
                self._context.show(shown.Message(said))
        elif job.run.sealed is not None:
            job.run.sealed.bring(task, fetch)
        elif not blobs.has(task.base):
            compression.bring(link, blobs, task.base, job.run.plan, fetch)
        run_store.note_model(blobs.size_bytes(task.base))

    def _result(self, job: Job, task: Task, made: TaskResult) -> session.Result:
        """Return what a worker has done as the report it makes."""
        site, blobs = self._context.site, self._context.blobs
        if isinstance(made, UnusableResult):
            return ModelUnusable(site, task, made.steps, time.time())
        if isinstance(made, ScoreResult):
            leaving = gauges(made.gauges)  # nothing else of a worker's numbers leaves the site
            return ScoreReported(site, task, made.loss_sum, made.count, made.images, leaving, time.time())
        if (secure := job.run.secure) is not None and task.kind is TaskKind.TRAIN:
            return self._context.again(job.cancelled, lambda: secure.masked(task, made))
        folder, plan, digest = job.run.run_store.folder, job.run.plan, made.digest
        rounded = self._with_room(job, task, lambda: compression.rounded(blobs, folder, task, plan, digest))
        update = UpdateStored(
            site, task, rounded.digest, made.images, made.steps, made.loss, made.seconds, time.time(), rounded.packed
        )
        self._with_room(job, task, lambda: compression.keep(folder, update, rounded.residual))
        if (sealed := job.run.sealed) is not None:
            seal = self._context.again(job.cancelled, lambda: sealed.seal(task, rounded))
            return replace(update, packed=seal.file, seal=seal)
        return update

    def _deliver(self, job: Job, result: session.Result) -> JobEnded:
        task = result.task
        self._with_room(job, task, lambda: self._accounting.begin_answer(job.run, result))
        answer, reason = self._context.again(job.cancelled, lambda: self._deliver_once(job, result))
        if isinstance(result, UpdateStored):
            folder, update = job.run.run_store.folder, result
            self._with_room(job, task, lambda: compression.settle(folder, update, answer))
        adopted = isinstance(result, ModelAdopted) and reason in list(Outcome)
        ended = JobEnded(job, lambda s: session.answered(s, task), Outcome(reason) if adopted else None)
        if answer is Answer.REFUSED:
            self._context.inbox.put(ended)  # it is not told again by the next process
            raise RunError(
                f"the coordinator refused the result of {task}{': ' if reason else ''}{reason}",
                cause="it does not fit the run",
                next_step="start site-agent again; ask the coordinator's operator if it happens twice",
            )
        self._retire(job, result)
        self._context.show(shown.Delivered(task, answer))
        return ended

    def _retire(self, job: Job, result: session.Result) -> None:
        """Let go of the models that nothing needs after this delivery."""
        keep = {result.task.base} | ({result.digest, result.packed} if isinstance(result, UpdateStored) else set())
        if job.run.secure is not None:
            keep |= job.run.secure.kept(result.task)
        keep |= compression.carried(job.run.run_store.folder).residuals
        with contextlib.suppress(StorageError):  # what cannot be deleted now can be at the next delivery
            self._context.blobs.retire(keep)
        self._context.inbox.start_alone("purge", self._context.purge)

    def _deliver_once(self, job: Job, result: session.Result) -> tuple[Answer, str]:
        if isinstance(result, UpdateStored | ReleaseStored):
            on_bytes = self._on_bytes(job, result.task, "uploading")
            pushed = result.packed or result.digest if isinstance(result, UpdateStored) else result.masks
            self._uploads.push(result.task, pushed, on_bytes, job.cancelled)
        return self._context.link.report(result)

    def _with_room(self, job: Job, task: Task, act: Callable[[], T]) -> T:
        """Write something to this site's disk; a full one is waited for, and the coordinator is told so."""
        return with_room(act, self._on_progress(job, task), lambda pause_s: self._context.pause(pause_s, job.cancelled))

    def _on_progress(self, job: Job, task: Task) -> OnProgress:
        def on_progress(at: WorkProgress) -> None:
            self._context.show_progress(task, at)
            loss = at.loss if job.run.secure is None else 0.0
            self._reporter.heard(codec.Progress(task, at.stage, at.done, at.of, at.unit, loss, at.images_per_s))

        return on_progress

    def _on_bytes(self, job: Job, task: Task, stage: str) -> Callable[[int, int], None]:
        """Show a transfer; it is not brought to its end when its task is no longer wanted."""

        def on_bytes(done: int, of: int) -> None:
            if job.cancelled.is_set():
                raise CancelledError
            self._context.show_progress(task, WorkProgress(stage, done, of, "bytes"))

        return on_bytes
