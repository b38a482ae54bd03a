"""A classifier of one site, fine-tuned from a start and judged on validation images; its test part is not opened."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cervix_study.data.labels import share_of, shuffled
from cervix_study.execution import floors
from cervix_study.execution.encoders import turn_of
from cervix_study.execution.worker_context import WorkerContext
from cervix_study.records import (
    MODEL_FILE,
    PREDICTIONS_FILE,
    Cell,
    ClassifierResults,
    Prediction,
    predictions_text,
    read_predictions,
)
from fedcervix.core.plan import Recipe
from fedcervix.core.seeds import derive
from fedcervix.disk.files import write_whole
from fedcervix.runtime.worker_protocol import OnProgress, WorkProgress
from site_agent.classifier import trainings
from site_agent.classifier.finetune import classifier_batches, predict
from site_agent.data.collection import Image
from site_agent.data.image_sets import Labelled
from site_agent.data.pixels import Pixels
from site_agent.manifest.reading import Split
from site_agent.metrics import auc, best_threshold
from site_agent.network.encoder import (
    State,
    load_weights,
    save_weights,
)
from site_agent.network.first_weights import imagenet_backbone
from site_agent.starts import FLOOR
from site_agent.training.context import TrainingContext


def train(bench: WorkerContext, cell: Cell, folder: Path) -> ClassifierResults:
    """Fine-tune the classifier of a cell; write its weights and validation predictions into `folder`.

    Raises TrainingError, DataError, ModelError, StorageError.
    """
    machine = bench.machine(cell.site, cell.fold)
    recipe = bench.settled(cell.recipe, cell.site, cell.fold)
    given = {part: bench.labelled(cell.site, cell.fold, recipe, part) for part in ("train", "valid")}
    learnt = share_of(_taught(cell, given["train"], "train"), cell.label_fraction, cell.seed)
    judged = _taught(cell, given["valid"], "valid")
    images = bench.used(cell.site, cell.fold, recipe).labelled("valid")
    if cell.start == FLOOR:
        found = floors.train(learnt, judged, folder)
        _write(folder, predictions("valid", images, given["valid"].labels, floors.scores(folder, judged.pixels)))
        return found
    context = TrainingContext(recipe=recipe, seed=seed_of(cell), stream=cell.site, machine=machine)
    made = trainings.train(start_of(bench, cell, recipe), learnt, judged, context, _steps(bench.on_progress, recipe))
    scores = predict(made.network, judged.pixels, device=machine.device)
    _write(folder, predictions("valid", images, given["valid"].labels, scores))
    digest = save_weights(folder / MODEL_FILE, made.state)
    return _results(made, learnt, judged, scores, recipe, digest)


def open_test(bench: WorkerContext, cell: Cell, folder: Path, *, keep_weights: bool) -> None:
    """Score a finished classifier on its test images, and add them to its predictions."""
    test = bench.labelled(cell.site, cell.fold, cell.recipe, "test")
    score = floors.scores if cell.start == FLOOR else functools.partial(_scores, bench, cell)
    scores = score(folder, test.pixels)
    images = bench.used(cell.site, cell.fold, cell.recipe).labelled("test")
    kept = [row for row in read_predictions(folder.parent.parent, cell.key) if row.split == "valid"]
    _write(folder, [*kept, *predictions("test", images, test.labels, scores)])
    if not keep_weights:
        (folder / MODEL_FILE).unlink()


def _scores(bench: WorkerContext, cell: Cell, folder: Path, pixels: Pixels) -> npt.NDArray[np.float64]:
    state = load_weights(folder / MODEL_FILE)
    classifier = trainings.restore(cell.recipe, state, what=f"the classifier of cell {cell.key}")
    return predict(classifier, pixels, device=bench.machine(cell.site, cell.fold).device)


def _write(folder: Path, rows: Sequence[Prediction]) -> None:
    write_whole(folder / PREDICTIONS_FILE, predictions_text(rows))


def seed_of(cell: Cell) -> int:
    """Return the seed of a fit; that of the first classifier on an encoder is the encoder's, as in `site-agent`."""
    return derive(cell.seed, "study-classifier", cell.classifier_seed) if cell.classifier_seed else cell.seed


def predictions(
    split: Split, images: Sequence[Image], labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]
) -> list[Prediction]:
    """Return one row per image."""
    told = zip(images, labels.tolist(), scores.tolist(), strict=True)
    return [Prediction(split, image.path, image.woman, label, score) for image, label, score in told]


def _taught(cell: Cell, labelled: Labelled, part: str) -> Labelled:
    return shuffled(labelled, cell.seed, part) if cell.control == "shuffled-labels" else labelled


def start_of(bench: WorkerContext, cell: Cell, recipe: Recipe) -> State | None:
    """Return the weights that a cell begins from: those of another cell, ImageNet's, or none."""
    if cell.inputs:
        [encoder] = cell.inputs
        return load_weights(bench.places.cell(encoder) / MODEL_FILE)
    if cell.start == "imagenet":
        return imagenet_backbone(recipe, bench.imagenet(cell.sites[0], cell.fold))
    return None


def _steps(on_progress: OnProgress, recipe: Recipe) -> trainings.StepsOf:
    terms = recipe.classifier

    def told(training: int, epoch: int, step: int, steps: int) -> None:
        done = ((training - 1) * terms.epochs_max + epoch - 1) * steps + step
        of = steps * terms.epochs_max * terms.trainings
        on_progress(WorkProgress(trainings.stage(terms, training, epoch), done, of, "steps"))

    return lambda training: functools.partial(told, training)


def _results(
    made: trainings.TrainedClassifier,
    learnt: Labelled,
    judged: Labelled,
    scores: npt.NDArray[np.float64],
    recipe: Recipe,
    digest: str,
) -> ClassifierResults:
    first, loaded = made.fits[0], made.loaded
    steps = len(classifier_batches(len(learnt.labels), recipe.classifier.batch_images, 0))
    return ClassifierResults(
        validation_loss=made.validation_loss,
        validation_auc=auc(judged.labels, scores),
        best=first.best_epoch,
        stopped=first.stopped,
        threshold=best_threshold(judged.labels, scores),
        updates=steps * made.epochs,
        train_women=len(set(learnt.patients)),
        train_images=len(learnt.labels),
        train_cases=int(np.count_nonzero(learnt.labels)),
        precision=recipe.precision,
        loaded=f"{loaded.tensors} of {loaded.of} backbone tensors" if loaded else "none: random weights",
        curve=tuple(map(turn_of, first.history)),
        model=digest,
    )
