"""The optimiser: SGD with momentum (section III-D), its learning rate over a run, and its state as tensors.

Momentum exists from the start, as zeros: a first step from zeros equals a first step from nothing, and a CUDA graph
finds its buffers in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedcervix.core.plan import Recipe
from fedcervix.errors import ModelError

MOMENTUM = "momentum."


def make_optimiser(encoder: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return SGD over all parameters: one learning rate; weight decay on norms and biases as the recipe says.

    The encoder is on its device already.
    """
    parameters = list(encoder.parameters())
    spared = [] if recipe.decay_norms_and_biases else [p for p in parameters if p.ndim == 1]
    decayed = parameters if recipe.decay_norms_and_biases else [p for p in parameters if p.ndim > 1]
    groups: list[dict[str, object]] = [{"params": decayed, "weight_decay": recipe.weight_decay}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    return sgd(groups, lr=recipe.lr, momentum=recipe.momentum, device=parameters[0].device)


def sgd(groups: Iterable[Any], *, lr: float, momentum: float, device: torch.device) -> torch.optim.SGD:
    """Return torch's SGD with its momentum in place; on a GPU fused, the rate a tensor that a CUDA graph reads."""
    on_gpu = device.type == "cuda"
    rate: Any = torch.tensor(lr, device=device) if on_gpu else lr
    optimiser = torch.optim.SGD(groups, lr=rate, momentum=momentum, fused=on_gpu)
    clear(optimiser)
    return optimiser


def clear(optimiser: torch.optim.SGD) -> None:
    """Forget all momentum."""
    for group in optimiser.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            kept = optimiser.state[parameter].get("momentum_buffer")
            if kept is None:
                optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
            else:
                kept.zero_()


def optimiser_state(optimiser: torch.optim.SGD, encoder: nn.Module) -> dict[str, Tensor]:
    """Return the momentum of every parameter, by name: the tensors themselves, which the next step changes."""
    found = {name: optimiser.state[p].get("momentum_buffer") for name, p in encoder.named_parameters()}
    return {MOMENTUM + name: buffer.detach() for name, buffer in found.items() if buffer is not None}


def restore_optimiser(optimiser: torch.optim.SGD, encoder: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_state` returned, in place; empty means no momentum. Raises ModelError on a misfit."""
    if not state:
        clear(optimiser)
        return
    buffers = {MOMENTUM + name: optimiser.state[p].get("momentum_buffer") for name, p in encoder.named_parameters()}
    shapes = {name: buffer.shape for name, buffer in buffers.items() if buffer is not None}
    if shapes != {name: tensor.shape for name, tensor in state.items()}:
        raise ModelError(
            "the optimiser's state does not fit this model",
            cause="it was saved with another recipe",
            next_step="start the round again without it",
        )
    for name in shapes:
        buffers[name].copy_(state[name])


def learning_rate(recipe: Recipe, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """Return the learning rate of a step, counted from 0 over the whole run of `epochs` epochs.

    Indexed by the run's step, not the round's: a federation of R rounds of E epochs sees one curve, not R of them.
    Warm-up rises in a straight line to `lr`; `cosine` (Loshchilov and Hutter 2017, without restarts) falls to zero.
    """
    warm = recipe.warmup_epochs * steps_per_epoch
    if step < warm:
        return recipe.lr * (step + 1) / (math.ceil(warm) + 1)
    if recipe.schedule == "constant":
        return recipe.lr
    rest = max(1.0, epochs * steps_per_epoch - warm)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / rest)))


def set_rate(optimiser: torch.optim.SGD, rate: float) -> None:
    """Set the learning rate of all groups; in place where a graph may hold it."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def changed_by(module: nn.Module, optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """Return every tensor that a training step changes: weights, running statistics, momentum."""
    momentum = [state["momentum_buffer"] for state in optimiser.state.values() if "momentum_buffer" in state]
    return [*module.parameters(), *module.buffers(), *momentum]


@torch.no_grad()
def add_proximal_gradient(parameters: list[nn.Parameter], anchors: list[Tensor], mu: float) -> None:
    """Add the gradient of FedProx's mu/2 |w - w0|^2 (Li et al. 2020, Eq. 2), `anchors` being w0."""
    for parameter, anchor in zip(parameters, anchors, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter - anchor, alpha=mu)
