"""An encoder that is trained in this process: a site's own images (SSL), or those of all sites pooled (CSSL)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from cervix_study.execution.worker_context import WorkerContext
from cervix_study.records import Cell, CurvePoint, EncoderResults
from cervix_study.settings import POOLED
from fedcervix.core.plan import Recipe
from fedcervix.runtime.worker_protocol import OnProgress, WorkProgress
from site_agent.network.encoder import Encoder, save_weights
from site_agent.network.first_weights import start_encoder
from site_agent.training.checkpoints import Checkpoints
from site_agent.training.context import TrainingContext
from site_agent.training.epochs import EpochRecord
from site_agent.training.knn_probe import Probe
from site_agent.training.loop import StepReport
from site_agent.training.pretrain import Callbacks, Pretrained, pretrain
from site_agent.worker.tasks import first_seed


def train(
    bench: WorkerContext, cell: Cell, weights: Path, *, checkpoints: Checkpoints, updates_max: int | None
) -> EncoderResults:
    """Train the encoder of a cell and write its weights. Raises TrainingError, DataError, StorageError.

    `updates_max` is for the equal-updates control: as many whole epochs are trained as take no more steps, but one at
    least.
    """
    recipe = bench.settled(cell.recipe, cell.sites[0], cell.fold)
    recipe = bounded(recipe, len(bench.images(cell.sites, cell.fold, recipe, "train")), updates_max)
    callbacks, encoder = Callbacks(_steps(bench.on_progress, recipe)), started(bench, cell, recipe)
    trained = pretrained(bench, cell, recipe, encoder, callbacks, checkpoints=checkpoints)
    counts = {site: len(bench.used(site, cell.fold, recipe).contrastive("train")) for site in cell.sites}
    return _results(trained, counts, {stream_of(cell): recipe.precision}, save_weights(weights, trained.best_state))


def started(bench: WorkerContext, cell: Cell, recipe: Recipe) -> Encoder:
    """Return the encoder of a cell before its training. Raises ModelError where its weights cannot be had."""
    return start_encoder(recipe, first_seed(cell.seed), bench.start_weights(recipe, cell.sites[0], cell.fold))


def pretrained(
    bench: WorkerContext,
    cell: Cell,
    recipe: Recipe,
    encoder: Encoder,
    callbacks: Callbacks,
    *,
    probe: Probe = lambda _encoder: None,
    checkpoints: Checkpoints | None = None,
) -> Pretrained:
    """Train an encoder by a recipe, in all else as its cell says: images, mini-batches, random numbers, hardware.

    Raises as `pretrain` does.
    """
    context = TrainingContext(
        recipe=recipe,
        seed=cell.seed,
        stream=stream_of(cell),
        machine=bench.machine(cell.sites[0], cell.fold),
        one_site_batches=cell.control == "one-site-batches",
    )
    train, valid = (bench.images(cell.sites, cell.fold, recipe, part) for part in ("train", "valid"))
    return pretrain(encoder, train, valid, context, callbacks, probe=probe, checkpoints=checkpoints)


def stream_of(cell: Cell) -> str:
    """Return whose random numbers a training draws: the site's, as there, or those of the pooled collections."""
    return cell.sites[0] if len(cell.sites) == 1 else POOLED


def bounded(recipe: Recipe, images: int, updates_max: int | None) -> Recipe:
    """Return the recipe with no more epochs than `updates_max` steps allow; one at least."""
    if updates_max is None:
        return recipe
    steps = max(1, images // recipe.batch_images)
    return dataclasses.replace(recipe, epochs_max=max(1, min(recipe.epochs_max, updates_max // steps)))


def _steps(on_progress: OnProgress, recipe: Recipe) -> Callable[[StepReport], None]:
    def told(step: StepReport) -> None:
        done, of = (step.epoch - 1) * step.steps + step.step, step.steps * recipe.epochs_max
        on_progress(WorkProgress(f"epoch {step.epoch}", done, of, "steps"))

    return told


def _results(trained: Pretrained, images: dict[str, int], precision: Mapping[str, str], digest: str) -> EncoderResults:
    history, best = trained.history, trained.best_epoch
    return EncoderResults(
        validation_loss=history[best - 1].valid.loss,
        best=best,
        updates=sum(epoch.train.steps for epoch in history),
        updates_best=sum(epoch.train.steps for epoch in history[:best]),
        images=images,
        precision=dict(precision),
        outcome="OK",
        curve=tuple(turn_of(epoch.record) for epoch in history),
        model=digest,
    )


def turn_of(epoch: EpochRecord) -> CurvePoint:
    """Return what the study keeps of an epoch, of an encoder or of a classifier."""
    return CurvePoint(
        number=epoch.epoch, train_loss=epoch.train_loss, valid_loss=epoch.valid_loss, seconds=epoch.seconds
    )
