"""The site agent: a loop around `fedcervix.core.session`.

Rules
1. One thread decides. Everything that can block is a part of its own that puts what happened into the inbox: the
   connection (`listener`), work and delivery (`job_runner`), progress reports (`heartbeat`), the examination of the
   plan (`readiness`). The loop takes one thing from the inbox and handles it (`Agent.handle`): it updates the session,
   writes it down, and compares `session.next_action` with what is running.
2. Training does not need the line. What the site was asked and what it has finished lies in the run's journal
   (`run_store`), written before anything follows from it; so a restarted agent goes on at once, and delivers when it
   can.
3. An error that another try may mend (LinkError, StorageError at the coordinator) is tried again after a growing
   pause; any other ends the agent with its three lines and its exit code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fedcervix.core import session
from fedcervix.core.events import Task, TaskKind
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
    VersionError,
)
from fedcervix.transport import codec
from fedcervix.transport.backoff import SIGN_S
from fedcervix.trust.sum_papers import AttemptShown, Boxes, Openings, SumShown
from site_agent.federation import shown
from site_agent.federation.accounting import Accounting
from site_agent.federation.context import AgentContext
from site_agent.federation.failures import TELL_S, Failures
from site_agent.federation.heartbeat import Hung, Reporter, beat_s
from site_agent.federation.inbox import (
    Broken,
    ConnectionLost,
    CoordinatorSaid,
    Item,
    Job,
    JobEnded,
    Participation,
    StopOverdue,
    StopRequested,
)
from site_agent.federation.job_runner import JobRunner
from site_agent.federation.link import Said
from site_agent.federation.listener import UPGRADE_S, Listener
from site_agent.federation.membership import Membership
from site_agent.federation.readiness import Examine, Readiness, TryLine
from site_agent.federation.renewing import Renewing
from site_agent.worker.disk_full_retry import with_room
from site_agent.worker.hang_detection import FLOOR_S
from site_agent.worker.worker import Worker

STOPPED_S = 2.0
"""how long it tries to tell the coordinator that it was stopped"""
NOT_TOLD = (IdentityError, PolicyError, RunError, DuplicateAgentError)
"""ends of which the coordinator knows, or does not listen to this site"""


def _no_check(*_: object) -> None:
    """There is nothing to find out."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What an agent asks before it takes part."""

    site: Callable[[], object] = _no_check
    """finds out at the start what is wrong here whatever the plan says"""
    connection: Callable[[], object] = _no_check
    """says why a line cannot be had (see `site_agent.federation.tls`)"""
    plan: Examine = _no_check
    """finds out whether this site can do what the plan asks, before the site says that it is ready"""
    line: TryLine = _no_check
    """finds out how fast the line is, for a prediction"""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long an agent waits."""

    stop_s: float = 60.0
    """for the training's checkpoint, when it is told to stop"""
    tell_s: float = TELL_S
    """for a line on which it can tell what broke"""
    silence_s: float = FLOOR_S
    """for a word of its worker, at least"""
    sign_s: float = SIGN_S
    """from one sign of life to the next, at most"""
    upgrade_s: float = UPGRADE_S
    """before it asks again, where its version or the coordinator's must be upgraded"""


class Agent:
    """One site's agent for one run. `federation` is the one that the site's certificate names."""

    def __init__(
        self,
        context: AgentContext,
        worker: Worker,
        *,
        federation: str,
        checks: Checks | None = None,
        waits: Waits | None = None,
        renewing: Renewing | None = None,
    ) -> None:
        """`renewing`: of the site's certificate; left out, it is not renewed."""
        checks, waits = checks or Checks(), waits or Waits()
        self._context, self._inbox, self._show = context, context.inbox, context.show
        self._waits, self._check = waits, checks.site
        self._failures = Failures(context.home, context.site, context.link, tell_s=waits.tell_s)
        accounting = Accounting(context.home, context.link)
        self._membership = Membership(context, federation, accounting, self._when_there_is_room)
        self._readiness = Readiness(context, self._failures, checks.plan, checks.line)
        self._renewing = renewing
        self._listener = Listener(context, checks.connection, waits.upgrade_s, renewing)
        self._reporter = Reporter(context.link.sign, context.inbox.put, floor_s=waits.silence_s)
        self._jobs = JobRunner(context, worker, accounting, self._reporter)
        self._session = session.Session(context.site)
        self._hung: Task | None = None
        self._outcome: Outcome | None = None
        self._stopping = False
        """it waits for the job that was asked to stop"""
        self._was_attached = False
        self._down_because = self._resting_because = ""

    def run(self) -> Finish:
        """Take part until the run is over. Raises what stopped the agent before that."""
        with self.taking_part():
            while (over := self.over) is None:
                self.handle(self._inbox.take())
        return over

    @contextlib.contextmanager
    def taking_part(self) -> Iterator[None]:
        """Begin, and let things be handled; whatever ends the block, the agent ends in order."""
        try:
            try:
                self._check()
                self._begin()
                yield
            finally:
                self._membership.leave()
                self._jobs.close()
            if self.over is not None:
                self._membership.end(self.over)
                self._context.purge()
        except FedcervixError as error:
            self._fail(error)
            raise
        except KeyboardInterrupt:
            self._say_stopped()
            raise
        finally:
            self._context.stopping.set()
            self._reporter.close()

    @property
    def over(self) -> Finish | None:
        """How the run is over for this site; None while it goes on."""
        wanted = self._session.instruction
        return wanted if isinstance(wanted, Finish) else None

    # --- the loop ---

    def handle(self, item: Item) -> None:
        """Take in one thing that has happened, and let follow what follows from it.

        Raises what ends the agent, and KeyboardInterrupt where it is told to stop.
        """
        if self._stopping:
            self._take_while_stopping(item)
        else:
            self._take(item)
            self._go_on()

    def _begin(self) -> None:
        """Go on as this site was told last, and let everything begin that goes on beside the loop."""
        if self._membership.resume():
            self._enter()
            task = action.task if isinstance(action := self._next_action(), session.Work) else None
            self._show(shown.Resumed(self._run.run, task))
        self._inbox.start("listener", self._listener.run)
        self._inbox.start("reporter", self._reporter.run)
        if self._renewing is not None:
            self._inbox.start("renewing", self._renewing.run)
        self._inbox.start_alone("purge", self._context.purge)
        self._go_on()

    def _go_on(self) -> None:
        """Write down what has changed, then let what is running be what should be running."""
        action = self._next_action()
        self._membership.remember(self._session)
        if (job := self._jobs.job) is not None:
            if job.action != action and self.over is None:
                self._jobs.give_up()
        elif isinstance(action, session.Rest):
            self._rest(action)
        elif isinstance(action, session.Work | session.Deliver) and not self._membership.partners.awaited:
            self._jobs.begin(action, self._run)

    def _next_action(self) -> session.Action:
        return session.next_action(self._session, self._context.blobs.has)

    def _rest(self, rest: session.Rest) -> None:
        if self._session.away and not self._down_because:
            return  # it is not known yet whether the coordinator is there
        if rest.reason not in (self._resting_because, session.NOT_ATTACHED.reason):
            self._show(shown.Resting(rest.reason))
        self._resting_because = rest.reason

    def _when_there_is_room(self, act: Callable[[], None]) -> None:
        """Write down in the loop what it cannot go on without; whoever wants the agent to end does not wait for room.

        Raises KeyboardInterrupt.
        """

        def wait(pause_s: float) -> None:
            if self._failures.hurry.wait(pause_s):
                self._stop()
                while True:
                    self.handle(self._inbox.take())

        with_room(act, self._context.show_trouble, wait)

    # --- what comes in ---

    def _take(self, item: Item) -> None:
        match item:
            case CoordinatorSaid(said):
                self._heard(said)
            case ConnectionLost(error):
                self._line_down(error)
            case JobEnded():
                self._job_ended(item)
            case Broken(error, job):
                self._broken(error, job)
            case Hung():
                self._restart_hung(item)
            case StopRequested():
                self._stop()

    def _heard(self, said: Said) -> None:
        match said:
            case codec.Welcome():
                self._welcomed(said)
            case codec.LedgerPart():
                if self._context.ledger is not None:
                    self._context.ledger.take(said, self._when_there_is_room)
            case Openings() | Boxes() | AttemptShown() | SumShown():
                self._shown(said)
            case _:
                self._instructed(said)

    def _welcomed(self, welcome: codec.Welcome) -> None:
        if self._context.ledger:
            self._context.ledger.check_kept(welcome)
        waited = self._membership.partners.awaited
        new = self._membership.welcomed(welcome)
        if self._context.ledger and (said := self._context.ledger.welcomed(welcome, self._run.run_store.folder)):
            self._show(shown.Message(said))
        if not (new or waited) and self._was_attached and not self._session.away:
            return  # it was said on this connection before
        run, partners = self._enter() if new else self._run, self._membership.partners
        if partners.awaited:
            if partners.awaited != waited:
                self._show(shown.AwaitsKeys(partners.awaited, self._context.home.command("unpin")))
            return
        if new or waited or not self._was_attached:
            hides = run.plan.hides_from_coordinator
            self._show(shown.Acquainted(partners, self._context.home.command("pin"), hides))
        if new or not self._was_attached:
            self._show(shown.Attached(welcome.run, welcome.plan))
        else:
            self._show(shown.Reconnected())
            self._reporter.again()
        self._was_attached, self._down_because = True, ""
        self._session = session.attached(self._session)
        self._reporter.attached()
        self._inbox.start_alone("ready", lambda: self._readiness.get_ready(run))

    def _enter(self) -> Participation:
        """Take part in a run, from where its journal here says that this site stands."""
        run = self._run
        self._reporter.beat_s = beat_s(run.plan.terms.lease_s, self._waits.sign_s)
        if self._membership.has_worked():
            self._readiness.has_worked(run.run)
        self._session = session.resumed(self._context.site, self._membership.kept)
        self._listener.let_in = True
        return run

    @property
    def _run(self) -> Participation:
        assert self._membership.run is not None
        return self._membership.run

    def _instructed(self, instruction: Instruction) -> None:
        if isinstance(instruction, Task):
            self._membership.check_agreed(instruction)
            if self._context.ledger is not None:
                self._context.ledger.check_told(instruction)
            if self._run.secure is not None:
                self._run.secure.check_begins(instruction)
        self._session = session.instructed(self._session, instruction)

    def _shown(self, paper: codec.Paper) -> None:
        """Keep what is shown before a task where a run hides something. Raises RemoteError in any other run."""
        run = self._membership.run
        if run is not None and run.sealed is not None and isinstance(paper, Openings):
            run.sealed.take(paper)
            return
        if run is None or run.secure is None:
            raise RemoteError(f"the coordinator shows {type(paper).__name__} in a run that has no secure sums")
        run.secure.take(paper)

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
            works = isinstance(self._next_action(), session.Work)
            self._show(shown.Trouble(error) if isinstance(error, VersionError) else shown.Disconnected(error, works))
        self._down_because = error.what

    def _job_ended(self, ended: JobEnded) -> None:
        self._jobs.ended(ended.job)
        self._outcome = ended.outcome or self._outcome
        if ended.job.run.run_store == self._run.run_store:
            self._session = ended.then(self._session)
        else:
            self._membership.remember_elsewhere(ended)

    def _broken(self, error: FedcervixError, job: Job | None) -> None:
        """End with what has failed, unless it is work that the coordinator may not want any more. Raises `error`.

        A process goes on with the task of an earlier one before it hears of the coordinator. Where such work fails
        each time, it must not keep the site from the run that has been begun since.
        """
        if job is None or not isinstance(job.action, session.Work):
            raise error
        if job.run.run_store == self._run.run_store:
            if self._was_attached:
                raise error
            self._show(shown.Message(f"{job.action.task} has failed: {error.what}; waits until it is asked for again"))
            self._session = session.forgotten(self._session)
        self._job_ended(JobEnded(job))

    # --- how it ends ---

    def stop(self) -> None:
        """End soon; what is finished is kept, and training's checkpoint. Safe in a signal handler's thread."""
        self._failures.hurry.set()
        self._inbox.put(StopRequested())

    def _stop(self) -> None:
        """Wait for what training can still keep. Raises KeyboardInterrupt where there is nothing to wait for."""
        if not self._jobs.at_work:
            raise KeyboardInterrupt
        self._show(shown.Stopping(self._waits.stop_s))
        self._jobs.ask_to_stop()
        self._stopping = True
        self._inbox.start("deadline", self._await_deadline)

    def _await_deadline(self) -> None:
        self._context.stopping.wait(self._waits.stop_s)
        self._inbox.put(StopOverdue())

    def _take_while_stopping(self, item: Item) -> None:
        """Take in that a job has ended, and nothing else. Raises KeyboardInterrupt once there is no more to come."""
        if isinstance(item, JobEnded):
            self._job_ended(item)
        overdue = isinstance(item, StopOverdue)
        if overdue:
            self._show(shown.Message(f"training did not end within {self._waits.stop_s:.0f} s and is killed"))
        if overdue or self._jobs.job is None:
            self._membership.remember(self._session)
            raise KeyboardInterrupt

    def _say_stopped(self) -> None:
        """Tell the coordinator that a person stopped this agent, without waiting for a slow connection."""

        def tell() -> None:
            with contextlib.suppress(FedcervixError):
                self._context.link.report(codec.Stopped())

        if self._was_attached and not self._session.away:
            self._inbox.start("stopped", tell).join(STOPPED_S)

    def _fail(self, error: FedcervixError) -> None:
        """Write down what ends the agent, and tell it: now, or by the next process."""
        if isinstance(error, NOT_TOLD):
            return
        failure = self._failures.record(error)
        error.cause = f"{error.cause} (details: {self._context.home.incidents / failure.incident}.txt)"
        if not self._failures.tell_soon():
            self._show(
                shown.Message(f"the coordinator cannot be reached now; {failure.incident} will be reported later")
            )

    def _restart_hung(self, hung: Hung) -> None:
        """Kill a worker that hangs; its task goes on from its checkpoint. Raises WorkFailedError the second time."""
        task = hung.said.task
        if not self._jobs.kill_hung(task):
            return
        error = hung.error()
        if self._hung == task:
            raise error
        self._hung = task
        self._failures.record(error, goes_on=True)
        self._show(shown.Trouble(error))
        self._inbox.start_alone("failures", self._failures.tell_soon)
