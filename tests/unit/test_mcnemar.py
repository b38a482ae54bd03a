"""McNemar's exact test against a coin's arithmetic."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cervix_study.evidence.mcnemar import Discordant, by_image, by_woman, of_seeds
from fedcervix.errors import DataError


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),  # five heads in a row, either way
        (6, 0, 2 / 64),
        (3, 3, 1.0),
        (10, 6, 0.454498),  # 2 * P(at most 6 of 16)
        (2, 12, 0.012939),
    ],
)
def test_p_values_a_reader_can_check(first, second, p):
    assert Discordant(first, second).p == pytest.approx(p, abs=1e-6)


@given(st.integers(0, 40), st.integers(0, 40))
def test_it_is_twice_the_smaller_tail_of_a_fair_coin(first, second):
    n, low = first + second, min(first, second)
    tail = sum(comb(n, i) for i in range(low + 1)) / 2**n
    assert Discordant(first, second).p == pytest.approx(min(1.0, 2 * tail))
    assert Discordant(first, second).p == Discordant(second, first).p


def test_images_are_counted_where_one_alone_is_right():
    first, second = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    assert by_image(first, second) == Discordant(2, 1)


def test_a_woman_votes_once():
    """a: two images, both better with the first; b: one each, no vote; c: one better with the second."""
    first = np.array([1, 1, 1, 0, 0, 1], bool)
    second = np.array([0, 0, 0, 1, 1, 1], bool)
    assert by_image(first, second) == Discordant(3, 2)
    assert by_woman(first, second, list("aabbcc")) == Discordant(1, 1)


def test_two_equal_images_of_every_woman_change_p_by_image_and_not_by_woman():
    first, second = np.repeat([True] * 6, 2), np.repeat([False] * 6, 2)
    women = [str(place // 2) for place in range(12)]
    assert by_image(first, second).p == pytest.approx(2 / 2**12)
    assert by_woman(first, second, women).p == pytest.approx(2 / 2**6)


def test_folds_are_added():
    assert Discordant(1, 2) + Discordant(3, 4) == Discordant(4, 6)


@pytest.mark.parametrize(
    ("p_values", "combined"), [([0.03], 0.03), ([0.01, 0.2], 0.21), ([0.01, 0.02, 0.9], 0.04), ([0.6, 0.7, 0.8], 1.0)]
)
def test_of_several_seeds_twice_the_median(p_values, combined):
    assert of_seeds(p_values) == pytest.approx(combined)


def test_women_and_images_differ_in_number():
    with pytest.raises(DataError, match="differ in number"):
        by_woman(np.array([True]), np.array([True]), ["a", "b"])
