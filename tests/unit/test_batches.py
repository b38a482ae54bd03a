"""Which images make which mini-batch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcervix.errors import TrainingError
from site_agent.data.batches import batches, scoring_batches


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


def of_runs(runs: tuple[int, ...], size: int, seed: int = 0, women: list[str] | None = None) -> list[list[int]]:
    found = batches(sum(runs), size, seed, patients=women, avoid_same_patient=women is not None, runs=runs)
    return [batch.tolist() for batch in found]


@given(
    per_woman=st.lists(st.lists(st.integers(1, 3), min_size=3, max_size=12), min_size=2, max_size=4),
    size=st.integers(2, 6),
    seed=st.integers(0, 2**63 - 1),
)
def test_runs_never_meet_and_each_is_dealt_as_if_it_were_alone(
    per_woman: list[list[int]], size: int, seed: int
) -> None:
    runs = tuple(sum(images) for images in per_woman)
    run_of = [run for run, count in enumerate(runs) for _ in range(count)]
    women = [
        f"{w} at {run}" for run, hers in enumerate(per_woman) for w, images in enumerate(hers) for _ in range(images)
    ]
    found = of_runs(runs, size, seed, women)
    assert len({image for batch in found for image in batch}) == sum(map(len, found))
    for run, (count, hers) in enumerate(zip(runs, per_woman, strict=True)):
        own = [batch for batch in found if run_of[batch[0]] == run]
        assert all(run_of[image] == run for batch in own for image in batch)
        assert [len(batch) for batch in own] == [min(size, count)] * (count // min(size, count))
        if max(hers) <= len(own):
            assert meetings(own, women) == 0


def test_the_batches_of_runs_take_turns_and_runs_of_one_size_are_dealt_apart() -> None:
    found = of_runs((40, 40), 4)
    of_first = [batch[0] < 40 for batch in found]
    assert of_first not in (sorted(of_first), sorted(of_first, reverse=True))
    firsts = sorted(sorted(batch) for batch in found if batch[0] < 40)
    seconds = sorted(sorted(image - 40 for image in batch) for batch in found if batch[0] >= 40)
    assert firsts != seconds


def test_runs_are_all_the_images_there_are() -> None:
    with pytest.raises(ValueError, match="are not 80 images"):
        batches(80, 4, 0, patients=None, avoid_same_patient=False, runs=(40,))


def test_a_run_of_one_image_cannot_be_contrasted() -> None:
    with pytest.raises(TrainingError, match="at least two images; found 1"):
        of_runs((40, 1), 4)


def test_the_order_of_an_epoch_is_what_it_has_always_been() -> None:
    """Studies and runs that were begun with an earlier version go on to the same bits."""
    assert epoch(9, 4, seed=7) == [[8, 0, 7, 1], [3, 6, 2, 4]]
    assert epoch(8, 4, seed=7, women=list("aabbccdd")) == [[0, 6, 2, 4], [1, 7, 3, 5]]


def test_a_woman_with_more_images_than_batches_meets_herself_as_seldom_as_possible() -> None:
    """10 of her 12 images among 3 batches of 4: 4, 3 and 3 of hers, if all 12 are shown."""
    women = ["she"] * 10 + ["another", "a third"]
    hers = sorted(sum(women[i] == "she" for i in batch) for batch in epoch(12, 4, women=women))
    assert hers == [3, 3, 4]


def test_a_lone_last_image_joins_another_batch_in_scoring() -> None:
    assert sorted(len(batch) for batch in scoring(9, 4)) == [4, 5]
    assert sorted(len(batch) for batch in scoring(11, 4)) == [3, 4, 4]
    assert sorted(len(batch) for batch in scoring(3, 4)) == [3]
