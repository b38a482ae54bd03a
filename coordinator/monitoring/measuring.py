"""From the status of a run to measured values. Pure: no clock, disk or network."""

from __future__ import annotations

import itertools
import operator
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from coordinator.monitoring import names
from coordinator.monitoring.facts import CoordinatorFacts
from coordinator.run.status_document import SiteStatus, StatusDocument
from fedcervix import __version__
from fedcervix.core.rounds.state import Outcome, Phase, Presence
from fedcervix.monitoring.declared import Sample
from fedcervix.monitoring.home_metrics import of_home
from fedcervix.runtime.record import ContributionLine, LedgerLine, ScoreLine

ROLE = "coordinator"
SITE_OF = operator.attrgetter("site")
Line = TypeVar("Line", ContributionLine, ScoreLine)
TYPICAL_ROUNDS = 10
"""ended rounds of which the median is taken"""


def measured(document: StatusDocument | None, facts: CoordinatorFacts) -> Iterator[Sample]:
    """Yield all values; `document`: of the last run with all its rounds, None where none has begun."""
    yield from of_home(ROLE, facts)
    yield names.UP.of(facts.answers)
    for one in facts.undelivered:
        yield names.UNDELIVERED.of(one.waiting, one.receiver)
        yield names.UNDELIVERED_SINCE.of(one.since, one.receiver)
    if document is not None:
        yield from _of_run(document)
        yield from _of_rounds(document)
        yield from _of_sites(document)
        yield from _of_ledger(document)
        yield from _of_failures(document)


def _of_run(d: StatusDocument) -> Iterator[Sample]:
    yield names.TROUBLE.of(bool(d.trouble))
    yield names.RUN.of(1, d.run, d.mode, d.profile, d.plan)
    if d.outcome:
        yield from names.OUTCOME.among(Outcome, d.outcome)
    yield from names.PHASE.among(Phase, d.phase)
    yield names.PHASE_SINCE.of(d.since or None)
    yield names.ROUND.of(d.round)
    yield names.ROUNDS_MAX.of(d.rounds_max)
    yield names.BEST_ROUND.of(d.best_round or None)
    yield names.COLLAPSE_LOSS.of(d.collapse_loss or None)


def _of_rounds(d: StatusDocument) -> Iterator[Sample]:
    ended = [(line.begun_at, line.ended_at) for line in d.ledger if line.ended_at is not None]
    lengths = [max(0.0, until - since) for since, until in ended]
    yield names.ROUND_BEGUN.of(d.ledger[-1].begun_at or None if d.ledger else None)
    if ended:
        yield names.ROUND_ENDED.of(ended[-1][1])
        yield names.ROUND_DURATION.of(lengths[-1])
        yield names.ROUND_TYPICAL.of(statistics.median(lengths[-TYPICAL_ROUNDS:]))
    yield names.VALIDATION_LOSS.of(next((line.loss for line in reversed(d.ledger) if line.loss is not None), None))
    yield names.BEST_LOSS.of(next((line.loss for line in d.ledger if line.round == d.best_round), None))


def _of_sites(d: StatusDocument) -> Iterator[Sample]:
    for site in d.sites:
        yield from names.STATE.among(Presence, site.presence, site.site)
        yield names.STATE_SINCE.of(site.since or None, site.site)
        yield from _of_line(site, is_live=_is_live(d))
    for wait in d.waits:
        yield names.WAIT_SINCE.of(wait.since, wait.site)
        yield names.WAIT_UNTIL.of(wait.until, wait.site)


def _is_live(d: StatusDocument) -> bool:
    """Say whether a coordinator has told it: of connections the journal knows nothing."""
    return any(site.connected or site.heard_at or site.lease_ends_at for site in d.sites)


def _of_line(site: SiteStatus, *, is_live: bool) -> Iterator[Sample]:
    name = site.site
    yield names.LAST_HEARD.of(site.heard_at, name)
    yield names.LEASE.of(site.lease_ends_at, name)
    yield names.OTHER_VERSION.of(site.software != __version__ if site.software else None, name)
    if not is_live:
        return
    yield names.CONNECTED.of(site.connected, name)
    yield names.CONNECTIONS.of(site.connections, name)
    yield names.CALLS_REFUSED.of(site.calls_refused, name)
    yield names.SET_ASIDE.of(site.set_aside, name)
    yield names.TRANSFER.of(site.received_bytes, name, "upload")
    yield names.TRANSFER.of(site.sent_bytes, name, "download")
    if site.stage:
        yield names.PROGRESS.of(min(1.0, site.done / site.of) if site.of else None, name)
        yield names.SPEED.of(site.images_per_s or None, name)


def _of_ledger(d: StatusDocument) -> Iterator[Sample]:
    """What the rounds say of each site: counts over all of them, and the newest values."""
    contributions = _newest((line.contributions for line in reversed(d.ledger)), len(d.sites))
    averaged = _newest((line.contributions for line in reversed(d.ledger) if line.model), len(d.sites))
    scores = _newest((line.scores for line in reversed(d.ledger)), len(d.sites))
    counted, missed = Counter[str](), Counter[str]()
    for line in d.ledger:
        counted.update(map(SITE_OF, line.contributions))
        missed.update(map(SITE_OF, line.missing))
    for site in d.sites:
        yield names.CONTRIBUTED.of(counted[site.site], site.site)
        yield names.MISSED.of(missed[site.site], site.site)
        if found := contributions.get(site.site):
            yield from _of_contribution(found)
        if used := averaged.get(site.site):
            yield names.SHARE.of(used.weight, used.site)
            yield names.STEP_NORM.of(used.norm, used.site)
        if score := scores.get(site.site):
            yield from _of_score(score)
    yield from _of_alarms(d.ledger, [site.site for site in d.sites])


def _newest(newest_first: Iterable[Iterable[Line]], sites: int) -> dict[str, Line]:
    """Return the newest line of each site; rounds are looked at until all have one."""
    found: dict[str, Line] = {}
    for lines in newest_first:
        found = {SITE_OF(one): one for one in lines} | found
        if len(found) == sites:
            break
    return found


def _of_contribution(one: ContributionLine) -> Iterator[Sample]:
    """With secure sums a site tells no loss: it is 0 then."""
    yield names.TRAINING_LOSS.of(one.loss or None, one.site)
    yield names.TRAINING_TIME.of(one.seconds or None, one.site)
    yield names.IMAGES.of(one.images or None, one.site)


def _of_score(one: ScoreLine) -> Iterator[Sample]:
    yield names.SITE_VALIDATION_LOSS.of(one.loss, one.site)
    for gauge, metric in names.GAUGES.items():
        yield metric.of(one.gauges.get(gauge), one.site)


def _of_alarms(ledger: Sequence[LedgerLine], sites: Sequence[str]) -> Iterator[Sample]:
    raised = Counter[str]()
    last: dict[tuple[str, str], int] = {}
    for line in ledger:
        raised.update(alarm.site for alarm in line.alarms)
        last.update(((alarm.site, alarm.what), line.round) for alarm in line.alarms)
    for site in sites:
        yield names.ALARMS.of(raised[site], site)
    for (site, what), round_ in last.items():
        yield names.ALARM_ROUND.of(round_, site, what)


def _of_failures(d: StatusDocument) -> Iterator[Sample]:
    reported = Counter((one.site, one.goes_on) for one in d.failures)
    unmended = Counter(one.site for one in d.failures if not one.goes_on and one.mended_at is None)
    for site, goes_on in itertools.product((site.site for site in d.sites), (False, True)):
        yield names.FAILURES.of(reported[site, goes_on], site, "yes" if goes_on else "no")
    for one in d.sites:
        yield names.FAILURES_OPEN.of(unmended[one.site], one.site)
