"""What printed counts can decide: two classifiers called so many images right, but who was right on which is not said.

Unpaired, two counts are compared as if they came from two groups of images: Fisher's exact test, the two-proportion z
test, and Newcombe's interval of the difference. That throws the pairing away.

Paired, McNemar's test would need the images. But counts bound it. If one classifier finds d more cases, it was right on
at least d images of cases where the other was wrong, and the same with controls; p is smallest if there were no other
differences. `fewest_discordant` has that smallest p: no images that give the printed counts can give a smaller one.

Fisher, Statistical Methods for Research Workers (1934). Newcombe, Interval estimation for the difference between
independent proportions, Stat Med 17:873 (1998), method 10. Wilson, JASA 22:209 (1927).
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest, fisher_exact, norm

from cervix_study.evidence.mcnemar import Discordant
from fedcervix.core.plan import check
from site_agent.classifier.intervals import LEVEL, Estimate
from site_agent.metrics import Confusion


@dataclass(frozen=True, slots=True)
class Proportion:
    """`part` of `whole`."""

    part: int
    whole: int

    def __post_init__(self) -> None:
        check(0 <= self.part <= self.whole and self.whole > 0, f"not a proportion: {self.part} of {self.whole}")

    @property
    def share(self) -> float:
        """Part over whole."""
        return self.part / self.whole

    @property
    def wilson(self) -> tuple[float, float]:
        """Both ends of Wilson's interval of the share."""
        found = binomtest(self.part, self.whole).proportion_ci(LEVEL, "wilson")
        return float(found.low), float(found.high)


def fisher_p(first: Proportion, second: Proportion) -> float:
    """Return the two-sided p value of Fisher's exact test."""
    table = [(first.part, first.whole - first.part), (second.part, second.whole - second.part)]
    return float(fisher_exact(table).pvalue)


def two_proportion_p(first: Proportion, second: Proportion) -> float:
    """Return the two-sided p value of the z test with pooled variance, without a continuity correction."""
    pooled = (first.part + second.part) / (first.whole + second.whole)
    variance = pooled * (1 - pooled) * (1 / first.whole + 1 / second.whole)
    if variance == 0:
        return 1.0
    return float(2 * norm.sf(abs(first.share - second.share) / variance**0.5))


def newcombe(first: Proportion, second: Proportion) -> Estimate:
    """Return first - second with Newcombe's interval, from both Wilson intervals."""
    (one_low, one_high), (two_low, two_high) = first.wilson, second.wilson
    difference = first.share - second.share
    below = ((first.share - one_low) ** 2 + (two_high - second.share) ** 2) ** 0.5
    above = ((one_high - first.share) ** 2 + (second.share - two_low) ** 2) ** 0.5
    return Estimate(difference, difference - below, difference + above)


def fewest_discordant(first: Confusion, second: Confusion) -> Discordant:
    """Return the least by which two confusion matrices of the same images differ; no p of accuracy is smaller."""
    leads = (first.tp - second.tp, first.tn - second.tn)
    return Discordant(sum(max(0, lead) for lead in leads), sum(max(0, -lead) for lead in leads))


def right(counts: Confusion) -> Proportion:
    """Return the images called right."""
    return Proportion(counts.tp + counts.tn, counts.tp + counts.fn + counts.fp + counts.tn)


def cases_found(counts: Confusion) -> Proportion:
    """Return the cases found."""
    return Proportion(counts.tp, counts.tp + counts.fn)
