"""Tests of printed counts, against values from the literature and against every table of images there can be."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cervix_study.evidence.mcnemar import Discordant
from cervix_study.evidence.proportions import (
    Proportion,
    cases_found,
    fewest_discordant,
    fisher_p,
    newcombe,
    right,
    two_proportion_p,
)
from site_agent.metrics import Confusion


def test_newcombes_own_example():
    """Newcombe 1998, table II, example (a), method 10: 56/70 - 48/80 = .2, interval .0524 to .3339."""
    found = newcombe(Proportion(56, 70), Proportion(48, 80))
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_wilsons_interval_of_nothing_found():
    """0 of 10: from 0 to 3.84 / 13.84 = .2775."""
    assert Proportion(0, 10).wilson == pytest.approx((0, 0.2775), abs=5e-5)


def test_the_lady_tasting_tea():
    """Fisher: 3 of 4 against 1 of 4: p = 34 / 70."""
    assert fisher_p(Proportion(3, 4), Proportion(1, 4)) == pytest.approx(34 / 70)


def test_two_proportions_by_hand():
    """60 of 100 against 40 of 100: pooled .5, standard error .0707, z = 2.83, p = .0047."""
    assert two_proportion_p(Proportion(60, 100), Proportion(40, 100)) == pytest.approx(0.00468, abs=1e-5)
    assert two_proportion_p(Proportion(3, 3), Proportion(5, 5)) == 1.0


def test_what_a_confusion_matrix_says():
    counts = Confusion(tp=26, fn=23, fp=7, tn=92)
    assert (right(counts), cases_found(counts)) == (Proportion(118, 148), Proportion(26, 49))


def test_the_fewest_images_that_must_differ():
    """SSL N=16 over ImageNet at NHS: ten more cases found, six more controls alarmed."""
    one, two = Confusion(tp=34, fn=15, fp=10, tn=89), Confusion(tp=24, fn=25, fp=4, tn=95)
    assert fewest_discordant(one, two) == Discordant(10, 6)


@settings(max_examples=60, deadline=None)
@given(*[st.integers(0, 4)] * 4)
def test_no_images_with_these_counts_give_a_smaller_p(tp_one, tp_two, tn_one, tn_two):
    """Every way in which 4 cases and 4 controls can have been called, given how many each classifier called right."""
    one, two = (Confusion(tp=tp, fn=4 - tp, fp=4 - tn, tn=tn) for tp, tn in ((tp_one, tn_one), (tp_two, tn_two)))

    def ways(first: int, second: int) -> list[Discordant]:
        """Both right on `both` of four images; the rest of each is where it alone is right."""
        return [
            Discordant(first - both, second - both)
            for both in range(min(first, second) + 1)
            if first + second - both <= 4
        ]

    every = [c + d for c, d in itertools.product(ways(tp_one, tp_two), ways(tn_one, tn_two))]
    assert min(found.p for found in every) == pytest.approx(fewest_discordant(one, two).p)


@pytest.mark.parametrize("difference", range(1, 12))
def test_more_differing_images_only_weaken_a_lead(difference):
    p = [Discordant(difference + more, more).p for more in range(60)]
    assert p == sorted(p)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="not a proportion"):
        Proportion(5, 4)
