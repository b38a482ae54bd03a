"""Results of ordered classes: the table, kappa, mistakes of two classes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from site_agent.classifier.graded import called, grade, kappa

NAMES = ("normal", "low", "high")


def sure(classes: list[int], count: int = 3) -> np.ndarray:
    """Probabilities (n, K) of a classifier that is nearly certain."""
    return np.where(np.eye(count)[classes] == 1, 0.9, 0.1 / (count - 1))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_kappa_is_cohen_s_with_quadratic_weights(classes):
    rng = np.random.default_rng(classes)
    true = rng.integers(0, classes, 60)
    said = np.clip(true + rng.integers(-1, 2, 60), 0, classes - 1)
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (true, said), 1)
    assert kappa(table) == pytest.approx(cohen_kappa_score(true, said, weights="quadratic"))


def test_an_image_is_called_the_class_up_to_which_worse_is_likely():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.4, 0.35, 0.25], [0.2, 0.29, 0.51], [0.45, 0.1, 0.45]])
    assert called(probabilities).tolist() == [0, 1, 2, 1]


def test_women_are_counted_by_the_worst_of_their_images():
    women = ["a", "a", "b", "c", "d", "d"]
    found = grade(NAMES, [0, 1, 2, 0, 2, 0], sure([0, 0, 0, 0, 1, 2]), women)
    assert found.confusion == ((1, 0, 0), (1, 0, 0), (1, 0, 1))
    assert found.women == 4
    assert found.grave.value == 1 / 4
    assert found.recall == {"normal": 1.0, "low": 0.0, "high": 0.5}
    assert found.kappa.low is None
    assert "fewer than 20" in found.kappa.why


def test_a_class_that_no_test_woman_has_stands_in_the_table():
    five = ("a", "b", "c", "d", "e")
    grades = [k for k in range(5) if k != 2] * 8
    found = grade(five, grades, sure(grades, 5), [str(k) for k in range(32)])
    assert found.confusion[2] == (0, 0, 0, 0, 0)
    assert found.recall["c"] is None
    assert found.kappa.value == 1
    assert found.kappa.why, "no woman was called wrongly: these do not tell how far it would move"


def test_intervals_of_many_women_are_by_woman():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 100)
    said = np.clip(true + rng.integers(-1, 2, 100), 0, 2)
    women = [str(k) for k in range(100)]
    once = grade(NAMES, true, sure(said.tolist()), women)
    thrice = grade(NAMES, np.repeat(true, 3), sure(np.repeat(said, 3).tolist()), np.repeat(women, 3).tolist())
    assert once == thrice, "more images of the same women tell no more"
    assert once.kappa.low < once.kappa.value < once.kappa.high
    values = [
        kappa(np.histogram2d(true[rows], said[rows], bins=(range(4), range(4)))[0].astype(int))
        for rows in rng.integers(0, 100, (2000, 100))
    ]
    np.testing.assert_allclose(once.kappa.interval, np.quantile(values, [0.025, 0.975]), atol=0.02)


def test_women_of_one_class_tell_nothing_of_agreement():
    found = grade(NAMES, [1] * 30, sure([1] * 30), [str(k) for k in range(30)])
    assert found.confusion[1] == (0, 30, 0)
    assert found.kappa.interval is None
