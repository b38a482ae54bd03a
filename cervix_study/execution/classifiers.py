"""A classifier of one site, fine-tuned from a start and judged on validation images; its test part is not opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cervix_study.data.labels import share_of, shuffled
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
from site_agent.classifier.finetune import (
    Finetuned,
    build_classifier,
    classifier_batches,
    finetune,
    predict,
)
from site_agent.data.collection import Image
from site_agent.data.image_sets import Labelled
from site_agent.manifest.reading import Split
from site_agent.metrics import auc, best_threshold
from site_agent.network.encoder import (
    Loaded,
    State,
    apply_weights,
    backbone_state,
    build_encoder,
    load_imagenet,
    load_weights,
    save_weights,
)
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
    seed = seed_of(cell)
    context = TrainingContext(recipe=recipe, seed=seed, stream=cell.site, machine=machine)
    classifier, loaded = build_classifier(recipe, seed, start_of(bench, cell, recipe))
    fitted = finetune(
        classifier,
        learnt,
        judged,
        context,
        on_epoch=lambda _epoch: None,
        on_step=_steps(bench.on_progress, recipe),
    )
    scores = predict(classifier, judged.pixels, device=machine.device)
    images = bench.collection(cell.site, cell.fold).labelled("valid")
    rows = predictions("valid", images, given["valid"].labels, scores)
    write_whole(folder / PREDICTIONS_FILE, predictions_text(rows))
    digest = save_weights(folder / MODEL_FILE, fitted.best_state)
    return _results(fitted, learnt, judged, scores, recipe, loaded, digest)


def open_test(bench: WorkerContext, cell: Cell, folder: Path, *, keep_weights: bool) -> None:
    """Score a finished classifier on its test images, and add them to its predictions."""
    machine = bench.machine(cell.site, cell.fold)
    test = bench.labelled(cell.site, cell.fold, cell.recipe, "test")
    classifier, _ = build_classifier(cell.recipe, seed_of(cell), None)
    apply_weights(classifier, load_weights(folder / MODEL_FILE), what=f"the classifier of cell {cell.key}")
    scores = predict(classifier, test.pixels, device=machine.device)
    images = bench.collection(cell.site, cell.fold).labelled("test")
    kept = [row for row in read_predictions(folder.parent.parent, cell.key) if row.split == "valid"]
    rows = [*kept, *predictions("test", images, test.labels, scores)]
    write_whole(folder / PREDICTIONS_FILE, predictions_text(rows))
    if not keep_weights:
        (folder / MODEL_FILE).unlink()


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
        network = build_encoder(recipe, derive(0, "imagenet-head"))
        load_imagenet(network, bench.imagenet(cell.sites[0], cell.fold))
        return backbone_state(network.state_dict())
    return None


def _steps(on_progress: OnProgress, recipe: Recipe) -> Callable[[int, int, int], None]:
    def told(epoch: int, step: int, steps: int) -> None:
        done, of = (epoch - 1) * steps + step, steps * recipe.classifier.epochs_max
        on_progress(WorkProgress(f"epoch {epoch}", done, of, "steps"))

    return told


def _results(
    fitted: Finetuned,
    learnt: Labelled,
    judged: Labelled,
    scores: npt.NDArray[np.float64],
    recipe: Recipe,
    loaded: Loaded | None,
    digest: str,
) -> ClassifierResults:
    steps = len(classifier_batches(len(learnt.labels), recipe.classifier.batch_images, 0))
    return ClassifierResults(
        validation_loss=fitted.history[fitted.best_epoch - 1].valid_loss,
        validation_auc=auc(judged.labels, scores),
        best=fitted.best_epoch,
        stopped=fitted.stopped,
        threshold=best_threshold(judged.labels, scores),
        updates=steps * len(fitted.history),
        train_women=len(set(learnt.patients)),
        train_images=len(learnt.labels),
        train_cases=int(np.count_nonzero(learnt.labels)),
        precision=recipe.precision,
        loaded=f"{loaded.tensors} of {loaded.of} backbone tensors" if loaded else "none: random weights",
        curve=tuple(map(turn_of, fitted.history)),
        model=digest,
    )
