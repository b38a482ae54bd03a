"""The tag of a sum: exact, linear, and refused where one number is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcervix.trust.mask_streams import Lane, MaskSecret, MaskStream
from fedcervix.trust.sum_tag import MODULUS, PIECE, ROW, SumTag, check_tag, inner_product, mask_number, tag_secret

RHOS = [bytes([site]) * 32 for site in range(3)]
SECRET = tag_secret(RHOS, b"run, round, base")
STATISTICS, STEPS = 40, 300


def tag_of(statistics, steps, secret: MaskSecret = SECRET) -> int:
    found = SumTag(secret)
    found.add(np.asarray(statistics, np.int64))
    found.add(np.asarray(steps, np.int32))
    return found.value


def by_hand(numbers: list[int], secret: MaskSecret = SECRET) -> int:
    words = MaskStream(secret.key(Lane.TAG_WEIGHTS)).words(len(numbers), np.dtype(np.uint64))
    return sum((int(word) % 2**61) * number for word, number in zip(words, numbers, strict=True)) % MODULUS


@given(
    numbers=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3 * ROW),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_inner_product_is_exact(numbers: list[int], seed: int) -> None:
    weights = np.random.default_rng(seed).integers(0, 2**64, len(numbers), np.uint64)
    exact = sum((int(weight) % 2**61) * number for weight, number in zip(weights, numbers, strict=True))
    assert inner_product(weights, np.array(numbers, np.int64)) == exact


@pytest.mark.parametrize("number", [2**31 - 1, -(2**31)])
def test_the_largest_numbers_do_not_overflow(number: int) -> None:
    weights = np.full(3 * ROW + 5, 2**64 - 1, np.uint64)
    assert inner_product(weights, np.full(weights.size, number)) == (2**61 - 1) * number * weights.size


@given(
    statistics=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20),
    steps=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20),
)
def test_a_tag_is_that_of_the_definition(statistics: list[int], steps: list[int]) -> None:
    assert tag_of(statistics, steps) == by_hand(statistics + steps)


def test_blocks_do_not_matter() -> None:
    steps = np.random.default_rng(0).integers(-(2**30), 2**30, 3 * PIECE + 11, np.int32)
    cut = SumTag(SECRET)
    for part in np.split(steps, [1, 5, PIECE, 2 * PIECE + 3]):
        cut.add(part)
    assert cut.value == tag_of([], steps)


def sites(chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return what three sites send: statistics of 64 bits, steps of 32; their sums are within their ranges."""
    statistics = chance.integers(-(2**58), 2**58, (3, STATISTICS))
    return statistics, chance.integers(-(2**28), 2**28, (3, STEPS), np.int32)


def test_the_tags_of_the_sites_add_up_to_the_tag_of_the_sum() -> None:
    statistics, steps = sites(np.random.default_rng(1))
    tags = [tag_of(*pair) for pair in zip(statistics, steps, strict=True)]
    assert sum(tags) % MODULUS == tag_of(statistics.sum(axis=0), steps.sum(axis=0))


def off_by_one(statistics, steps, chance) -> tuple[int, int]:
    total, sums = statistics.sum(axis=0), steps.sum(axis=0)
    changed = total if chance.integers(2) else sums
    changed[chance.integers(changed.size)] += chance.choice([-1, 1])
    return tag_of(total, sums), 0


def left_out(statistics, steps, chance) -> tuple[int, int]:
    kept = np.delete(np.arange(3), chance.integers(3))
    return tag_of(statistics[kept].sum(axis=0), steps[kept].sum(axis=0)), 0


def off_by_the_modulus_of_a_word(statistics, steps, chance) -> tuple[int, int]:
    """The sites' numbers add up to more than a word holds: the word is right modulo its size, and the sum is not."""
    width, place = (
        (64, chance.integers(STATISTICS)) if chance.integers(2) else (32, STATISTICS + chance.integers(STEPS))
    )
    weights = MaskStream(SECRET.key(Lane.TAG_WEIGHTS)).words(STATISTICS + STEPS, np.dtype(np.uint64))
    more = (int(weights[place]) % 2**61) * int(chance.choice([-1, 1])) * 2**width
    return tag_of(statistics.sum(axis=0), steps.sum(axis=0)), more


@pytest.mark.parametrize("fault", [off_by_one, left_out, off_by_the_modulus_of_a_word])
def test_a_fault_is_refused_a_thousand_times_of_a_thousand(fault) -> None:
    chance = np.random.default_rng(17)
    refused = 0
    for _ in range(1000):
        statistics, steps = sites(chance)
        tags = sum(tag_of(*pair) for pair in zip(statistics, steps, strict=True))
        found, more = fault(statistics, steps, chance)
        refused += found != (tags + more) % MODULUS
    assert refused == 1000


@pytest.mark.parametrize("value", [-1, MODULUS, MODULUS + 5, 2**64 - 1])
def test_a_tag_off_by_its_modulus_is_none(value: int) -> None:
    assert check_tag(MODULUS - 1) == MODULUS - 1
    with pytest.raises(ValueError):
        check_tag(value)


def test_every_site_round_and_context_changes_the_weights() -> None:
    changed = [bytes([7]) * 32, *RHOS[1:]]
    others = [tag_secret(changed, b"run, round, base"), tag_secret(RHOS[::-1], b"run, round, base")]
    others.append(tag_secret(RHOS, b"run, next round, base"))
    assert len({tag_of([1], [1], secret) for secret in (SECRET, *others)}) == 4


@pytest.mark.parametrize("rhos", [[], [bytes(31)], [bytes(32), bytes(33)]])
def test_every_site_gives_32_bytes(rhos: list[bytes]) -> None:
    with pytest.raises(ValueError):
        tag_secret(rhos, b"c")


def test_a_mask_is_below_the_modulus_and_differs_by_context() -> None:
    found = {mask_number(MaskSecret(bytes(32), context.to_bytes(2, "big"))) for context in range(500)}
    assert len(found) == 500
    assert all(0 <= mask < MODULUS for mask in found)
    assert 0.4 < sum(mask > MODULUS // 2 for mask in found) / 500 < 0.6
