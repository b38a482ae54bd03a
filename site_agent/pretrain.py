"""Contrastive pre-training at one site: straight-line code from images to weights.

Rules
1. Every random number comes from `derive(seed, purpose, stream, epoch, step)`; `stream` is the site's name and the
   epoch counts over the whole run. So E epochs in each of R rounds draw exactly what R x E local epochs draw, and a
   run that was killed and resumed draws what an undisturbed one does.
2. The trainer reads no clock but the one it is given, no file and no network; whoever calls it is told of every step.
3. The order is: `place` the encoder on its device, `make_optimiser`, perhaps `restore_optimiser`, `train_epochs`.

Source: sections II-A (loss, mini-batch) and III-D (optimiser, stopping).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedcervix.errors import ModelError, TrainingError
from fedcervix.plan import Recipe
from fedcervix.seeds import derive
from site_agent.augment import Draws, augment, draw, join, standardise, to_input
from site_agent.batches import Indices, batches, scoring_batches
from site_agent.contrast import LOSSES
from site_agent.devices import autocast, place
from site_agent.gauges import IMAGES_MAX, Gauges, gauges
from site_agent.model import Encoder, snapshot

MOMENTUM = "momentum."


@dataclass(frozen=True, slots=True)
class Images:
    """Decoded images and whose they are."""

    pixels: npt.NDArray[np.uint8]
    """(n, S, S, 3), RGB; may be memory-mapped"""
    patients: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise ValueError(f"images are bytes (n, S, S, 3); found {self.pixels.dtype} {shape}")
        if len(self.patients) != len(self.pixels):
            raise ValueError(f"{len(self.patients)} patients for {len(self.pixels)} images")

    def __len__(self) -> int:
        return len(self.pixels)


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
class EpochRecord:
    """One epoch of training is over."""

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
    """One epoch of local training, and the score of the weights it ended with."""

    train: EpochRecord
    valid: Score


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What `pretrain` returns: the weights with the lowest validation loss, and how they were come by."""

    best_state: dict[str, Tensor]
    best_epoch: int
    history: tuple[Epoch, ...]


def make_optimiser(encoder: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return SGD over all parameters: one learning rate; weight decay on norms and biases as the recipe says."""
    parameters = list(encoder.parameters())
    spared = [] if recipe.decay_norms_and_biases else [p for p in parameters if p.ndim == 1]
    decayed = parameters if recipe.decay_norms_and_biases else [p for p in parameters if p.ndim > 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": recipe.weight_decay}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum)


def optimiser_state(optimiser: torch.optim.SGD, encoder: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the momentum of every parameter, by name; empty before the first step."""
    found = {name: optimiser.state[p].get("momentum_buffer") for name, p in encoder.named_parameters()}
    return {
        MOMENTUM + name: buffer.detach().to("cpu", copy=True).contiguous()
        for name, buffer in found.items()
        if buffer is not None
    }


def restore_optimiser(optimiser: torch.optim.SGD, encoder: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_state` returned; the encoder is on its device. Raises ModelError if it does not fit."""
    parameters = {MOMENTUM + name: p for name, p in encoder.named_parameters()}
    shapes = {name: p.shape for name, p in parameters.items()}
    if state and shapes != {name: tensor.shape for name, tensor in state.items()}:
        raise ModelError(
            "the optimiser's state does not fit this model",
            cause="it was saved with another recipe",
            next_step="start the round again without it",
        )
    for name, parameter in parameters.items():
        optimiser.state[parameter].clear()
        if state:
            buffer = torch.empty_like(parameter, requires_grad=False).copy_(state[name])
            optimiser.state[parameter]["momentum_buffer"] = buffer


def train_epochs(
    encoder: Encoder,
    optimiser: torch.optim.SGD,
    images: Images,
    recipe: Recipe,
    *,
    seed: int,
    stream: str,
    first_epoch: int,
    epochs: int,
    device: torch.device,
    on_step: Callable[[StepReport], None],
    after: StepReport | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[EpochRecord]:
    """Train the encoder in place for `epochs` epochs, the first of which has number `first_epoch` in the run.

    `after` is the last step that a checkpoint within `first_epoch` had taken: training goes on with the next, to
    the same weights and the same mean loss, bit for bit (the gauges then see the remaining steps). Raises
    TrainingError if the loss is not finite, the memory is too small, or the images are too few or not of the
    recipe's size.
    """
    _check_size(images, recipe)
    place(encoder, device)
    records = []
    for epoch in range(first_epoch, first_epoch + epochs):
        encoder.train()
        started = clock()
        order = _order(images, recipe, seed, stream, epoch)
        done, loss_sum = (after.step, after.loss_sum) if after else (0, 0.0)
        if done >= len(order):
            raise ValueError(f"after step {done} of {len(order)} the epoch is over: go on with the next")
        after = None
        seen: deque[Tensor] = deque(maxlen=max(1, IMAGES_MAX // recipe.batch_images))
        for step, chosen in enumerate(order[done:], start=done + 1):
            draws = _draws(len(chosen), recipe, seed, stream, epoch, step)
            f, loss = _step(encoder, optimiser, images.pixels[chosen], draws, recipe, device)
            _check_finite(loss, recipe, f"in epoch {epoch}, step {step}")
            loss_sum += loss
            seen.append(f)
            on_step(StepReport(epoch, step, len(order), len(chosen), loss, loss_sum))
        trained = sum(map(len, order))
        measured = gauges(_both_views(seen))
        records.append(EpochRecord(epoch, loss_sum / len(order), len(order), trained, clock() - started, measured))
    return records


def validation_loss(
    encoder: Encoder, images: Images, recipe: Recipe, *, seed: int, stream: str, device: torch.device
) -> Score:
    """Score the encoder on `images`; the same weights get the same score whenever they are asked.

    Batch norm uses its running statistics. Augmentation is seeded per image and the shuffled order is one and the
    same for the whole run, with the training's N; a partial batch is kept and weighs by its N (section 4 of the
    fidelity notes). Raises TrainingError if there are fewer than two images or the loss is not finite.
    """
    _check_size(images, recipe)
    place(encoder, device)
    order = scoring_batches(
        len(images),
        recipe.batch_images,
        derive(seed, "validation-order", stream),
        patients=images.patients,
        avoid_same_patient=recipe.avoid_same_patient,
    )
    was_training = encoder.training
    encoder.eval()
    loss_sum, seen = 0.0, []
    with torch.no_grad():
        for chosen in order:
            x = views(images.pixels[chosen], _draws_by_image(chosen, recipe, seed, stream), device)
            with autocast(device, recipe.precision):
                f = encoder(x)
            loss_sum += float(LOSSES[recipe.loss](f, recipe.temperature)) * len(chosen)
            seen.append(f)
    encoder.train(was_training)
    _check_finite(loss_sum, recipe, "on the validation images")
    return Score(loss_sum=loss_sum, count=len(images), gauges=gauges(_both_views(seen)))


def pretrain(
    train: Images,
    valid: Images,
    recipe: Recipe,
    *,
    seed: int,
    stream: str,
    encoder: Encoder,
    device: torch.device,
    on_step: Callable[[StepReport], None],
    on_epoch: Callable[[Epoch], None],
    clock: Callable[[], float] = time.monotonic,
) -> Pretrained:
    """Train on one site's own images (the paper's SSL, or CSSL on pooled images).

    Section III-D: at most 50 epochs; "the learning stops when the validation loss is not decreasing for 5 epochs".
    The weights of the best epoch are returned; the encoder is left with those of the last.
    """
    place(encoder, device)
    optimiser = make_optimiser(encoder, recipe)
    history: list[Epoch] = []
    best_state: dict[str, Tensor] = {}
    while len(history) < recipe.epochs_max:
        [record] = train_epochs(
            encoder,
            optimiser,
            train,
            recipe,
            seed=seed,
            stream=stream,
            first_epoch=len(history) + 1,
            epochs=1,
            device=device,
            on_step=on_step,
            clock=clock,
        )
        score = validation_loss(encoder, valid, recipe, seed=seed, stream=stream, device=device)
        history.append(Epoch(record, score))
        on_epoch(history[-1])
        best = best_epoch([epoch.valid.loss for epoch in history])
        if best == len(history):
            best_state = snapshot(encoder)
        if len(history) - best >= recipe.patience_epochs:
            break
    return Pretrained(best_state, best, tuple(history))


def best_epoch(losses: list[float]) -> int:
    """Return the 1-based number of the lowest loss, the first of equals: a loss that stands still has not fallen."""
    return 1 + losses.index(min(losses))


def views(pixels: npt.NDArray[np.uint8], draws: Draws, device: torch.device) -> Tensor:
    """Turn N images (N, S, S, 3) into the network's input (2N, 3, S, S): all first views, then all second views.

    N draws augment the second views only: "N random images and an augmented version of them" (section II-A).
    2N draws augment both.
    """
    originals = to_input(torch.from_numpy(pixels).to(device))  # (N, 3, S, S)
    if len(draws.gamma) == len(pixels):
        both = torch.cat([originals, augment(originals, draws)])
    else:
        both = augment(torch.cat([originals, originals]), draws)
    return standardise(both).contiguous(memory_format=torch.channels_last)


def _order(images: Images, recipe: Recipe, seed: int, stream: str, epoch: int) -> list[Indices]:
    """Return the mini-batches of one epoch."""
    return batches(
        len(images),
        recipe.batch_images,
        derive(seed, "order", stream, epoch),
        patients=images.patients,
        avoid_same_patient=recipe.avoid_same_patient,
    )


def _draws(count: int, recipe: Recipe, seed: int, stream: str, epoch: int, step: int) -> Draws:
    """Draw the augmentations of one training step of `count` images."""
    generator = torch.Generator().manual_seed(derive(seed, "views", stream, epoch, step))
    return draw(_augmented(recipe) * count, recipe.augment, generator)


def _augmented(recipe: Recipe) -> int:
    """Return how many views of an image are augmented."""
    return 1 if recipe.views == "one-augmented" else 2


def _step(
    encoder: Encoder,
    optimiser: torch.optim.SGD,
    pixels: npt.NDArray[np.uint8],
    draws: Draws,
    recipe: Recipe,
    device: torch.device,
) -> tuple[Tensor, float]:
    """Take one optimiser step; return the representations (2N, width) and the loss before it."""
    try:
        x = views(pixels, draws, device)  # (2N, 3, S, S)
        with autocast(device, recipe.precision):
            f = encoder(x)  # (2N, width)
        loss = LOSSES[recipe.loss](f, recipe.temperature)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU's memory is too small for {len(pixels)} images of {recipe.image_px} px in a batch",
            cause="another process uses the GPU, or the recipe is too large for it",
            next_step="look at nvidia-smi; else a smaller batch_images or precision = bfloat16",
        ) from error
    return f.detach(), float(loss.detach())


def _draws_by_image(chosen: Indices, recipe: Recipe, seed: int, stream: str) -> Draws:
    """Draw the augmentation of each image from its own seed, so that it does not depend on its neighbours."""
    each = []
    for image in chosen:
        generator = torch.Generator().manual_seed(derive(seed, "validation-views", stream, int(image)))
        each.append(draw(_augmented(recipe), recipe.augment, generator))
    joined = join(each)  # one image after the other; wanted: all first views, then all second views
    turn = torch.arange(len(joined.gamma)).view(len(chosen), -1).T.flatten()
    return joined.select(turn)


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


def _check_finite(loss: float, recipe: Recipe, where: str) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} {where}: training has diverged",
            cause=f"the learning rate {recipe.lr:g} is too high for these images, or the weights received were damaged",
            next_step="lower lr (a tenth is a good try) and start again",
        )
