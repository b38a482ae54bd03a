"""The site agent: a loop around `fedcervix.core.session`.

Rules
1. One thread decides; everything that can block (listening, work, delivery, progress reports) is a thread of its own
   that puts what happened into the inbox. The loop takes one thing from the inbox, updates the session, and compares
   `session.next_action` with what is running.
2. Training does not need the line. What the site was asked and what it has finished lies in the run's journal
   (`run_store`), written before anything follows from it; so a restarted agent goes on at once, and delivers when it
   can.
3. An error that another try may mend (LinkError, StorageError at the coordinator) is tried again after a growing
   pause; any other ends the agent with its three lines and its exit code.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from fedcervix.core import session
from fedcervix.core.events import Answer, ModelAdopted, ModelUnusable, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.instructions import Finish, Instruction
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import (
    DuplicateAgentError,
    FedcervixError,
    IdentityError,
    LinkError,
    PolicyError,
    RemoteError,
    RunError,
    StorageError,
)
from fedcervix.models.blobs import BlobStore
from fedcervix.models.rounding import Rounded
from fedcervix.network import codec
from fedcervix.network.backoff import SIGN_S, Pauses
from site_agent.federation import account, asked, compression
from site_agent.federation.failures import TELL_S, Failures
from site_agent.federation.heartbeat import Hung, Reporter
from site_agent.federation.link import Link
from site_agent.federation.policy import objections, strange
from site_agent.federation.privacy import outward
from site_agent.home import SiteHome
from site_agent.store import ledger
from site_agent.store.model_store import adopt
from site_agent.store.run_store import RunStore, last_federation
from site_agent.worker.disk_full_retry import with_room
from site_agent.worker.hang_detection import FLOOR_S
from site_agent.worker.preflight import Findings
from site_agent.worker.worker import CancelledError, Worker, WorkFailedError

T = TypeVar("T")

BEAT_S_MIN = 0.25
"""a plan's lease cannot make an agent report more often than this"""
REMOTE_ERRORS_MAX = 3
MENDED_BY_TIME = (LinkError, StorageError, RunError, RemoteError, DuplicateAgentError)
"""DuplicateAgentError: whether this agent is the one too many, the listener is told when it attaches"""
NOT_HONEST = "the coordinator was restored from an old backup, or it is not honest"
NEW_RUN = "ask the coordinator's operator for a new run: coordinator start --new"
STOP_S = 60.0
"""how long an agent that is told to stop waits for the training's checkpoint"""
STOPPED_S = 2.0
"""how long it tries to tell the coordinator that it was stopped"""
NOT_TOLD = (IdentityError, PolicyError, RunError, DuplicateAgentError)
"""ends of which the coordinator knows, or does not listen to this site"""


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

    action: session.Work | session.Deliver
    plan: Plan
    run_store: RunStore
    cancelled: threading.Event
    at_work: bool = False
    """the worker has it, not the line: giving it up is a kill"""


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
class Silent:
    """The worker has been silent for so long that it must have hung."""

    hung: Hung


@dataclass(frozen=True, slots=True)
class Stop:
    """The person or the system wants the agent to end: what can be kept is kept first."""


Examine = Callable[[Plan, Callable[[dict[str, Any]], None], threading.Event], Findings | None]


def _nothing_to_examine(*_: object) -> None:
    """For a worker that does not train."""


class Agent:
    """One site's agent for one run.

    `federation` is the one that the site's certificate names; `show` is told what is worth telling a person; `look`
    says why a line cannot be had (see `site_agent.federation.tls`); `check` finds out at the start what is wrong here
    whatever the plan says; `examine`, whether this site can do what the plan asks, before the site says that it is
    ready.
    """

    def __init__(
        self,
        home: SiteHome,
        site: str,
        link: Link,
        worker: Worker,
        show: Callable[[str, dict[str, Any]], None],
        look: Callable[[], object] = lambda: None,
        *,
        federation: str,
        check: Callable[[], object] = lambda: None,
        examine: Examine = _nothing_to_examine,
        stop_s: float = STOP_S,
        tell_s: float = TELL_S,
        silence_s: float = FLOOR_S,
        sign_s: float = SIGN_S,
    ) -> None:
        self._home, self._site, self._link, self._worker, self._show = home, site, link, worker, show
        self._federation, self._accounting = federation, threading.RLock()
        self._look, self._stop_s, self._sign_s = look, stop_s, sign_s
        self._inbox: queue.Queue[Said | LineDown | JobEnded | Broken | Silent | Stop] = queue.Queue()
        self._blobs = BlobStore(home.blobs)
        self._session = session.Session(site)
        self._run_store: RunStore | None = None
        self._plan: Plan | None = None
        self._kept = session.PersistentState()
        self._job: Job | None = None
        self._hung: Task | None = None
        self._failures = Failures(home, site, link, tell_s=tell_s)
        self._stopping = threading.Event()
        self._check, self._examine = check, examine
        self._examining, self._abandoned = threading.Lock(), threading.Event()
        self._examined: set[str] = set()
        """runs whose plan is known to be feasible here"""
        self._was_attached = False
        self._down_because = ""
        self._disk_because = ""
        self._outcome: Outcome | None = None
        self._resting_because = ""
        self._reporter = Reporter(link.sign, lambda hung: self._inbox.put(Silent(hung)), floor_s=silence_s)

    def run(self) -> Finish:
        """Take part until the run is over. Raises what stopped the agent before that."""
        try:
            self._check()
            return self._leave(self._take_part())
        except FedcervixError as error:
            self._fail(error)
            raise
        except KeyboardInterrupt:
            self._say_stopped()
            raise
        finally:
            self._stopping.set()
            self._reporter.close()

    def _take_part(self) -> Finish:
        try:
            self._resume()
            self._thread("listener", self._listen)
            self._thread("reporter", self._reporter.run)
            self._thread("litter", self._clear)
            while not isinstance(action := self._next_action(), session.Done):
                self._remember()
                self._reconcile(action)
                self._take(self._inbox.get())
            self._remember()
            return action.leave
        finally:
            self._abandoned.set()
            if self._job is not None:
                self._job.cancelled.set()
            self._worker.cancel()

    def _next_action(self) -> session.Action:
        return session.next_action(self._session, self._blobs.has)

    def _leave(self, leave: Finish) -> Finish:
        if (run_store := self._run_store) is not None:
            record = self._fitting(leave.record, run_store)
            self._when_there_is_room(lambda: run_store.end(leave.outcome.value, record))
        self._clear()
        return leave

    def _fitting(self, record: str, run_store: RunStore) -> str:
        """Return a run's record as it came; nothing where it is none, and say so."""
        if not record or self._plan is None:
            return ""
        try:
            ledger.read(record, self._plan)
        except ValueError as error:
            self._show(
                "said",
                {"text": f"the record of run {run_store.folder.name} is not saved, because it is not valid: {error}"},
            )
            return ""
        return record

    def stop(self) -> None:
        """End soon; what is finished is kept, and training's checkpoint. Safe in a signal handler's thread."""
        self._failures.hurry.set()
        self._inbox.put(Stop())

    def _say_stopped(self) -> None:
        """Tell the coordinator that a person stopped this agent, without waiting for a slow connection."""

        def tell() -> None:
            with contextlib.suppress(FedcervixError):
                self._link.report(codec.Stopped())

        if self._was_attached and not self._session.away:
            self._thread("stopped", tell).join(STOPPED_S)

    # --- what outlives the process ---

    def _resume(self) -> None:
        """Go on as this site was told last: the coordinator may be away for long."""
        try:
            last = last_federation(self._home)
        except StorageError as error:
            self._show("said", {"text": f"{error.explain()}\nthe coordinator will say how to continue"})
            return
        if last is None or last.run_store.ended() or last.run_store.kept() == session.PersistentState():
            return
        if against := objections(self._home.config().policy, last.plan, self._site):
            self._show(
                "said",
                {"text": f"run {last.run} does not continue here: this site's policy does not allow it: {against[0]}"},
            )
            return
        self._enter(last.plan, last.run_store)
        action = self._next_action()
        self._show("resumed", {"run": last.run, "task": action.task if isinstance(action, session.Work) else None})

    def _remember(self) -> None:
        """Write down what has changed. A full disk costs the memory, not the run; the next event tries again."""
        kept = session.persistent_state(self._session)
        if self._run_store is None or kept == self._kept:
            return
        try:
            self._run_store.keep(kept)
        except StorageError as error:
            if error.what != self._disk_because:
                self._show("trouble", {"error": error})
            self._disk_because = error.what
        else:
            self._kept, self._disk_because = kept, ""

    def _when_there_is_room(self, act: Callable[[], None]) -> None:
        """Write down in the loop what it cannot go on without; whoever wants the agent to end does not wait for room.

        Raises KeyboardInterrupt.
        """

        def wait(pause_s: float) -> None:
            if self._failures.hurry.wait(pause_s):
                self._drain()
                raise KeyboardInterrupt

        with_room(act, self._show_trouble, wait)

    def _remember_elsewhere(self, run_store: RunStore, then: Callable[[session.Session], session.Session]) -> None:
        """Write down what came of a run that was abandoned meanwhile: its coordinator may come back."""
        with contextlib.suppress(StorageError):
            run_store.keep(session.persistent_state(then(session.resumed(self._site, run_store.kept()))))

    # --- what comes in ---

    def _take(self, item: Said | LineDown | JobEnded | Broken | Silent | Stop) -> None:
        match item:
            case Said(codec.Welcome() as welcome):
                self._welcomed(welcome)
            case Said(instruction):
                self._instructed(instruction)  # type: ignore[arg-type]  # not a Welcome: that was the case above
            case LineDown(error):
                self._line_down(error)
            case JobEnded(job, then):
                if self._job is job:
                    self._job = None
                    self._reporter.end()
                if job.run_store == self._run_store:
                    self._session = then(self._session)
                else:
                    self._remember_elsewhere(job.run_store, then)
            case Broken(error):
                raise error
            case Silent(hung):
                self._restart_hung(hung)
            case Stop():
                self._drain()
                raise KeyboardInterrupt

    def _welcomed(self, welcome: codec.Welcome) -> None:
        if why := strange(welcome, self._federation):
            raise RemoteError(
                why, cause="it is not this site's coordinator", next_step="ask the coordinator's operator"
            )
        new = self._plan is None or self._run_store is None or self._run_store.folder.name != welcome.run
        if new:
            self._begin(welcome)
        elif welcome.plan != self._plan:
            raise _another_plan(welcome.run)
        if new or not self._was_attached:
            self._show("attached", {"run": welcome.run, "plan": welcome.plan})
        else:
            self._show("line up", {})
            self._reporter.again()
        self._was_attached, self._down_because = True, ""
        self._session = session.attached(self._session)
        ready = codec.Ready(welcome.run, welcome.plan.digest)
        self._reporter.attached()
        plan, abandoned = welcome.plan, self._abandoned
        self._thread("ready", lambda: self._get_ready(ready, plan, abandoned))

    def _begin(self, welcome: codec.Welcome) -> None:
        """Check the plan against the policy and open (or find again) the run's folder. A run keeps its plan."""
        if against := objections(self._home.config().policy, welcome.plan, self._site):
            self._refuse(welcome.run, "this site's policy does not allow the plan", against)
        run_store = RunStore(self._home.run_folder(welcome.run))
        if run_store.known_plan() not in (None, welcome.plan):
            raise _another_plan(welcome.run)
        if not run_store.folder.exists():
            self._when_there_is_room(lambda: self._spend(welcome.run, account.Spent(runs=1)))
        self._when_there_is_room(lambda: run_store.open(welcome.plan))
        self._enter(welcome.plan, run_store)

    def _refuse(self, run: str, what: str, against: list[str], *, cause: str = "", next_step: str = "") -> NoReturn:
        """End because of the policy, and tell the coordinator why."""
        with contextlib.suppress(FedcervixError):  # if it cannot be told, the operator sees an absent site
            self._link.report(codec.Refusal(run, "; ".join(against)))
        raise PolicyError(
            f"{what}:\n" + "\n".join(f"  - {line}" for line in against),
            cause=cause or f"[policy] in {self._home.config_file}",
            next_step=next_step or "agree with the coordinator's operator, then change the policy or the plan",
        )

    def _spend(self, run: str, more: account.Spent) -> None:
        """Count what a federation has of this site, before it has it. Raises PolicyError, StorageError."""
        with self._accounting:  # work of a run that was abandoned may end beside that of the next one
            against = account.spend(self._home.account, self._home.config().policy, more)
        if against:
            self._refuse(run, "this site's policy allows no more", against)

    def _begin_work(self, job: Job, task: Task) -> None:
        """Write down that a task is begun. Raises PolicyError where it is one too many, StorageError."""
        with self._accounting:
            noted = asked.Asked(job.run_store.folder)
            turns = noted.turns()
            turn = turns.get(asked.key(task))
            if asked.begun(turn, task.base) == turn:
                return
            if why := asked.objection(turns, task, job.plan):
                self._refuse(task.run, "this site refuses the task", [why], cause=NOT_HONEST, next_step=NEW_RUN)
            if task.kind is TaskKind.TRAIN:
                self._spend(task.run, account.Spent(rounds=1, epochs=job.plan.terms.epochs_per_round))
            noted.begin(task)

    def _begin_answer(self, job: Job, result: session.Result) -> None:
        """Write down that a task is answered, before anything of it leaves. Raises PolicyError, StorageError.

        A site that could not train has given no model: in a ring it may be asked again, from the model before.
        """
        task = result.task
        with self._accounting:
            noted = asked.Asked(job.run_store.folder)
            turn = noted.turns().get(asked.key(task))
            if isinstance(result, ModelUnusable) and task.kind is TaskKind.TRAIN:
                if asked.unusable(turn, task.base) != turn:
                    noted.give_up(task)
                return
            if asked.answered(turn, task.base) == turn:
                return
            if isinstance(result, UpdateStored):
                digest = result.packed or result.digest
                size_bytes = self._blobs.size_bytes(digest) if self._blobs.has(digest) else 0
                self._spend(task.run, account.Spent(bytes=size_bytes))
            noted.answer(task)

    def _enter(self, plan: Plan, run_store: RunStore) -> None:
        """Take part in a run, from where its journal here says that this site stands."""
        self._reporter.beat_s = min(max(BEAT_S_MIN, plan.terms.lease_s / 4), self._sign_s)
        self._plan, self._run_store, self._kept = plan, run_store, run_store.kept()
        self._abandoned.set()
        self._abandoned = threading.Event()
        if (
            self._kept != session.PersistentState() or run_store.history() or run_store.ended()
        ):  # it has worked for this run
            self._examined.add(run_store.folder.name)
        self._session = session.resumed(self._site, self._kept)

    def _instructed(self, instruction: Instruction) -> None:
        if isinstance(instruction, Task):
            self._check_agreed(instruction)
        if instruction != self._session.instruction:
            self._show("instructed", {"instruction": instruction})
        self._session = session.instructed(self._session, instruction)

    def _check_agreed(self, task: Task) -> None:
        """Refuse work that the accepted plan does not contain. Raises RemoteError."""
        if self._plan is None or self._run_store is None or task.run != self._run_store.folder.name:
            raise RemoteError(f"asked to {task} of run {task.run}, to which this site was not admitted")
        if self._run_store.ended():
            raise RemoteError(
                f"asked to {task} of run {task.run}, which has ended here: {self._run_store.outcome()}",
                cause=NOT_HONEST,
                next_step=NEW_RUN,
            )
        if task.round > self._plan.rounds_max:
            raise RemoteError(f"asked to {task}, but the plan has at most {self._plan.rounds_max} rounds")
        if (task.kind is TaskKind.SEED) != (task.round == 0):
            raise RemoteError(f"asked to {task}: rounds are counted from 1, and the first model is made before them")

    def _line_down(self, error: LinkError | StorageError) -> None:
        settled = self._session.settled
        if self._outcome is not None and settled is not None and settled.kind is TaskKind.ADOPT:
            over = Finish(
                self._outcome,
                "the model has arrived; the coordinator closed the connection before it sent the next task",
            )
            self._session = session.instructed(self._session, over)
            return
        self._session = session.cut(self._session)
        if error.what != self._down_because:
            self._show("line down", {"error": error, "works": isinstance(self._next_action(), session.Work)})
        self._down_because = error.what

    def _drain(self) -> None:
        """Let training keep a checkpoint, or finish; everything else can be broken off at any moment."""
        if self._job is None or not self._job.at_work:
            return
        self._show("stopping", {"deadline_s": self._stop_s})
        self._job.cancelled.set()
        self._worker.stop()
        ends_s = time.monotonic() + self._stop_s
        with contextlib.suppress(queue.Empty):
            while self._job is not None:
                item = self._inbox.get(timeout=max(0.0, ends_s - time.monotonic()))
                if isinstance(item, JobEnded):
                    self._take(item)
        if self._job is not None:
            self._show("said", {"text": f"training did not end within {self._stop_s:.0f} s and is killed"})
        self._remember()

    # --- what breaks ---

    def _fail(self, error: FedcervixError) -> None:
        """Write down what ends the agent, and tell it: now, or by the next process."""
        if isinstance(error, NOT_TOLD):
            return
        failure = self._failures.record(error)
        error.cause = f"{error.cause} (details: {self._home.incidents / failure.incident}.txt)"
        if not self._failures.tell_soon():
            self._show(
                "said", {"text": f"the coordinator cannot be reached now; {failure.incident} will be reported later"}
            )

    def _restart_hung(self, hung: Hung) -> None:
        """Kill a worker that hangs; its task goes on from its checkpoint. Raises WorkFailedError the second time."""
        job, task = self._job, hung.said.task
        if job is None or job.action != session.Work(task) or job.cancelled.is_set():
            return
        job.cancelled.set()
        self._worker.cancel()
        self._job = None  # whatever its thread still waits for
        error = _hangs(hung)
        if self._hung == task:
            raise error
        self._hung = task
        self._failures.record(error, goes_on=True)
        self._show("trouble", {"error": error})
        self._thread("failures", self._failures.tell_soon)

    # --- what goes on ---

    def _reconcile(self, action: session.Action) -> None:
        """Let what is running be what should be running."""
        if self._job is not None:
            if self._job.action != action and not self._job.cancelled.is_set():
                self._job.cancelled.set()
                if self._job.at_work:
                    self._worker.cancel()
            return
        if isinstance(action, session.Rest):
            self._rest(action)
            return
        assert isinstance(action, session.Work | session.Deliver)
        assert self._plan is not None
        assert self._run_store is not None
        self._job = job = Job(action, self._plan, self._run_store, threading.Event())
        if isinstance(action, session.Work):
            self._reporter.begin(codec.Progress(action.task, "starting", 0, 0, "", 0.0, 0.0))
        self._thread("job", lambda: self._run_job(job))

    def _rest(self, rest: session.Rest) -> None:
        if self._session.away and not self._down_because:
            return  # it is not known yet whether the coordinator is there
        if rest.reason not in (self._resting_because, session.NOT_ATTACHED.reason):
            self._show("resting", {"reason": rest.reason})
        self._resting_because = rest.reason

    def _run_job(self, job: Job) -> None:
        """Do the action in this thread; whatever comes of it goes into the inbox."""
        try:
            action = job.action
            then = (
                self._work(job, action.task) if isinstance(action, session.Work) else self._deliver(job, action.result)
            )
            self._inbox.put(JobEnded(job, then))
        except CancelledError as cancelled:
            if text := str(cancelled):
                self._show("said", {"text": text})
            self._inbox.put(JobEnded(job, lambda s: s))
        except FedcervixError as error:
            done = JobEnded(job, lambda s: s)  # what is no longer wanted may break
            self._inbox.put(done if job.cancelled.is_set() else Broken(error))

    def _work(self, job: Job, task: Task) -> Callable[[session.Session], session.Session]:
        self._show("working", {"task": task})
        lines: list[str] = []
        self._with_room(job, task, lambda: self._begin_work(job, task))
        if task.base:
            self._again(job.cancelled, lambda: self._bring(job, task))
        if task.kind is TaskKind.ADOPT:
            self._with_room(job, task, lambda: adopt(self._home, task, job.plan, self._blobs))
            result: session.Result = ModelAdopted(self._site, task, time.time())
        else:
            if task.kind is TaskKind.TRAIN:
                self._again(
                    job.cancelled, lambda: compression.settle_earlier(job.run_store.folder, task, self._link.report)
                )
            job.at_work = True
            self._reporter.hand_over()
            numbers = self._worker.do(task, job.plan, self._on_progress(task), job.cancelled)
            self._reporter.take_back()
            result = self._result(job, task, numbers)
            lines = numbers.get("said", [])
            if isinstance(result, UpdateStored | ScoreReported) and task.kind is not TaskKind.SEED:
                self._with_room(job, task, lambda: job.run_store.note(str(task.kind), task.round, numbers))
        self._show("finished", {"task": task, "lines": lines})
        return lambda s: session.finished(s, result)

    def _with_room(self, job: Job, task: Task, act: Callable[[], T]) -> T:
        """Write something to this site's disk; a full one is waited for, and the coordinator is told so."""

        def wait(pause_s: float) -> None:
            if job.cancelled.wait(pause_s) or self._stopping.is_set():
                raise CancelledError

        return with_room(act, self._on_progress(task), wait)

    def _bring(self, job: Job, task: Task) -> None:
        """Have the task's model here; neither it nor its packed form is longer than this run's models may be."""
        on_bytes = self._on_bytes(job, task, "downloading")
        bytes_max = codec.model_bytes_max(job.run_store.model_bytes())

        def fetch(digest: str) -> None:
            self._link.fetch(digest, self._blobs, on_bytes, bytes_max=bytes_max)

        if not self._blobs.has(task.base):
            compression.bring(self._link, self._blobs, task.base, job.plan, fetch)
        job.run_store.note_model(self._blobs.size_bytes(task.base))

    def _result(self, job: Job, task: Task, numbers: dict[str, Any]) -> session.Result:
        """Return what a worker has done as the report it makes."""
        if numbers.get("unusable"):
            return ModelUnusable(self._site, task, int(outward(numbers)["steps"]), time.time())
        if task.kind is TaskKind.SCORE:
            return _score(self._site, task, numbers)
        folder, digest = job.run_store.folder, numbers["digest"]
        made = self._with_room(job, task, lambda: compression.rounded(self._blobs, folder, task, job.plan, digest))
        update = _update(self._site, task, numbers, made)
        self._with_room(job, task, lambda: compression.keep(folder, update, made.residual))
        return update

    def _deliver(self, job: Job, result: session.Result) -> Callable[[session.Session], session.Session]:
        self._with_room(job, result.task, lambda: self._begin_answer(job, result))
        answer, reason = self._again(job.cancelled, lambda: self._deliver_once(job, result))
        if isinstance(result, UpdateStored):
            update = result
            self._with_room(job, update.task, lambda: compression.settle(job.run_store.folder, update, answer))

        def answered(s: session.Session) -> session.Session:
            return session.answered(s, result.task)

        if answer is Answer.REFUSED:
            self._inbox.put(JobEnded(job, answered))  # it is not told again by the next process
            raise RunError(
                f"the coordinator refused the result of {result.task}{': ' if reason else ''}{reason}",
                cause="it does not fit the run",
                next_step="start site-agent again; ask the coordinator's operator if it happens twice",
            )
        if isinstance(result, ModelAdopted) and reason in list(Outcome):
            self._outcome = Outcome(reason)
        keep = {result.task.base} | ({result.digest, result.packed} if isinstance(result, UpdateStored) else set())
        keep |= compression.carried(job.run_store.folder).residuals
        with contextlib.suppress(StorageError):  # what cannot be deleted now can be at the next delivery
            self._blobs.retire(keep)
        self._thread("litter", self._clear)
        self._show("delivered", {"task": result.task, "answer": answer})
        return answered

    def _deliver_once(self, job: Job, result: session.Result) -> tuple[Answer, str]:
        if isinstance(result, UpdateStored):
            self._link.push(result.packed or result.digest, self._blobs, self._on_bytes(job, result.task, "uploading"))
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
        pauses = Pauses()
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
            if note := values.pop("note", ""):
                self._show("said", {"text": note})
            self._show_trouble(values)
            self._show("progress", {"task": task, **values})
            numbers = (values.get("loss", 0.0), values.get("images_per_s", 0.0))
            self._reporter.heard(
                codec.Progress(task, values["stage"], values["done"], values["of"], values["unit"], *numbers)
            )

        return on_progress

    def _show_trouble(self, values: dict[str, Any]) -> None:
        """Show what a progress says that is in the way, if anything is."""
        if trouble := values.get("trouble"):
            what, cause, next_step = trouble
            self._show("trouble", {"error": FedcervixError(what, cause=cause, next_step=next_step)})

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
        pauses = Pauses()
        while not self._stopping.is_set():
            try:
                for what in self._link.attach():
                    pauses.reset()
                    self._inbox.put(Said(what))
                self._inbox.put(LineDown(LinkError("the coordinator has closed the connection")))
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

    def _clear(self) -> None:
        """Delete the models that nothing needs any more, beside the work: it takes as long as a short task."""
        with contextlib.suppress(StorageError):
            self._blobs.purge()

    def _get_ready(self, ready: codec.Ready, plan: Plan, abandoned: threading.Event) -> None:
        """Find out whether this site can do what the plan asks, and only then say that it is ready."""
        with self._examining:  # a line that was cut meanwhile and comes back waits for the same answer
            while ready.run not in self._examined:
                if abandoned.is_set():
                    return
                try:
                    findings = self._examine(plan, self._on_examining, abandoned)
                except CancelledError:  # the process was killed because of work that is no longer wanted
                    continue
                except FedcervixError as error:
                    if not abandoned.is_set():
                        self._inbox.put(Broken(error))
                    return
                self._examined.add(ready.run)
                self._show("examined", {"findings": findings})
        self._tell_ready(ready)

    def _on_examining(self, values: dict[str, Any]) -> None:
        self._show_trouble(values)
        self._show("progress", {"task": "before round 1", **values})

    def _tell_ready(self, ready: codec.Ready) -> None:
        """Accept the plan, and make good what an earlier process could not tell."""
        with contextlib.suppress(FedcervixError):
            self._failures.tell(late=True)
        try:
            self._again(
                self._stopping, lambda: self._link.report(ready), (LinkError, StorageError, DuplicateAgentError)
            )
        except CancelledError:
            return
        except FedcervixError as error:
            self._inbox.put(Broken(error))

    def _thread(self, name: str, target: Callable[[], object]) -> threading.Thread:
        def guarded() -> None:
            try:
                target()
            except Exception as error:  # noqa: BLE001  (a thread that ends unheard would leave the agent waiting)
                self._inbox.put(Broken(FedcervixError(f"{name}: {error!r}", cause="a bug", next_step="report it")))

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread


def _another_plan(run: str) -> RemoteError:
    return RemoteError(
        f"run {run} has another plan than before",
        cause="the coordinator's home was set up again, or someone changed it",
        next_step="ask the coordinator's operator",
    )


def _hangs(hung: Hung) -> WorkFailedError:
    """Return what a hung worker is called."""
    silent_min = (hung.silence.ends_at_s - hung.silence.since_s) / 60
    return WorkFailedError(
        f"the training process has not reported for {silent_min:.1f} min; "
        f"in this task its longest pause so far was {hung.silence.longest_s:.0f} s",
        cause="a GPU or its driver hangs, a disk or share does not answer, or other hosts that train with it do not",
        next_step="look at nvidia-smi, and at the system's log (dmesg | tail)",
        stage=hung.said.stage,
        trace="",
    )


def _score(site: str, task: Task, numbers: dict[str, Any]) -> ScoreReported:
    """Return a worker's numbers as the report they make; nothing else of them leaves the site."""
    told = outward(numbers)
    gauges = tuple(sorted((name, float(value)) for name, value in outward(numbers["gauges"]).items()))
    loss_sum, count, images = float(told["loss_sum"]), int(told["count"]), int(told["images"])
    return ScoreReported(site, task, loss_sum, count, images, gauges, time.time())


def _update(site: str, task: Task, numbers: dict[str, Any], made: Rounded) -> UpdateStored:
    """The same for a model, which was rounded if the plan says so."""
    told = outward(numbers)
    return UpdateStored(
        site,
        task,
        made.digest,
        int(told["images"]),
        int(told["steps"]),
        float(told["loss"]),
        float(told["seconds"]),
        time.time(),
        made.packed,
    )
