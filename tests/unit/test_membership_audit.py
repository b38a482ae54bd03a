"""The audit of an update: what overfitting reveals is found, and where there is nothing to find nothing is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fedcervix.core.plan import Augment, Recipe
from fedcervix.errors import TrainingError
from site_agent.data.image_sets import Images
from site_agent.network.devices import Machine
from site_agent.network.encoder import snapshot
from site_agent.network.loss import LOSSES, ROW_LOSSES, nt_xent
from site_agent.network.views import training_draws, views
from site_agent.store.audit_sheets import DECISIVE, WOMEN_MIN, Attack, AuditSheet, held_back, verdict
from site_agent.training.context import TrainingContext
from site_agent.training.membership_audit import Sides, attacks
from site_agent.training.membership_scores import attack, by_woman

torch.set_num_threads(1)

RECIPE = Recipe(
    image_px=32,
    batch_images=20,
    augment=Augment(flip_horizontal=0.0, flip_vertical=0.0, rotation_deg=20.0, shift=0.1),
)
CONTEXT = TrainingContext(recipe=RECIPE, seed=5, stream="nhs", machine=Machine(torch.device("cpu")))


def images(women: range, each: int = 1) -> Images:
    """Smooth random pictures, `each` of a woman."""
    rng = np.random.default_rng(women.start)
    rough = rng.integers(40, 256, (len(women) * each, 8, 8, 3), np.uint8)
    pixels = rough.repeat(RECIPE.image_px // 8, axis=1).repeat(RECIPE.image_px // 8, axis=2)
    return Images(pixels, tuple(f"woman-{woman}" for woman in women for _ in range(each)))


def network(seed: int) -> nn.Module:
    """A network that can learn a hundred pictures by heart within a second."""
    torch.manual_seed(seed)
    shrink = nn.AvgPool2d(4)
    return nn.Sequential(shrink, nn.Flatten(), nn.Linear(3 * 8 * 8, 256), nn.ReLU(), nn.Linear(256, 32))


def train(encoder: nn.Module, seen: Images, epochs: int) -> None:
    optimiser = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    feed = seen.on(torch.device("cpu"))
    for epoch in range(1, epochs + 1):
        packed = training_draws(len(seen), RECIPE, seed=1, stream="nhs", epoch=epoch, step=1)
        f = nn.functional.normalize(encoder(views(feed.take(np.arange(len(seen))), packed)))
        optimiser.zero_grad()
        nt_xent(f, RECIPE.temperature).backward()
        optimiser.step()


def found(base: nn.Module, update: nn.Module, sides: Sides) -> dict[str, Attack]:
    tried = attacks(network(9), snapshot(base), snapshot(update), sides, CONTEXT)
    return {one.name: one for one in tried}


SIDES = Sides(images(range(WOMEN_MIN)), images(range(1000, 1000 + WOMEN_MIN)))


@pytest.fixture(scope="module")
def learnt() -> nn.Module:
    update = network(0)
    train(update, SIDES.members, epochs=40)
    return update


@pytest.fixture(scope="module")
def overfitted(learnt: nn.Module) -> dict[str, Attack]:
    return found(network(0), learnt, SIDES)


def test_an_overfitted_update_is_found_out(overfitted: dict[str, Attack]) -> None:
    sheet = AuditSheet(
        round=1, base="", update="", training_women=100, other_women=100, images=200, attacks=tuple(overfitted.values())
    )
    strongest = sheet.strongest
    assert strongest is not None
    assert strongest.auc > 0.8
    assert overfitted["alignment"].auc > 0.55
    assert strongest.found > 0.1
    assert "can be told from others" in verdict(sheet)
    assert held_back(sheet, 0.6)
    assert not held_back(sheet, 1.0)
    assert overfitted["base-views"].auc_low < 0.5 < overfitted["base-views"].auc_high


def test_an_untrained_update_tells_nothing() -> None:
    for one in found(network(0), network(1), SIDES).values():
        assert one.auc_low <= 0.5 <= one.auc_high, one


def test_an_audit_repeated_gives_the_same_numbers(learnt: nn.Module, overfitted: dict[str, Attack]) -> None:
    assert found(network(0), learnt, SIDES) == overfitted


def test_too_few_women_cannot_tell() -> None:
    few = Sides(images(range(WOMEN_MIN)), images(range(1000, 1000 + WOMEN_MIN - 1), each=2))
    assert found(network(0), network(1), few) == {}
    sheet = AuditSheet(round=1, base="", update="", training_women=100, other_women=99, images=298)
    assert verdict(sheet).startswith("cannot tell: 100 training women and 99 test women")
    assert not held_back(sheet, 0.5)


def test_a_woman_is_on_one_side() -> None:
    with pytest.raises(ValueError, match="1 women are on both sides"):
        Sides(images(range(3)), images(range(2, 4)))


def test_an_update_that_diverged_is_refused() -> None:
    broken = network(0)
    with torch.no_grad():
        broken.get_parameter("2.weight").fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        found(network(0), broken, SIDES)


@pytest.mark.parametrize("loss", ROW_LOSSES)
def test_the_loss_of_a_batch_is_the_mean_of_its_rows(loss: str) -> None:
    f = nn.functional.normalize(torch.randn(12, 5, generator=torch.Generator().manual_seed(1)))
    rows = ROW_LOSSES[loss](f, 0.1)  # type: ignore[index]
    assert rows.shape == (12,)
    assert torch.equal(rows.mean(), LOSSES[loss](f, 0.1))  # type: ignore[index]


# --- the statistics ------------------------------------------------------------------------------------------------


def normal(seed: int, mean: float = 0.0, count: int = 100) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(mean, 1, count)


def test_three_numbers_that_a_reader_can_check() -> None:
    members, others = np.array([3.0, 1.0, 2.0]), np.array([0.0, 2.0, 1.5])
    one = attack("views", members, others, 0)
    assert one.auc == pytest.approx((3 + 1 + 2.5) / 9)
    assert one.found == pytest.approx(1 / 3)  # above the highest of the others


def test_one_false_alarm_is_allowed_among_a_hundred() -> None:
    others = np.arange(100.0)
    assert attack("views", np.array([98.5, 97.0]), others, 0).found == 0.5
    assert attack("views", np.array([98.5, 97.0]), others[1:], 0).found == 0.0


def test_the_interval_of_five_attacks_together_holds_the_truth() -> None:
    """Of two samples alike, an interval of one attack misses .5 in 1 of 100 cases."""
    missed = 0
    for seed in range(20):
        one = attack("loss", normal(seed), normal(1000 + seed), seed)
        missed += not one.auc_low <= 0.5 <= one.auc_high
    assert missed <= 1


def test_a_woman_is_the_mean_of_her_images() -> None:
    assert by_woman(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"]) == {"a": 2.0, "b": 2.5}


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        attack("loss", np.array([np.nan]), np.array([0.0]), 0)


def test_only_attacks_on_the_update_decide() -> None:
    base = Attack(name="base-views", auc=1, auc_low=1, auc_high=1, found=1, found_low=1, found_high=1)
    low = dataclasses.replace(base, name="loss", auc=0.5, auc_low=0.4, auc_high=0.6)
    sheet = AuditSheet(
        round=1, base="", update="", training_women=100, other_women=100, images=200, attacks=(base, low)
    )
    assert sheet.strongest == low
    assert "no attack tells" in verdict(sheet)
    assert len(DECISIVE) == 5
