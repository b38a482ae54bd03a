"""Contrastive training of one site by itself: the paper's SSL, and CSSL where several collections may be pooled.

Section III-D: at most 50 epochs; "the learning stops when the validation loss is not decreasing for 5 epochs".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcervix.core.plan import Recipe
from site_agent.data.image_sets import Images
from site_agent.network.devices import Acceleration, place
from site_agent.network.encoder import Encoder, snapshot
from site_agent.network.optimizer import make_optimiser
from site_agent.training.checkpoints import Checkpoints
from site_agent.training.knn_probe import Probe
from site_agent.training.loop import NEVER, Epoch, Position, StepReport, train_epochs, validation_loss
from site_agent.training.resume import CheckpointWriter, Standing, unpack
from site_agent.training.steps import make_step


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What `pretrain` returns: the weights with the lowest validation loss, and how they were come by."""

    best_state: dict[str, Tensor]
    best_epoch: int
    history: tuple[Epoch, ...]


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
    on_resume: Callable[[Position], None] = lambda _position: None,
    probe: Probe = lambda _encoder: None,
    checkpoints: Checkpoints | None = None,
    acceleration: Acceleration = "eager",
    one_site_batches: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Pretrained:
    """Train until the validation loss has not fallen for `patience_epochs`; return the weights of the best epoch.

    With `checkpoints` an interrupted training goes on from the last one, to the same bits. `probe` scores the
    encoder after each epoch. `one_site_batches` is as for `train_epochs`; validation mixes the sites all the same.
    The encoder is left with the weights of the last epoch. Raises TrainingError as `train_epochs` does, then leaving
    a checkpoint behind where the memory was too small.
    """
    place(encoder, device)
    optimiser = make_optimiser(encoder, recipe)
    step = make_step(encoder, optimiser, recipe, device, acceleration=acceleration)
    kept = checkpoints.latest() if checkpoints else None
    stood = unpack(kept, encoder, optimiser) if kept else Standing(Position(1, 0, 0.0, ()))
    history, best_state, at = list(stood.history), dict(stood.best_state), stood.position if kept else None
    if at:
        on_resume(at)
    keeper = (
        CheckpointWriter(checkpoints, encoder, optimiser, lambda: (tuple(history), best_state))
        if checkpoints
        else NEVER
    )
    while not _is_over(history, recipe):
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
            one_site_batches=one_site_batches,
            step=step,
            at=at,
            keeper=keeper,
            clock=clock,
        )
        at = None
        score = validation_loss(encoder, valid, recipe, seed=seed, stream=stream, device=device)
        history.append(Epoch(record, score, probe(encoder)))
        if best_epoch(_losses(history)) == len(history):
            best_state = snapshot(encoder)
        on_epoch(history[-1])
    return Pretrained(best_state, best_epoch(_losses(history)), tuple(history))


def best_epoch(losses: list[float]) -> int:
    """Return the 1-based number of the lowest loss, the first of equals: a loss that stands still has not fallen."""
    return 1 + losses.index(min(losses))


def _is_over(history: list[Epoch], recipe: Recipe) -> bool:
    if not history:
        return False
    waited = len(history) - best_epoch(_losses(history))
    return len(history) >= recipe.epochs_max or waited >= recipe.patience_epochs


def _losses(history: list[Epoch]) -> list[float]:
    return [epoch.valid.loss for epoch in history]
