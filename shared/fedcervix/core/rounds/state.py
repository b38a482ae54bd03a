"""The state of a run: frozen values. Everything else in this package is a function of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from fedcervix.core.events import (
    BoxesStored,
    CloseSigned,
    ModelUnusable,
    ReleaseStored,
    Rewrapped,
    ScoreReported,
    Seal,
    SiteFailed,
    SiteOpened,
    UpdateStored,
)
from fedcervix.core.measures import Measures
from fedcervix.core.plan import Plan


class Phase(StrEnum):
    """Where a run stands."""

    GATHERING = "gathering"
    SEEDING = "seeding"
    TRAINING = "training"
    RELEASING = "releasing"
    CLOSING = "closing"
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
    software: tuple[str, ...] = ()
    """versions of fedcervix that it took part with, oldest first"""

    @property
    def standing(self) -> str:
        """The presence in words, and the reason where there is one."""
        return f"{self.presence}: {self.reason}" if self.reason else self.presence.value


@dataclass(frozen=True, slots=True)
class Missing:
    """A declared site that did not contribute to a round, and why."""

    site: str
    reason: str
    answered: bool = False
    """it did what it was asked: that it does not count is not for want of an answer"""
    suspected: bool = False
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
    releases: tuple[ReleaseStored, ...] = ()
    """of a secure sum: from the first one on, the contributions are the round's list, for good"""
    total: str = ""
    """digest of the secure sum"""
    summed_norm: float = 0.0
    """Euclidean length of the average step in it"""
    remaining: tuple[str, ...] = ()
    """the holders that are asked to close the present attempt"""
    closes: tuple[CloseSigned, ...] = ()
    """of the present attempt"""
    closed: tuple[tuple[CloseSigned, ...], ...] = ()
    """how each attempt before it was closed"""

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
        """What was measured of the updates, or of the hops, by site. Of a masked update: what the site has signed."""
        hops = (*self.dropped, *self.contributions)
        signed = {hop.site: Measures(hop.masked.norm) for hop in hops if hop.masked}
        return signed | {hop.site: hop.measures for hop in hops if hop.measures} | dict(self.measures)

    @property
    def void(self) -> bool:
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
    seal: Seal | None = None
    """of the first model, where it is under seal"""
    rewrapped: tuple[Rewrapped, ...] = ()
    """the keys of models under seal that were passed on"""
    rounds: tuple[Round, ...] = ()
    best_round: int = 0
    adopted: tuple[str, ...] = ()
    openings: tuple[SiteOpened, ...] = ()
    """in roster order; only where the plan hides something from the coordinator"""
    boxes: tuple[BoxesStored, ...] = ()
    """in roster order; only where the plan has secure sums"""
    failures: tuple[SiteFailed, ...] = ()
    mended: tuple[Mended, ...] = ()
    """of `failures`, those after which the site came back"""
    numerics: int = 0
    """how its sites compute (see fedcervix.transport.versions); 0 until one has said so"""
    earlier_models: tuple[frozenset[str], ...] = dataclasses.field(default=(), repr=False, compare=False)
    """the models of all rounds before this one, in a few large sets: see `add_models`"""
    outcome: Outcome | None = None
    reason: str = ""
    ending: str = ""
    """why the run is aborted as soon as the holders have closed the attempt in progress; empty: it is not"""

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


def begin(run: str, plan: Plan, *, base: str, at: float) -> Run:
    """Return a run before its first event. `base`: digest of a given first model, or empty to let a site make it."""
    sites = tuple(Site(name, since=at) for name in plan.sites)
    return Run(run=run, plan=plan, sites=sites, phase=Phase.GATHERING, since=at, model=base, layout=base)


def with_round(run: Run, **changes: Any) -> Run:
    """Return the run with changes in its current round."""
    return replace(run, rounds=(*run.rounds[:-1], replace(run.current, **changes)))


Report = TypeVar(
    "Report", UpdateStored, ScoreReported, ModelUnusable, SiteOpened, BoxesStored, ReleaseStored, CloseSigned
)


def in_roster_order(plan: Plan, reports: tuple[Report, ...]) -> tuple[Report, ...]:
    """Return reports of sites in the order in which the plan names the sites."""
    place = {site: number for number, site in enumerate(plan.sites)}
    return tuple(sorted(reports, key=lambda report: place[report.site]))
