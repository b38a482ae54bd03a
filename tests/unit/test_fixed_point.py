"""Numbers of an update as whole numbers: by hand, at their limits, and added up in any order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcervix.trust.fixed_point import (
    OutOfRangeError,
    Share,
    averaged_statistics,
    averaged_steps,
    bound,
    check_statistics,
    check_steps,
    largest,
    pooled_variances,
    quantised_statistics,
    quantised_steps,
    second_moments,
    steps_of,
    together,
)

WHOLE = Share(1, 1)


def in_fixed_point(values: np.ndarray, base: np.ndarray, share: Share, within: float) -> np.ndarray:
    """Return what a site sends of the numbers that it trained."""
    return quantised_steps(steps_of(values, base, within), share, within)


@pytest.mark.parametrize(
    ("largest", "expected"),
    [(0.0, 1.0), (0.125, 1.0), (0.1251, 2.0), (1.0, 8.0), (1.001, 16.0), (5e-324, 1.0), (2.0**17, 2.0**20)],
)
def test_the_bound_is_the_least_power_of_two_over_eight_times_the_base(largest: float, expected: float) -> None:
    assert bound(largest, 2) == expected


@pytest.mark.parametrize(
    ("largest", "expected"), [(0.0, 16.0), (0.096, 16.0), (2.0, 16.0), (2.001, 32.0), (2.0**17, 2.0**20)]
)
def test_in_round_1_a_number_may_move_by_sixteen_whatever_the_base_holds(largest: float, expected: float) -> None:
    assert bound(largest, 1) == expected


@pytest.mark.parametrize("largest", [math.nan, math.inf, 2.0**17 + 1, 1e300])
def test_a_base_that_is_too_large_is_refused(largest: float) -> None:
    with pytest.raises(OutOfRangeError):
        bound(largest, 1)


def test_a_step_by_hand() -> None:
    # a quarter of a step of 1, where B is 8: 1/4 * 1 / (8 / 2^30) = 2^25; then 1/4 * 3 scales, and half of one
    scale = 8 / 2**30
    base = np.zeros(4)
    values = np.array([1.0, 12 * scale, -12 * scale, 2 * scale])
    np.testing.assert_array_equal(in_fixed_point(values, base, Share(25, 100), 8.0), [2**25, 3, -3, 0])


def test_a_statistic_by_hand() -> None:
    found = quantised_statistics(np.float32([1.5, -0.25]), Share(1, 2))
    np.testing.assert_array_equal(found, [3 * 2**30, -(2**29)])
    np.testing.assert_array_equal(averaged_statistics(found, Share(1, 2)), [1.5, -0.25])


def test_an_average_by_hand() -> None:
    # two sites of three, with 100 and 200 of 600 images: (100 * 1 + 200 * 4) / 300 = 3 beyond the base
    shares = [Share(100, 600), Share(200, 600)]
    base = np.float32([10, 10])
    steps = [
        in_fixed_point(base + moved, base, share, 128.0).astype(np.int64)
        for moved, share in zip((1, 4), shares, strict=True)
    ]
    total = sum(steps).astype(np.int32)
    found = averaged_steps(total, base, 128.0, together(shares))
    np.testing.assert_allclose(found, [13, 13], atol=2 * 128 / 2**30)


@pytest.mark.parametrize("beyond", [1.0 + 2**-20, -1.0 - 2**-20, 1e30, math.inf, -math.inf, math.nan])
def test_a_step_beyond_the_bound_is_refused_and_never_clipped(beyond: float) -> None:
    values = np.array([0.5, beyond, 0.0])
    with pytest.raises(OutOfRangeError):
        in_fixed_point(values, np.zeros(3), WHOLE, 1.0)


def test_a_step_to_the_bound_is_taken() -> None:
    found = in_fixed_point(np.array([1.0, -1.0]), np.zeros(2), WHOLE, 1.0)
    np.testing.assert_array_equal(found, [2**30, -(2**30)])


@pytest.mark.parametrize("value", [2.0**28, -(2.0**28), math.inf, math.nan])
def test_a_statistic_that_is_too_large_is_refused(value: float) -> None:
    with pytest.raises(OutOfRangeError):
        quantised_statistics(np.array([0.0, value]), WHOLE)


def test_nan_is_the_largest() -> None:
    assert math.isnan(largest(np.float32([1, math.nan, 2])))
    assert largest(np.float32([1, -3, 2])) == 3
    assert largest(np.float32([])) == 0


@given(images=st.lists(st.integers(1, 10**9), min_size=1, max_size=64), up=st.booleans())
def test_sites_at_their_bounds_are_within_the_range_of_a_sum(images: list[int], up: bool) -> None:
    whole = sum(images)
    value = np.array([2.0**20 if up else -(2.0**20)])
    steps = [in_fixed_point(value, np.zeros(1), Share(n, whole), 2.0**20) for n in images]
    total = np.array([sum(int(step[0]) for step in steps)])
    check_steps(total.astype(np.int32), len(images))
    assert abs(int(total[0])) < 2**31
    statistics = np.array([math.nextafter(2.0**28, 0)]) * (1 if up else -1)
    all_of_them = [int(quantised_statistics(statistics, Share(n, whole))[0]) for n in images]
    assert abs(sum(all_of_them)) < 2**60 + len(images)


@pytest.mark.parametrize("value", [2**30 + 3 + 1, -(2**30) - 3 - 1, 2**31 - 1, -(2**31)])
def test_a_sum_outside_of_its_range_is_refused(value: int) -> None:
    with pytest.raises(OutOfRangeError):
        check_steps(np.array([0, value], np.int32), 3)
    check_steps(np.array([2**30 + 3, -(2**30) - 3], np.int32), 3)


@pytest.mark.parametrize("value", [2**60, -(2**60), 2**63 - 1, -(2**63)])
def test_a_sum_of_statistics_outside_of_its_range_is_refused(value: int) -> None:
    with pytest.raises(OutOfRangeError):
        check_statistics(np.array([value]))
    check_statistics(np.array([2**60 - 1, 1 - 2**60]))


def test_pooled_variances_are_those_of_all_activations_together() -> None:
    sites = [np.random.default_rng(0).normal(0, 1, 300), np.random.default_rng(1).normal(5, 2, 100)]
    shares = [Share(300, 400), Share(100, 400)]
    means = [np.float64([x.mean()]) for x in sites]
    variances = [np.float64([x.var()]) for x in sites]
    moments = map(second_moments, variances, means)
    pairs = zip(moments, means, shares, strict=True)
    sums = [[quantised_statistics(moment, s), quantised_statistics(mean, s)] for moment, mean, s in pairs]
    moment, mean = (averaged_statistics(sum(column), WHOLE) for column in zip(*sums, strict=True))
    together_ = np.concatenate(sites)
    np.testing.assert_allclose(pooled_variances(moment, mean, 2, WHOLE), together_.var(), atol=1e-8)


def test_what_rounding_leaves_below_zero_is_zero_and_more_is_refused() -> None:
    half = 2.0**-33
    np.testing.assert_array_equal(pooled_variances(np.array([25 - 10 * half]), np.array([5.0]), 3, WHOLE), [0])
    with pytest.raises(OutOfRangeError):
        pooled_variances(np.array([24.9]), np.array([5.0]), 3, WHOLE)


def test_the_order_of_sites_does_not_matter() -> None:
    chance = np.random.default_rng(7)
    images = chance.integers(1, 1000, 9)
    steps = [
        in_fixed_point(chance.normal(size=500) / 10, np.zeros(500), Share(int(n), int(images.sum())), 1.0).view("u4")
        for n in images
    ]
    masks = chance.integers(0, 2**32, (9, 500), dtype=np.uint32)
    masked = [step + mask for step, mask in zip(steps, masks, strict=True)]
    forward = np.add.reduce(masked, dtype=np.uint32) - np.add.reduce(masks, dtype=np.uint32)
    backward = np.add.reduce(masked[::-1], dtype=np.uint32) - np.add.reduce(masks[::-1], dtype=np.uint32)
    exact = np.add.reduce([step.view("i4").astype(np.int64) for step in steps])
    np.testing.assert_array_equal(forward, backward)
    np.testing.assert_array_equal(forward.view("i4"), exact)


@pytest.mark.parametrize(("part", "whole"), [(0, 3), (-1, 3), (4, 3), (1, 2**53 + 1)])
def test_a_share_is_a_part_of_a_whole(part: int, whole: int) -> None:
    with pytest.raises(ValueError):
        Share(part, whole)


def test_shares_of_different_wholes_are_not_added() -> None:
    assert together([Share(1, 3), Share(1, 3)]) == Share(2, 3)
    with pytest.raises(ValueError):
        together([Share(1, 3), Share(1, 4)])
    with pytest.raises(ValueError):
        together([])


def test_a_sum_is_divided_by_its_share_with_one_rounding() -> None:
    quotients = {part: float(averaged_statistics(np.array([2**32]), Share(part, 378))[0]) for part in range(1, 379)}
    assert quotients == {part: 378 / part for part in range(1, 379)}
    assert any(1 / (part / 378) != quotient for part, quotient in quotients.items())
