"""The paper's Table II as counts, its claims in its own words, and the tests that its printed numbers allow.

Every one of the 88 printed numbers follows from these counts (tests/paper/test_table_two.py), so the paper scores
images: 148 of 75 women at NHS, 198 of 99 women at ALTS, one training per row. It prints no test and no interval.

Pal, Xue and Antani, Deep Cervix Model Development from Heterogeneous and Partially Labeled Image Datasets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cervix_study.evidence.proportions import (
    Proportion,
    cases_found,
    fewest_discordant,
    fisher_p,
    newcombe,
    right,
    two_proportion_p,
)
from site_agent.classifier.intervals import Estimate, holm
from site_agent.metrics import Confusion

SITES = ("NHS", "ALTS")
TEST_WOMEN: Mapping[str, int] = {"NHS": 75, "ALTS": 99}

_COUNTS: dict[str, tuple[tuple[int, int, int, int], tuple[int, int, int, int]]] = {
    # TP FN FP TN at NHS, then at ALTS
    "Random": ((26, 23, 7, 92), (39, 29, 17, 113)),
    "ImageNet": ((24, 25, 4, 95), (38, 30, 14, 116)),
    "SSL N=8": ((31, 18, 7, 92), (49, 19, 21, 109)),
    "SSL N=16": ((34, 15, 10, 89), (41, 27, 12, 118)),
    "SSL N=32": ((32, 17, 8, 91), (42, 26, 15, 115)),
    "CSSL N=8": ((35, 14, 6, 93), (53, 15, 21, 109)),
    "CSSL N=16": ((37, 12, 9, 90), (43, 25, 12, 118)),
    "CSSL N=32": ((39, 10, 12, 87), (44, 24, 13, 117)),
    "CSFSSL": ((33, 16, 7, 92), (47, 21, 19, 111)),
    "PPFSSL_NHS": ((36, 13, 10, 89), (45, 23, 15, 115)),
    "PPFSSL_ALTS": ((38, 11, 12, 87), (45, 23, 16, 114)),
}

TABLE_TWO: Mapping[str, Mapping[str, Confusion]] = {
    row: {site: Confusion(*counts) for site, counts in zip(SITES, columns, strict=True)}
    for row, columns in _COUNTS.items()
}
"""row -> institution -> counts of test images"""

Kind = Literal["better", "close"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of the paper about starts, and the rows of its table that the sentence rests on."""

    name: str
    """what is claimed, in our words"""
    quote: str
    kind: Kind
    printed: tuple[tuple[str, str], ...]
    """(row, row it is compared with) in Table II; empty where the paper prints no numbers"""


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "ImageNet beats Random",
        "ImageNet initialization improves the accuracy for both datasets but recalls did not improve",
        "better",
        (("ImageNet", "Random"),),
    ),
    Claim(
        "SSL beats Random",
        "we observe a noticeable performance improvement in using SSL",
        "better",
        (("SSL N=16", "Random"),),
    ),
    Claim(
        "SSL beats ImageNet",
        "the SSL-based initialization improves classification performance (Accuracy: 2.5% ↑)",
        "better",
        (("SSL N=16", "ImageNet"),),
    ),
    Claim(
        "CSSL beats SSL",
        "the inclusion of images from both datasets during SSL further improves the performance (Accuracy: 1.5% ↑)",
        "better",
        (("CSSL N=8", "SSL N=16"),),
    ),
    Claim(
        "CSSL is best with N = 8",
        "for CSSL, in general, N = 8 produces the best performance in both NHS and ALTS",
        "better",
        (("CSSL N=8", "CSSL N=16"), ("CSSL N=8", "CSSL N=32")),
    ),
    Claim(
        "federated beats SSL",
        "in general, federated SSL produces better results than SSL with images in its own dataset",
        "better",
        (("CSFSSL", "SSL N=8"), ("PPFSSL_NHS", "SSL N=8"), ("PPFSSL_ALTS", "SSL N=8")),
    ),
    Claim(
        "the ring is as good as the server",
        "both PPFSSL and CSFSSL produce comparative performance",
        "close",
        (("PPFSSL_NHS", "CSFSSL"), ("PPFSSL_ALTS", "CSFSSL")),
    ),
    Claim(
        "E = 1 is best",
        "we vary the value of E i.e. local model updating for 1, 5, 10 and find that E = 1 provides us the best result",
        "better",
        (),
    ),
    Claim(
        "the width hardly matters",
        "We vary the number of neurons among [64, 128, 256] for this layer and empirically decide to set it 64 as we "
        "obtain very close performances",
        "close",
        (),
    ),
)


@dataclass(frozen=True, slots=True)
class PrintedTest:
    """What the printed counts say of one comparison at one institution."""

    claim: str
    site: str
    row: str
    versus: str
    right: tuple[Proportion, Proportion]
    difference: Estimate
    """of accuracy, with Newcombe's interval for unpaired proportions"""
    fisher: float
    z: float
    at_best: float
    """the smallest p that McNemar's test of accuracy could have, whatever the images"""
    discordant: tuple[int, int]
    """the fewest images on which the rows must differ: (right in `row` only, right in `versus` only)"""
    recall_fisher: float
    """Fisher's p of the cases found"""
    fisher_corrected: float | None
    """by Holm, over every printed comparison that claims one start to be better; None for those that do not"""
    at_best_corrected: float | None


def printed_tests() -> tuple[PrintedTest, ...]:
    """Return the tests of every claim for which counts are printed, at both institutions."""
    tests = [
        _printed_test(claim.name, site, row, versus)
        for claim in CLAIMS
        for row, versus in claim.printed
        for site in SITES
    ]
    claimed = [place for place, test in enumerate(tests) if kind_of(test.claim) == "better"]
    fisher = dict(zip(claimed, holm([tests[place].fisher for place in claimed]), strict=True))
    at_best = dict(zip(claimed, holm([tests[place].at_best for place in claimed]), strict=True))
    return tuple(
        dataclasses.replace(test, fisher_corrected=fisher.get(place), at_best_corrected=at_best.get(place))
        for place, test in enumerate(tests)
    )


def kind_of(claim: str) -> Kind:
    """Return whether a claim says `better` or `close`."""
    return next(found.kind for found in CLAIMS if found.name == claim)


def _printed_test(claim: str, site: str, row: str, versus: str) -> PrintedTest:
    one, two = TABLE_TWO[row][site], TABLE_TWO[versus][site]
    fewest = fewest_discordant(one, two)
    return PrintedTest(
        claim=claim,
        site=site,
        row=row,
        versus=versus,
        right=(right(one), right(two)),
        difference=newcombe(right(one), right(two)),
        fisher=fisher_p(right(one), right(two)),
        z=two_proportion_p(right(one), right(two)),
        at_best=fewest.p,
        discordant=(fewest.first, fewest.second),
        recall_fisher=fisher_p(cases_found(one), cases_found(two)),
        fisher_corrected=None,
        at_best_corrected=None,
    )
