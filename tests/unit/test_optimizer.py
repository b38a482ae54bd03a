"""The learning rate over a run, FedProx, and the optimiser's state."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fedcervix.core.plan import Recipe
from site_agent.network.optimizer import (
    add_proximal_gradient,
    clear,
    learning_rate,
    make_optimiser,
    optimiser_state,
    set_rate,
)

torch.set_num_threads(1)


def rates(recipe: Recipe, *, steps_per_epoch: int, epochs: int) -> list[float]:
    return [
        learning_rate(recipe, step, steps_per_epoch=steps_per_epoch, epochs=epochs)
        for step in range(steps_per_epoch * epochs)
    ]


def test_the_papers_rate_is_constant() -> None:
    assert set(rates(Recipe(), steps_per_epoch=3, epochs=4)) == {0.01}


def test_warm_up_rises_in_a_straight_line() -> None:
    found = rates(Recipe(lr=0.5, warmup_epochs=1.0), steps_per_epoch=4, epochs=2)
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5])


def test_cosine_falls_from_the_whole_rate_to_almost_nothing() -> None:
    found = rates(Recipe(lr=1.0, schedule="cosine"), steps_per_epoch=2, epochs=4)
    assert found[0] == 1.0
    assert found[4] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))
    assert found == sorted(found, reverse=True)


def test_cosine_begins_where_warm_up_ends() -> None:
    found = rates(Recipe(lr=1.0, schedule="cosine", warmup_epochs=1.0), steps_per_epoch=4, epochs=3)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[8] == pytest.approx(0.5)


def test_the_curve_goes_over_all_rounds_and_not_over_each() -> None:
    """R rounds of E epochs are one curve: round 3 of E = 2 begins where local training's fifth epoch does."""
    recipe = Recipe(schedule="cosine", warmup_epochs=1.5)
    local = rates(recipe, steps_per_epoch=3, epochs=6)
    for round_ in (1, 2, 3):
        first_epoch = (round_ - 1) * 2 + 1
        first = (first_epoch - 1) * 3
        assert learning_rate(recipe, first, steps_per_epoch=3, epochs=6) == local[first]


def test_proximal_adds_mu_times_the_distance_from_the_anchor() -> None:
    weight = nn.Parameter(torch.tensor([3.0, -1.0]))
    weight.grad = torch.tensor([0.5, 0.5])
    add_proximal_gradient([weight], [torch.tensor([1.0, 1.0])], mu=0.1)
    assert weight.grad.tolist() == pytest.approx([0.7, 0.3])


def test_momentum_is_there_from_the_start_as_zeros_and_can_be_cleared() -> None:
    module = nn.Linear(2, 1)
    optimiser = make_optimiser(module, Recipe())
    assert all(not tensor.any() for tensor in optimiser_state(optimiser, module).values())
    module(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    buffers = [optimiser.state[p]["momentum_buffer"] for p in module.parameters()]
    assert all(buffer.any() for buffer in buffers)
    clear(optimiser)
    assert [optimiser.state[p]["momentum_buffer"] is b for p, b in zip(module.parameters(), buffers, strict=True)]
    assert not any(buffer.any() for buffer in buffers)


def test_a_first_step_from_zero_momentum_is_a_first_step_from_none() -> None:
    found = []
    for explicit in (True, False):
        torch.manual_seed(0)
        module = nn.Linear(3, 2)
        optimiser = (
            make_optimiser(module, Recipe())
            if explicit
            else torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-5)
        )
        for _ in range(3):
            optimiser.zero_grad()
            module(torch.arange(6.0).view(2, 3)).square().sum().backward()
            optimiser.step()
        found.append(module.weight.detach().clone())
    assert torch.equal(*found)


def test_the_rate_can_be_set_as_a_number_or_in_place() -> None:
    module = nn.Linear(2, 1)
    optimiser = make_optimiser(module, Recipe(decay_norms_and_biases=False))
    held = torch.tensor(0.01)
    optimiser.param_groups[0]["lr"] = held
    set_rate(optimiser, 0.5)
    assert optimiser.param_groups[0]["lr"] is held
    assert [float(group["lr"]) for group in optimiser.param_groups] == [0.5, 0.5]
