"""What every classifier gave for every test image, and what follows for each woman."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from fedcervix.errors import DataError
from site_agent.report.predictions import (
    ClassifierScores,
    Predictions,
    ScoredImage,
    images_csv,
    missed_women,
    women,
    women_csv,
)
from site_agent.report.reliability import reliability
from site_agent.report.scores import comparisons, evaluations

IMAGES = (
    ScoredImage("a1.jpg", "7", "007", 1),
    ScoredImage("b.jpg", "P2", "P2", 0),
    ScoredImage("a2.jpg", "007", "007", 0),
    ScoredImage("c.jpg", "P3", "P3", 1),
)
SCORES = np.array([0.3, 0.5, 0.45, 0.2])
FOUND = Predictions(
    IMAGES, (ClassifierScores("SSL", "ab" * 32, 0.4, SCORES), ClassifierScores("Random", "cd" * 32, 0.9, SCORES[::-1]))
)


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def test_a_womans_score_is_that_of_her_highest_image_and_one_case_image_makes_her_a_case() -> None:
    first, second, third = women(IMAGES, SCORES)
    assert (first.name, first.score, first.label) == ("007", 0.45, 1)
    assert (first.patients, first.images) == (("7", "007"), ("a1.jpg", "a2.jpg"))
    assert (second.name, third.name) == ("P2", "P3")


def test_a_case_woman_is_missed_where_none_of_her_images_reaches_the_threshold() -> None:
    assert [woman.name for woman in missed_women(FOUND, "SSL", 0.5)] == ["P3", "007"]
    assert [woman.name for woman in missed_women(FOUND, "SSL", 0.45)] == ["P3"]


def test_every_image_has_a_row_for_every_classifier() -> None:
    found = rows(images_csv(FOUND))
    assert [(row["start"], row["image"]) for row in found] == [
        (start, image.path) for start in ("SSL", "Random") for image in IMAGES
    ]
    assert found[0] == {
        "image": "a1.jpg",
        "patient": "7",
        "woman": "007",
        "label": "1",
        "start": "SSL",
        "classifier_sha256": "ab" * 32,
        "probability_of_case": "0.3",
        "validation_threshold": "0.4",
        "result_at_0.5": "missed",
        "result_at_validation_threshold": "missed",
        "note": "research only, not a medical device; probabilities are not calibrated",
    }


def test_a_row_says_what_the_call_was() -> None:
    found = rows(images_csv(FOUND))[:4]
    assert [row["result_at_0.5"] for row in found] == ["missed", "false alarm", "cleared", "missed"]
    assert [row["result_at_validation_threshold"] for row in found] == [
        "missed",
        "false alarm",
        "false alarm",
        "missed",
    ]


def test_every_woman_has_a_row_for_every_classifier() -> None:
    found = rows(women_csv(FOUND))
    assert [(row["start"], row["woman"]) for row in found][:3] == [("SSL", "007"), ("SSL", "P2"), ("SSL", "P3")]
    assert (found[0]["patients"], found[0]["images"], found[0]["result_at_validation_threshold"]) == (
        "7; 007",
        "2",
        "found",
    )


def test_no_name_is_calculated_by_a_spreadsheet() -> None:
    found = Predictions((ScoredImage("=1.jpg", "=1+1", "=1+1", 1),), (ClassifierScores("SSL", "", 0.5, np.zeros(1)),))
    [image], [woman] = rows(images_csv(found)), rows(women_csv(found))
    assert (image["image"], image["patient"], woman["woman"]) == ("./=1.jpg", "'=1+1", "'=1+1")


def test_scores_of_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="of 4 test images"):
        Predictions(IMAGES, (ClassifierScores("SSL", "", 0.5, np.zeros(3)),))


def test_every_image_is_in_one_group_of_probabilities() -> None:
    """The groups hold their lower edge; 1.0 is in the last one."""
    images = tuple(ScoredImage(f"{k}.jpg", f"P{k // 2}", f"P{k // 2}", k % 2) for k in range(6))
    found = reliability(images, np.array([0.0, 0.19, 0.2, 0.95, 1.0, 0.81]))
    assert [group.images for group in found] == [2, 1, 0, 0, 3]
    assert [group.women for group in found] == [1, 1, 0, 0, 2]
    assert [group.cases for group in found] == [1, 0, 0, 0, 2]
    assert found[0].mean == pytest.approx(0.095)
    assert found[2].mean is None


def test_where_every_woman_is_a_case_there_are_no_scores_by_woman_and_still_those_of_images() -> None:
    """Each woman has an image of a lesion and one beside it."""
    images = tuple(ScoredImage(f"{k}.jpg", f"P{k // 2}", f"P{k // 2}", k % 2) for k in range(8))
    found = Predictions(images, (ClassifierScores("SSL", "", 0.5, np.linspace(0.1, 0.9, 8)),))
    by_image, by_woman = evaluations(found)
    assert [one.images for one in by_image] == [8]
    assert by_woman == ()


def test_the_federated_start_is_compared_with_each_other_one() -> None:
    found = Predictions(IMAGES, tuple(ClassifierScores(name, "", 0.5, SCORES) for name in ("Random", "SSL", "CSFSSL")))
    assert [(one.name, one.versus) for one in comparisons(found, "CSFSSL")] == [
        ("CSFSSL", "Random"),
        ("CSFSSL", "SSL"),
    ]
    assert comparisons(found, "") == ()
