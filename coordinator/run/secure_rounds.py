"""What the coordinator checks of a run that hides something from it, and what it shows to the sites before a task.

The sites check all of this again, by their pins: here it is for the faulty site to be named, and refused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from coordinator.run.run_ledger import RunLedger
from coordinator.run.run_state import RunState
from fedcervix.core.events import (
    BoxesStored,
    CloseSigned,
    Event,
    ReleaseStored,
    SiteOpened,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.plan import check
from fedcervix.core.rounds.holders import all_opened, has_boxed
from fedcervix.core.rounds.instructions import Finish, Instruction
from fedcervix.core.rounds.state import Phase, Round, Run
from fedcervix.errors import RemoteError
from fedcervix.models.secure_vectors import vector_form
from fedcervix.models.weights import Layout
from fedcervix.transport.codec import Paper
from fedcervix.trust.contexts import RoundContext, RunContext, first_attempt
from fedcervix.trust.ledger import Ledger
from fedcervix.trust.statements import PublicKey
from fedcervix.trust.sum_papers import (
    AttemptShown,
    Boxes,
    Openings,
    SumShown,
    closed_with,
    line_of,
    lines_of,
    opened_with,
    released_with,
)
from fedcervix.trust.sum_roster import SumRoster, opening_fault, outweighs

ATTEMPT_FOR = (TaskKind.TRAIN, TaskKind.RELEASE, TaskKind.CLOSE)
SUM_FOR = (*ATTEMPT_FOR, TaskKind.SCORE, TaskKind.ADOPT)


def attempt_shown(run: Run, round_: Round) -> AttemptShown:
    """Return the present attempt at a round, with what is fixed of it."""
    is_listed = run.phase is Phase.RELEASING or bool(round_.releases)
    return AttemptShown(
        round_.number,
        tuple(tuple(map(closed_with, closing)) for closing in round_.closed),
        lines_of(round_.contributions) if is_listed else (),
        round_.remaining,
    )


def sum_shown(run: Run) -> SumShown | None:
    """Return the newest sum of a run; None where there is none yet."""
    round_ = next((one for one in reversed(run.rounds[-2:]) if one.total), None)
    if round_ is None:
        return None
    releases = tuple(map(released_with, round_.releases))
    return SumShown(attempt_shown(run, round_), releases, round_.base, round_.total, round_.candidate)


def boxes_for(run: Run, site: str) -> Boxes:
    """Return the boxes that the other sites have made for one."""
    return Boxes({made.site: bytes.fromhex(dict(made.boxes)[site]) for made in run.boxes if made.site != site})


def secrets_for(run: Run, site: str, shown: Container[type[Paper]]) -> Iterator[Paper]:
    """Yield what a site needs once, of what it was not shown: the openings, and the boxes of the others."""
    if Openings not in shown and all_opened(run):
        yield Openings(tuple(map(opened_with, run.openings)))
    if Boxes not in shown and run.boxes and all(has_boxed(run, one) for one in run.plan.sites):
        yield boxes_for(run, site)


def sums_for(run: Run, instruction: Task | Finish) -> Iterator[Paper]:
    """Yield what a site needs of a sum before it does what it is told."""
    if (isinstance(instruction, Finish) or instruction.kind in SUM_FOR) and (shown := sum_shown(run)):
        yield shown
    if instruction.kind in ATTEMPT_FOR if isinstance(instruction, Task) else run.ending:
        yield attempt_shown(run, run.current)


@dataclass(frozen=True, slots=True)
class SecretRun:
    """A run as its ledger and its first model have it."""

    run: Run
    known: Ledger
    layout: Callable[[], Layout]
    """of the first model"""

    @property
    def run_context(self) -> RunContext:
        """What every signature is bound to."""
        return RunContext(federation=self.known.federation, run=self.run.run, plan=self.run.plan.digest)

    @property
    def roster(self) -> SumRoster:
        """The openings of all sites."""
        return SumRoster(self.run_context, tuple(map(opened_with, self.run.openings)))

    @property
    def context(self) -> RoundContext:
        """The present attempt at the round."""
        round_ = self.run.current
        first = first_attempt(
            self.run_context,
            self.run.plan,
            self.roster.digest,
            round_=round_.number,
            base=round_.base,
            head=self.known.heads[round_.number - 1].hash,
            layout=vector_form(self.layout()).digest,
        )
        return attempt_shown(self.run, round_).proposal(first).context

    @property
    def imbalance(self) -> str:
        """Say which site the others do not hide, once all have opened; empty: none. Holders would refuse each list."""
        terms = self.run.plan.terms
        if not (terms.secure_sum and all_opened(self.run)):
            return ""
        site = outweighs(self.roster.weights(terms.average), terms.colluders)
        hides = "has too many images to be hidden by the others"
        return f'{site} {hides}; the plan needs average = "equal"' if site else ""

    def fault(self, event: Event) -> str:
        """Say what is wrong with what a site has signed; empty: nothing, or its event is not of this attempt."""
        match event:
            case SiteOpened():
                return opening_fault(self.run_context, opened_with(event), self._key(event.site))
            case BoxesStored():
                same = event.roster == self.roster.digest
                return "" if same else "it has checked other openings than this coordinator has sent"
            case UpdateStored() if event.masked is not None:
                return self._update_fault(event)
            case ReleaseStored():
                return self._release_fault(event)
            case CloseSigned():
                signed = closed_with(event).holds(self._key(event.site), self.context)
                return "" if signed else "its word that closes the attempt is not signed by its key"
        return ""

    def _key(self, site: str) -> PublicKey:
        check(site in self.known.keys, f"no key of {site} is known")
        return self.known.keys[site]

    def _update_fault(self, event: UpdateStored) -> str:
        if event.images != self.roster.of(event.site).images:
            return "its number of images is not the one with which it has opened the run"
        signed = line_of(event).holds(self._key(event.site), self.context)
        return "" if signed else "its report is not signed by its key for this attempt at the round"

    def _release_fault(self, event: ReleaseStored) -> str:
        context = self.context
        if event.listed != attempt_shown(self.run, self.run.current).listed(context).digest:
            return "it has released its masks for another list than this coordinator has sent"
        signed = released_with(event).holds(self._key(event.site), context)
        return "" if signed else "its release is not signed by its key for this attempt at the round"


class SecureRounds:
    """The same for the run in progress. Thread-safe."""

    def __init__(self, state: RunState, ledger: RunLedger, layout_of: Callable[[Run], Layout]) -> None:
        self._state, self._ledger, self._layout_of = state, ledger, layout_of

    def check(self, event: Event) -> None:
        """Raise RemoteError where a site has signed something else than what it was shown. StorageError."""
        run = self._state.run
        if not run.plan.hides_from_coordinator:
            return
        try:
            fault = self._secret(run).fault(event)
        except ValueError as error:
            fault = str(error)
        if fault:
            site = getattr(event, "site", "")
            raise RemoteError(
                f"what site {site} has signed does not hold: {fault}",
                cause="site and coordinator run different versions, or the site's key was changed during the run",
                next_step="install the same version of fedcervix on both sides, and compare the ledgers: "
                "coordinator verify, site-agent verify",
            )

    def imbalance(self) -> str:
        """Say which site the others do not hide, whatever round it is; empty: none, or not all have opened yet."""
        return self._secret(self._state.run).imbalance

    def _secret(self, run: Run) -> SecretRun:
        return SecretRun(run, self._ledger.known, lambda: self._layout_of(run))


class PaperStream:
    """What a site was shown on one stream: nothing twice."""

    def __init__(self, state: Callable[[], Run], site: str) -> None:
        self._state, self._site = state, site
        self._shown: dict[type[Paper], Paper] = {}
        """by kind, the last one"""

    def due(self, instruction: Instruction) -> list[Paper]:
        """Return what is to be sent before an instruction."""
        run = self._state()
        if not run.plan.hides_from_coordinator or not isinstance(instruction, Task | Finish):
            return []
        found = [*secrets_for(run, self._site, self._shown)]
        found += sums_for(run, instruction) if run.plan.terms.secure_sum else ()
        due = [paper for paper in found if self._shown.get(type(paper)) != paper]
        self._shown.update({type(paper): paper for paper in due})
        return due
