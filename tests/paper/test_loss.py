"""Section II-A, Eq. 1: the contrastive loss, against numbers that can be checked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor

from fedcervix.core.collapse import collapse_loss
from site_agent.network.encoder import unit_rows
from site_agent.network.loss import dcl, nt_xent, nt_xent_rows
from site_agent.training.collapse_metrics import alarms, gauges

torch.set_num_threads(1)


def golden_rows() -> Tensor:
    """f[i, d] = sin(.7 i + 1.3 d + .11 i d) for i < 8, d < 5, in float64; rows i and i + 4 are pairs."""
    i, d = torch.meshgrid(torch.arange(8.0).double(), torch.arange(5.0).double(), indexing="ij")
    return torch.sin(0.7 * i + 1.3 * d + 0.11 * i * d)


def random_rows(n: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(2 * n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def eq_1_in_loops(f: Tensor, temperature: float, *, decoupled: bool = False, women: str | None = None) -> float:
    """Eq. 1 as it is printed (with `k` for the misprinted `i`), one number at a time.

    `women` names whose each of the N images is: then a woman's other views are left out.
    """
    rows = f.tolist()
    n = len(rows) // 2
    whose = 2 * women if women else range(2 * n)

    def e(i: int, k: int) -> float:
        return math.exp(sum(a * b for a, b in zip(rows[i], rows[k], strict=True)) / temperature)

    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        hers = {k for k in range(2 * n) if whose[k] == whose[i]} - {j}
        left_out = {i, *hers, *([j] if decoupled else [])}
        summed = [e(i, k) for k in range(2 * n) if k not in left_out]
        total -= math.log(e(i, j) / sum(summed)) if summed else 0.0
    return total / (2 * n)


@pytest.mark.parametrize(
    ("f", "temperature", "expected"),
    [
        (unit_rows(golden_rows()), 0.1, 13.331584339287),
        (unit_rows(golden_rows()), 0.5, 3.595655990648),
        (unit_rows(golden_rows().relu()), 0.1, 7.450598269095),
        (golden_rows(), 1.0, 4.145572327109),
    ],
    ids=["unit length, tau .1", "unit length, tau .5", "ReLU then unit length, tau .1", "raw dot product, tau 1"],
)
def test_the_golden_rows_cost_what_they_always_did(f: Tensor, temperature: float, expected: float) -> None:
    assert nt_xent(f, temperature).item() == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("n", "width"), [(1, 3), (2, 1), (5, 7), (16, 64)])
def test_the_loss_is_eq_1_averaged_over_all_2n_ordered_pairs(n: int, width: int, temperature: float) -> None:
    """II-A: "computed across all pairs constructed with an image and its augmented version"."""
    f = unit_rows(random_rows(n, width))
    assert nt_xent(f, temperature).item() == pytest.approx(eq_1_in_loops(f, temperature), abs=1e-11)


@pytest.mark.parametrize("n", [2, 8, 32])
def test_the_loss_agrees_with_pytorch_metric_learning(n: int) -> None:
    f = random_rows(n, 16, seed=n)
    theirs = NTXentLoss(temperature=0.1)(f, torch.arange(n).repeat(2))
    assert nt_xent(unit_rows(f), 0.1).item() == pytest.approx(theirs.item(), rel=1e-9)


@pytest.mark.parametrize(("n", "expected"), [(8, 2.7080502011), (16, 3.4339872045), (32, 4.1431347263)])
def test_constant_rows_cost_the_log_of_2n_minus_1(n: int, expected: float) -> None:
    constant = unit_rows(torch.ones(2 * n, 64))
    assert nt_xent(constant, 0.1).item() == pytest.approx(expected, abs=1e-6)
    assert collapse_loss(n) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("n", [8, 16, 32])
def test_dead_rows_cost_the_same_and_receive_no_gradient(n: int) -> None:
    """All-zero rows are what a dead ReLU leaves: the loss looks like slow learning, and nothing will ever change."""
    before = torch.zeros(2 * n, 64, requires_grad=True)
    loss = nt_xent(unit_rows(before), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(collapse_loss(n), abs=1e-6)
    assert torch.equal(before.grad, torch.zeros_like(before))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (torch.zeros(16, 64), "all zero (dead ReLU)"),
        (torch.ones(16, 64), "nearly the same representation"),
        (torch.linspace(-1, 1, 16)[:, None] * torch.ones(64), "on one line"),
    ],
    ids=["all zero", "constant", "rank one"],
)
def test_each_collapse_raises_its_alarm(rows: Tensor, said: str) -> None:
    """Constant and all-zero rows cost log 15 at N = 8, which looks like slow learning: the operator must be told."""
    found = alarms(gauges(rows), nt_xent(unit_rows(rows), 0.1).item(), 8)
    assert any(said in sentence for sentence in found)
    healthy = torch.eye(8, 64).repeat(2, 1)
    assert alarms(gauges(healthy), nt_xent(healthy, 0.1).item(), 8) == []


def test_one_dead_row_among_living_ones_receives_a_finite_gradient() -> None:
    f = random_rows(4, 8)
    f[3] = 0
    f.requires_grad_()
    nt_xent(unit_rows(f), 0.1).backward()
    assert torch.equal(f.grad[3], torch.zeros(8, dtype=torch.float64))
    assert f.grad.isfinite().all()
    assert f.grad[0].abs().sum() > 0


def test_a_row_that_is_not_a_number_does_not_pass_for_a_dead_one() -> None:
    f = random_rows(4, 8)
    f[3, 5] = math.nan
    assert math.isnan(nt_xent(unit_rows(f), 0.1).item())


def test_orthogonal_images_with_perfect_pairs_cost_almost_nothing() -> None:
    """N = 8, tau = .1: log(1 + 14 exp(-10)) = 6.353971e-4."""
    f = torch.eye(8, dtype=torch.float64).repeat(2, 1)
    assert nt_xent(f, 0.1).item() == pytest.approx(6.353971e-4, abs=1e-10)


def test_one_image_by_itself_costs_exactly_nothing() -> None:
    assert nt_xent(unit_rows(random_rows(1, 64).float()), 0.1).item() == 0.0


def test_swapping_the_two_views_changes_nothing() -> None:
    f = unit_rows(random_rows(6, 10))
    assert nt_xent(f.roll(6, dims=0), 0.1).item() == pytest.approx(nt_xent(f, 0.1).item(), abs=1e-12)


def test_at_unit_length_the_scale_of_a_row_changes_nothing() -> None:
    f = random_rows(6, 10)
    scaled = f * torch.logspace(-3, 3, 12, dtype=torch.float64)[:, None]
    assert nt_xent(unit_rows(scaled), 0.1).item() == pytest.approx(nt_xent(unit_rows(f), 0.1).item(), abs=1e-12)
    assert nt_xent(scaled, 1.0).item() != pytest.approx(nt_xent(f, 1.0).item(), abs=0.1)


def test_at_unit_length_the_gradient_is_orthogonal_to_its_row() -> None:
    f = random_rows(6, 10).requires_grad_()
    nt_xent(unit_rows(f), 0.1).backward()
    assert (f.grad * f).sum(dim=1).abs().max() < 1e-12
    assert f.grad.norm(dim=1).min() > 1e-6


def test_half_precision_is_widened_before_the_log_sum_exp() -> None:
    f = unit_rows(random_rows(32, 64)).bfloat16()
    loss = nt_xent(f, 0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(nt_xent(f.double(), 0.1).item(), rel=1e-6)


def test_autocast_does_not_reach_into_the_loss() -> None:
    f = unit_rows(random_rows(8, 64).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nt_xent(f, 0.1).item()
    assert inside == nt_xent(f, 0.1).item()


def test_large_similarities_do_not_overflow() -> None:
    """exp(1000 / .1) is not a float; the log-sum-exp is."""
    f = 1000 * torch.eye(4).repeat(2, 1)
    assert nt_xent(f, 0.1).item() == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("n", [2, 8])
def test_the_decoupled_loss_leaves_the_positive_out_of_its_sum(n: int) -> None:
    f = unit_rows(random_rows(n, 6))
    assert dcl(f, 0.1).item() == pytest.approx(eq_1_in_loops(f, 0.1, decoupled=True), abs=1e-11)
    constant = unit_rows(torch.ones(2 * n, 6))
    assert dcl(constant, 0.1).item() == pytest.approx(collapse_loss(n, "dcl"), abs=1e-6)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("women", ["abcd", "aabc", "abab", "aaab", "aaaa"])
def test_option_no_view_of_a_woman_is_a_negative_of_another_one_of_hers(women: str, decoupled: bool) -> None:
    loss, f = dcl if decoupled else nt_xent, unit_rows(random_rows(4, 6)).requires_grad_()
    whose = torch.tensor([ord(woman) for woman in women])
    found = loss(f, 0.1, whose)
    expected = eq_1_in_loops(f, 0.1, decoupled=decoupled, women=women)
    assert found.item() == pytest.approx(expected, abs=1e-11)
    found.backward()
    assert f.grad is not None
    assert f.grad.isfinite().all()  # also where a woman has the whole batch


@pytest.mark.parametrize("loss", [nt_xent, dcl])
def test_where_every_image_is_of_another_woman_the_bits_are_those_of_eq_1(loss: Callable[..., Tensor]) -> None:
    f = unit_rows(random_rows(8, 16)).float()
    assert torch.equal(loss(f, 0.1, torch.arange(8)), loss(f, 0.1))


def test_what_is_no_negative_does_not_push() -> None:
    """Two images of one woman: the loss does not change with how alike they are."""
    f, women = random_rows(4, 6), torch.tensor([0, 0, 1, 2])
    apart = f.clone()
    apart[[1, 5]] = random_rows(4, 6, seed=1)[[1, 5]]
    rows = [nt_xent_rows(one, 0.5, women)[[0, 4]] for one in (f, apart)]
    assert torch.equal(*rows)
    assert not torch.equal(*[nt_xent_rows(one, 0.5)[[0, 4]] for one in (f, apart)])


def test_rows_that_are_not_pairs_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="pairs"):
        nt_xent(torch.ones(3, 2), 0.1)


def test_federated_contrastive_learning_is_not_large_batch_contrastive_learning() -> None:
    """Section II-B averages weights; negatives stay at their site, so not even one step is a step on the pooled batch.

    The control: with a loss that is a mean over images, and sites of equal size, it is.
    """
    x = random_rows(8, 6)  # 8 images, two views each
    site_a, site_b = x[[0, 1, 2, 3, 8, 9, 10, 11]], x[[4, 5, 6, 7, 12, 13, 14, 15]]
    start = torch.linspace(-1, 1, 18, dtype=torch.float64).view(6, 3)

    def one_step(images: Tensor, loss_of: object) -> Tensor:
        w = start.clone().requires_grad_()
        loss_of(images @ w).backward()  # type: ignore[operator]
        return (w - 0.01 * w.grad).detach()

    def contrastive(f: Tensor) -> Tensor:
        return nt_xent(unit_rows(f), 0.1)

    def per_image(f: Tensor) -> Tensor:
        return f.square().sum(dim=1).mean()

    def federated(loss_of: object) -> Tensor:
        return (one_step(site_a, loss_of) + one_step(site_b, loss_of)) / 2

    assert torch.allclose(federated(per_image), one_step(x, per_image), atol=1e-12)
    assert (federated(contrastive) - one_step(x, contrastive)).abs().max() > 1e-3
