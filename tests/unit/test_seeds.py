"""Where every random number comes from."""

from __future__ import annotations

import hashlib
import itertools

from fedcervix.core.seeds import derive


def test_a_seed_is_the_first_63_bits_of_a_hash_that_anyone_can_take_again() -> None:
    head = hashlib.sha256(b"7\x1fbatches\x1fnorth\x1f3").digest()[:8]
    assert derive(7, "batches", "north", 3) == int.from_bytes(head, "big") >> 1


def test_the_derivation_never_changes_or_no_run_could_be_repeated() -> None:
    assert derive(0, "first-model") == 2492842190257651878


def test_a_seed_depends_on_what_is_drawn() -> None:
    streams = [
        (0, "a"),
        (1, "a"),
        (0, "b"),
        (0, "a", 1),
        (0, "a", 1, 2),
        (0, "a", 2, 1),
        (0, "a", 12),
        (0, "a1"),
        (0, ""),
    ]
    assert len({derive(*stream) for stream in streams}) == len(streams)  # type: ignore[arg-type]


def test_one_and_the_word_one_are_the_same_name() -> None:
    assert derive(0, "a", 1) == derive(0, "a", "1")


def test_seeds_fit_a_signed_64_bit_integer_and_spread_over_it() -> None:
    seeds = [derive(0, "x", *pair) for pair in itertools.product(range(30), repeat=2)]
    assert len(set(seeds)) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert 0.4 < sum(seed >= 2**62 for seed in seeds) / 900 < 0.6
