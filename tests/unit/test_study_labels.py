"""Smaller shares of the labels, and labels that mean nothing."""

from __future__ import annotations

import numpy as np
import pytest

from cervix_study.data.labels import share_of, shuffled, women_in
from site_agent.data.image_sets import Labelled

PATIENTS = tuple(f"w{number:02}" for number in range(60) for _ in range(2))
LABELS = np.array([int(number % 3 == 0) for number in range(60) for _ in range(2)], np.int64)


@pytest.fixture
def labelled() -> Labelled:
    pixels = np.arange(len(LABELS), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return Labelled(pixels, LABELS, PATIENTS)


def disease(labelled: Labelled) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for woman, label in zip(labelled.patients, labelled.labels.tolist(), strict=True):
        found.setdefault(woman, set()).add(label)
    return found


def test_shares_are_nested_and_of_both_classes() -> None:
    one, ten, half, whole = (women_in(PATIENTS, LABELS, share, 0) for share in (0.01, 0.1, 0.5, 1.0))
    assert one < ten < half < whole
    assert [len(found) for found in (one, ten, half, whole)] == [1 + 1, 2 + 4, 10 + 20, 60]


def test_another_seed_draws_other_women() -> None:
    assert women_in(PATIENTS, LABELS, 0.1, 0) != women_in(PATIENTS, LABELS, 0.1, 1)


def test_a_woman_is_in_a_share_with_all_her_images(labelled: Labelled) -> None:
    found = share_of(labelled, 0.1, 0)
    assert len(found.labels) == 2 * len(set(found.patients)) == 12
    rows = [PATIENTS.index(woman) for woman in found.patients]
    seen = found.pixels[np.arange(len(found.labels))][:, 0, 0, 0] // 2
    assert seen.tolist() == [row // 2 for row in rows]


def test_all_labels_are_the_labels(labelled: Labelled) -> None:
    assert share_of(labelled, 1.0, 0) is labelled


def test_shuffled_labels_are_as_many_and_say_nothing(labelled: Labelled) -> None:
    agreed = []
    for seed in range(40):
        found = shuffled(labelled, seed, "train")
        assert all(len(labels) == 1 for labels in disease(found).values())
        assert found.labels.sum() == LABELS.sum()
        agreed.append(float(np.mean(found.labels == LABELS)))
    by_chance = (1 / 3) ** 2 + (2 / 3) ** 2
    assert abs(np.mean(agreed) - by_chance) < 0.03


def test_training_and_validation_are_shuffled_apart(labelled: Labelled) -> None:
    assert shuffled(labelled, 0, "train").labels.tolist() != shuffled(labelled, 0, "valid").labels.tolist()
