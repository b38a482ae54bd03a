"""Which images make which mini-batch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcervix.errors import TrainingError
from site_agent.batches import batches, scoring_batches


def epoch(count: int, size: int, seed: int = 0, women: list[str] | None = None) -> list[list[int]]:
    found = batches(count, size, seed, patients=women, avoid_same_patient=women is not None)
    return [batch.tolist() for batch in found]


def scoring(count: int, size: int, seed: int = 0, women: list[str] | None = None) -> list[list[int]]:
    found = scoring_batches(count, size, seed, patients=women, avoid_same_patient=women is not None)
    return [batch.tolist() for batch in found]


def meetings(found: list[list[int]], women: list[str]) -> int:
    """How many images find another of the same woman in their batch before them."""
    return sum(len(batch) - len({women[i] for i in batch}) for batch in found)


def test_an_epoch_shows_every_image_at_most_once_in_full_batches() -> None:
    found = epoch(11, 4)
    assert [len(batch) for batch in found] == [4, 4]
    assert len({image for batch in found for image in batch}) == 8


def test_fewer_images_than_a_batch_make_one_batch_of_all() -> None:
    [only] = epoch(3, 8)
    assert sorted(only) == [0, 1, 2]


def test_the_seed_alone_decides_the_order() -> None:
    assert epoch(40, 4, seed=1) == epoch(40, 4, seed=1)
    assert epoch(40, 4, seed=1) != epoch(40, 4, seed=2)


def test_over_many_epochs_no_image_is_left_out() -> None:
    seen = Counter(image for seed in range(300) for batch in epoch(5, 4, seed) for image in batch)
    assert set(seen) == set(range(5))
    assert min(seen.values()) > 200  # 240 are expected


def test_the_global_generator_is_left_alone() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    epoch(40, 4)
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_cannot_be_contrasted(count: int) -> None:
    for sampler in (epoch, scoring):
        with pytest.raises(TrainingError, match=f"at least two images; found {count}"):
            sampler(count, 8)


def test_a_batch_of_one_image_has_no_negatives() -> None:
    with pytest.raises(TrainingError, match="nothing to contrast"):
        epoch(10, 1)


def test_women_are_kept_apart_only_where_the_recipe_says_so() -> None:
    women = [f"woman {i // 2}" for i in range(40)]
    free = batches(40, 8, 0, patients=women, avoid_same_patient=False)
    assert [batch.tolist() for batch in free] == epoch(40, 8)
    assert meetings(epoch(40, 8), women) > 0
    assert meetings(epoch(40, 8, women=women), women) == 0


@given(
    per_woman=st.lists(st.integers(1, 5), min_size=4, max_size=30),
    size=st.integers(2, 6),
    seed=st.integers(0, 2**63 - 1),
)
def test_no_woman_meets_herself_while_she_has_no_more_images_than_there_are_batches(
    per_woman: list[int], size: int, seed: int
) -> None:
    women = [f"woman {w}" for w, images in enumerate(per_woman) for _ in range(images)]
    if len(women) < size:
        return
    found = epoch(len(women), size, seed, women)
    assert [len(batch) for batch in found] == [size] * (len(women) // size)
    assert len({image for batch in found for image in batch}) == size * len(found)
    if max(per_woman) <= len(found):
        assert meetings(found, women) == 0


@given(
    per_woman=st.lists(st.integers(1, 5), min_size=2, max_size=30),
    size=st.integers(2, 6),
    seed=st.integers(0, 2**63 - 1),
)
def test_scoring_shows_every_image_exactly_once(per_woman: list[int], size: int, seed: int) -> None:
    women = [f"woman {w}" for w, images in enumerate(per_woman) for _ in range(images)]
    for known in (None, women):
        found = scoring(len(women), size, seed, known)
        assert sorted(image for batch in found for image in batch) == list(range(len(women)))
        assert all(2 <= len(batch) <= size + 1 for batch in found)
    if max(per_woman) <= len(women) // size:
        assert meetings(found, women) == 0


@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=4),
    size=st.integers(2, 6),
    seed=st.integers(0, 2**63 - 1),
    apart=st.booleans(),
)
def test_parts_never_meet(counts: list[int], size: int, seed: int, apart: bool) -> None:
    part_of = [part for part, count in enumerate(counts) for _ in range(count)]
    women = [f"woman {i // 2}" for i in range(len(part_of))]
    for sampler in (batches, scoring_batches):
        found = sampler(len(part_of), size, seed, patients=women, avoid_same_patient=apart, parts=counts)
        assert all(len({part_of[i] for i in batch}) == 1 for batch in found)
        shown = [image for batch in found for image in batch.tolist()]
        assert len(set(shown)) == len(shown)
    assert sorted(shown) == list(range(len(part_of)))  # in scoring, every one


def test_the_batches_of_parts_take_turns() -> None:
    found = batches(80, 4, 0, patients=None, avoid_same_patient=False, parts=(40, 40))
    assert [len(batch) for batch in found] == [4] * 20
    of_first = [batch[0] < 40 for batch in found]
    assert of_first != sorted(of_first)
    assert of_first != sorted(of_first, reverse=True)


def test_one_part_is_dealt_as_if_nothing_were_said_of_parts() -> None:
    found = batches(40, 4, 5, patients=None, avoid_same_patient=False, parts=(40,))
    assert [batch.tolist() for batch in found] == epoch(40, 4, 5)


def test_a_part_of_one_image_cannot_be_contrasted() -> None:
    with pytest.raises(TrainingError, match="at least two images; found 1"):
        batches(41, 4, 0, patients=None, avoid_same_patient=False, parts=(40, 1))


def test_a_woman_with_more_images_than_batches_meets_herself_as_seldom_as_possible() -> None:
    """10 of her 12 images among 3 batches of 4: 4, 3 and 3 of hers, if all 12 are shown."""
    women = ["she"] * 10 + ["another", "a third"]
    hers = sorted(sum(women[i] == "she" for i in batch) for batch in epoch(12, 4, women=women))
    assert hers == [3, 3, 4]


def test_a_lone_last_image_joins_another_batch_in_scoring() -> None:
    assert sorted(len(batch) for batch in scoring(9, 4)) == [4, 5]
    assert sorted(len(batch) for batch in scoring(11, 4)) == [3, 4, 4]
    assert sorted(len(batch) for batch in scoring(3, 4)) == [3]
