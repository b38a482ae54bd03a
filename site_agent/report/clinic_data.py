"""Gathers what the clinical page is made of: the floor, and the classifier in question on validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from site_agent.classifier import floor
from site_agent.classifier.classifier_store import StoredClassifier
from site_agent.classifier.comparable import Comparable
from site_agent.classifier.finetune import Network, each_of, predict, targets, training_weights
from site_agent.classifier.looking import heat, overlaid
from site_agent.data import dataset
from site_agent.data.collection import Collection
from site_agent.data.image_sets import Labelled
from site_agent.home import SiteHome
from site_agent.report.clinical import Floats, FloorScores, Sheet
from site_agent.report.content import LookedAt
from site_agent.report.predictions import RESULTS, Predictions, ScoredImage, ScoredWoman, women
from site_agent.report.repeatability import Repeats, pairs_of, repeats
from site_agent.report.scores import Tell

LOOKS_MAX = 3
"""women of each result whose picture is shown"""


@dataclass(frozen=True, slots=True, eq=False)
class OpenedImages:
    """The site's images and classifiers, opened for a report."""

    home: SiteHome
    collection: Collection
    found: Comparable
    test: Labelled
    device: torch.device
    tell: Tell
    look: bool = False
    """show where the classifier in question looked, on pictures of test women"""

    @property
    def judged(self) -> StoredClassifier:
        """The classifier in question: the federated one, else the last."""
        return self.found.federated or self.found.stored[-1]

    @property
    def used(self) -> Collection:
        """The images of the stages that the classifiers are for."""
        return self.collection.of_stages(self.judged.recipe.stages)


def sheet(opened: OpenedImages, predictions: Predictions) -> Sheet:
    """Return what the page is made of. Raises DataError, ModelError, StorageError."""
    judged = opened.judged
    train, valid = (
        dataset.labelled(opened.home, opened.collection, judged.recipe, "train"),
        dataset.labelled(opened.home, opened.collection, judged.recipe, "valid"),
    )
    opened.tell("the floor: colour and texture", 1, 1)
    fitted = floor.fit(train, valid)
    opened.tell(f"scoring validation images by {judged.start}", 1, 1)
    network = judged.build()
    return Sheet(
        start=judged.start,
        learned=learned_share(judged, network, train),
        valid_images=tuple(
            ScoredImage(image.path, image.patient, image.woman, int(label))
            for image, label in zip(opened.used.labelled("valid"), valid.labels, strict=True)
        ),
        valid=predict(network, valid.pixels, device=opened.device),
        predictions=predictions,
        floor=FloorScores(
            fitted.floor.scores(floor.describe(valid.pixels)),
            fitted.floor.scores(floor.describe(opened.test.pixels)),
            fitted.threshold,
        ),
        prevalence=opened.home.config().data.prevalence,
        details={image.path: image.details for image in opened.used.labelled("test")},
        repeats=_repeats(opened, network),
        zone=judged.zone,
    )


def learned_share(judged: StoredClassifier, network: Network, train: Labelled) -> float:
    """Return the share of cases that a classifier has learned: that of its training images, as these weighed.

    In a private head every woman weighs the same. Raises DataError where the images lack a class that it learned.
    """
    first = each_of(network)[0]
    if judged.epsilon is None:
        weights = training_weights(first, train, judged.recipe.classifier)[targets(first, train)]
    else:
        _, place, images = np.unique(train.patients, return_inverse=True, return_counts=True)
        weights = 1 / images[place]
    return float(np.average(train.labels, weights=weights))


def _repeats(opened: OpenedImages, network: Network) -> Repeats:
    """Score the pairs of test women; no label of theirs is read."""
    images, judged = opened.used.images, opened.judged
    flat = tuple(image for pair in pairs_of(images) for image in pair)
    said = any(image.visit and image.stage for image in images)
    cuts = _cuts(judged)
    if not flat:
        return repeats((), cuts, said=said)
    opened.tell("repeatability: pairs of pictures", 1, 1)
    pixels = dataset.of_women(opened.home, opened.collection, judged.recipe, flat).pixels
    scores = predict(network, pixels, device=opened.device).reshape(-1, 2)
    return repeats([(first, second) for first, second in scores.tolist()], cuts, said=said)


def _cuts(judged: StoredClassifier) -> tuple[float, ...]:
    """Return the scores between which calls differ: the ends of the zone, or without one the threshold."""
    ends = (judged.zone.clear_below, judged.zone.case_above) if judged.zone else ()
    return tuple(sorted(end for end in ends if end is not None)) or (judged.threshold,)


def looks(opened: OpenedImages, predictions: Predictions) -> tuple[LookedAt, ...]:
    """Return where the classifier looked on the picture that decided about a woman, for the clearest of each result.

    The errors that it was most sure of come first: the lowest scores of missed women, the highest of false alarms.
    """
    judged, own = opened.judged, predictions.of(opened.judged.start)
    tested = women(predictions.images, own.scores)
    chosen = [(result, woman) for result in RESULTS.values() for woman in clearest(tested, own.threshold, result)]
    rows = [_deciding(predictions, own.scores, woman) for _, woman in chosen]
    if not rows:
        return ()
    opened.tell("where it looked", 1, 1)
    pixels = opened.test.pixels[np.array(rows)]
    maps = heat(judged.build(), pixels, opened.device)
    return tuple(
        LookedAt(woman.patients, result, woman.score, picture, overlaid(picture, own_heat))
        for (result, woman), picture, own_heat in zip(chosen, pixels, maps, strict=True)
    )


def clearest(tested: Sequence[ScoredWoman], threshold: float, result: str) -> list[ScoredWoman]:
    """Return the women of one result that lie farthest from the threshold, at most `LOOKS_MAX`."""
    own = [woman for woman in tested if RESULTS[woman.label, woman.score >= threshold] == result]
    return sorted(own, key=lambda woman: (-abs(woman.score - threshold), woman.name))[:LOOKS_MAX]


def _deciding(predictions: Predictions, scores: Floats, woman: ScoredWoman) -> int:
    """Return the row of the woman's picture with the highest score."""
    rows = [row for row, image in enumerate(predictions.images) if image.woman == woman.name]
    return max(rows, key=lambda row: scores[row])
