"""The classifiers on the test images: probabilities, evaluations of images and of women, comparisons.

This is where the labels of test images are read. Nothing is chosen by them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from fedcervix.errors import DataError
from site_agent.classifier.classifier_store import StoredClassifier
from site_agent.classifier.evaluate import Comparison, Evaluation, compare, evaluate
from site_agent.classifier.finetune import predict
from site_agent.data.collection import Collection
from site_agent.data.image_sets import Labelled
from site_agent.report.predictions import ClassifierScores, Predictions, ScoredImage, women

Tell = Callable[[str, int, int], None]
"""Called as tell(stage, number, of) before each step that there is to wait for; numbers count from 1."""


def silent(_stage: str, _done: int, _of: int) -> None:
    """Tell nobody."""


def predictions(
    collection: Collection,
    stored: Sequence[StoredClassifier],
    test: Labelled,
    device: torch.device,
    tell: Tell = silent,
) -> Predictions:
    """Score every test image with every classifier. `test` holds the collection's labelled test images, in order.

    Raises DataError where it holds others, ModelError where a classifier's weights are not those that were kept.
    """
    images = tuple(
        ScoredImage(image.path, image.patient, image.woman, int(label))
        for image, label in zip(collection.labelled("test"), test.labels, strict=True)
    )
    if tuple(image.woman for image in images) != test.patients:
        raise DataError("the test images are not those of the collection", cause="the manifest changed meanwhile")
    scored = []
    for number, one in enumerate(stored, 1):
        tell(f"scoring test images by {one.start}: classifier", number, len(stored))
        scores = predict(one.build(), test.pixels, device=device)
        scored.append(ClassifierScores(one.start, one.provenance.weights, one.threshold, scores))
    return Predictions(images, tuple(scored))


def evaluations(found: Predictions, tell: Tell = silent) -> tuple[tuple[Evaluation, ...], tuple[Evaluation, ...]]:
    """Return every classifier's evaluation on images, and on women; none on women where all of them are cases."""
    labels, names = [image.label for image in found.images], [image.woman for image in found.images]
    by_image, by_woman = [], []
    for number, one in enumerate(found.classifiers, 1):
        tell(f"intervals of {one.start}: classifier", number, len(found.classifiers))
        judge = functools.partial(evaluate, one.start, threshold_validation=one.threshold)
        by_image.append(judge(labels, one.scores, names))
        own = women(found.images, one.scores)
        if len({woman.label for woman in own}) > 1:
            by_woman.append(judge([w.label for w in own], [w.score for w in own], [w.name for w in own]))
    return tuple(by_image), tuple(by_woman)


def comparisons(found: Predictions, federated: str, tell: Tell = silent) -> tuple[Comparison, ...]:
    """Compare the federated start with every other one, on images; nothing where `federated` is empty."""
    if not federated:
        return ()
    tell(f"{federated} beside the others", 1, 1)
    labels, names = [image.label for image in found.images], [image.woman for image in found.images]
    return compare(federated, labels, {one.start: one.scores for one in found.classifiers}, names)
