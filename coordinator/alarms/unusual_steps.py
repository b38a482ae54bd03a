"""Alarms of steps that are unusual in length, direction or distance, compared with other sites and earlier rounds.

The rule is that of the median and the MAD (median absolute deviation): what lies farther than 3 x 1.4826 MAD from the
median is unusual, which one of 370 values is if they are honest, normally distributed and many. Taken to the letter,
it raises .64 alarms for each honest update of five sites (simulated: docs/statistics.md). Four things make it one alarm
for some 370 honest updates:
1. *Six comparisons.* An update has three quantities, each compared with two groups: a band holds all but one of 2,220.
2. *Few values.* The MAD of four values says little: 17 of 100 honest values lie outside. So the band is the wider, the
   fewer there are (`WIDER`, `FEW_SITES`, ..., by simulation); but no length may be ten times beyond all others.
3. *Values that are almost equal.* A band has a least width: equal values raise no alarm at rounding.
4. *Rounds and sites that differ.* Steps are long in the first rounds, and a site with more images takes longer ones. So
   with its own history a site is compared by how it stood in its round: beside the median of all (from three sites).
   Lengths are compared by their ratio. How far it usually strays from where it stands is taken from all sites together:
   five rounds of one site say little about that, those of all sites much.

One thing is looked at more closely: a step that is turned round, to undo what the others learn. Its cosine is below 0,
where the site's is usually far above. It pulls the others' cosines down, too; so only the lowest of a round is judged,
beside its own earlier values or the round's median, whichever is higher.

A round is judged when it has its model: before that, the median of all is not known.
With secure sums the coordinator measures no step. The length is then the one that each site has signed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fedcervix.core.alarms import Alarm
from fedcervix.core.measures import Measures
from fedcervix.core.rounds.state import Round, Run

PEERS_MIN = 4
HISTORY_MIN = 5
HISTORY_ROUNDS = 20
"""number of a site's own last rounds that it is compared with"""
BESIDE_MIN = 3
"""least number of sites for a median; with two, each would be judged by the other"""
NORMAL = 1.4826
"""standard deviations of a normal distribution in one MAD"""
WIDER = (78.8, 70.6, 24.6, 23.9, 14.5, 14.2, 10.4, 10.4, 8.6, 8.6, 7.6, 7.5, 6.9, 6.8, 6.4, 6.3, 6.0)
"""half width of the band in 1.4826 MAD, for 4, 5, ... 20 values; for more: `MADS` + `OF_FEW` / values"""
MADS = 3.5
OF_FEW = 44.0
HISTORY_MADS = 4.0
TURNED_MADS, TURNED_FEW = 3.5, 2.0
"""a lowest cosine below 0 is unusual from `TURNED_MADS` + `TURNED_FEW` / rounds below where the site usually is"""
UPRIGHT_MADS = 2.0
"""where a site's cosines usually lie less than this above 0, one below 0 says nothing"""
MANY_SITES, FEW_SITES, MANY = 16.0, 36.0, 5
"""half width of the band of a site's history, in 1.4826 MAD: `HISTORY_MADS` + one of these / its rounds; `MANY` sites
are many"""
FARTHEST = 10.0
"""a length this many times beyond all values that it is compared with is unusual, even within the band"""
RATIO_MIN = 1e-12
"""A length of 0 is compared as this."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A measured quantity, and how it is compared."""

    name: str
    words: str
    ratio: bool
    """compared by ratio"""
    floor: float
    """least standard deviation; in natural logarithms if it is compared by ratio"""

    turns: bool = False
    """below 0, the step leads away from where the others go"""

    def scaled(self, value: float) -> float:
        """Return the value as it is compared."""
        return math.log(max(value, RATIO_MIN)) if self.ratio else value

    def shown(self, scaled: float) -> str:
        """Return a compared value as it was measured, in words."""
        return f"{math.exp(min(scaled, 700.0)) if self.ratio else scaled:.3g}"


QUANTITIES = (
    Quantity("norm", "the length of its step", ratio=True, floor=0.05),
    Quantity("cosine", "the cosine of its step to the mean of the others", ratio=False, floor=0.01, turns=True),
    Quantity("distance", "the distance of its step from the mean of the others", ratio=True, floor=0.05),
)

Standing = Mapping[str, tuple[float, float]]
"""by site: its compared value, and the difference from the round's median"""


def unusual_steps(run: Run, round_: Round) -> Iterator[Alarm]:
    """Yield the alarms of a round's steps, compared with other sites and with the site's earlier rounds."""
    if not round_.candidate:
        return
    earlier = run.rounds[: round_.number - 1][-HISTORY_ROUNDS:]
    before = [_measured(one) for one in earlier]
    for quantity in QUANTITIES:
        now = _standing(_measured(round_), quantity)
        past = [_standing(earlier, quantity) for earlier in before]
        strays = _strays(past)
        for site, (value, beyond) in now.items():
            peers = [other for name, (other, _) in now.items() if name != site]
            band = _band(peers, quantity)
            if band and not band[0] <= value <= band[1]:
                yield _alarm(site, round_, quantity, value, band, "for the other sites in this round")
            own = [earlier[site] for earlier in past if site in earlier]
            band = _history_band([stood for _, stood in own], strays, quantity, value - beyond)
            if band and quantity.turns and value == min(found for found, _ in now.values()):
                band = max(band[0], _turned_below(own, strays, quantity, value - beyond)), band[1]
            if band and not band[0] <= value <= band[1]:
                yield _alarm(site, round_, quantity, value, band, "for this site, by its earlier rounds")


def _measured(round_: Round) -> tuple[tuple[str, Measures], ...]:
    return tuple(round_.measured.items())


@lru_cache(maxsize=1024)
def _standing(measured: tuple[tuple[str, Measures], ...], quantity: Quantity) -> Standing:
    found = {site: getattr(measures, quantity.name) for site, measures in measured}
    scaled = {site: quantity.scaled(value) for site, value in found.items() if value is not None}
    middle = statistics.median(scaled.values()) if len(scaled) >= BESIDE_MIN else 0.0
    return {site: (value, value - middle) for site, value in scaled.items()}


def _band(values: Sequence[float], quantity: Quantity) -> tuple[float, float] | None:
    """Return the usual range beside other values of the round; None if there are too few of them."""
    if len(values) < PEERS_MIN:
        return None
    middle = statistics.median(values)
    apart = [abs(value - middle) for value in values]
    width = _mads(len(values)) * max(NORMAL * statistics.median(apart), quantity.floor)
    if quantity.ratio:
        width = min(width, max(apart) + math.log(FARTHEST))
    return middle - width, middle + width


@dataclass(frozen=True, slots=True)
class Strays:
    """How far sites strayed, in earlier rounds, from where each of them usually stands."""

    sites: int
    typical: float
    """median; 0 where no value strayed"""


def _strays(past: Sequence[Standing]) -> Strays:
    stood: dict[str, list[float]] = {}
    for standing in past:
        for site, (_, beyond) in standing.items():
            stood.setdefault(site, []).append(beyond)
    apart = [abs(beyond - statistics.median(own)) for own in stood.values() for beyond in own]
    strayed = [value for value in apart if value > 0]  # a median that is one of the values says nothing of the others
    return Strays(len(stood), statistics.median(strayed) if strayed else 0.0)


def _history_band(
    own: Sequence[float], strays: Strays, quantity: Quantity, centre: float
) -> tuple[float, float] | None:
    """Return the usual range of a site that stood so in its earlier rounds; None if these are too few."""
    if len(own) < HISTORY_MIN:
        return None
    mads = HISTORY_MADS + (MANY_SITES if strays.sites >= MANY else FEW_SITES) / len(own)
    width, middle = mads * max(NORMAL * strays.typical, quantity.floor), centre + statistics.median(own)
    return middle - width, middle + width


def _turned_below(own: Sequence[tuple[float, float]], strays: Strays, quantity: Quantity, centre: float) -> float:
    """Return below which cosine a step of this site is turned round; -inf where that cannot be said."""
    spread = max(NORMAL * strays.typical, quantity.floor)
    usual = max(statistics.median(value for value, _ in own), centre + statistics.median(stood for _, stood in own))
    if usual < UPRIGHT_MADS * spread:
        return -math.inf
    return min(0.0, usual - (TURNED_MADS + TURNED_FEW / len(own)) * spread)


def _mads(values: int) -> float:
    few = values - PEERS_MIN
    return WIDER[few] if few < len(WIDER) else MADS + OF_FEW / values


def _alarm(site: str, round_: Round, quantity: Quantity, value: float, band: tuple[float, float], beside: str) -> Alarm:
    low, high, found = (quantity.shown(number) for number in (*band, value))
    return Alarm(site, round_.number, quantity.name, f"{quantity.words} is {found}; {low} to {high} is usual {beside}")
