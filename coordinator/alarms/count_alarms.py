"""Alarms of counts: the number of images that a site reports cannot be verified.

It can only be compared with earlier reports. A site's collection may grow honestly: its engineer has added images and
started the agent again. So a changed number is an alarm for a person to check, and excludes no site. `share_max` of the
plan limits the effect of a false number.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedcervix.core.alarms import Alarm
from fedcervix.core.rounds.averages import capped
from fedcervix.core.rounds.state import Round, Run

KIND = "images"
CAPPED = "share"


def count_alarms(run: Run, round_: Round) -> Iterator[Alarm]:
    """Yield an alarm for each site of a round whose number of images has changed, or is not the same in two reports."""
    for site in run.plan.sites:
        stated = _stated(round_, site)
        first_round, first = _first(run, site) if stated else (0, 0)
        other = [images for images in stated if images != first]
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


def _stated(round_: Round, site: str) -> list[int]:
    """Return the numbers that a site reports in a round: with its update, and with its score."""
    updates = [update.images for update in round_.contributions if update.site == site]
    return updates + [score.images for score in round_.scores if score.site == site]


def _first(run: Run, site: str) -> tuple[int, int]:
    """Return the round in which a site first reported its number, and the number."""
    return next((round_.number, found[0]) for round_ in run.rounds if (found := _stated(round_, site)))
