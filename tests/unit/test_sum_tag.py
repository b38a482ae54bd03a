"""The tag of a sum: exact, linear, and refused where one number is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcervix.trust.mask_streams import Lane, MaskSecret, MaskStream
from fedcervix.trust.sum_tag import LIMBS, MODULUS, PIECE, ROW, SumTag, check_tag, mask_number, row_sums, tag_secret

RHOS = [bytes([site]) * 32 for site in range(3)]
SECRET = tag_secret(RHOS, b"run, round, base")
STATISTICS, STEPS = 40, 1500
"""two rows, of which the first one holds both"""


def tag_of(statistics, steps, secret: MaskSecret = SECRET) -> int:
    found = SumTag(secret)
    found.add(np.asarray(statistics, np.int64))
    found.add(np.asarray(steps, np.int32))
    return found.value


def weights_of(count: int, secret: MaskSecret = SECRET) -> list[int]:
    stream = MaskStream(secret.key(Lane.TAG_WEIGHTS))
    columns, rows = (
        [int(word) % 2**61 for word in stream.words(many, np.dtype(np.uint64))] for many in (ROW, count // ROW + 1)
    )
    return [rows[place // ROW] * columns[place % ROW] for place in range(count)]


def by_hand(numbers: list[int]) -> int:
    return sum(weight * number for weight, number in zip(weights_of(len(numbers)), numbers, strict=True)) % MODULUS


@pytest.mark.parametrize("number", [2**31 - 1, -(2**31)])
def test_the_largest_numbers_do_not_overflow(number: int) -> None:
    limbs = np.array([np.full(ROW, kept, np.float64) for _, kept in LIMBS])
    assert row_sums(np.full((2, ROW), number, np.float64), limbs) == [(2**61 - 1) * number * ROW] * 2


@given(numbers=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3 * ROW))
def test_the_tag_of_many_rows_is_exact(numbers: list[int]) -> None:
    assert tag_of([], numbers) == by_hand(numbers)


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
    more = weights_of(STATISTICS + STEPS)[place] * int(chance.choice([-1, 1])) * 2**width
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
