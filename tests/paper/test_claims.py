"""What the paper's printed numbers can carry: one training per row, 148 and 198 test images, no test in print."""

import itertools

import pytest

from cervix_study.evidence.paper import CLAIMS, SITES, TABLE_TWO, TEST_WOMEN, printed_tests
from cervix_study.evidence.proportions import Proportion, fisher_p, right

TESTS = {(test.site, test.row, test.versus): test for test in printed_tests()}
BETTER = [test for test in TESTS.values() if test.fisher_corrected is not None]


def test_every_claim_is_tested_for_which_numbers_are_printed():
    assert {(test.claim, test.site) for test in TESTS.values()} == {
        (claim.name, site) for claim in CLAIMS if claim.printed for site in SITES
    }
    assert [claim.name for claim in CLAIMS if not claim.printed] == ["E = 1 is best", "the width hardly matters"]


def test_ssl_over_imagenet_by_hand():
    """Abstract, "Accuracy: 2.5% up": 123 against 119 of 148 images; ten more cases found, six more false alarms."""
    found = TESTS["NHS", "SSL N=16", "ImageNet"]
    assert found.right == (Proportion(123, 148), Proportion(119, 148))
    assert found.discordant == (10, 6)
    assert found.fisher == pytest.approx(0.6519, abs=5e-5)
    assert found.z == pytest.approx(0.5472, abs=5e-5)
    assert found.at_best == pytest.approx(0.4545, abs=5e-5)


def test_pooling_by_hand():
    """Abstract, "1.5% up": five more of 148 images right; no image need have become worse: 2 / 2^5 at best."""
    found = TESTS["NHS", "CSSL N=8", "SSL N=16"]
    assert (found.discordant, found.at_best) == ((5, 0), 0.0625)
    assert TESTS["ALTS", "CSSL N=8", "SSL N=16"].at_best > 0.6


def test_no_claim_of_better_accuracy_passes_an_unpaired_test():
    """IV: every "improves" and "better"; Fisher's exact test and the two-proportion test, uncorrected."""
    assert min(test.fisher for test in BETTER) > 0.46
    assert min(test.z for test in BETTER) > 0.39
    assert all(test.difference.low < 0 < test.difference.high for test in BETTER)


def test_one_claim_at_one_site_could_pass_a_paired_test_and_none_after_correction():
    """SSL over Random at ALTS: seven more right, at best 2 / 2^7 = .0156, one of 18 comparisons in print."""
    assert {key for key, test in TESTS.items() if test.at_best < 0.05} == {("ALTS", "SSL N=16", "Random")}
    assert TESTS["ALTS", "SSL N=16", "Random"].at_best == 2 / 2**7
    assert len(BETTER) == 18
    assert min(test.at_best_corrected for test in BETTER) == pytest.approx(18 * 2 / 2**7)


def test_all_pairs_of_rows_are_weak():
    """PAPER, 3: every printed difference of accuracy has p > .15 in an unpaired exact test."""
    for site in SITES:
        pairs = itertools.combinations((right(row[site]) for row in TABLE_TWO.values()), 2)
        assert min(fisher_p(one, two) for one, two in pairs) > 0.15


def test_the_women_of_the_test_parts():
    """Table I: 25 + 50 women at NHS, 34 + 65 at ALTS."""
    assert TEST_WOMEN == {"NHS": 25 + 50, "ALTS": 34 + 65}
