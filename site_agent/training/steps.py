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

from fedcervix.core.plan import Recipe
from fedcervix.errors import TrainingError
from site_agent.network.cuda_graph import Graphed
from site_agent.network.devices import Acceleration, autocast, free_tensors, lacks_memory, place
from site_agent.network.encoder import Encoder, build_encoder
from site_agent.network.loss import LOSSES
from site_agent.network.optimizer import add_proximal_gradient, changed_by, make_optimiser
from site_agent.network.views import views
from site_agent.training.ddp import ALONE, Team, gather_views, wrap

Step = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""(N, S, S, 3) bytes and their packed draws, on the device -> (2N, width) representations, loss before the step"""


@dataclass(frozen=True, slots=True)
class ProximalReference:
    """The weights a round began with, which FedProx pulls towards; empty where it is not used."""

    tensors: list[Tensor] = field(default_factory=list)

    def set(self, encoder: Encoder) -> None:
        """Take the encoder's present weights, where anchors are used."""
        with torch.no_grad():
            for anchor, parameter in zip(self.tensors, encoder.parameters(), strict=bool(self.tensors)):
                anchor.copy_(parameter)


def make_anchors(encoder: Encoder, recipe: Recipe) -> ProximalReference:
    """Return the anchors of the recipe, set to the encoder's weights."""
    return ProximalReference([p.detach().clone() for p in encoder.parameters()] if recipe.proximal else [])


def make_step(
    encoder: Encoder,
    optimiser: torch.optim.SGD,
    recipe: Recipe,
    device: torch.device,
    *,
    anchors: ProximalReference | None = None,
    acceleration: Acceleration = "eager",
    team: Team = ALONE,
) -> Step:
    """Return the step. `anchors` is asked for where the recipe is proximal; local training has none.

    In a team it takes this rank's share of the images and returns the joint batch's representations and loss; it is
    eager there. A step that fails for want of memory leaves all as it was, so that it can be taken again.
    Raises ValueError.
    """
    if acceleration != "eager" and not team.alone:
        raise ValueError(f"a team steps eagerly; found {acceleration}")
    pull = anchors.tensors if anchors else []
    parameters = list(encoder.parameters())
    forward = torch.compile(encoder, dynamic=False) if acceleration == "compile" else wrap(encoder, team, device)

    def step(pixels: Tensor, packed: Tensor) -> tuple[Tensor, ...]:
        x = views(pixels, packed)  # (2N, 3, S, S)
        with autocast(device, recipe.precision):
            f = forward(x)  # (2N, width)
        f = gather_views(f, team)
        loss = LOSSES[recipe.loss](f, recipe.temperature)
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

    def careful(pixels: Tensor, packed: Tensor) -> tuple[Tensor, ...]:
        torch._foreach_copy_(before, statistics)
        try:
            return step(pixels, packed)
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


def make_learner(recipe: Recipe, device: torch.device, acceleration: Acceleration, team: Team = ALONE) -> Learner:
    """Return a learner on the device; its weights are to be loaded."""
    encoder = build_encoder(recipe, 0)
    place(encoder, device)
    optimiser, anchors = make_optimiser(encoder, recipe), make_anchors(encoder, recipe)
    step = make_step(encoder, optimiser, recipe, device, anchors=anchors, acceleration=acceleration, team=team)
    return Learner(encoder, optimiser, anchors, step)


def out_of_memory(images: int, recipe: Recipe, fits: Callable[[int], bool] | None) -> TrainingError:
    """Return what to tell the operator when a batch of `images` does not fit: also which batch would.

    `fits` tries one; None where nothing can be tried (in a team the others do not take part).
    """
    smaller = images // 2
    while fits and smaller >= 2 and not fits(smaller):
        smaller //= 2
    advice = f"batch_images = {smaller} {'fits' if fits else 'may fit'}"
    if smaller < 2:
        advice = "not even two images fit: free the GPU (nvidia-smi)"
    halved = "; precision = bfloat16 halves what a batch needs" if recipe.precision == "float32" else ""
    return TrainingError(
        f"the GPU's memory is too small for {images} images of {recipe.image_px} px in a batch",
        cause="another process uses the GPU, or the recipe is too large for it",
        next_step=f"{advice}{halved}. With the same recipe, training continues from its checkpoint",
    )


def fits(
    encoder: Encoder, recipe: Recipe, device: torch.device, inputs: Callable[[int], tuple[Tensor, Tensor]]
) -> Callable[[int], bool]:
    """Return a function that tries whether a batch of so many images fits; it changes no weight.

    `inputs` returns images and packed draws of a batch of that many, on the device.
    """

    def try_it(images: int) -> bool:
        torch.cuda.empty_cache()
        try:
            with autocast(device, recipe.precision):
                f = encoder(views(*inputs(images)))
            LOSSES[recipe.loss](f, recipe.temperature).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            free_tensors(error)
            return False
        finally:
            encoder.zero_grad(set_to_none=True)
        return True

    return try_it
