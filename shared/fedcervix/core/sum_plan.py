"""What goes together with secure sums in one plan, and what is refused when the plan is made.

What needs single updates cannot go with a sum of which nobody sees the summands: a trimmed mean, clipping. Server
momentum and all kinds of `batch_norm` need the sum alone, and go with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

SITES_MIN = 3
ISOLATION_FACTOR = 4
"""A site's weight is at most so many times the weights of the others that do not collude."""
SHARE_MAX = ISOLATION_FACTOR / (ISOLATION_FACTOR + 1)
"""No site has a larger share of a sum (H4), so a bound above it changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SumTerms:
    """What a plan says that secure sums depend on."""

    in_turns: bool
    sites: tuple[str, ...]
    holders: tuple[str, ...]
    """c + 1 sites of the plan, or c + 2 where one of them may be lost for good"""
    colluders: int
    """c: sites that may collude with the coordinator"""
    quorum: int | None
    aggregation: str
    clip: float
    compression: str
    share_max: float
    """of one site; 1 where all weights are equal"""

    @property
    def least(self) -> int:
        """Sites that a sum has at least."""
        return sites_min(len(self.sites), self.colluders)


def sites_min(sites: int, colluders: int) -> int:
    """Return how many sites a sum has at least, K being the sites of the plan.

    TRUST 5, H2: "|U| >= max(3, c + 2) and 2|U| > K + c". So any two sums of a round have an honest site in common.
    """
    return max(SITES_MIN, colluders + 2, (sites + colluders) // 2 + 1)


def sum_faults(terms: SumTerms) -> tuple[str, ...]:
    """Return a sentence for each reason why a plan cannot have secure sums as it says."""
    c = terms.colluders
    figures = {
        "least": terms.least,
        "sites": len(terms.sites),
        "colluders_max": len(terms.sites) - 2,
        "holders": f"{c + 1} or {c + 2} of {', '.join(terms.sites)}, because colluders is {c}",
        "found": ", ".join(terms.holders) or "none",
    }
    return tuple(words.format(**figures) for words, holds in _FITS.items() if not holds(terms))


def _holders_fit(terms: SumTerms) -> bool:
    each_once = len(set(terms.holders)) == len(terms.holders)
    return each_once and set(terms.holders) <= set(terms.sites) and 0 < len(terms.holders) - terms.colluders <= 2


def _enough_sites(terms: SumTerms) -> bool:
    return len(terms.sites) >= SITES_MIN


_FITS: Mapping[str, Callable[[SumTerms], bool]] = {
    "secure_sum is for csfssl: in a ring a site passes its whole model on to the next one": (
        lambda terms: not terms.in_turns
    ),
    "secure_sum needs at least three sites: of two, each knows the other's update when it knows the sum": _enough_sites,
    "colluders may be at most {colluders_max} with {sites} sites: in every sum, two sites must not collude": (
        lambda terms: not _enough_sites(terms) or terms.least <= len(terms.sites)
    ),
    "holders must be {holders}; found {found}": _holders_fit,
    "secure_sum needs a quorum of at least {least}, or none set: a smaller sum could show single sites": (
        lambda terms: not _enough_sites(terms) or terms.quorum is None or terms.quorum >= terms.least
    ),
    'secure_sum needs aggregation = "mean": a trimmed mean needs the single updates, which nobody sees': (
        lambda terms: terms.aggregation == "mean"
    ),
    "secure_sum needs clip = 0: clipping needs the single updates, which nobody sees": lambda terms: terms.clip == 0,
    'secure_sum needs compression = "none": a masked number cannot be packed': (
        lambda terms: terms.compression == "none"
    ),
    f"secure_sum needs share_max of at least {SHARE_MAX}: weights are fixed by the roster, and none is larger": (
        lambda terms: terms.share_max >= SHARE_MAX
    ),
}
