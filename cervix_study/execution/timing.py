"""How long does the network take on this machine? Timed on noise, before the first cell, for the estimate alone."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from cervix_study.execution.estimate import FORWARD_SHARE, kind_of
from cervix_study.records import Cell
from cervix_study.study_paths import Places
from fedcervix.core.plan import ClassifierRecipe, Recipe
from fedcervix.disk.files import write_whole
from site_agent.classifier.finetune import build_classifier, finetune
from site_agent.data.image_sets import Labelled
from site_agent.network.devices import Machine
from site_agent.training.context import TrainingContext
from site_agent.training.step_timing import STEPS, encoder_pace, noise


def time_cell(cell: Cell, machine: Machine, places: Places) -> None:
    """Time what a cell of this kind is made of, and write down its pace."""
    timed = _classifier_pace if cell.kind == "classifier" else _encoder_pace
    known = {**places.timed(), kind_of(cell): timed(cell.recipe, machine)}
    write_whole(places.paces_file, json.dumps(known, allow_nan=False).encode())


def _encoder_pace(recipe: Recipe, machine: Machine) -> float:
    return encoder_pace(recipe, machine.device) / 2  # an image passes the network twice


def _classifier_pace(recipe: Recipe, machine: Machine) -> float:
    count = 2 * STEPS * recipe.classifier.batch_images
    labelled = Labelled(noise(count, recipe.image_px), np.arange(count) % 2, tuple(map(str, range(count))))
    terms = ClassifierRecipe(batch_images=recipe.classifier.batch_images, epochs_max=2)
    recipe = dataclasses.replace(recipe, classifier=terms)
    classifier, _ = build_classifier(recipe, 0, None)
    context = TrainingContext(recipe=recipe, seed=0, stream="timing", machine=Machine(machine.device))
    fitted = finetune(classifier, labelled, labelled, context, on_epoch=lambda _epoch: None)
    return fitted.history[-1].seconds / (count * (1 + FORWARD_SHARE))
