"""The federation as a function: `step(run, event) -> (run, answer)`. No network, clock, disk or tensor.

Rules
1. `step` is total: any event in any phase gives a new state and an answer, never an exception.
2. It is deterministic, and the state is a frozen value: replaying a journal gives the same state.
3. Nothing is *sent* from here. What a site should be doing, what the coordinator itself should be doing and when time
   matters next are functions of the state: `instruction`, `coordinator_work`, `deadline`. Whoever asks twice is told
   the same, so a lost message, a broken stream or a restarted process needs no special case: it asks again.

How to think about it. An event is first *recorded* (was it new? did it fit?), then the machine *advances* through as
many phases as their conditions allow:

    GATHERING -> SEEDING -> TRAINING -> AGGREGATING -> SCORING -> TRAINING ... -> PUBLISHING -> FINISHED
        (any of them) -> ABORTED

In csfssl every site trains at once and the round's updates are averaged (paper, II-B: "the updated models from all
clients are aggregated at the server and used as the initialized model for the next iteration"). In ppfssl the same
phase is a row of hops: one site at a time holds the model ("the updated model is sent to next client and so on"); the
hop is a lease, so a site that falls silent is passed over, and comes in again in the next cycle.

A site whose certificate was revoked is gone for good: the run goes on with the others.

A site that does not contribute to a round is written down with the reason. A run with such a line ends DEGRADED.

A model that gives no finite loss ends its round by rule, and no site's agent. The sites' answers decide: it counts as
unusable when at least half of those that answered say so. With two sites one is then enough, which the other cannot
prevent; a site that lies can cost others their place in rounds, and the ledger names it as the one who said so.
    scored, unusable       the average is made again without the update with the largest step, is scored again, and so
                           on; the update whose absence helps does not count. In a ring the newest hop is left out,
                           then the one before it: later hops are built on earlier ones
    trained, unusable      in a ring the newest hop is left out, and its holder is asked again. Else the model that the
                           round began with is given up, for the one before it
    neither helps          nobody counts in the round (it is *barren*), and the run goes on from the last good model
An update of a site whose certificate is revoked is taken out of the round in progress in the same way.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from fedcervix.core.events import (
    AggregateStored,
    Answer,
    AverageUnusable,
    Event,
    ModelAdopted,
    ModelUnusable,
    RunAborted,
    ScoreReported,
    SiteAttached,
    SiteFailed,
    SiteRefused,
    SiteRevoked,
    SiteSilent,
    Task,
    TaskKind,
    Tick,
    UpdateStored,
)
from fedcervix.core.measures import Measures, trimmed_per_side
from fedcervix.core.plan import Compression, Plan
from fedcervix.core.quorum import Quorum, quorum


class Phase(StrEnum):
    """Where a run stands."""

    GATHERING = "gathering"
    SEEDING = "seeding"
    TRAINING = "training"
    AGGREGATING = "aggregating"
    SCORING = "scoring"
    PUBLISHING = "publishing"
    FINISHED = "finished"
    ABORTED = "aborted"


class Presence(StrEnum):
    """What is known of a site. Only a PRESENT site is waited for without a deadline."""

    ABSENT = "absent"
    PRESENT = "present"
    SILENT = "silent"
    REFUSED = "refused"
    FAILED = "failed"
    REVOKED = "revoked"


class Outcome(StrEnum):
    """How a run ended. DEGRADED: a declared site is missing from at least one round."""

    OK = "OK"
    DEGRADED = "DEGRADED"
    ABORTED = "ABORTED"


@dataclass(frozen=True, slots=True)
class Site:
    """One line of the roster."""

    name: str
    presence: Presence = Presence.ABSENT
    since: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """A declared site that did not contribute to a round, and why."""

    site: str
    reason: str
    answered: bool = False
    """it did what it was asked: that it does not count is not for want of an answer"""
    alarm: bool = False
    """with its update the model could not be used"""


@dataclass(frozen=True, slots=True)
class Round:
    """The ledger of one round: who counted, with what, and who did not, and why not."""

    number: int
    base: str
    begun_at: float
    contributions: tuple[UpdateStored, ...] = ()
    missing: tuple[Missing, ...] = ()
    candidate: str = ""
    """the round's model, scored on every site's validation images"""
    packed: str = ""
    """digest of the candidate's packed form, where the coordinator made one"""
    residual: str = ""
    """digest of what the coordinator rounded away from the candidate"""
    scores: tuple[ScoreReported, ...] = ()
    ended_at: float = 0.0
    dropped: tuple[UpdateStored, ...] = ()
    """updates that were accepted and do not count"""
    unusable: tuple[ModelUnusable, ...] = ()
    """what the sites say that cannot use the base (while training), or the candidate"""
    attempt: int = 0
    """how often it was decided anew which updates count"""
    suspect: str = ""
    """the site without whose update the candidate was made, to see whether that one can be used"""
    tried: tuple[str, ...] = ()
    """the sites without whose update the candidate could not be used either"""
    notes: tuple[str, ...] = ()
    """what else is to be known of the round, in words"""
    measures: tuple[tuple[str, Measures], ...] = ()
    """by site: of the updates that were averaged, also of those that do not count any more"""

    def has(self, site: str) -> bool:
        """Say whether the site has contributed."""
        return any(update.site == site for update in self.contributions)

    def missed(self, site: str) -> bool:
        """Say whether the round has been closed to the site."""
        return any(missing.site == site for missing in self.missing)

    def scored(self, site: str) -> bool:
        """Say whether the site has scored the round's model."""
        return any(score.site == site for score in self.scores)

    def judged(self, site: str) -> bool:
        """Say whether the site has scored the round's model, or has said that it cannot be used."""
        return self.scored(site) or any(said.site == site for said in self.unusable)

    @property
    def measured(self) -> dict[str, Measures]:
        """What was measured of the updates, or of the hops, by site."""
        hops = (*self.dropped, *self.contributions)
        return {hop.site: hop.measures for hop in hops if hop.measures} | dict(self.measures)

    @property
    def barren(self) -> bool:
        """Say whether the round has ended, and nobody counts in it."""
        return bool(self.candidate) and not self.contributions

    @property
    def models(self) -> frozenset[str]:
        """The models that the round began with, was given, and came to."""
        return frozenset([self.base, self.candidate, *(update.digest for update in self.contributions)]) - {""}

    @property
    def closed_to(self) -> frozenset[str]:
        """The sites that have contributed, and those to which the round has been closed."""
        return frozenset([update.site for update in self.contributions] + [missing.site for missing in self.missing])


@dataclass(frozen=True, slots=True)
class Mended:
    """A failure after which the site attached again."""

    site: str
    incident: str
    at: float


@dataclass(frozen=True, slots=True)
class Run:
    """The whole truth about a run."""

    run: str
    plan: Plan
    sites: tuple[Site, ...]
    phase: Phase
    since: float
    """when the phase began"""
    model: str
    """digest of the weights that training goes on from; empty until the model is seeded"""
    layout: str
    """digest of the first model: every update must have its names, shapes and types"""
    packed: str = ""
    """digest of the first model's packed form, where it was made by a site and has one"""
    seeded_by: str = ""
    """the site that made the first model; empty where it was given"""
    rounds: tuple[Round, ...] = ()
    best_round: int = 0
    adopted: tuple[str, ...] = ()
    failures: tuple[SiteFailed, ...] = ()
    mended: tuple[Mended, ...] = ()
    """of `failures`, those after which the site came back"""
    earlier: tuple[frozenset[str], ...] = dataclasses.field(default=(), repr=False, compare=False)
    """the models of all rounds before this one, in a few large sets: see `_with`"""
    outcome: Outcome | None = None
    reason: str = ""

    @property
    def current(self) -> Round:
        """The round in progress (or the last one)."""
        return self.rounds[-1]

    @property
    def ended(self) -> bool:
        """Say whether nothing more will happen."""
        return self.phase in (Phase.FINISHED, Phase.ABORTED)

    def site(self, name: str) -> Site:
        """Return the roster's line of a declared site."""
        return next(site for site in self.sites if site.name == name)

    @property
    def best(self) -> Round:
        """The round whose model is the result so far."""
        return self.rounds[self.best_round - 1]


FAILURES_KEPT_MAX = 100
TRIES_MAX = 5
"""updates that are left out, one after the other, of a model that cannot be used"""
BARREN_MAX = 3
"""rounds in a row in which nobody counts, before the run is aborted"""


def begin(run: str, plan: Plan, *, base: str, at: float) -> Run:
    """Return a run before its first event. `base`: digest of a given first model, or empty to let a site make it."""
    sites = tuple(Site(name, since=at) for name in plan.sites)
    return Run(run=run, plan=plan, sites=sites, phase=Phase.GATHERING, since=at, model=base, layout=base)


def replay(run: Run, events: Iterable[Event]) -> Run:
    """Return the state after the journal's events."""
    for event in events:
        run, _ = step(run, event)
    return run


def step(run: Run, event: Event) -> tuple[Run, Answer]:
    """Return the state after an event and what to answer to whoever caused it."""
    if run.ended:
        return run, Answer.STALE
    recorded, answer = _RECORD[type(event)](run, event)
    return _advance(recorded, event.at), answer


# --- recording an event -------------------------------------------------------------------------------------------


def _presence(presence: Presence, reason: Callable[[Any], str]) -> Callable[[Run, Any], tuple[Run, Answer]]:
    """Return the recorder of an event that changes what is known of a site."""

    def record(run: Run, event: Any) -> tuple[Run, Answer]:
        if event.site not in run.plan.sites:
            return run, Answer.REFUSED
        before = run.site(event.site)
        if before.presence is presence and before.reason == reason(event):
            return run, Answer.DUPLICATE
        if before.presence is Presence.REVOKED:
            return run, Answer.REFUSED
        if presence is Presence.SILENT and before.presence is not Presence.PRESENT:
            return run, Answer.STALE
        after = Site(event.site, presence, event.at, reason(event))
        return replace(run, sites=tuple(after if s.name == event.site else s for s in run.sites)), Answer.ACCEPTED

    return record


def _attached(run: Run, event: SiteAttached) -> tuple[Run, Answer]:
    """A site that comes back has mended what it failed of."""
    run, answer = _presence(Presence.PRESENT, lambda _: "")(run, event)
    if answer is not Answer.ACCEPTED or not run.failures:
        return run, answer
    known = {(mended.site, mended.incident) for mended in run.mended}
    fresh = tuple(
        Mended(failure.site, failure.incident, event.at)
        for failure in run.failures
        if failure.site == event.site and not failure.goes_on and (failure.site, failure.incident) not in known
    )
    return replace(run, mended=(*run.mended, *fresh)), answer


def _failed(run: Run, event: SiteFailed) -> tuple[Run, Answer]:
    if any(failure.site == event.site and failure.incident == event.incident for failure in run.failures):
        return run, Answer.DUPLICATE
    if event.goes_on:  # it is as present as before
        known = event.site in run.plan.sites and run.site(event.site).presence is not Presence.REVOKED
        answer = Answer.ACCEPTED if known else Answer.REFUSED
    else:
        run, answer = _presence(Presence.FAILED, lambda e: f"{e.stage}: {e.hint} ({e.incident})")(run, event)
    if answer is Answer.ACCEPTED:
        failures = _newest_failures((*run.failures, event))
        kept = {(failure.site, failure.incident) for failure in failures}
        mended = tuple(mended for mended in run.mended if (mended.site, mended.incident) in kept)
        run = replace(run, failures=failures, mended=mended)
    return run, answer


def _newest_failures(failures: tuple[SiteFailed, ...]) -> tuple[SiteFailed, ...]:
    """Leave out one where there are too many: the oldest of the site that has most, so no site hides the others'."""
    if len(failures) <= FAILURES_KEPT_MAX:
        return failures
    counts = Counter(failure.site for failure in failures)
    most = max(counts.values())
    oldest = next(number for number, failure in enumerate(failures) if counts[failure.site] == most)
    return failures[:oldest] + failures[oldest + 1 :]


def _update(run: Run, event: UpdateStored) -> tuple[Run, Answer]:
    """At most one update per (round, site) counts; the first one accepted is the one."""
    if event.site not in run.plan.sites:
        return run, Answer.REFUSED
    if event.task.run != run.run:
        return run, Answer.STALE
    if event.task.kind == TaskKind.SEED:
        return _seeded(run, event)
    if event.task.round > len(run.rounds):
        return run, Answer.REFUSED
    if event.task.round == 0:
        return run, Answer.STALE
    round_ = run.rounds[event.task.round - 1]
    for earlier in (*round_.contributions, *round_.dropped):
        if earlier.site == event.site:
            return run, Answer.DUPLICATE if earlier.digest == event.digest else Answer.STALE
    if instruction(run, event.site) != event.task:
        return run, Answer.STALE
    if objection(run, event):
        return run, Answer.REFUSED
    contributions = _in_roster_order(run.plan, (*round_.contributions, event))
    model = event.digest if run.plan.mode == "ppfssl" else run.model
    return _with_round(replace(run, model=model), contributions=contributions), Answer.ACCEPTED


COPIED = "{}. No training leaves every number as it was: look whether a step was made, and at the learning rate"
NEGATIVE_LOSS = "a loss of {:.3g} an image, but nt-xent is never negative"
NEGATIVE_LOSS_MAX = 0.1
"""of nt-xent: what rounding may make of a loss that is 0"""


def objection(run: Run, event: Event) -> str:
    """Say in words why a report that was asked for does not count; empty where it does.

    An update that is a model of this run already was not trained. That is seen by the digest: whoever changes one
    number is not found out.
    """
    if not isinstance(event, UpdateStored | ScoreReported) or event.rules < 1:
        return ""
    if event.site not in run.plan.sites or instruction(run, event.site) != event.task:
        return ""
    copied = _copied(run, event) if event.task.kind == TaskKind.TRAIN and isinstance(event, UpdateStored) else ""
    return COPIED.format(copied) if copied else _loss_objection(run, event.loss)


def _copied(run: Run, update: UpdateStored) -> str:
    """Say which model of this run an update is; empty where it is a new one."""
    if update.digest == update.task.base:
        return "this is the model that the site was given"
    if any(update.digest == other.digest for other in run.current.contributions):
        return "this is the model that another site has sent in this round"
    if update.digest == run.layout or any(update.digest in some for some in (*run.earlier, run.current.models)):
        return "this is an earlier model of this run"
    return ""


def _loss_objection(run: Run, loss: float) -> str:
    """Nt-xent is minus the logarithm of a share; dcl may be negative (see fedcervix.core.plan)."""
    negative = run.plan.recipe.loss == "nt-xent" and loss < -NEGATIVE_LOSS_MAX
    return NEGATIVE_LOSS.format(loss) if negative else ""


def _seeded(run: Run, event: UpdateStored) -> tuple[Run, Answer]:
    if run.layout:
        return run, Answer.DUPLICATE if event.digest == run.layout else Answer.STALE
    if instruction(run, event.site) != event.task:
        return run, Answer.STALE
    first = replace(run, model=event.digest, layout=event.digest, packed=event.packed, seeded_by=event.site)
    return first, Answer.ACCEPTED


def _aggregated(run: Run, event: AggregateStored) -> tuple[Run, Answer]:
    if not _is_wanted(run, event):
        return run, Answer.STALE
    model = event.digest if run.plan.mode == "csfssl" else run.model
    rounded = {"candidate": event.digest, "packed": event.packed, "residual": event.residual}
    measures = tuple({**dict(run.current.measures), **dict(event.measures)}.items())
    return _with_round(replace(run, model=model), **rounded, measures=measures), Answer.ACCEPTED


def _average_unusable(run: Run, event: AverageUnusable) -> tuple[Run, Answer]:
    if not _is_wanted(run, event):
        return run, Answer.STALE
    return _leave_out(run, event.at, "the average is not finite"), Answer.ACCEPTED


def _is_wanted(run: Run, average: AggregateStored | AverageUnusable) -> bool:
    """Say whether an average is of the updates that count now: meanwhile one of them may have been taken out."""
    if run.phase is not Phase.AGGREGATING:
        return False
    return (average.round, average.attempt) == (run.current.number, run.current.attempt)


def _not_for_now(run: Run, event: ScoreReported | ModelUnusable) -> Answer | None:
    """Return the answer to a word on a round's model that does not count; None where it does."""
    if event.site not in run.plan.sites:
        return Answer.REFUSED
    if event.task.run != run.run:
        return Answer.STALE
    if not 1 <= event.task.round <= len(run.rounds):
        return Answer.REFUSED
    round_ = run.rounds[event.task.round - 1]
    known = round_.scores if isinstance(event, ScoreReported) else round_.unusable
    if any((said.site, said.task) == (event.site, event.task) for said in known):
        return Answer.DUPLICATE
    return Answer.STALE if instruction(run, event.site) != event.task else None


def _scored(run: Run, event: ScoreReported) -> tuple[Run, Answer]:
    if (answer := _not_for_now(run, event)) is not None:
        return run, answer
    if objection(run, event):
        return run, Answer.REFUSED
    scores = _in_roster_order(run.plan, (*run.current.scores, event))
    return _with_round(run, scores=scores), Answer.ACCEPTED


def _unusable(run: Run, event: ModelUnusable) -> tuple[Run, Answer]:
    """A site cannot use the model that it was given. It has answered; what follows, the sites' answers decide."""
    if (answer := _not_for_now(run, event)) is not None:
        return run, answer
    run = _with_round(run, unusable=_in_roster_order(run.plan, (*run.current.unusable, event)))
    return (run if event.task.kind == TaskKind.SCORE else _not_trained(run, event)), Answer.ACCEPTED


def _not_trained(run: Run, event: ModelUnusable) -> Run:
    """In a ring the holder's word costs the newest hop, and it is asked again; else it does not count itself."""
    if _in_ring(run) and run.current.contributions:
        return _newest_left_out(run, f"so {event.site}")
    why = f"it has no finite loss from the model that it was to train from (after {event.steps} steps)"
    return _with_round(run, missing=(*run.current.missing, Missing(event.site, why, answered=True)))


def _revoked(run: Run, event: SiteRevoked) -> tuple[Run, Answer]:
    """What the site did for the round in progress does not count any more."""
    run, answer = _presence(Presence.REVOKED, lambda _: REVOKED)(run, event)
    in_round = run.phase in (Phase.TRAINING, Phase.AGGREGATING, Phase.SCORING)
    if answer is Answer.ACCEPTED and in_round and event.rules > 0:
        run = _withdrawn(run, event.site, event.at)
    return run, answer


def _adopted(run: Run, event: ModelAdopted) -> tuple[Run, Answer]:
    if event.site not in run.plan.sites:
        return run, Answer.REFUSED
    if event.task.run != run.run:
        return run, Answer.STALE
    if event.site in run.adopted:
        return run, Answer.DUPLICATE
    if instruction(run, event.site) != event.task:
        return run, Answer.STALE
    return replace(run, adopted=(*run.adopted, event.site)), Answer.ACCEPTED


def _aborted(run: Run, event: RunAborted) -> tuple[Run, Answer]:
    return _abort(run, event.reason, event.at), Answer.ACCEPTED


def _ticked(run: Run, _event: Tick) -> tuple[Run, Answer]:
    return run, Answer.ACCEPTED


_RECORD: Mapping[type, Callable[[Run, Any], tuple[Run, Answer]]] = {
    SiteAttached: _attached,
    SiteSilent: _presence(Presence.SILENT, lambda event: event.reason or "no sign of life"),
    SiteRefused: _presence(Presence.REFUSED, lambda event: event.reason),
    SiteRevoked: _revoked,
    SiteFailed: _failed,
    UpdateStored: _update,
    AggregateStored: _aggregated,
    AverageUnusable: _average_unusable,
    ScoreReported: _scored,
    ModelUnusable: _unusable,
    ModelAdopted: _adopted,
    RunAborted: _aborted,
    Tick: _ticked,
}


def _with_round(run: Run, **changes: Any) -> Run:
    return replace(run, rounds=(*run.rounds[:-1], replace(run.current, **changes)))


Report = TypeVar("Report", UpdateStored, ScoreReported, ModelUnusable)


def _in_roster_order(plan: Plan, reports: tuple[Report, ...]) -> tuple[Report, ...]:
    place = {site: number for number, site in enumerate(plan.sites)}
    return tuple(sorted(reports, key=lambda report: place[report.site]))


# --- waiting ------------------------------------------------------------------------------------------------------


class OnTimeout(StrEnum):
    """What happens when a wait runs out."""

    GO_ON = "the round goes on without"
    ABORT = "the run is aborted"
    LEASE = "its lease runs out"


@dataclass(frozen=True, slots=True)
class Wait:
    """Who is waited for, for what, since when, until when (None: as long as it shows signs of life), and then what."""

    site: str
    reason: str
    since: float
    until: float | None
    then: OnTimeout


def waits(run: Run) -> tuple[Wait, ...]:
    """Return everything the run waits for at the sites; nothing is ever waited for that is not in this list."""
    if run.ended or run.phase is Phase.AGGREGATING:
        return ()
    open_ = _open(run)
    return tuple(_wait(run, site, open_) for site in open_)


def deadline(run: Run) -> float | None:
    """Return when a Tick is due, or None where only an event of another kind can change anything."""
    if any(wait.until is None for wait in waits(run)):
        return None
    return max((wait.until for wait in waits(run) if wait.until is not None), default=None)


def _open(run: Run) -> tuple[Site, ...]:
    """The sites that the phase is waiting for, in roster order."""
    if run.phase is Phase.GATHERING:
        return tuple(site for site in run.sites if site.presence is not Presence.PRESENT)
    if run.phase is Phase.SEEDING:
        present = tuple(site for site in run.sites if site.presence is Presence.PRESENT)
        return present[:1] or run.sites
    if run.phase is Phase.TRAINING:
        return _untrained(run)[:1] if run.plan.mode == "ppfssl" else _untrained(run)
    if run.phase is Phase.SCORING:
        judges = {score.site for score in run.current.scores} | {said.site for said in run.current.unusable}
        return tuple([site for site in run.sites if site.name not in judges])
    return tuple(site for site in run.sites if site.name not in run.adopted)


def _needed(run: Run, gone: int = 0) -> int:
    """How many sites the phase cannot do without; `gone`: so many were revoked before they answered."""
    if run.phase is Phase.PUBLISHING:
        return 0
    if run.plan.terms.quorum is not None:
        return run.plan.terms.quorum
    if run.plan.mode == "ppfssl" and run.phase is not Phase.GATHERING:
        return 1
    return max(1, len(run.sites) - gone)


def _vote(run: Run, open_: tuple[Site, ...]) -> Quorum:
    """Has the phase its quorum? In the ring, the sites behind the holder may still answer."""
    if run.phase is Phase.TRAINING:
        answered, open_ = _trainers(run.current), _untrained(run)
    elif run.phase is Phase.SEEDING:
        answered = frozenset()
    else:
        answered = frozenset(run.plan.sites) - _names_of(open_)
    gone_for_good = Presence.REVOKED
    revoked = frozenset([site.name for site in run.sites if site.presence is gone_for_good])
    may_come = len(_names_of(open_) - revoked)
    needed = 1 if run.phase is Phase.SEEDING else _needed(run, len(revoked - answered))
    return quorum(needed=needed, answered=len(answered), open_=may_come)


def _trainers(round_: Round) -> frozenset[str]:
    """The sites that did what they were asked, whether their updates count or not."""
    answered = [missing.site for missing in round_.missing if missing.answered]
    return frozenset([*answered, *(update.site for update in round_.contributions)])


def _names_of(sites: tuple[Site, ...]) -> frozenset[str]:
    return frozenset([site.name for site in sites])


def _untrained(run: Run) -> tuple[Site, ...]:
    """The sites to which the round is still open, in roster order; in the ring the first one holds the model."""
    closed = run.current.closed_to
    return tuple([site for site in run.sites if site.name not in closed])


def _wait(run: Run, site: Site, open_: tuple[Site, ...]) -> Wait:
    terms = run.plan.terms
    since = max(_asked_at(run), site.since)
    if site.presence is Presence.PRESENT:
        return Wait(site.name, f"working: {instruction(run, site.name)}", since, None, OnTimeout.LEASE)
    reason = site.presence.value + (f": {site.reason}" if site.reason else "")
    if site.presence is Presence.REVOKED:  # it will not come back: the operator has decided, the run goes on without
        return Wait(site.name, reason, site.since, site.since, OnTimeout.GO_ON)
    if _dispensable(run, _vote(run, open_)):
        grace_s = 0.0 if _in_ring(run) else terms.grace_s  # a ring does not stand still for a lost lease
        return Wait(site.name, reason, site.since, site.since + grace_s, OnTimeout.GO_ON)
    return Wait(site.name, reason, since, since + terms.give_up_s, OnTimeout.ABORT)


def _dispensable(run: Run, vote: Quorum) -> bool:
    """Say whether the phase can end without a site that is away."""
    if _in_ring(run):
        behind = sum(site.presence is Presence.PRESENT for site in _untrained(run)[1:])
        return len(run.current.contributions) + behind >= _needed(run)
    return vote is Quorum.MET


def _in_ring(run: Run) -> bool:
    return run.phase is Phase.TRAINING and run.plan.mode == "ppfssl"


def _asked_at(run: Run) -> float:
    """When what is now waited for was asked: the phase's start, or the last hop's end."""
    if _in_ring(run):
        return max((update.at for update in run.current.contributions), default=run.since)
    return run.since


# --- advancing ----------------------------------------------------------------------------------------------------


def _advance(run: Run, at: float) -> Run:
    """Go through as many phases (and hops) as the state allows. Ends: every move closes a site, a hop or a phase."""
    while not run.ended:
        moved = _ADVANCE[run.phase](run, at)
        if moved is run:
            return run
        run = moved
    return run


def _closing(run: Run, at: float, go_on: Callable[[Run, float, tuple[Site, ...]], Run]) -> Run:
    """Let the phase end when nothing is waited for, or all waits have run out."""
    open_ = _open(run)
    if _vote(run, open_) is Quorum.IMPOSSIBLE:
        return _abort(run, f"too few sites are left for a quorum while {run.phase}: {_away(run)}", at)
    if any(site.presence is Presence.PRESENT for site in open_):  # it works: `_wait` has no end for it
        return run
    pending = waits(run)
    if any(wait.until is None or wait.until > at for wait in pending):
        return run
    if any(wait.then is OnTimeout.ABORT for wait in pending):
        return _abort(run, f"no quorum while {run.phase}: waited for {_away(run)}", at)
    return go_on(run, at, open_)


def _away(run: Run) -> str:
    return "; ".join(f"{s.name} ({s.presence}{': ' if s.reason else ''}{s.reason})" for s in _open(run))


def _enter(run: Run, phase: Phase, at: float) -> Run:
    return replace(run, phase=phase, since=at)


def _abort(run: Run, reason: str, at: float) -> Run:
    return replace(_enter(run, Phase.ABORTED, at), outcome=Outcome.ABORTED, reason=reason)


def _gathered(run: Run, at: float, _missing: tuple[Site, ...]) -> Run:
    return _next_round(run, at) if run.layout else _enter(run, Phase.SEEDING, at)


def _seeding(run: Run, at: float) -> Run:
    if run.layout:
        return _next_round(run, at)
    return _closing(run, at, lambda run, _at, _open: run)


def _next_round(run: Run, at: float) -> Run:
    round_ = Round(number=len(run.rounds) + 1, base=run.model, begun_at=at)
    earlier = _with(run.earlier, run.current.models) if run.rounds else ()
    return _enter(replace(run, rounds=(*run.rounds, round_), earlier=earlier), Phase.TRAINING, at)


def _with(sets: tuple[frozenset[str], ...], more: frozenset[str]) -> tuple[frozenset[str], ...]:
    """Add models to sets of models. Each set is larger than the next: of a thousand rounds there are ten."""
    while sets and len(sets[-1]) <= len(more):
        sets, more = sets[:-1], sets[-1] | more
    return (*sets, more)


def _trained(run: Run, at: float, missing: tuple[Site, ...]) -> Run:
    """Close the round to the sites that are away (in the ring: the holder's hop), and go on."""
    if missing:
        away = tuple(
            Missing(site.name, site.presence + (f": {site.reason}" if site.reason else "")) for site in missing
        )
        return _with_round(run, missing=(*run.current.missing, *away))
    if _base_is_unusable(run):
        return _fall_back(run, at)
    if len(run.current.contributions) < _updates_needed(run):
        return _barren(_acquitted(run), at, f"too few updates are left to count{_left_out(run)}")
    return _made(run, at)


def _made(run: Run, at: float) -> Run:
    """Let the model that follows from the round's updates be made and scored."""
    run = _with_round(run, unusable=())
    if run.plan.mode == "ppfssl" and run.plan.terms.ring_result == "last":
        return _enter(_with_round(run, candidate=run.model), Phase.SCORING, at)
    return _enter(run, Phase.AGGREGATING, at)


def _aggregating(run: Run, at: float) -> Run:
    return _enter(run, Phase.SCORING, at) if run.current.candidate else run


def _round_ended(run: Run, at: float, _missing: tuple[Site, ...]) -> Run:
    if _are_half(run.current.unusable, len(run.current.scores)):
        return _leave_out(run, at, _so(run.current.unusable))
    run = _with_round(run, ended_at=at)
    if improves(run):
        run = replace(run, best_round=run.current.number)
    return _go_on(run, at)


def _go_on(run: Run, at: float) -> Run:
    """Begin the next round, or end the run."""
    if run.current.number >= run.plan.rounds_max:
        return _publish(run, at, f"all {run.plan.rounds_max} rounds done")
    idle = run.current.number - run.best_round
    if run.best_round and idle >= run.plan.terms.patience_rounds:
        return _publish(run, at, f"no lower validation loss in {idle} rounds")
    return _next_round(run, at)


def _publish(run: Run, at: float, reason: str) -> Run:
    if not run.best_round:
        return _abort(run, f"{reason}, and none gave a model that can be used", at)
    outcome = Outcome.DEGRADED if any(round_.missing for round_ in run.rounds) else Outcome.OK
    return replace(_enter(run, Phase.PUBLISHING, at), outcome=outcome, reason=reason)


def _published(run: Run, at: float, _missing: tuple[Site, ...]) -> Run:
    return _enter(run, Phase.FINISHED, at)


def _close_with(go_on: Callable[[Run, float, tuple[Site, ...]], Run]) -> Callable[[Run, float], Run]:
    return lambda run, at: _closing(run, at, go_on)


_ADVANCE: Mapping[Phase, Callable[[Run, float], Run]] = {
    Phase.GATHERING: _close_with(_gathered),
    Phase.SEEDING: _seeding,
    Phase.TRAINING: _close_with(_trained),
    Phase.AGGREGATING: _aggregating,
    Phase.SCORING: _close_with(_round_ended),
    Phase.PUBLISHING: _close_with(_published),
}


# --- a model that cannot be used ----------------------------------------------------------------------------------

REVOKED = "revoked by the operator"
NOBODY = "nobody counts in this round"
NAMES_SHOWN = 3


def _are_half(unusable: tuple[ModelUnusable, ...], others: int) -> bool:
    """Say whether at least half of those that answered say so."""
    return bool(unusable) and len(unusable) >= others


def _so(unusable: tuple[ModelUnusable, ...]) -> str:
    """Return who says so."""
    return f"so {_few(list(dict.fromkeys(said.site for said in unusable)))}"


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}"


def _updates_needed(run: Run) -> int:
    return run.plan.terms.quorum or 1


def _base_is_unusable(run: Run) -> bool:
    """Say whether the model that the round began with is to be given up. In a ring one update shows that it is not."""
    round_ = run.current
    if run.plan.mode == "ppfssl":
        made = (*round_.contributions, *round_.dropped)
        return bool(round_.unusable) and all(update.task.base != round_.base for update in made)
    return _are_half(round_.unusable, len(round_.contributions))


def _fall_back(run: Run, at: float) -> Run:
    """Go back to the model before the one that the round began with."""
    model = fallback(run)
    first = "" if len({round_.base for round_ in run.rounds}) > 1 else _first_model(run)
    note = f"the model that the round began with{first} gives no finite loss in training ({_so(run.current.unusable)})"
    if not model:
        return _abort(run, f"{note}, and there is no other one to go back to", at)
    return _barren(run, at, note, model)


def _first_model(run: Run) -> str:
    return f" (the first one, {f'made by {run.seeded_by}' if run.seeded_by else 'given by the operator'})"


def fallback(run: Run) -> str:
    """Return the model that the run goes back to if nobody can train from the present round's; empty: there is none.

    It is the base of the last round that began with another one, if an update of that round counted.
    """
    for round_ in reversed(run.rounds[:-1]):
        if round_.base != run.current.base:
            return round_.base if round_.contributions else ""
    return ""


def _barren(run: Run, at: float, note: str, model: str = "") -> Run:
    """End a round in which nobody counts; the run goes on from `model`, or else from where the round began.

    Where the round before had begun there as well, and was barren, the run goes on from the model before that one.
    """
    round_ = run.current
    stuck = len(run.rounds) > 1 and run.rounds[-2].barren and run.rounds[-2].base == round_.base
    model = model or (fallback(run) if stuck else "") or round_.base
    run = _disqualified(run, good=model)
    others = tuple(Missing(update.site, NOBODY, answered=True) for update in round_.contributions)
    dropped = _in_roster_order(run.plan, (*round_.dropped, *round_.contributions))
    run = replace(_counting(run, (), dropped, (*round_.missing, *others)), model=model)
    residual = run.rounds[-2].residual if len(run.rounds) > 1 else ""
    run = _with_round(run, candidate=model, residual=residual, notes=(*round_.notes, note), ended_at=at)
    if len(run.rounds) >= BARREN_MAX and all(earlier.barren for earlier in run.rounds[-BARREN_MAX:]):
        return _abort(run, f"nobody has counted in {BARREN_MAX} rounds in a row. In the last one: {note}", at)
    return _go_on(run, at)


def _disqualified(run: Run, *, good: str) -> Run:
    """Let the model that is given up be no more the best one."""
    if good == run.current.base or not run.best_round or run.best.candidate != run.current.base:
        return run
    scored = [round_.number for round_ in run.rounds[:-1] if round_.scores and round_.candidate == good]
    return replace(run, best_round=max(scored, default=0))


def _counting(
    run: Run, counted: tuple[UpdateStored, ...], dropped: tuple[UpdateStored, ...], missing: tuple[Missing, ...]
) -> Run:
    """Let the round count these updates and no others: its model follows from them, and is not made or scored yet."""
    hops = run.plan.mode == "ppfssl" and counted
    run = replace(run, model=counted[-1].digest if hops else run.current.base)
    attempt = run.current.attempt + 1
    run = _with_round(run, contributions=counted, dropped=dropped, missing=missing, attempt=attempt)
    return _with_round(run, candidate="", packed="", residual="", scores=())


def _without(run: Run, update: UpdateStored, missing: Missing) -> Run:
    """Take one update out of those that count."""
    counted = tuple(other for other in run.current.contributions if other != update)
    dropped = _in_roster_order(run.plan, (*run.current.dropped, update))
    return _counting(run, counted, dropped, (*run.current.missing, missing))


def _with_again(run: Run) -> Run:
    """Let the update that was left out for a trial count again."""
    round_ = run.current
    if not round_.suspect:
        return run
    back = [update for update in round_.dropped if update.site == round_.suspect]
    counted = _in_roster_order(run.plan, (*round_.contributions, *back))
    dropped = tuple(update for update in round_.dropped if update not in back)
    missing = tuple(missing for missing in round_.missing if missing.site != round_.suspect)
    return _with_round(_counting(run, counted, dropped, missing), suspect="")


def _spoils(site: str, why: str) -> Missing:
    return Missing(site, f"with its update the model could not be used ({why})", answered=True, alarm=True)


def _leave_out(run: Run, at: float, why: str) -> Run:
    """The round's model cannot be used: try it without one of its updates."""
    return _leave_out_hop(run, at, why) if run.plan.mode == "ppfssl" else _leave_out_suspect(run, at, why)


def _leave_out_suspect(run: Run, at: float, why: str) -> Run:
    tried = run.current.tried + ((run.current.suspect,) if run.current.suspect else ())
    run = _with_round(_with_again(run), tried=tried)
    counted = run.current.contributions
    left = [update for update in counted if update.site not in tried]
    if not left or len(counted) < 2 or len(tried) >= TRIES_MAX:
        whichever = ", whichever update was left out" if tried else ""
        return _barren(run, at, f"the model could not be used ({why}){whichever}")
    suspect = max(left, key=lambda update: update.step)  # of equals the first in the roster
    run = _without(run, suspect, _spoils(suspect.site, why))
    return _made(_with_round(run, suspect=suspect.site), at)


def _leave_out_hop(run: Run, at: float, why: str) -> Run:
    if len(run.current.tried) >= TRIES_MAX:
        return _barren(_acquitted(run), at, f"the model could not be used ({why})")
    newest = run.current.contributions[-1]
    run = _with_round(_newest_left_out(run, why), tried=(*run.current.tried, newest.site))
    if not run.current.contributions:
        return _barren(run, at, f"the model of no hop could be used ({why})")
    return _made(run, at)


def _acquitted(run: Run) -> Run:
    """Blame nobody of those whose hops were left out: the hop that spoils the model was not found."""
    missing = (Missing(m.site, NOBODY, answered=True) if m.alarm else m for m in run.current.missing)
    return _with_round(run, missing=tuple(missing))


def _left_out(run: Run) -> str:
    """Return whose hops were left out of a round that is not scored, so that nobody knows which of them spoils it."""
    names = [missing.site for missing in run.current.missing if missing.alarm]
    return f": it was tried without those of {_few(names)}" if names else ""


def _newest_left_out(run: Run, why: str) -> Run:
    """Take the newest hop out of a ring; whoever trained after it was handed a model that could not be used."""
    newest = run.current.contributions[-1]
    place = run.plan.sites.index
    handed = f"it had trained from the model of {newest.site}, which could not be used"
    missing = (
        Missing(m.site, handed, answered=True) if m.alarm and place(m.site) > place(newest.site) else m
        for m in run.current.missing
    )
    run = _with_round(run, missing=tuple(missing))
    if any((said.site, said.task.base) == (newest.site, newest.digest) for said in run.current.unusable):
        own = "it could not use the model that it had trained itself"
        return _without(run, newest, Missing(newest.site, own, answered=True))
    return _without(run, newest, _spoils(newest.site, why))


def _withdrawn(run: Run, site: str, at: float) -> Run:
    """Take a site out of the round in progress: it was revoked."""
    run = _unsaid(run, site)
    theirs = next((update for update in run.current.contributions if update.site == site), None)
    if theirs is None:
        return run
    if run.plan.mode == "ppfssl" and theirs != run.current.contributions[-1]:
        note = f"the hop of {site}, which was revoked since, stays: others had trained from it"
        return _with_round(run, notes=(*run.current.notes, note))
    run = _without(_with_again(run), theirs, Missing(site, REVOKED))
    if run.phase is Phase.TRAINING:
        return _holder_passed(run, site)
    if not run.current.contributions or len(_trainers(run.current)) < _updates_needed(run):
        return _barren(_acquitted(run), at, f"too few updates are left without {site}, which was revoked")
    return _made(run, at)


def _unsaid(run: Run, site: str) -> Run:
    """Forget what a revoked site has said of the round's model. The one that was left out for a trial stays out."""
    round_ = run.current
    on_trial = round_.suspect == site
    missing = (
        Missing(site, REVOKED) if m.site == site and m.answered and (on_trial or not m.alarm) else m
        for m in round_.missing
    )
    return _with_round(
        run,
        scores=tuple(score for score in round_.scores if score.site != site),
        unusable=tuple(said for said in round_.unusable if said.site != site),
        missing=tuple(missing),
        suspect="" if on_trial else round_.suspect,
    )


def _holder_passed(run: Run, revoked: str) -> Run:
    """In a ring, pass over the holder of a revoked site's model.

    It may have trained already, and a site trains from one model in a round: it is not asked again before the next.
    """
    holder = [site.name for site in _untrained(run)][:1] if run.plan.mode == "ppfssl" else []
    why = f"it held the model of {revoked}, which was revoked"
    passed = (Missing(name, why, answered=True) for name in holder)
    return _with_round(run, missing=(*run.current.missing, *passed))


# --- the score ----------------------------------------------------------------------------------------------------


MEASURE_MAX = 1e280
"""of a loss in a mean: old journals hold some that were not bounded on receipt, and a sum of these is no number"""


def mean_loss(run: Run, round_: Round, sites: Iterable[str]) -> float:
    """Return the mean validation loss of a round's model over `sites`, with the same weights as the average."""
    wanted = set(sites)
    scores = [score for score in round_.scores if score.site in wanted]
    weights = [1.0 for _ in scores]
    if run.plan.terms.average == "by-images":
        weights = capped([float(score.images) for score in scores], run.plan.terms.share_max)
    losses = [max(-MEASURE_MAX, min(score.loss, MEASURE_MAX)) for score in scores]
    return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)


def improves(run: Run) -> bool:
    """Say whether the current round's model is better than the best so far, on the sites that scored both."""
    if run.best_round == 0:
        return True
    both = {score.site for score in run.current.scores} & {score.site for score in run.best.scores}
    return not both or mean_loss(run, run.current, both) < mean_loss(run, run.best, both)


# --- what should be done now --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do for the site at the moment, and why."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Finish:
    """The site's part in the run is over."""

    outcome: Outcome
    reason: str
    record: str = ""
    """the run's record as JSON, put in where it is sent"""

    def __str__(self) -> str:
        return f"{self.outcome}: {self.reason}"


Instruction = Task | Idle | Finish


def instruction(run: Run, site: str) -> Instruction:
    """Return what the site should be doing now."""
    if run.site(site).presence is Presence.REVOKED:
        return Finish(Outcome.ABORTED, "this site's certificate was revoked")
    if run.outcome is not None and (run.ended or site in run.adopted):
        return Finish(run.outcome, run.reason)
    return _INSTRUCT[run.phase](run, site)


def _instruct_gathering(run: Run, _site: str) -> Instruction:
    return Idle(f"waiting for {_names(_open(run))} to attach")


def _instruct_seeding(run: Run, site: str) -> Instruction:
    asked = _open(run)[0].name
    return Task(run.run, TaskKind.SEED, 0, "") if site == asked else Idle(f"{asked} makes the first model")


def _instruct_training(run: Run, site: str) -> Instruction:
    if run.current.has(site):
        return Idle(f"round {run.current.number}: waiting for {_names(_open(run))}")
    if run.current.missed(site):
        return Idle(f"round {run.current.number} was closed without this site; it takes part again in the next round")
    if run.plan.mode == "ppfssl" and site != _open(run)[0].name:
        return Idle(f"round {run.current.number}: {_names(_open(run))} holds the model")
    return Task(run.run, TaskKind.TRAIN, run.current.number, run.model)


def _instruct_aggregating(run: Run, _site: str) -> Instruction:
    return Idle(f"round {run.current.number}: the coordinator is averaging")


def _instruct_scoring(run: Run, site: str) -> Instruction:
    if run.current.judged(site):
        return Idle(f"round {run.current.number}: waiting for the score of {_names(_open(run))}")
    return Task(run.run, TaskKind.SCORE, run.current.number, run.current.candidate)


def _instruct_publishing(run: Run, _site: str) -> Instruction:
    return Task(run.run, TaskKind.ADOPT, run.best_round, run.best.candidate)


_INSTRUCT: Mapping[Phase, Callable[[Run, str], Instruction]] = {
    Phase.GATHERING: _instruct_gathering,
    Phase.SEEDING: _instruct_seeding,
    Phase.TRAINING: _instruct_training,
    Phase.AGGREGATING: _instruct_aggregating,
    Phase.SCORING: _instruct_scoring,
    Phase.PUBLISHING: _instruct_publishing,
}


def _names(sites: Iterable[Site]) -> str:
    return ", ".join(site.name for site in sites) or "nobody"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The coordinator's own work: average these updates, in this order, with these weights."""

    round: int
    layout: str
    updates: tuple[tuple[str, float], ...]
    last_step: tuple[str, str] | None
    """what server momentum carries on: see the function of this name"""
    compression: Compression = "none"
    """how the average is rounded"""
    base: str = ""
    """the model that the round began with, which the sites hold"""
    residual: str = ""
    """what was rounded away from the average before; empty where there is nothing"""
    attempt: int = 0
    """which average of the round this is"""
    sites: tuple[str, ...] = ()
    """whose updates they are"""
    trimmed: int = 0
    """how many values of each number are left out at either end"""
    scales: tuple[float, ...] = ()
    """by which factor each update's step is shortened; empty where none is. It follows from what is measured first"""


def coordinator_work(run: Run) -> Aggregate | None:
    """Return what the coordinator itself should be doing now."""
    if run.phase is not Phase.AGGREGATING or run.current.candidate:
        return None
    updates = tuple(zip((u.digest for u in run.current.contributions), weights(run.plan, run.current), strict=True))
    residual = run.rounds[-2].residual if len(run.rounds) > 1 else ""
    work = Aggregate(run.current.number, run.layout, updates, last_step(run))
    work = replace(work, compression=average_compression(run.plan), base=run.current.base, residual=residual)
    sites = tuple(update.site for update in run.current.contributions)
    return replace(work, attempt=run.current.attempt, sites=sites, trimmed=trimmed_per_side(run.plan.terms, len(sites)))


def average_compression(plan: Plan) -> Compression:
    """Return how an average is rounded. In a ring no model is at all sites, to which int8 could be the difference."""
    ring = plan.mode == "ppfssl" and plan.terms.compression == "int8"
    return "none" if ring else plan.terms.compression


def last_step(run: Run) -> tuple[str, str] | None:
    """Return the models that this round and the one before it began with, w_{t-1} and w_{t-2} of server momentum.

    None in the first round, after a round in which nobody counts, and where the plan has no momentum. It is what was
    published that counts, not which round was the best, nor who took part: training goes on from the last model,
    whatever its score.
    """
    if run.plan.terms.server_momentum == 0 or len(run.rounds) < 2 or run.rounds[-2].barren:
        return None
    return run.current.base, run.rounds[-2].base


def weights(plan: Plan, round_: Round) -> list[float]:
    """Return the weight of each contribution in the round's average; in a ring without one, every hop counts wholly."""
    averaged = plan.mode == "csfssl" or plan.terms.ring_result == "cycle-average"
    if not averaged or plan.terms.average == "equal":
        return [1.0 for _ in round_.contributions]
    return capped([float(update.images) for update in round_.contributions], plan.terms.share_max)


CAPPED_MIN = 3
"""Of two updates, nothing tells whether one is too large a share or the other too small."""


def capped(counts: list[float], share_max: float) -> list[float]:
    """Return counts of which none is more than `share_max` of their sum; fewer than three stay as they are.

    Only what is too large is made smaller: the others keep their counts, and so their proportions. Where even equal
    counts would be too large a share (`share_max` below 1 / K), all are equal.
    """
    if len(counts) < CAPPED_MIN or max(counts) <= share_max * sum(counts):
        return counts
    largest_first = sorted(counts, reverse=True)
    for large in range(1, len(counts)):
        left = 1 - large * share_max
        if left <= 0:
            break
        most = share_max * sum(largest_first[large:]) / left
        if largest_first[large] <= most:
            return [min(count, most) for count in counts]
    return [1.0 for _ in counts]


def to_dict(run: Run) -> dict[str, Any]:
    """Return the state as plain JSON-able values (for `status --json`, tests and bug reports)."""
    found = dataclasses.asdict(replace(run, earlier=()))
    del found["earlier"]  # it says nothing that `rounds` does not
    return found
