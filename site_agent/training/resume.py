"""A training as a checkpoint, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedcervix.runtime.typed_json import from_json
from site_agent.network.encoder import apply_weights
from site_agent.network.optimizer import optimiser_state, restore_optimiser
from site_agent.training.checkpoints import Checkpoint, Checkpoints
from site_agent.training.loop import Epoch, Position, TrainedEpoch
from site_agent.training.steps import Learner


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a training has come: where it stands, the epochs behind it, the best weights so far."""

    position: Position
    history: tuple[Epoch, ...] = ()
    best_state: Mapping[str, Tensor] = field(default_factory=dict)


def pack(learner: Learner, standing: Standing) -> Checkpoint:
    """Return everything that going on needs; nothing is copied, so it is to be written before the next step."""
    position = standing.position
    tensors = {
        **_named("model.", learner.encoder.state_dict()),
        **_named("optimiser.", optimiser_state(learner.optimiser, learner.encoder)),
        **_named("best.", standing.best_state),
        **{f"seen.{k}": f for k, f in enumerate(position.seen)},
    }
    facts = _Facts(
        position.epoch, position.step, position.loss_sum, position.seconds, position.records, standing.history
    )
    return Checkpoint(tensors, dataclasses.asdict(facts))


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a checkpoint holds beside its tensors."""

    epoch: int
    step: int
    loss_sum: float
    seconds: float
    records: tuple[TrainedEpoch, ...]
    history: tuple[Epoch, ...]


def unpack(checkpoint: Checkpoint, learner: Learner) -> Standing:
    """Put weights and momentum back in place, and return the rest. Raises ModelError if they do not fit."""
    apply_weights(learner.encoder, checkpoint.part("model."), what="the checkpoint")
    restore_optimiser(learner.optimiser, learner.encoder, checkpoint.part("optimiser."))
    facts, seen = from_json(_Facts, checkpoint.facts), checkpoint.part("seen.")
    device = next(learner.encoder.parameters()).device
    position = Position(
        epoch=facts.epoch,
        step=facts.step,
        loss_sum=facts.loss_sum,
        seen=tuple(seen[str(k)].to(device) for k in range(len(seen))),
        seconds=facts.seconds,
        records=facts.records,
    )
    return Standing(position, facts.history, checkpoint.part("best."))


@dataclass(frozen=True, slots=True)
class CheckpointWriter:
    """A `Keeper` that writes checkpoints of a learner; `behind` returns history and best weights."""

    checkpoints: Checkpoints
    learner: Learner
    behind: Callable[[], tuple[tuple[Epoch, ...], Mapping[str, Tensor]]] = lambda: ((), {})

    def due(self) -> bool:
        """Return whether it is time to keep one."""
        return self.checkpoints.due()

    def keep(self, position: Position) -> None:
        """Write this position."""
        self.checkpoints.keep(pack(self.learner, Standing(position, *self.behind())))


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}
