"""The map keeps neighbours together, is the same whenever it is drawn, and shows a collapsed model as one place."""

from __future__ import annotations

import numpy as np
import pytest

from site_agent.report.embedding_map import IMAGES_MAX, IMAGES_MIN, choose, lay_out
from site_agent.training.knn_probe import Features


def groups(each: int = 20, width: int = 64, seed: int = 0) -> Features:
    """Two groups about two directions at a right angle: the first `each` rows, and the others."""
    noise = 0.05 * np.random.default_rng(seed).standard_normal((2 * each, width))
    directions = np.repeat(np.eye(2, width), each, axis=0)
    return np.asarray(directions + noise, np.float32)


def test_groups_that_differ_stay_apart() -> None:
    places = lay_out(groups(), seed=0)
    assert places.shape == (40, 2)
    distance = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert ((distance.argmin(axis=1) < 20) == (np.arange(40) < 20)).all()


def test_the_same_seed_draws_the_same_map() -> None:
    assert (lay_out(groups(), seed=1) == lay_out(groups(), seed=1)).all()


def test_directions_count_and_lengths_do_not() -> None:
    lengths = 2.0 ** np.arange(40)[:, None] / 2.0**20
    assert (lay_out(groups() * lengths.astype(np.float32), seed=0) == lay_out(groups(), seed=0)).all()


@pytest.mark.parametrize("value", [0.0, 3.0], ids=["all zero", "all alike"])
def test_a_collapsed_model_has_one_place_for_all(value: float) -> None:
    assert (lay_out(np.full((12, 8), value, np.float32), seed=0) == 0).all()


def test_few_images_are_enough_and_fewer_are_refused() -> None:
    assert np.isfinite(lay_out(groups(IMAGES_MIN // 2), seed=0)).all()
    with pytest.raises(ValueError, match="at least 10 images; found 9"):
        lay_out(groups()[:9], seed=0)


def test_a_small_collection_is_shown_whole() -> None:
    assert choose(7, seed=0).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_of_a_large_collection_the_seed_chooses() -> None:
    chosen = choose(5174, seed=0)
    assert len(chosen) == IMAGES_MAX
    assert (np.diff(chosen) > 0).all()
    assert chosen[-1] < 5174
    assert (choose(5174, seed=0) == chosen).all()
    assert (choose(5174, seed=1) != chosen).any()
