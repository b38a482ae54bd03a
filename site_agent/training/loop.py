"""Contrastive training, epoch by epoch: straight-line code from images to weights.

Rules
1. Every random number comes from `derive(seed, purpose, stream, epoch, step)`; `stream` is the site's name and the
   epoch counts over the whole run. So E epochs in each of R rounds draw exactly what R x E local epochs draw, and a
   run that was killed and resumed draws what an undisturbed one does.
2. The trainer reads no clock but the one it is given, no file and no network; whoever calls it is told of every step.
3. The order is: `make_learner`, perhaps `restore_optimiser`, `train_epochs`.
4. Where training stands is a value, `Position`: from it training goes on to the same bits.

Source: sections II-A (loss, mini-batch) and III-D (optimiser, stopping).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedcervix.core.events import LOSS_MAX
from fedcervix.core.plan import Recipe
from fedcervix.core.seeds import derive
from fedcervix.errors import TrainingError
from site_agent.data.batches import Indices, batches, scoring_batches
from site_agent.data.device_batches import Feed
from site_agent.data.image_sets import Images
from site_agent.images.decode import OnCount, silent
from site_agent.network.devices import autocast, place
from site_agent.network.encoder import Encoder
from site_agent.network.loss import LOSSES
from site_agent.network.optimizer import learning_rate, set_rate
from site_agent.network.views import scoring_draws, training_draws, views
from site_agent.training.async_losses import Readings
from site_agent.training.collapse_metrics import IMAGES_MAX, Gauges, gauges
from site_agent.training.context import TrainingContext
from site_agent.training.ddp import share, share_rows
from site_agent.training.epochs import EpochRecord
from site_agent.training.memory_limit import fits, memory_explained, out_of_memory
from site_agent.training.pairing import scoring_pairs, training_pairs
from site_agent.training.steps import Learner
from site_agent.training.sync_batch_norm import join_batch_norm


class DivergedError(TrainingError):
    """The loss is not a finite number.

    `found` says so without a cause; `steps` were taken before, since training began with these weights.
    """

    def __init__(self, what: str, *, cause: str, next_step: str, found: str, steps: int) -> None:
        super().__init__(what, cause=cause, next_step=next_step)
        self.found, self.steps = found, steps


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimiser step was taken."""

    epoch: int
    """1-based, counted over the whole run"""
    step: int
    """1-based, within the epoch"""
    steps: int
    """of the epoch"""
    images: int
    loss: float
    loss_sum: float
    """over the steps of this epoch so far"""


@dataclass(frozen=True, slots=True)
class TrainedEpoch:
    """One epoch of training is over; it was not validated yet."""

    epoch: int
    """1-based, counted over the whole run"""
    loss: float
    """mean over the steps"""
    steps: int
    images: int
    """that were trained on (the dropped last batch is not)"""
    seconds: float
    gauges: Gauges
    """on the representations of the last (at most 1024) images, as the loss saw them"""


@dataclass(frozen=True, slots=True)
class Position:
    """Where training stands: with the weights and the momentum of that moment, all that going on needs."""

    epoch: int
    step: int
    """steps taken in this epoch"""
    loss_sum: float
    """over those steps"""
    seen: tuple[Tensor, ...]
    """the representations that this epoch's gauges will be measured on, batch by batch"""
    seconds: float = 0.0
    """that this epoch took so far; what was lost in a crash is not counted"""
    records: tuple[TrainedEpoch, ...] = ()
    """of the epochs before"""


class Keeper(Protocol):
    """Whoever keeps checkpoints."""

    def due(self) -> bool:
        """Return whether it is time to keep one."""

    def keep(self, position: Position) -> None:
        """Keep this position, with the weights and the momentum as they are now."""


@dataclass(frozen=True, slots=True)
class Score:
    """The contrastive loss on images that were not trained on. Sums add up over sites."""

    loss_sum: float
    """over images"""
    count: int
    """images"""
    gauges: Gauges

    @property
    def loss(self) -> float:
        """Mean over images."""
        return self.loss_sum / self.count


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of local training, and what the weights it ended with are worth."""

    train: TrainedEpoch
    valid: Score
    knn_auc: float | None = None
    """nearest neighbours on labelled images, where there are labels: a gauge, nothing is chosen by it"""

    @property
    def record(self) -> EpochRecord:
        """What is told of an epoch of any training."""
        return EpochRecord(self.train.epoch, self.train.loss, self.valid.loss, self.train.seconds)


@dataclass(frozen=True, slots=True)
class _Work:
    """What stays the same while `train_epochs` runs."""

    learner: Learner
    images: Images
    feed: Feed
    context: TrainingContext
    on_step: Callable[[StepReport], None]
    keeper: Keeper | None


def train_epochs(
    learner: Learner,
    images: Images,
    context: TrainingContext,
    epochs: range,
    *,
    on_step: Callable[[StepReport], None],
    at: Position | None = None,
    keeper: Keeper | None = None,
) -> list[TrainedEpoch]:
    """Train the learner's encoder in place for some epochs, by their numbers in the whole run (the first is 1).

    `at` is where a checkpoint had stood: training goes on from there, to the same weights and records (but for
    `seconds`), bit for bit. Raises DivergedError if the loss is not finite, TrainingError if the memory is too small,
    or the images are too few or not of the recipe's size.
    """
    _check_size(images, context.recipe)
    join_batch_norm(learner.encoder, context.team)
    work = _Work(learner, images, images.on(context.device), context, on_step, keeper)
    at = at or Position(epochs.start, 0, 0.0, ())
    records = at.records
    for epoch in range(at.epoch, epochs.stop):
        begin = at if epoch == at.epoch else Position(epoch, 0, 0.0, (), records=records)
        records = (*records, _train_epoch(work, begin))
    return list(records)


def _train_epoch(work: _Work, begin: Position) -> TrainedEpoch:
    """Train the rest of an epoch."""
    work.learner.encoder.train()
    order = _order(work, begin.epoch)
    tally = _Tally(work, order, begin)
    for number in range(begin.step + 1, len(order) + 1):
        _set_rate(work, begin.epoch, number, len(order))
        chosen = order[number - 1]
        with memory_explained(lambda: _too_large(work, tally.position(number - 1), chosen)):  # noqa: B023 (called at once)
            f, loss = work.learner.step(*_inputs(work, begin.epoch, number, chosen))
        tally.add(number, f, loss)
        if work.keeper and work.keeper.due():
            work.keeper.keep(tally.position(number))
    return tally.record()


def _too_large(work: _Work, stood: Position, chosen: Indices) -> TrainingError:
    """Keep where training stood before a batch that does not fit; return what to tell the operator."""
    if work.keeper:
        work.keeper.keep(stood)
    context = work.context

    def inputs(images: int) -> tuple[Tensor, ...]:
        return _inputs(work, stood.epoch, stood.step + 1, chosen[:images])

    try_smaller = fits(work.learner.encoder, context.recipe, context.device, inputs) if context.team.alone else None
    then = ". With the same recipe, training continues from its checkpoint"
    return out_of_memory(len(chosen), context.recipe, "batch_images", fits=try_smaller, then=then)


class _Tally:
    """What an epoch has come to so far."""

    def __init__(self, work: _Work, order: list[Indices], begin: Position) -> None:
        self._work, self._order, self._begin = work, order, begin
        self._loss_sum, self._started_s = begin.loss_sum, work.context.clock() - begin.seconds
        self._seen = deque(begin.seen, maxlen=max(1, IMAGES_MAX // work.context.recipe.batch_images))
        self._losses = Readings()

    def add(self, number: int, f: Tensor, loss: Tensor) -> None:
        """Count step `number`."""
        self._seen.append(f)
        self._losses.put(number, loss)
        self._report(self._losses.arrived())

    def position(self, number: int) -> Position:
        """Return where training stands after step `number`."""
        self._report(self._losses.rest())
        seconds = self._work.context.clock() - self._started_s
        return Position(self._begin.epoch, number, self._loss_sum, tuple(self._seen), seconds, self._begin.records)

    def record(self) -> TrainedEpoch:
        """Return the record of the epoch, which is over."""
        self._report(self._losses.rest())
        steps, images = len(self._order), sum(map(len, self._order))
        measured, seconds = gauges(_both_views(self._seen)), self._work.context.clock() - self._started_s
        return TrainedEpoch(self._begin.epoch, self._loss_sum / steps, steps, images, seconds, measured)

    def _report(self, read: Iterable[tuple[int, float]]) -> None:
        epoch, steps = self._begin.epoch, len(self._order)
        for number, loss in read:
            taken = sum(record.steps for record in self._begin.records) + number - 1
            _check_finite(loss, self._work.context.recipe, f"in epoch {epoch}, step {number}", taken)
            self._loss_sum += loss
            images = len(self._order[number - 1])
            self._work.on_step(StepReport(epoch, number, steps, images, loss, self._loss_sum))


def validation_loss(encoder: Encoder, images: Images, context: TrainingContext, on_progress: OnCount = silent) -> Score:
    """Score the encoder on `images`; the same weights get the same score whenever they are asked.

    Batch norm uses its running statistics. Augmentation is seeded per image and the shuffled order is one and the
    same for the whole run, with the training's N; a partial batch is kept and weighs by its N (section 4 of the
    fidelity notes). Raises TrainingError if there are fewer than two images, DivergedError if the loss is not finite.
    """
    recipe, seed, stream, device = context.recipe, context.seed, context.stream, context.device
    _check_size(images, recipe)
    place(encoder, device)
    order = scoring_batches(
        len(images),
        recipe.batch_images,
        derive(seed, "validation-order", stream),
        patients=images.patients,
        avoid_same_patient=recipe.avoid_same_patient,
    )
    feed = images.on(device)
    was_training = encoder.training
    encoder.eval()
    loss_sum, scored, seen = 0.0, 0, []
    with torch.no_grad():
        for chosen in order:
            packed = scoring_draws(chosen, recipe, seed=seed, stream=stream)
            pairs = scoring_pairs(images, chosen, context)
            x = views(feed.take(chosen), feed.send(packed), *pairs[:1])
            with autocast(device, recipe.precision):
                f = encoder(x)
            loss_sum += float(LOSSES[recipe.loss](f, recipe.temperature, *pairs[1:])) * len(chosen)
            seen.append(f)
            scored += len(chosen)
            on_progress(scored, len(images))
    encoder.train(was_training)
    _check_finite(loss_sum, recipe, "on the validation images", 0)
    return Score(loss_sum=loss_sum, count=len(images), gauges=gauges(_both_views(seen)))


def _order(work: _Work, epoch: int) -> list[Indices]:
    """Return the mini-batches of one epoch."""
    context = work.context
    return batches(
        len(work.images),
        context.recipe.batch_images,
        derive(context.seed, "order", context.stream, epoch),
        patients=work.images.patients,
        avoid_same_patient=context.recipe.avoid_same_patient,
        runs=work.images.runs if context.one_site_batches else (),
    )


def _set_rate(work: _Work, epoch: int, number: int, steps: int) -> None:
    before, recipe = (epoch - 1) * steps + number - 1, work.context.recipe
    total = work.context.epochs_total or recipe.epochs_max
    set_rate(work.learner.optimiser, learning_rate(recipe, before, steps_per_epoch=steps, epochs=total))


def _inputs(work: _Work, epoch: int, number: int, chosen: Indices) -> tuple[Tensor, ...]:
    """Return what a step takes (`steps.Step`), on the device."""
    recipe, seed, stream, team = work.context.recipe, work.context.seed, work.context.stream, work.context.team
    drawn = training_draws(len(chosen), recipe, seed=seed, stream=stream, epoch=epoch, step=number)
    inputs = work.feed.take(share(chosen, team)), work.feed.send(share_rows(drawn, len(chosen), team))
    return *inputs, *training_pairs(work.images, chosen, work.context, epoch=epoch, step=number)


def _both_views(several: Iterable[Tensor]) -> Tensor:
    """Join the (2N, D) representations of several batches so that rows i and i + n are still a pair."""
    halves = [f.chunk(2) for f in several]
    return torch.cat([one for one, _ in halves] + [two for _, two in halves])


def _check_size(images: Images, recipe: Recipe) -> None:
    if images.pixels.shape[1] != recipe.image_px:
        raise TrainingError(
            f"the recipe asks for images of {recipe.image_px} px; these are {images.pixels.shape[1]} px",
            cause="they were decoded for another recipe",
            next_step="decode them again with this recipe",
        )


def _check_finite(loss: float, recipe: Recipe, where: str, steps: int) -> None:
    if not abs(loss) <= LOSS_MAX:  # nor is NaN
        found = f"the loss is {loss} {where}"
        raise DivergedError(
            f"{found}: training has diverged",
            cause=f"the learning rate {recipe.lr:g} is too high for these images, or the weights received were damaged",
            next_step="lower lr (a tenth is a good try) and start again",
            found=found,
            steps=steps,
        )
