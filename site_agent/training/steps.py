"""One step of contrastive training: views, forward, loss, backward, optimiser, as one function of two tensors.

The same function runs as it is (`eager`), with its forward pass compiled (`compile`), or as a CUDA graph (`graph`).
A step is made once for an encoder and its optimiser and serves all rounds: weights are loaded into it in place, so
nothing is compiled or captured again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from site_agent.network.cuda_graph import Graphed
from site_agent.network.devices import autocast, place
from site_agent.network.encoder import Encoder
from site_agent.network.loss import LOSSES
from site_agent.network.optimizer import add_proximal_gradient, changed_by, make_optimiser
from site_agent.network.views import views
from site_agent.training.context import TrainingContext
from site_agent.training.ddp import gather_views, wrap

Step = Callable[..., tuple[Tensor, ...]]
"""(N, S, S, 3) bytes and their packed draws, on the device -> (2N, width) representations, loss before the step

Where the recipe pairs images: also the partners' bytes (N, S, S, 3), and whose the joint batch's images are, (N,)."""


@dataclass(frozen=True, slots=True)
class ProximalReference:
    """The weights a round began with, which FedProx pulls towards; empty where it is not used."""

    tensors: list[Tensor] = field(default_factory=list)

    def set(self, encoder: Encoder) -> None:
        """Take the encoder's present weights, where anchors are used."""
        with torch.no_grad():
            for anchor, parameter in zip(self.tensors, encoder.parameters(), strict=bool(self.tensors)):
                anchor.copy_(parameter)


def make_step(
    encoder: Encoder, optimiser: torch.optim.SGD, context: TrainingContext, anchors: ProximalReference | None = None
) -> Step:
    """Return the step. `anchors` is asked for where the recipe is proximal; local training has none.

    In a team it takes this rank's share of the images and returns the joint batch's representations and loss; it is
    eager there. A step that fails for want of memory leaves all as it was, so that it can be taken again.
    Raises ValueError.
    """
    recipe, device, team, acceleration = context.recipe, context.device, context.team, context.machine.acceleration
    if acceleration != "eager" and not team.alone:
        raise ValueError(f"a team steps eagerly; found {acceleration}")
    pull = anchors.tensors if anchors else []
    parameters = list(encoder.parameters())
    forward = torch.compile(encoder, dynamic=False) if acceleration == "compile" else wrap(encoder, team, device)

    def step(
        pixels: Tensor, packed: Tensor, partners: Tensor | None = None, women: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        x = views(pixels, packed, partners)  # (2N, 3, S, S)
        with autocast(device, recipe.precision):
            f = forward(x)  # (2N, width)
        f = gather_views(f, team)
        loss = LOSSES[recipe.loss](f, recipe.temperature, women)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if pull:
            add_proximal_gradient(parameters, pull, recipe.proximal)
        optimiser.step()
        return f.detach(), loss.detach()

    if acceleration == "graph":
        return Graphed(step, lambda: changed_by(encoder, optimiser))
    return _whole_or_not(step, list(encoder.buffers()))


def _whole_or_not(step: Step, statistics: list[Tensor]) -> Step:
    """Let a step that fails leave running statistics alone: they change layer by layer, weights only at the end."""
    before = [tensor.clone() for tensor in statistics]

    def careful(*inputs: Tensor) -> tuple[Tensor, ...]:
        torch._foreach_copy_(before, statistics)
        try:
            return step(*inputs)
        except RuntimeError:
            torch._foreach_copy_(statistics, before)
            raise

    return careful


@dataclass(frozen=True, slots=True)
class Learner:
    """An encoder with all that trains it. Made once for a recipe, it serves every round."""

    encoder: Encoder
    optimiser: torch.optim.SGD
    anchors: ProximalReference
    step: Step


def make_learner(encoder: Encoder, context: TrainingContext, *, proximal: bool = False) -> Learner:
    """Return a learner for an encoder, which is brought to the device. Its momentum is empty.

    Rounds of a federation are `proximal` where the recipe is; local training never is.
    """
    place(encoder, context.device)
    optimiser = make_optimiser(encoder, context.recipe)
    pulled = list(encoder.parameters()) if proximal and context.recipe.proximal else []
    anchors = ProximalReference([parameter.detach().clone() for parameter in pulled])
    return Learner(encoder, optimiser, anchors, make_step(encoder, optimiser, context, anchors))
