"""Alarms of counts: the number of images that a site reports cannot be verified.

It can only be compared with earlier reports. A site's collection may grow honestly: its engineer has added images and
started the agent again. So a changed number is an alarm for a person to check, and excludes no site. `share_max` of the
plan limits the effect of a false number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fedcervix.core.alarms import Alarm
from fedcervix.core.rounds.coordinator_work import capped
from fedcervix.core.rounds.state import Round, Run

KIND = "images"
CAPPED = "share"


def count_alarms(run: Run, round_: Round) -> Iterator[Alarm]:
    """Yield an alarm for each site of a round whose number of images has changed, or is not the same in two reports."""
    stated = _stated(round_)
    firsts = _firsts(run, stated)
    for site in stated:
        first_round, first = firsts[site]
        other = [images for images in stated[site] if images != first]
        if other:
            words = f"it reports {other[0]:,} training images; in round {first_round} it reported {first:,}"
            yield Alarm(site, round_.number, KIND, words)


def share_alarms(run: Run, round_: Round) -> Iterator[Alarm]:
    """Yield an alarm for each site whose share of the average was limited."""
    terms = run.plan.terms
    if terms.average == "equal" or not run.plan.averages:
        return
    counts = [float(update.images) for update in round_.contributions]
    for update, count, used in zip(round_.contributions, counts, capped(counts, terms.share_max), strict=True):
        if used < count:
            words = (
                f"its {update.images:,} images would be {count / sum(counts):.4f} of the average; share_max limits it"
            )
            yield Alarm(update.site, round_.number, CAPPED, words)


def _stated(round_: Round) -> dict[str, list[int]]:
    """Return the numbers that each site reports in a round: with its update, and with its score."""
    found: dict[str, list[int]] = {}
    updates = [(update.site, update.images) for update in round_.contributions]
    for site, images in updates + [(score.site, score.images) for score in round_.scores]:
        found.setdefault(site, []).append(images)
    return found


def _firsts(run: Run, sites: Collection[str]) -> dict[str, tuple[int, int]]:
    """Return the round in which each site first reported its number, and the number."""
    found: dict[str, tuple[int, int]] = {}
    for round_ in run.rounds:
        if all(site in found for site in sites):
            break
        for site, images in _stated(round_).items():
            found.setdefault(site, (round_.number, images[0]))
    return found
