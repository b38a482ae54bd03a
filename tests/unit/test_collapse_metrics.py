"""The gauges name every kind of collapse, and keep quiet about a healthy encoder."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from fedcervix.core.collapse import collapse_loss
from site_agent.network.encoder import unit_rows
from site_agent.network.loss import nt_xent
from site_agent.training.collapse_metrics import IMAGES_MAX, Gauges, alarms, gauges

torch.set_num_threads(1)


def random(n: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def healthy(n: int = 8, width: int = 64) -> Tensor:
    one = random(n, width)
    return unit_rows(torch.cat([one, one + 0.1 * random(n, width, seed=1)]).relu())


def sentences(f: Tensor) -> list[str]:
    n = len(f) // 2
    return alarms(gauges(f), nt_xent(f, 0.1).item(), n)


def test_a_healthy_encoder_raises_no_alarm() -> None:
    assert sentences(healthy()) == []


def test_representations_that_are_all_alike_raise_the_alarm() -> None:
    constant = unit_rows(torch.ones(16, 64) + 1e-4 * random(16, 64))
    found = gauges(constant)
    assert found.unit_std < 1e-3
    assert found.uniformity == pytest.approx(0, abs=1e-5)
    assert any("nearly the same representation" in s for s in sentences(constant))
    assert any("not better than guessing (2.708)" in s for s in sentences(constant))


def test_representations_that_are_all_zero_raise_the_alarm() -> None:
    dead = unit_rows((random(16, 64) - 100).relu())
    found = gauges(dead)
    assert (found.zero_rows, found.dead_units, found.unit_std, found.effective_rank) == (1, 1, 0, 0)
    first, second = sentences(dead)[:2]
    assert first.startswith("100% of the representations are all zero")
    assert second.startswith("100% of the units are zero")


def test_representations_on_one_line_raise_the_alarm() -> None:
    """Half the images point one way and half the other: a spread that looks well, and a rank that does not."""
    line = torch.tensor([1.0, -1.0] * 4).repeat(2)[:, None] * unit_rows(random(1, 64))
    found = gauges(line)
    assert found.unit_std == pytest.approx(1, abs=1e-6)
    assert found.effective_rank == pytest.approx(1, abs=1e-6)
    assert any("on one line" in s for s in sentences(line))


def test_gauges_of_four_orthogonal_images_by_hand() -> None:
    """Mean row 1/4 each: 1 - 4/16 = 3/4 of variance. All 6 pairs of a view are at squared distance 2."""
    found = gauges(torch.eye(4).repeat(2, 1))
    assert found.zero_rows == found.dead_units == 0
    assert found.unit_std == pytest.approx(math.sqrt(3 / 4))
    assert found.effective_rank == pytest.approx(4)
    assert found.alignment == 0
    assert found.uniformity == pytest.approx(-4)


def test_uniformity_takes_the_views_apart() -> None:
    """Wang and Isola: the mean over both views. Eight images, far apart: -4 is reached with few of them."""
    spread = unit_rows(torch.eye(8))
    assert gauges(torch.cat([spread, unit_rows(spread + 0.05 * random(8, 8))])).uniformity < -3.8
    one, two = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert gauges(torch.cat([one, two])).uniformity == pytest.approx((-4 + 0) / 2)


def test_one_image_has_a_uniformity_that_json_can_hold() -> None:
    assert gauges(torch.eye(2)).uniformity == 0


def test_alignment_is_the_mean_squared_distance_of_the_two_views() -> None:
    """One pair at a right angle (2), one identical (0): 1."""
    f = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 1.0]])
    assert gauges(f).alignment == pytest.approx(1)


def test_shares_count_zero_rows_and_dead_units() -> None:
    f = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]])
    assert gauges(f).zero_rows == 0.25
    assert gauges(f).dead_units == 0.5


def test_only_the_last_images_are_measured_so_that_the_cost_is_bounded() -> None:
    old, new = torch.zeros(100, 8), random(IMAGES_MAX, 8)
    f = torch.cat([old, new, old, new])
    assert gauges(f) == gauges(torch.cat([new, new]))


def test_measuring_leaves_no_trace_in_the_gradient() -> None:
    f = random(4, 8).requires_grad_()
    gauges(f)
    assert f.grad is None


WELL = Gauges(zero_rows=0, dead_units=0.2, unit_std=0.5, effective_rank=9, alignment=0.2, uniformity=-2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"zero_rows": 0.51}, "dead ReLU"),
        ({"dead_units": 0.95}, "wider head"),
        ({"unit_std": 0.01}, "nearly the same representation"),
        ({"effective_rank": 1.2}, "on one line"),
    ],
)
def test_each_alarm_says_what_to_try(change: dict[str, float], says: str) -> None:
    assert alarms(WELL, 1.0, 8) == []
    [sentence] = alarms(dataclasses.replace(WELL, **change), 1.0, 8)
    assert says in sentence
    assert "try " in sentence


def test_the_line_of_guessing_belongs_to_the_loss() -> None:
    """N = 2: Eq. 1 guesses among 3, the decoupled loss among 2."""
    assert collapse_loss(2) == math.log(3)
    assert collapse_loss(2, "dcl") == math.log(2)
    assert alarms(WELL, 0.8, 2) == []
    assert "not better than guessing" in alarms(WELL, 0.8, 2, "dcl")[0]
