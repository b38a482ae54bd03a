"""The site agent: a loop around `fedcervix.session`.

Rules
1. One thread decides; everything that can block (listening, work, delivery, progress reports) is a thread of its own
   that puts what happened into the inbox. The loop takes one thing from the inbox, updates the session, and compares
   `session.duty` with what is running.
2. Training does not need the line: a result waits in the spool until it can be told.
3. An error that another try may mend (LinkError, StorageError at the coordinator) is tried again after a growing
   pause; any other ends the agent with its three lines and its exit code.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedcervix import codec, session
from fedcervix.blobs import BlobStore
from fedcervix.errors import FedcervixError, IdentityError, LinkError, PolicyError, RemoteError, RunError, StorageError
from fedcervix.events import Answer, ModelAdopted, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.log import logger
from fedcervix.plan import Plan
from fedcervix.privacy import outward
from fedcervix.rounds import Instruction, Leave, Outcome
from site_agent import incidents
from site_agent.home import SiteHome
from site_agent.link import Link, Pauses
from site_agent.models import adopt
from site_agent.policy import objections
from site_agent.spool import Spool
from site_agent.worker import CancelledError, Worker

REMOTE_ERRORS_MAX = 3
MENDED_BY_TIME = (LinkError, StorageError, RunError, RemoteError)
PROGRESS_S = 1.0
"""at most one progress report in this time"""


@dataclass(frozen=True, slots=True)
class Said:
    """The coordinator has said something."""

    what: codec.Welcome | Instruction


@dataclass(frozen=True, slots=True)
class LineDown:
    """The line is cut, or the coordinator has no room to serve it; the listener tries again by itself."""

    error: LinkError | StorageError


@dataclass(slots=True)
class Job:
    """What is running now, and the run that it is for: another one may begin before it has ended."""

    duty: session.Work | session.Deliver
    plan: Plan
    spool: Spool
    cancelled: threading.Event


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job has ended; `then` is what it found out, as a change of the session of its run."""

    job: Job
    then: Callable[[session.Session], session.Session]


@dataclass(frozen=True, slots=True)
class Broken:
    """Something has failed for good."""

    error: FedcervixError


@dataclass(frozen=True, slots=True)
class Stop:
    """The person or the system wants the agent to end."""


class Agent:
    """One site's agent for one run.

    `show` is told what is worth telling a person; `look` says why a line cannot be had (see `site_agent.tls`).
    """

    def __init__(
        self,
        home: SiteHome,
        site: str,
        link: Link,
        worker: Worker,
        show: Callable[[str, dict[str, Any]], None],
        look: Callable[[], object] = lambda: None,
    ) -> None:
        self._home, self._site, self._link, self._worker, self._show = home, site, link, worker, show
        self._look = look
        self._inbox: queue.Queue[Said | LineDown | JobEnded | Broken | Stop] = queue.Queue()
        self._blobs = BlobStore(home.blobs)
        self._session = session.Session(site)
        self._log = logger(site=site)
        self._spool: Spool | None = None
        self._plan: Plan | None = None
        self._job: Job | None = None
        self._stopping = threading.Event()
        self._down_because = ""
        self._outcome: Outcome | None = None
        self._resting_because = ""
        self._reporter = _Reporter(link, self._stopping)

    def run(self) -> Leave:
        """Take part until the run is over. Raises what stopped the agent before that."""
        self._thread("listener", self._listen)
        self._thread("reporter", self._reporter.run)
        try:
            while True:
                self._take(self._inbox.get())
                duty = session.duty(self._session)
                if isinstance(duty, session.Done):
                    return self._leave(duty.leave)
                self._reconcile(duty)
        finally:
            self._stopping.set()
            if self._job is not None:
                self._job.cancelled.set()
            self._worker.cancel()

    def _leave(self, leave: Leave) -> Leave:
        if self._spool is not None:
            self._spool.end(leave.outcome.value, leave.record)
        return leave

    def stop(self) -> None:
        """End soon; what is finished is kept. Safe in a signal handler's thread."""
        self._inbox.put(Stop())

    # --- what comes in ---

    def _take(self, item: Said | LineDown | JobEnded | Broken | Stop) -> None:
        match item:
            case Said(codec.Welcome() as welcome):
                self._welcomed(welcome)
            case Said(instruction):
                self._instructed(instruction)  # type: ignore[arg-type]  # not a Welcome: that was the case above
            case LineDown(error):
                self._line_down(error)
            case JobEnded(job, then):
                self._job = None
                self._reporter.put(None)
                if job.spool == self._spool:
                    self._session = then(self._session)
            case Broken(error):
                self._broken(error)
            case Stop():
                raise KeyboardInterrupt

    def _welcomed(self, welcome: codec.Welcome) -> None:
        self._down_because = ""
        if self._plan is None or self._spool is None or self._spool.folder.name != welcome.run:
            self._begin(welcome)
            self._show("attached", {"run": welcome.run, "plan": welcome.plan})
        elif welcome.plan != self._plan:
            raise RemoteError(
                f"run {welcome.run} has another plan than before",
                cause="the coordinator's home was made anew or tampered with",
                next_step="ask the coordinator's operator",
            )
        else:
            self._show("line up", {})
        ready = codec.Ready(welcome.run, welcome.plan.digest)
        self._thread("ready", lambda: self._tell_ready(ready))

    def _begin(self, welcome: codec.Welcome) -> None:
        """Check the plan against the policy and open (or find again) the run's folder."""
        against = objections(self._home.config().policy, welcome.plan, self._site)
        if against:
            with contextlib.suppress(FedcervixError):  # if it cannot be told, the operator sees an absent site
                self._link.report(codec.Refusal(welcome.run, "; ".join(against)))
            raise PolicyError(
                "this site's policy does not allow the plan:\n" + "\n".join(f"  - {line}" for line in against),
                cause=f"[policy] in {self._home.config_file}",
                next_step="agree with the coordinator's operator, then change the policy or the plan",
            )
        self._reporter.beat_s = welcome.plan.terms.lease_s / 4
        self._plan, self._spool = welcome.plan, Spool(self._home.run_folder(welcome.run))
        self._spool.open(welcome.plan)
        self._session = session.Session(self._site, result=self._spool.waiting())

    def _instructed(self, instruction: Instruction) -> None:
        if isinstance(instruction, Task):
            self._check_agreed(instruction)
        if instruction != self._session.instruction:
            self._show("instructed", {"instruction": instruction})
        self._session = session.instructed(self._session, instruction)

    def _check_agreed(self, task: Task) -> None:
        """Refuse work that the accepted plan does not contain. Raises RemoteError."""
        if self._plan is None or self._spool is None or task.run != self._spool.folder.name:
            raise RemoteError(f"asked to {task} of run {task.run}, which this site was not welcomed to")
        if task.round > self._plan.rounds_max:
            raise RemoteError(f"asked to {task}, but the plan has at most {self._plan.rounds_max} rounds")

    def _line_down(self, error: LinkError | StorageError) -> None:
        settled = self._session.settled
        if self._outcome is not None and settled is not None and settled.kind is TaskKind.ADOPT:
            over = Leave(self._outcome, "the model is here; the coordinator closed the line before it told more")
            self._session = session.instructed(self._session, over)
        elif error.what != self._down_because:
            self._show("line down", {"error": error})
        self._down_because = error.what

    def _broken(self, error: FedcervixError) -> None:
        self._job = None
        if isinstance(error, IdentityError | PolicyError | RunError):
            raise error
        failure = incidents.record(self._home, self._site, error, secrets=incidents.secrets(self._home), at=time.time())
        self._log.error("failed", incident=failure.incident, stage=failure.stage)
        with contextlib.suppress(FedcervixError):
            self._link.report(failure)
        error.cause = f"{error.cause} (full account: {self._home.incidents / failure.incident}.txt)"
        raise error

    # --- what goes on ---

    def _reconcile(self, duty: session.Duty) -> None:
        """Let what is running be what should be running."""
        if self._job is not None:
            if self._job.duty != duty and not self._job.cancelled.is_set():
                self._job.cancelled.set()
                if isinstance(self._job.duty, session.Work):
                    self._worker.cancel()
            return
        if isinstance(duty, session.Rest):
            self._rest(duty)
            return
        assert isinstance(duty, session.Work | session.Deliver)
        assert self._plan is not None
        assert self._spool is not None
        self._job = job = Job(duty, self._plan, self._spool, threading.Event())
        if isinstance(duty, session.Work):
            self._reporter.put(codec.Progress(duty.task, "starting", 0, 0, "", 0.0, 0.0))
        self._thread("job", lambda: self._run_job(job))

    def _rest(self, rest: session.Rest) -> None:
        if rest.reason not in (self._resting_because, session.NOT_ATTACHED.reason):
            self._show("resting", {"reason": rest.reason})
        self._resting_because = rest.reason

    def _run_job(self, job: Job) -> None:
        """Do the duty in this thread; whatever comes of it goes into the inbox."""
        try:
            duty = job.duty
            then = self._work(job, duty.task) if isinstance(duty, session.Work) else self._deliver(job, duty.result)
            self._inbox.put(JobEnded(job, then))
        except CancelledError:
            self._inbox.put(JobEnded(job, lambda s: s))
        except FedcervixError as error:
            done = JobEnded(job, lambda s: s)  # what is no longer wanted may break
            self._inbox.put(done if job.cancelled.is_set() else Broken(error))

    def _work(self, job: Job, task: Task) -> Callable[[session.Session], session.Session]:
        self._show("working", {"task": task})
        lines: list[str] = []
        if task.base and not self._blobs.has(task.base):
            self._again(
                job.cancelled,
                lambda: self._link.fetch(task.base, self._blobs, self._on_bytes(job, task, "downloading")),
            )
        if task.kind is TaskKind.ADOPT:
            adopt(self._home, task, job.plan, self._blobs)
            result: session.Result = ModelAdopted(self._site, task, time.time())
        else:
            numbers = self._worker.do(task, job.plan, self._on_progress(task), job.cancelled)
            result = _result(self._site, task, numbers)
            if task.kind in (TaskKind.TRAIN, TaskKind.SCORE):
                job.spool.note(str(task.kind), task.round, numbers)
                lines = numbers.get("said", [])
        job.spool.put(result)
        self._show("finished", {"task": task, "lines": lines})
        return lambda s: session.finished(s, result)

    def _deliver(self, job: Job, result: session.Result) -> Callable[[session.Session], session.Session]:
        answer, reason = self._again(job.cancelled, lambda: self._deliver_once(job, result))
        job.spool.clear()
        if answer is Answer.REFUSED:
            raise RunError(
                f"the coordinator refused the result of {result.task}{': ' if reason else ''}{reason}",
                cause="it does not fit the run",
                next_step="start site-agent again; ask the coordinator's operator if it happens twice",
            )
        if isinstance(result, ModelAdopted) and reason in list(Outcome):
            self._outcome = Outcome(reason)
        keep = {result.task.base} | ({result.digest} if isinstance(result, UpdateStored) else set())
        self._blobs.keep_only(keep)
        self._show("delivered", {"task": result.task, "answer": answer})
        return lambda s: session.answered(s, result.task)

    def _deliver_once(self, job: Job, result: session.Result) -> tuple[Answer, str]:
        if isinstance(result, UpdateStored):
            self._link.push(result.digest, self._blobs, self._on_bytes(job, result.task, "uploading"))
        return self._link.report(result)

    def _again(
        self,
        cancelled: threading.Event,
        attempt: Callable[[], Any],
        mends: tuple[type[Exception], ...] = MENDED_BY_TIME,
    ) -> Any:
        """Try until it succeeds, with growing pauses; only errors that time may mend are tried again.

        A line comes back, a full disk is emptied, a model that is no longer there is asked for under a new task; bytes
        that arrived wrong are sent once more or twice, but not for ever.
        """
        pauses = Pauses(random.Random())  # noqa: S311  (jitter, not a secret, and no result depends on it)
        arrived_wrong = 0
        while True:
            try:
                return attempt()
            except mends as error:
                arrived_wrong += isinstance(error, RemoteError)
                if arrived_wrong >= REMOTE_ERRORS_MAX:
                    raise
                if not isinstance(error, LinkError):  # of the line, the listener speaks
                    self._show("trouble", {"error": error})
            if cancelled.wait(pauses.next_s()) or self._stopping.is_set():
                raise CancelledError

    def _on_progress(self, task: Task) -> Callable[[dict[str, Any]], None]:
        def on_progress(values: dict[str, Any]) -> None:
            self._show("progress", {"task": task, **values})
            numbers = (values.get("loss", 0.0), values.get("images_per_s", 0.0))
            self._reporter.put(
                codec.Progress(task, values["stage"], values["done"], values["of"], values["unit"], *numbers)
            )

        return on_progress

    def _on_bytes(self, job: Job, task: Task, stage: str) -> Callable[[int, int], None]:
        """Show a transfer; it is not brought to its end when its task is no longer wanted."""

        def on_bytes(done: int, of: int) -> None:
            if job.cancelled.is_set():
                raise CancelledError
            self._show("progress", {"task": task, "stage": stage, "done": done, "of": of, "unit": "bytes"})

        return on_bytes

    # --- threads ---

    def _listen(self) -> None:
        """Listen to the coordinator; when the line is cut, come back with growing pauses."""
        pauses = Pauses(random.Random())  # noqa: S311  (jitter)
        while not self._stopping.is_set():
            try:
                for what in self._link.attach():
                    pauses.reset()
                    self._inbox.put(Said(what))
                self._inbox.put(LineDown(LinkError("the coordinator has closed the line")))
            except LinkError as error:
                self._inbox.put(self._diagnosed(error))
            except StorageError as error:
                self._inbox.put(LineDown(error))
            except FedcervixError as error:
                self._inbox.put(Broken(error))
                return
            self._stopping.wait(pauses.next_s())

    def _diagnosed(self, error: LinkError) -> LineDown | Broken:
        """A site that was never let in may have or meet the wrong certificate, and that time does not mend."""
        if self._plan is not None:
            return LineDown(error)
        try:
            self._look()
        except IdentityError as found:
            return Broken(found)
        except LinkError as found:
            return LineDown(found)
        return LineDown(error)

    def _tell_ready(self, ready: codec.Ready) -> None:
        """Accept the plan."""
        try:
            self._again(self._stopping, lambda: self._link.report(ready), (LinkError, StorageError))
        except CancelledError:
            return
        except FedcervixError as error:
            self._inbox.put(Broken(error))

    def _thread(self, name: str, target: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                target()
            except Exception as error:  # noqa: BLE001  (a thread that ends unheard would leave the agent waiting)
                self._inbox.put(Broken(FedcervixError(f"{name}: {error!r}", cause="a bug", next_step="report it")))

        threading.Thread(target=guarded, name=name, daemon=True).start()


class _Reporter:
    """Tells the coordinator how far the work is, so that the lease holds.

    Sends news at most once in `PROGRESS_S`, and what was last known once in a quarter of the lease: a single step may
    take longer than a lease. What cannot be sent is dropped; the next one says more.
    """

    def __init__(self, link: Link, stopping: threading.Event) -> None:
        self._link, self._stopping = link, stopping
        self._changed = threading.Condition()
        self._progress: codec.Progress | None = None
        self._news = False
        self.beat_s = 10.0

    def put(self, progress: codec.Progress | None) -> None:
        """Say how far the work is; None: nothing is being done."""
        with self._changed:
            self._progress, self._news = progress, progress is not None
            self._changed.notify()

    def run(self) -> None:
        """Send until the agent stops."""
        while not self._stopping.wait(PROGRESS_S):
            with self._changed:
                self._changed.wait_for(lambda: self._news, timeout=self.beat_s)
                progress, self._news = self._progress, False
            if progress is not None:
                with contextlib.suppress(FedcervixError):
                    self._link.report(progress)


def _result(site: str, task: Task, numbers: dict[str, Any]) -> session.Result:
    """Return a worker's numbers as the report they make; nothing else of them leaves the site."""
    at = time.time()
    told = outward(numbers)
    if task.kind is TaskKind.SCORE:
        gauges = tuple(sorted((name, float(value)) for name, value in outward(numbers["gauges"]).items()))
        return ScoreReported(site, task, float(told["loss_sum"]), int(told["count"]), int(told["images"]), gauges, at)
    return UpdateStored(
        site,
        task,
        numbers["digest"],
        int(told["images"]),
        int(told["steps"]),
        float(told["loss"]),
        float(told["seconds"]),
        at,
    )
