"""The floor as a cell of a study: a logistic regression of colour and texture in the place of a classifier.

It sees the women of the cell's fold, labels and controls like every classifier of the study, so that its row stands
beside theirs. Only its first layer, 25 numbers of each picture, is not learned.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from cervix_study.records import MODEL_FILE, ClassifierResults, CurvePoint
from site_agent.classifier import floor, floor_file
from site_agent.classifier.floor import Floats
from site_agent.data.image_sets import Labelled
from site_agent.data.pixels import Pixels
from site_agent.metrics import auc


def train(learnt: Labelled, judged: Labelled, folder: Path) -> ClassifierResults:
    """Fit the floor and write it into `folder`. Raises DataError, StorageError."""
    began = time.monotonic()
    fitted = floor.fit(learnt, judged)
    trained = floor.loss(fitted.floor.scores(floor.describe(learnt.pixels)), learnt.labels)
    digest = floor_file.save(folder / MODEL_FILE, fitted.floor)
    return ClassifierResults(
        validation_loss=fitted.loss,
        validation_auc=auc(judged.labels, fitted.floor.scores(floor.describe(judged.pixels))),
        best=1,
        stopped="epochs",
        threshold=fitted.threshold,
        updates=0,
        train_women=len(set(learnt.patients)),
        train_images=len(learnt.labels),
        train_cases=int(np.count_nonzero(learnt.labels)),
        precision="float64",
        loaded="none: colour and texture",
        curve=(CurvePoint(number=1, train_loss=trained, valid_loss=fitted.loss, seconds=time.monotonic() - began),),
        model=digest,
    )


def scores(folder: Path, pixels: Pixels) -> Floats:
    """Return the probability of case of pictures by the floor in `folder`. Raises ModelError, StorageError."""
    return floor_file.load(folder / MODEL_FILE).scores(floor.describe(pixels))
