"""What each event changes in the state, and what is answered to it. No phase ends here: see `phases`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from fedcervix.core.events import (
    AggregateStored,
    Answer,
    AverageUnusable,
    BoxesStored,
    CloseSigned,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
    Rewrapped,
    RunAborted,
    ScoreReported,
    SiteAttached,
    SiteFailed,
    SiteOpened,
    SiteRefused,
    SiteRevoked,
    SiteSilent,
    TaskKind,
    Tick,
    UpdateStored,
)
from fedcervix.core.rounds.holders import has_boxed, has_opened, unreleased
from fedcervix.core.rounds.instructions import holder_task, instruction
from fedcervix.core.rounds.objections import objection
from fedcervix.core.rounds.participants import names_of, ring_training
from fedcervix.core.rounds.state import Mended, Missing, Phase, Presence, Round, Run, Site, in_roster_order, with_round
from fedcervix.core.rounds.transitions import abort, enter
from fedcervix.core.rounds.unusable import REVOKED, drop_newest_hop, leave_one_out, withdraw

FAILURES_KEPT_MAX = 100
IN_ROUND = (Phase.TRAINING, Phase.RELEASING, Phase.CLOSING, Phase.AGGREGATING, Phase.SCORING)
SOFTWARE_MAX = 16
"""versions that are known of a site"""


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
        return _with_site(
            run, replace(before, presence=presence, since=event.at, reason=reason(event))
        ), Answer.ACCEPTED

    return record


def _with_site(run: Run, after: Site) -> Run:
    return replace(run, sites=tuple(after if site.name == after.name else site for site in run.sites))


def _with_software(run: Run, event: SiteAttached) -> Run:
    """Note what software a site takes part with; the first one that says how it computes says so for the run."""
    site, said = run.site(event.site), event.software
    new = bool(said) and said not in site.software[-1:] and len(site.software) < SOFTWARE_MAX
    known = replace(site, software=(*site.software, said)) if new else site
    return _with_site(replace(run, numerics=run.numerics or event.numerics), known)


def _attached(run: Run, event: SiteAttached) -> tuple[Run, Answer]:
    """A site that comes back has mended what it failed of."""
    if event.site in run.plan.sites and not has_opened(run, event.site):
        return run, Answer.REFUSED
    run, answer = _presence(Presence.PRESENT, lambda _: "")(run, event)
    if answer is not Answer.REFUSED and (noted := _with_software(run, event)) != run:
        run, answer = noted, Answer.ACCEPTED
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
    if objection(run, event) or (event.masked is None) is run.plan.terms.secure_sum:
        return run, Answer.REFUSED
    contributions = in_roster_order(run.plan, (*round_.contributions, event))
    model = event.digest if run.plan.mode_rules.in_turns else run.model
    return with_round(replace(run, model=model), contributions=contributions), Answer.ACCEPTED


def _seeded(run: Run, event: UpdateStored) -> tuple[Run, Answer]:
    if run.layout:
        return run, Answer.DUPLICATE if event.digest == run.layout else Answer.STALE
    if instruction(run, event.site) != event.task:
        return run, Answer.STALE
    first = replace(run, model=event.digest, layout=event.digest, packed=event.packed, seal=event.seal)
    return replace(first, seeded_by=event.site), Answer.ACCEPTED


def _aggregated(run: Run, event: AggregateStored) -> tuple[Run, Answer]:
    if not _is_wanted(run, event):
        return run, Answer.STALE
    model = event.digest if run.plan.mode_rules.goes_on_from_average else run.model
    rounded = {"candidate": event.digest, "packed": event.packed, "residual": event.residual, "total": event.total}
    measures = tuple({**dict(run.current.measures), **dict(event.measures)}.items())
    found = {"measures": measures, "summed_norm": event.summed_norm}
    return with_round(replace(run, model=model), **rounded, **found), Answer.ACCEPTED


def _average_unusable(run: Run, event: AverageUnusable) -> tuple[Run, Answer]:
    if not _is_wanted(run, event):
        return run, Answer.STALE
    return leave_one_out(run, event.at, "the average is not finite"), Answer.ACCEPTED


def _is_wanted(run: Run, average: AggregateStored | AverageUnusable) -> bool:
    """Say whether an average is of the updates that count now: meanwhile one of them may have been taken out."""
    if run.phase is not Phase.AGGREGATING:
        return False
    return (average.round, average.attempt) == (run.current.number, run.current.attempt)


def _rejection(run: Run, event: ScoreReported | ModelUnusable) -> Answer | None:
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
    if (answer := _rejection(run, event)) is not None:
        return run, answer
    if objection(run, event):
        return run, Answer.REFUSED
    scores = in_roster_order(run.plan, (*run.current.scores, event))
    return with_round(run, scores=scores), Answer.ACCEPTED


def _unusable(run: Run, event: ModelUnusable) -> tuple[Run, Answer]:
    """A site cannot use the model that it was given. It has answered; what follows, the sites' answers decide."""
    if (answer := _rejection(run, event)) is not None:
        return run, answer
    run = with_round(run, unusable=in_roster_order(run.plan, (*run.current.unusable, event)))
    return (run if event.task.kind == TaskKind.SCORE else _not_trained(run, event)), Answer.ACCEPTED


def _not_trained(run: Run, event: ModelUnusable) -> Run:
    """In a ring the holder's word costs the newest hop, and it is asked again; else it does not count itself."""
    if ring_training(run) and run.current.contributions:
        return drop_newest_hop(run, f"so {event.site}")
    why = f"it has no finite loss from the model that it was to train from (after {event.steps} steps)"
    return with_round(run, missing=(*run.current.missing, Missing(event.site, why, answered=True)))


def _revoked(run: Run, event: SiteRevoked) -> tuple[Run, Answer]:
    """What the site did for the round in progress does not count any more."""
    run, answer = _presence(Presence.REVOKED, lambda _: REVOKED)(run, event)
    if answer is Answer.ACCEPTED and run.phase in IN_ROUND and event.rules > 0:
        run = withdraw(run, event.site, event.at)
    return run, answer


def _opened(run: Run, event: SiteOpened) -> tuple[Run, Answer]:
    """One opening of a site for a run, ever."""
    if event.site not in run.plan.sites or not run.plan.hides_from_coordinator:
        return run, Answer.REFUSED
    known = next((opening for opening in run.openings if opening.site == event.site), None)
    if known is not None:
        return run, Answer.DUPLICATE if replace(known, at=event.at) == event else Answer.REFUSED
    if run.site(event.site).presence is Presence.REVOKED:
        return run, Answer.REFUSED
    return replace(run, openings=in_roster_order(run.plan, (*run.openings, event))), Answer.ACCEPTED


def _boxed(run: Run, event: BoxesStored) -> tuple[Run, Answer]:
    if (answer := _not_of_this_run(run, event)) is not None:
        return run, answer
    if has_boxed(run, event.site):
        return run, Answer.DUPLICATE
    if instruction(run, event.site) != event.task:
        return run, Answer.STALE
    others = [site for site in run.plan.sites if site != event.site]
    if sorted(reader for reader, _ in event.boxes) != sorted(others):
        return run, Answer.REFUSED
    return replace(run, boxes=in_roster_order(run.plan, (*run.boxes, event))), Answer.ACCEPTED


def _not_of_this_run(run: Run, event: BoxesStored | ReleaseStored | CloseSigned) -> Answer | None:
    """Return the answer to what is not of this run; None where it is."""
    if event.site not in run.plan.sites:
        return Answer.REFUSED
    return Answer.STALE if event.task.run != run.run else None


def _released(run: Run, event: ReleaseStored) -> tuple[Run, Answer]:
    """A holder has released its masks: the round's list is fixed for good, and the attempt cannot be closed."""
    if (answer := _not_of_this_run(run, event)) is not None:
        return run, answer
    if _is_known(event, (release for round_ in _round_of(run, event) for release in round_.releases)):
        return run, Answer.DUPLICATE
    if run.phase not in (Phase.RELEASING, Phase.CLOSING) or event.task != holder_task(run, TaskKind.RELEASE):
        return run, Answer.STALE
    if event.site not in names_of(unreleased(run)):
        return run, Answer.REFUSED
    run = with_round(run, releases=in_roster_order(run.plan, (*run.current.releases, event)))
    if run.phase is Phase.CLOSING:
        run = _released_after_all(run, event)
    return run, Answer.ACCEPTED


def _released_after_all(run: Run, event: ReleaseStored) -> Run:
    """The holder had released before it was asked to close: the others are waited for, unless one has closed."""
    if run.current.closes:
        others = ", ".join(close.site for close in run.current.closes)
        why = f"round {run.current.number} can have no sum: {event.site} has released its masks, {others} never will"
        return abort(run, why, event.at)
    return enter(with_round(run, remaining=()), Phase.RELEASING, event.at)


def _closed(run: Run, event: CloseSigned) -> tuple[Run, Answer]:
    if (answer := _not_of_this_run(run, event)) is not None:
        return run, answer
    before = (close for round_ in _round_of(run, event) for one in (*round_.closed, round_.closes) for close in one)
    if _is_known(event, before):
        return run, Answer.DUPLICATE
    if instruction(run, event.site) != event.task:
        return run, Answer.STALE
    if event.remaining != run.current.remaining:
        return run, Answer.REFUSED
    return with_round(run, closes=in_roster_order(run.plan, (*run.current.closes, event))), Answer.ACCEPTED


def _round_of(run: Run, event: ReleaseStored | CloseSigned) -> tuple[Round, ...]:
    """Return the round that a holder speaks of, if there is one."""
    number = event.task.round
    return run.rounds[number - 1 : number] if number else ()


def _is_known(event: ReleaseStored | CloseSigned, known: Iterable[ReleaseStored | CloseSigned]) -> bool:
    return any((one.site, one.task) == (event.site, event.task) for one in known)


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


def _rewrapped(run: Run, event: Rewrapped) -> tuple[Run, Answer]:
    if event.site not in run.plan.sites:
        return run, Answer.REFUSED
    if any((known.site, known.task) == (event.site, event.task) for known in run.rewrapped):
        return run, Answer.DUPLICATE
    if instruction(run, event.site) != event.task:
        return run, Answer.STALE
    return replace(run, rewrapped=(*run.rewrapped, event)), Answer.ACCEPTED


RECORD: Mapping[type, Callable[[Run, Any], tuple[Run, Answer]]] = {
    SiteAttached: _attached,
    SiteSilent: _presence(Presence.SILENT, lambda event: event.reason or "no sign of life"),
    SiteRefused: _presence(Presence.REFUSED, lambda event: event.reason),
    SiteRevoked: _revoked,
    SiteFailed: _failed,
    SiteOpened: _opened,
    BoxesStored: _boxed,
    UpdateStored: _update,
    ReleaseStored: _released,
    CloseSigned: _closed,
    AggregateStored: _aggregated,
    AverageUnusable: _average_unusable,
    ScoreReported: _scored,
    ModelUnusable: _unusable,
    ModelAdopted: _adopted,
    Rewrapped: _rewrapped,
    RunAborted: lambda run, event: (abort(run, event.reason, event.at), Answer.ACCEPTED),
    Tick: lambda run, _: (run, Answer.ACCEPTED),
}
