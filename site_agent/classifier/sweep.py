"""Which N, which width of the dense layer? Tried out, and chosen by validation images alone.

Section III-D: "We vary the network hyper-parameters for both SSL and classification model training and choose the best
hyper-parameters based on the validation loss."

Rules
1. Contrastive losses compare at the same N only: at another N the same representations cost something else (all alike,
   log(2N - 1)). So N and width are judged by what they are for: the lowest validation loss of the classifier that is
   fine-tuned from the cervix model. Its AUC on the same images is shown and chooses nothing.
2. Test images are unknown here: `Material` has no place for them, and nothing depends on them.
3. A cell is named by all that it depends on (recipe, seed, stream, images, software). A finished one is kept and never
   trained again, and the contrastive training of an unfinished one goes on from its checkpoint.
4. E exists in a federation alone: it is not varied here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from fedcervix.core.formats import contents
from fedcervix.core.numerics import FIRST_ALIKE
from fedcervix.core.plan import Recipe, canonical_json, check, recipe_to_dict
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import disk, read_back
from fedcervix.errors import TrainingError
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.classifier import trainings
from site_agent.classifier.choosing import preference
from site_agent.classifier.finetune import predict
from site_agent.data.image_sets import Images, Labelled
from site_agent.metrics import auc
from site_agent.network.encoder import Encoder, backbone_state
from site_agent.training.checkpoints import Checkpoints
from site_agent.training.context import TrainingContext
from site_agent.training.pretrain import Callbacks, Pretrained, pretrain

OnProgress = Callable[[str, WorkProgress], None]
"""(combination, how far it is)"""
StartOf = Callable[[Recipe], Encoder]
"""makes the encoder that contrastive learning starts from"""
CheckpointsFor = Callable[[str], AbstractContextManager[Checkpoints | None]]
"""where the contrastive training of the cell with this key keeps its checkpoints, if anywhere"""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What a sweep may see of a site's images: those of training and of validation women."""

    train: Images
    valid: Images
    labelled_train: Labelled
    labelled_valid: Labelled
    digest: str
    """of these images, see `site_agent.data.collection.digest_of`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPoint:
    """One combination, trained and judged on validation images."""

    batch_images: int
    width: int
    classifier_loss: float
    """lowest validation loss of the classifier, unweighted, nats per image: what chooses"""
    classifier_auc: float
    """on the same validation images, at the epoch with that loss; chooses nothing"""
    classifier_epoch: int
    contrastive_loss: float
    """lowest validation loss of the cervix model: compares at the same N only"""
    contrastive_epoch: int
    seconds: float

    def __post_init__(self) -> None:
        check(math.isfinite(self.classifier_loss), f"classifier_loss is a number; found {self.classifier_loss}")


# --- choosing: values in, values out ------------------------------------------------------------------------------


def choose(cells: Iterable[GridPoint]) -> GridPoint:
    """Return the cell that the classifier's validation loss prefers (`choosing.preference`).

    Raises ValueError where there is no cell.
    """
    return min(
        cells, key=lambda cell: preference(cell.classifier_loss, width=cell.width, batch_images=cell.batch_images)
    )


# --- cells and their names ----------------------------------------------------------------------------------------


def combinations(base: Recipe, batch_images: Iterable[int], widths: Iterable[int]) -> list[Recipe]:
    """Return the base recipe with every N and width, smallest first. Raises ValueError for what no recipe may hold."""
    return [
        dataclasses.replace(base, batch_images=n, width=width)
        for n in sorted(set(batch_images))
        for width in sorted(set(widths))
    ]


def cell_key(context: TrainingContext, images: str) -> str:
    """Return the name of a cell: SHA-256 of all that it depends on. `images` is their digest."""
    depends = {
        "recipe": recipe_to_dict(context.recipe),
        "seed": context.seed,
        "stream": context.stream,
        "images": images,
        "software": f"fedcervix {FIRST_ALIKE}, torch {torch.__version__}",
    }
    return hashlib.sha256(canonical_json(depends).encode()).hexdigest()


def read_cells(file: Path) -> dict[str, GridPoint]:
    """Return the finished cells by key; none where there is no file. Raises StorageError if it is damaged."""
    if not file.exists():
        return {}
    next_step = f"delete it: rm {file}; the sweep then starts again from the beginning"
    return read_back(file, _grid_points, next_step=next_step)


def _grid_points(content: bytes) -> dict[str, GridPoint]:
    return from_json(dict[str, GridPoint], contents("the sweep", parsed(content)))


def write_cells(file: Path, cells: Mapping[str, GridPoint]) -> None:
    """Keep the finished cells; the old file or the new one is there, whatever happens. Raises StorageError."""
    with disk(file.parent, "write"):
        file.parent.mkdir(parents=True, exist_ok=True)
    fields = {key: dataclasses.asdict(cell) for key, cell in cells.items()}
    write_whole(file, json.dumps(fields, indent=1, allow_nan=False).encode())


# --- the loop -----------------------------------------------------------------------------------------------------


def sweep(
    contexts: Sequence[TrainingContext],
    material: Material,
    kept: Mapping[str, GridPoint],
    *,
    start_of: StartOf,
    on_cell: Callable[[str, GridPoint], None],
    on_trouble: Callable[[Recipe, TrainingError], None],
    on_progress: OnProgress,
    keeping: CheckpointsFor = lambda _key: nullcontext(),
) -> tuple[GridPoint, ...]:
    """Return the cells of all contexts, trained here unless `kept`; `on_cell` is called for each that was trained.

    A recipe that cannot be trained (it diverges, or asks for too much memory) has no cell: `on_trouble` is told, and
    the others go on.
    """
    cells = []
    for context in contexts:
        key = cell_key(context, material.digest)
        cell = kept.get(key)
        if cell is None:
            try:
                cell = train_cell(context, material, start_of(context.recipe), on_progress, keeping(key))
            except TrainingError as error:
                on_trouble(context.recipe, error)
                continue
            on_cell(key, cell)
        cells.append(cell)
    return tuple(cells)


def train_cell(
    context: TrainingContext,
    material: Material,
    encoder: Encoder,
    on_progress: OnProgress,
    checkpoints: AbstractContextManager[Checkpoints | None],
) -> GridPoint:
    """Train a cervix model on the site's own images (SSL), fine-tune the classifier from it, and judge that."""
    started, recipe, valid = context.clock(), context.recipe, material.labelled_valid
    told = _progress(f"N {recipe.batch_images}, width {recipe.width}", on_progress)
    callbacks = Callbacks(lambda step: told("contrastive", step.epoch, step.step, step.steps))
    with checkpoints as kept:
        model = pretrain(encoder, material.train, material.valid, context, callbacks, checkpoints=kept)
    fitted = trainings.train(
        backbone_state(model.best_state),
        material.labelled_train,
        valid,
        context,
        lambda training: lambda *at: told("classifier" if training == 1 else f"classifier {training}", *at),
    )
    scores = predict(fitted.network, valid.pixels, device=context.device)
    return _judged(recipe, model, fitted, auc(valid.labels, scores), context.clock() - started)


def _judged(
    recipe: Recipe, model: Pretrained, fitted: trainings.TrainedClassifier, area: float, seconds: float
) -> GridPoint:
    return GridPoint(
        batch_images=recipe.batch_images,
        width=recipe.width,
        classifier_loss=fitted.validation_loss,
        classifier_auc=area,
        classifier_epoch=fitted.fits[0].best_epoch,
        contrastive_loss=model.history[model.best_epoch - 1].valid.loss,
        contrastive_epoch=model.best_epoch,
        seconds=seconds,
    )


def _progress(task: str, on_progress: OnProgress) -> Callable[[str, int, int, int], None]:
    def told(what: str, epoch: int, step: int, steps: int) -> None:
        stage = f"{what}, epoch {epoch}"
        on_progress(task, WorkProgress(stage, step, steps, "steps"))

    return told
