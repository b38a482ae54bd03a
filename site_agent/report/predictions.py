"""The predictions of every classifier for every test image, and the results for each woman. They stay at the site.

Rules
1. A woman's score is the highest probability of her images, and she is called a case where one image is. A lesion may
   be visible in one image of several, and one suspicious image is enough to look at her again. The mean would hide it.
2. A woman is a case where one of her test images is labelled case.
3. More images give a woman more chances to be called a case; a comparison of women with many and few images shows that.
4. A threshold was chosen for images, on validation images. It is applied unchanged to a woman's highest
   probability.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcervix.errors import DataError
from site_agent.classifier.csv_names import path_cell, text_cell
from site_agent.classifier.notices import CSV_NOTE
from site_agent.metrics import THRESHOLD_FIXED

RESULTS = {(1, True): "found", (1, False): "missed", (0, True): "false alarm", (0, False): "cleared"}
"""(label, called a case) -> what a call is"""

_CALLS = ("validation_threshold", "result_at_0.5", "result_at_validation_threshold", "note")
IMAGE_COLUMNS = ("image", "patient", "woman", "label", "start", "classifier_sha256", "probability_of_case", *_CALLS)
WOMAN_COLUMNS = (
    *("woman", "patients", "images", "label", "start", "classifier_sha256", "highest_probability_of_case"),
    *_CALLS,
)


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """One labelled test image."""

    path: str
    """below the collection's folder"""
    patient: str
    """as the manifest has it"""
    woman: str
    """the first of the patients who are linked with this one; mostly the patient herself"""
    label: int
    """1 case, 0 control"""


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierScores:
    """What one classifier gave."""

    start: str
    digest: str
    """SHA-256 of the classifier's weights"""
    threshold: float
    """chosen on validation images"""
    scores: NDArray[np.float64]
    """(n,), the probability of case of each test image"""


@dataclass(frozen=True, slots=True)
class ScoredWoman:
    """One test woman under one classifier."""

    name: str
    patients: tuple[str, ...]
    images: tuple[str, ...]
    label: int
    score: float
    """the highest probability of her images"""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Every test image under every classifier."""

    images: tuple[ScoredImage, ...]
    classifiers: tuple[ClassifierScores, ...]

    def __post_init__(self) -> None:
        for found in self.classifiers:
            if found.scores.shape != (len(self.images),):
                raise DataError(f"{found.start} scored {found.scores.shape} of {len(self.images)} test images")

    def of(self, start: str) -> ClassifierScores:
        """Return what the classifier of that start gave. Raises KeyError."""
        return {found.start: found for found in self.classifiers}[start]


def women(images: Sequence[ScoredImage], scores: NDArray[np.float64]) -> tuple[ScoredWoman, ...]:
    """Return every woman with her highest score, in order of first appearance: scores (n,) of the images."""
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        rows.setdefault(image.woman, []).append(row)
    return tuple(_woman(name, [images[row] for row in own], scores[own]) for name, own in rows.items())


def _woman(name: str, own: Sequence[ScoredImage], scores: NDArray[np.float64]) -> ScoredWoman:
    return ScoredWoman(
        name=name,
        patients=tuple(dict.fromkeys(image.patient for image in own)),
        images=tuple(image.path for image in own),
        label=max(image.label for image in own),
        score=float(scores.max()),
    )


def missed_women(predictions: Predictions, start: str, threshold: float) -> tuple[ScoredWoman, ...]:
    """Return the case women of whom no image reaches the threshold, the lowest score first."""
    found = women(predictions.images, predictions.of(start).scores)
    return tuple(sorted((w for w in found if w.label == 1 and w.score < threshold), key=lambda w: (w.score, w.name)))


def images_csv(predictions: Predictions) -> bytes:
    """Return predictions.csv: a row for each test image and classifier."""
    return _csv(IMAGE_COLUMNS, (row for found in predictions.classifiers for row in _image_rows(predictions, found)))


def women_csv(predictions: Predictions) -> bytes:
    """Return women.csv: a row for each test woman and classifier."""
    return _csv(WOMAN_COLUMNS, (row for found in predictions.classifiers for row in _woman_rows(predictions, found)))


def _image_rows(predictions: Predictions, found: ClassifierScores) -> Iterator[tuple[object, ...]]:
    for image, score in zip(predictions.images, found.scores.tolist(), strict=True):
        names = (path_cell(Path(image.path)), text_cell(image.patient), text_cell(image.woman))
        yield (*names, image.label, *_judged(found, image.label, score))


def _woman_rows(predictions: Predictions, found: ClassifierScores) -> Iterator[tuple[object, ...]]:
    for woman in women(predictions.images, found.scores):
        yield (
            text_cell(woman.name),
            text_cell("; ".join(woman.patients)),
            len(woman.images),
            woman.label,
            *_judged(found, woman.label, woman.score),
        )


def _judged(found: ClassifierScores, label: int, score: float) -> tuple[object, ...]:
    results = (RESULTS[label, score >= threshold] for threshold in (THRESHOLD_FIXED, found.threshold))
    return (found.start, found.digest, repr(score), repr(found.threshold), *results, CSV_NOTE)


def _csv(columns: Sequence[str], rows: Iterable[tuple[object, ...]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")
