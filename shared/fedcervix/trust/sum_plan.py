"""What goes together with secure sums in one plan, and what is refused when the plan is made.

What needs single updates cannot go with a sum of which nobody sees the summands: a trimmed mean, clipping. Server
momentum and all kinds of `batch_norm` need the sum alone, and go with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedcervix.core.plan import Plan
from fedcervix.trust.sum_roster import ISOLATION_FACTOR

SITES_MIN = 3
SHARE_MAX = ISOLATION_FACTOR / (ISOLATION_FACTOR + 1)
"""No site has a larger share of a sum (H4), so a bound above it changes nothing."""


@dataclass(frozen=True, slots=True)
class SumTerms:
    """What a plan says of secure sums."""

    holders: tuple[str, ...]
    """c + 1 sites of the plan, or c + 2 where one of them may be lost for good"""
    colluders: int = 0
    """c: sites that may collude with the coordinator"""


def sites_min(sites: int, colluders: int) -> int:
    """Return how many sites a sum has at least, K being the sites of the plan.

    TRUST 5, H2: "|U| >= max(3, c + 2) and 2|U| > K + c". So any two sums of a round have an honest site in common.
    """
    return max(SITES_MIN, colluders + 2, (sites + colluders) // 2 + 1)


def sum_faults(plan: Plan, terms: SumTerms) -> tuple[str, ...]:
    """Return a sentence for each reason why a plan cannot have secure sums with these terms."""
    return tuple(words.format(least=_least(plan, terms)) for words, holds in _FITS.items() if not holds(plan, terms))


def _least(plan: Plan, terms: SumTerms) -> int:
    return sites_min(len(plan.sites), terms.colluders)


def _quorum_fits(plan: Plan, terms: SumTerms) -> bool:
    return plan.terms.quorum is None or plan.terms.quorum >= _least(plan, terms)


def _holders_fit(plan: Plan, terms: SumTerms) -> bool:
    each_once = len(set(terms.holders)) == len(terms.holders)
    return each_once and set(terms.holders) <= set(plan.sites) and 0 < len(terms.holders) - terms.colluders <= 2


_FITS: Mapping[str, Callable[[Plan, SumTerms], bool]] = {
    "secure_sum is for csfssl: in a ring a site passes its whole model on to the next one": (
        lambda plan, _: not plan.mode_rules.in_turns
    ),
    "secure_sum needs at least three sites: with two, the sum without the own vector is the vector of the other": (
        lambda plan, _: len(plan.sites) >= SITES_MIN
    ),
    "colluders is 0 or more, and small enough that two sites that do not collude are in every sum of {least} sites": (
        lambda plan, terms: terms.colluders >= 0 and _least(plan, terms) <= len(plan.sites)
    ),
    "holders names sites of the plan: one more than colluders, or two more where one may be lost": _holders_fit,
    "secure_sum needs a quorum of at least {least}, or none set: a smaller sum could show single sites": _quorum_fits,
    'secure_sum needs aggregation = "mean": a trimmed mean needs the single updates, which nobody sees': (
        lambda plan, _: plan.terms.aggregation == "mean"
    ),
    "secure_sum needs clip = 0: clipping needs the single updates, which nobody sees": (
        lambda plan, _: plan.terms.clip == 0
    ),
    'secure_sum needs compression = "none": a masked number cannot be packed': (
        lambda plan, _: plan.terms.compression == "none"
    ),
    f"secure_sum needs share_max of at least {SHARE_MAX}: weights are fixed by the roster, and none is larger": (
        lambda plan, _: plan.terms.average == "equal" or plan.terms.share_max >= SHARE_MAX
    ),
}
