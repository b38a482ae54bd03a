"""Which run this site takes part in, and what it writes down of it: its plan, its journal, how it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from fedcervix.core import session
from fedcervix.core.events import WITHOUT_BASE, Task, TaskKind
from fedcervix.core.numerics import NUMERICS
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.instructions import Finish
from fedcervix.errors import RemoteError, StorageError
from fedcervix.transport import codec
from fedcervix.trust.pins import Pins
from site_agent.federation import shown
from site_agent.federation.accounting import NEW_RUN, NOT_HONEST, Accounting
from site_agent.federation.context import AgentContext
from site_agent.federation.inbox import JobEnded, Participation
from site_agent.federation.partners import Partners, doubts, known_keys, partners
from site_agent.federation.policy import check_welcome, missing_pins, objections, way_out
from site_agent.federation.sealed_run import SealedRun
from site_agent.federation.secure_run import SecureParts, SecureRun
from site_agent.store import ledger
from site_agent.store.retired_models import objection
from site_agent.store.run_secrets import forget_left
from site_agent.store.run_store import RunStore, last_federation

OF_SECURE_SUMS = (TaskKind.BOX, TaskKind.RELEASE, TaskKind.CLOSE)


class Membership:
    """One agent's run. `when_there_is_room` writes what it cannot go on without, and waits where the disk is full."""

    def __init__(
        self,
        context: AgentContext,
        federation: str,
        accounting: Accounting,
        when_there_is_room: Callable[[Callable[[], None]], None],
    ) -> None:
        self._context, self._federation, self._accounting = context, federation, accounting
        self._when_there_is_room = when_there_is_room
        self.run: Participation | None = None
        self.kept = session.PersistentState()
        """of the session, what lies in the run's journal"""
        self.partners = Partners()
        """of the run; empty until the coordinator is heard"""
        self._trouble = ""

    # --- how it begins ---

    def resume(self) -> bool:
        """Go on with the last run: the coordinator may be away for long. Returns whether there is one to go on with."""
        home, show = self._context.home, self._context.show
        forget_left(home, lambda run: RunStore(home.run_folder(run)).ended())
        try:
            last = last_federation(home)
        except StorageError as error:
            show(shown.Message(f"{error.explain()}\nthe coordinator will say how to continue"))
            return False
        if last is None or last.run_store.ended() or last.run_store.kept() == session.PersistentState():
            return False
        site, pins = self._context.site, home.pins()
        if against := objections(home.config().policy, last.plan, site, pins) + objection(home, last.plan):
            refused = f"run {last.run} does not continue here: this site's policy does not allow it: {against[0]}"
            show(shown.Message(refused))
            return False
        if (began := last.run_store.numerics()) != NUMERICS:
            other = f"run {last.run} was begun here with numerics {began}; this version computes with {NUMERICS}"
            show(shown.Message(f"{other}\nits work waits; the coordinator will say how to continue"))
            return False
        if doubt := next(doubts(pins, last.plan, site, last.run_store.keys()), ""):
            show(shown.Message(f"run {last.run} does not continue until the coordinator is heard: {doubt}"))
            return False
        self._enter(last.plan, last.run_store)
        return True

    def welcomed(self, welcome: codec.Welcome) -> bool:
        """Take part in the run of a welcome; a run keeps its plan. Returns whether it is another run than before.

        Raises RemoteError, IdentityError, PolicyError, StorageError.
        """
        check_welcome(welcome, self._federation)
        pins, run_store = self._context.home.pins(), RunStore(self._context.home.run_folder(welcome.run))
        before = run_store.keys()
        keys = known_keys(pins, before, welcome.keys, own=self._context.site)
        new = self.run is None or self.run.run != welcome.run
        if new:
            self._begin(welcome, run_store, pins)
        elif self.run is not None and welcome.plan != self.run.plan:
            raise _another_plan(welcome.run)
        if keys != before:
            self._when_there_is_room(lambda: run_store.keep_keys(keys))
        self.partners = partners(pins, welcome.plan, self._context.site, keys)
        return new

    def _begin(self, welcome: codec.Welcome, run_store: RunStore, pins: Pins) -> None:
        """Check the plan against the policy and open (or find again) the run's folder."""
        home = self._context.home
        asked = home.config().policy, welcome.plan, self._context.site, pins
        if against := objections(*asked) + objection(home, welcome.plan):
            cause, next_step = way_out(home, missing_pins(*asked), against)
            what = "this site's policy does not allow the plan"
            self._accounting.refuse(welcome.run, what, against, cause=cause, next_step=next_step)
        if run_store.known_plan() not in (None, welcome.plan):
            raise _another_plan(welcome.run)
        if not run_store.folder.exists():
            self._when_there_is_room(lambda: self._accounting.begin_run(welcome.run))
        self._when_there_is_room(lambda: run_store.open(welcome.plan))
        self._enter(welcome.plan, run_store)
        forget_left(home, lambda run: run != welcome.run)  # a coordinator has one run at a time: the others are over

    def _enter(self, plan: Plan, run_store: RunStore) -> None:
        kept = run_store.kept()
        self.leave()
        sealed = SealedRun(self._context, self._federation, plan, run_store) if plan.terms.sealed else None
        self.run, self.kept = Participation(plan, run_store, self._secure(plan, run_store), sealed), kept

    def _secure(self, plan: Plan, run_store: RunStore) -> SecureRun | None:
        """Return what a run with secure sums needs; None: the plan has none."""
        if not plan.terms.secure_sum:
            return None
        context = self._context
        assert context.ledger is not None
        assert context.journal is not None
        parts = SecureParts(context.home, context.site, context.blobs, context.ledger, context.journal)
        return SecureRun(parts, self._federation, plan, run_store)

    def has_worked(self) -> bool:
        """Say whether this site has worked for the run before."""
        if self.run is None:
            return False
        run_store = self.run.run_store
        return self.kept != session.PersistentState() or run_store.has_worked() or run_store.ended()

    def check_agreed(self, task: Task) -> None:
        """Refuse work that the accepted plan does not contain. Raises RemoteError."""
        run = self.run
        if run is None or task.run != run.run:
            raise RemoteError(f"asked to {task} of run {task.run}, to which this site was not admitted")
        if run.run_store.ended():
            raise RemoteError(
                f"asked to {task} of run {task.run}, which has ended here: {run.run_store.outcome()}",
                cause=NOT_HONEST,
                next_step=NEW_RUN,
            )
        if task.round > run.plan.rounds_max:
            raise RemoteError(f"asked to {task}, but the plan has at most {run.plan.rounds_max} rounds")
        if (task.kind in WITHOUT_BASE) != (task.round == 0):
            raise RemoteError(f"asked to {task}: rounds are counted from 1, and the first model is made before them")
        if (task.kind in OF_SECURE_SUMS or task.attempt > 1) and not run.plan.terms.secure_sum:
            raise RemoteError(f"asked to {task}, but the plan has no secure sums")
        if task.kind is TaskKind.REWRAP and not run.plan.terms.sealed:
            raise RemoteError(f"asked to {task}, but the plan seals no models")

    # --- what is written down ---

    def remember(self, now: session.Session) -> None:
        """Write down what has changed. A full disk costs the memory, not the run; the next event tries again."""
        kept = session.persistent_state(now)
        if self.run is None or kept == self.kept:
            return
        try:
            self.run.run_store.keep(kept)
        except StorageError as error:
            if error.what != self._trouble:
                self._context.show(shown.Trouble(error))
            self._trouble = error.what
        else:
            self.kept, self._trouble = kept, ""

    def remember_elsewhere(self, ended: JobEnded) -> None:
        """Write down what came of a run that was abandoned meanwhile: its coordinator may come back."""
        run_store = ended.job.run.run_store
        with contextlib.suppress(StorageError):
            resumed = session.resumed(self._context.site, run_store.kept())
            run_store.keep(session.persistent_state(ended.then(resumed)))

    # --- how it ends ---

    def leave(self) -> None:
        """Let what goes on for the run know that this site takes no part in it any more."""
        if self.run is not None:
            self.run.over.set()

    def end(self, leave: Finish) -> None:
        """Write down how the run has ended. Raises StorageError."""
        if (run := self.run) is not None:
            record = self._fitting(leave.record, run)
            self._when_there_is_room(lambda: run.run_store.end(leave.outcome.value, record))
            if (hides := run.secure or run.sealed) is not None:
                hides.end()

    def _fitting(self, record: str, run: Participation) -> str:
        """Return a run's record as it came; nothing where it is none, and say so."""
        if not record:
            return ""
        try:
            ledger.read(record, run.plan, run.run)
        except ValueError as error:
            text = f"the record of run {run.run} is not saved, because it is not valid: {error}"
            self._context.show(shown.Message(text))
            return ""
        return record


def _another_plan(run: str) -> RemoteError:
    return RemoteError(
        f"run {run} has another plan than before",
        cause="the coordinator's home was set up again, or someone changed it",
        next_step="ask the coordinator's operator",
    )
