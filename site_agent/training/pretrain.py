"""Contrastive training of one site by itself: the paper's SSL, and CSSL where several collections may be pooled.

Section III-D: at most 50 epochs; "the learning stops when the validation loss is not decreasing for 5 epochs".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fedcervix.core.plan import Recipe
from site_agent.data.image_sets import Images
from site_agent.network.encoder import Encoder, snapshot
from site_agent.training.checkpoints import Checkpoints
from site_agent.training.context import TrainingContext
from site_agent.training.epochs import best_epoch, is_patience_over
from site_agent.training.knn_probe import Probe
from site_agent.training.loop import Epoch, Position, StepReport, train_epochs, validation_loss
from site_agent.training.resume import CheckpointWriter, Standing, unpack
from site_agent.training.steps import make_learner


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What `pretrain` returns: the weights with the lowest validation loss, and how they were come by."""

    best_state: dict[str, Tensor]
    best_epoch: int
    history: tuple[Epoch, ...]


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Whom a training tells how it goes."""

    step: Callable[[StepReport], None] = lambda _step: None
    epoch: Callable[[Epoch], None] = lambda _epoch: None
    resumed: Callable[[Position], None] = lambda _position: None
    """it goes on from a checkpoint"""


def pretrain(
    encoder: Encoder,
    train: Images,
    valid: Images,
    context: TrainingContext,
    callbacks: Callbacks,
    *,
    probe: Probe = lambda _encoder: None,
    checkpoints: Checkpoints | None = None,
) -> Pretrained:
    """Train until the validation loss has not fallen for `patience_epochs`; return the weights of the best epoch.

    With `checkpoints` an interrupted training goes on from the last one, to the same bits. `probe` scores the
    encoder after each epoch. The encoder is left with the weights of the last epoch. Raises TrainingError as
    `train_epochs` does, then leaving a checkpoint behind where the memory was too small.
    """
    learner = make_learner(encoder, context)
    kept = checkpoints.latest() if checkpoints else None
    stood = unpack(kept, learner) if kept else Standing(Position(1, 0, 0.0, ()))
    history, best_state, at = list(stood.history), dict(stood.best_state), stood.position if kept else None
    if at:
        callbacks.resumed(at)
    keeper = CheckpointWriter(checkpoints, learner, lambda: (tuple(history), best_state)) if checkpoints else None
    while not _is_over(history, context.recipe):
        number = len(history) + 1
        epochs = range(number, number + 1)
        [trained] = train_epochs(learner, train, context, epochs, on_step=callbacks.step, at=at, keeper=keeper)
        at = None
        history.append(Epoch(trained, validation_loss(encoder, valid, context), probe(encoder)))
        if best_epoch(_losses(history)) == number:
            best_state = snapshot(encoder)
        callbacks.epoch(history[-1])
    return Pretrained(best_state, best_epoch(_losses(history)), tuple(history))


def _is_over(history: list[Epoch], recipe: Recipe) -> bool:
    return len(history) >= recipe.epochs_max or is_patience_over(_losses(history), recipe.patience_epochs)


def _losses(history: list[Epoch]) -> list[float]:
    return [epoch.valid.loss for epoch in history]
