"""Who is waited for, until when, and what follows when a wait runs out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fedcervix.core.quorum import Quorum, quorum
from fedcervix.core.rounds.holders import holders, may_close, unreleased
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.participants import (
    judges,
    names_of,
    open_sites,
    rewrap,
    ring_training,
    trainers,
    untrained,
    updates_needed,
)
from fedcervix.core.rounds.readers import readers
from fedcervix.core.rounds.state import Phase, Presence, Run, Site


class OnTimeout(StrEnum):
    """What happens when a wait runs out."""

    GO_ON = "the round continues without"
    ABORT = "the run is aborted"
    LEASE = "its lease runs out"


@dataclass(frozen=True, slots=True)
class Wait:
    """A site that is waited for. `until` is None as long as it shows signs of life; `then`: what follows."""

    site: str
    reason: str
    since: float
    until: float | None
    then: OnTimeout


def waits(run: Run) -> tuple[Wait, ...]:
    """Return all sites that the run waits for. The run waits for nothing else."""
    if run.ended or run.phase is Phase.AGGREGATING:
        return ()
    open_ = open_sites(run)
    dispensable = _can_do_without(run, quorum_state(run, open_))  # the same for each site: 256 may be away at once
    return tuple(_wait(run, site, dispensable=dispensable) for site in open_)


def deadline(run: Run) -> float | None:
    """Return when a Tick is due, or None where only an event of another kind can change anything."""
    ends = [wait.until for wait in waits(run)]
    return None if None in ends else max((end for end in ends if end is not None), default=None)


def _quorum_needed(run: Run, gone: int = 0) -> int:
    """Return how many sites the phase needs. `gone` sites were revoked before they answered."""
    if run.phase is Phase.PUBLISHING:
        return 0
    if run.plan.hides_from_coordinator and run.phase is Phase.GATHERING:
        return len(run.sites)
    if run.phase in (Phase.RELEASING, Phase.CLOSING):
        return _holders_needed(run)
    if run.plan.terms.quorum is not None:
        return min(run.plan.terms.quorum, _may_answer(run))
    if run.phase is not Phase.GATHERING and not run.plan.mode_rules.needs_all:
        return 1
    least = updates_needed(run) if run.phase is Phase.TRAINING else 1
    return max(least, len(run.sites) - gone)


def _holders_needed(run: Run) -> int:
    """Return how many holders must answer: of an attempt in which one has released its masks, all."""
    if run.phase is Phase.CLOSING:
        return len(run.current.remaining)
    return len(holders(run)) if run.current.releases else run.plan.terms.colluders + 1


def _may_answer(run: Run) -> int:
    """Return how many sites can answer at most: to score a model under seal, those that can read it."""
    only_readers = run.phase is Phase.SCORING and run.plan.terms.sealed
    return len(readers(run, run.current.candidate)) if only_readers else len(run.sites)


def quorum_state(run: Run, open_: tuple[Site, ...]) -> Quorum:
    """Return whether the phase has its quorum. In a ring, the sites after the holder may still answer."""
    if run.phase is Phase.TRAINING:
        answered, open_ = trainers(run.current), untrained(run)
    elif run.phase is Phase.RELEASING:
        open_ = unreleased(run)
        answered = frozenset(holders(run)) - names_of(open_)
    elif run.phase is Phase.CLOSING:
        answered = frozenset(run.current.remaining) - names_of(open_)
    elif run.phase is Phase.SEEDING:
        answered = frozenset()
    elif run.phase is Phase.SCORING:
        answered = judges(run.current)
    else:
        answered = frozenset(run.plan.sites) - names_of(open_)
    revoked = frozenset([site.name for site in run.sites if site.presence is Presence.REVOKED])
    may_come = len(names_of(open_) - revoked)
    needed = 1 if run.phase is Phase.SEEDING else _quorum_needed(run, len(revoked - answered))
    return quorum(needed=needed, answered=len(answered), open_=may_come)


def _wait(run: Run, site: Site, *, dispensable: bool) -> Wait:
    terms = run.plan.terms
    since = max(_asked_at(run), site.since)
    if site.presence is Presence.PRESENT:
        return Wait(site.name, f"working: {instruction(run, site.name)}", since, None, OnTimeout.LEASE)
    if site.presence is Presence.REVOKED:  # it will not come back: the operator has decided, the run goes on without
        return Wait(site.name, site.standing, site.since, site.since, OnTimeout.GO_ON)
    if dispensable:
        grace_s = 0.0 if ring_training(run) else terms.grace_s  # a ring does not stand still for a lost lease
        return Wait(site.name, site.standing, site.since, site.since + grace_s, OnTimeout.GO_ON)
    give_up_s = terms.grace_s if run.ending else terms.give_up_s
    return Wait(site.name, site.standing, since, since + give_up_s, OnTimeout.ABORT)


def _can_do_without(run: Run, vote: Quorum) -> bool:
    """Say whether the phase can end without a site that is away. Without a key it cannot."""
    if rewrap(run) is not None:
        return False
    if ring_training(run):
        behind = sum(site.presence is Presence.PRESENT for site in untrained(run)[1:])
        return len(run.current.contributions) + behind >= _quorum_needed(run)
    if run.phase is Phase.RELEASING:
        return may_close(run)
    return vote is Quorum.MET


def _asked_at(run: Run) -> float:
    """Return when the sites were asked: at the start of the phase, or in a ring at the end of the last hop."""
    if ring_training(run):
        return max((update.at for update in run.current.contributions), default=run.since)
    return run.since
