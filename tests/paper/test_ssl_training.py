"""Sections II-A, II-B and III-D: contrastive training at one site, and what a federation makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedcervix.core.collapse import collapse_loss
from fedcervix.core.plan import Augment, Recipe
from fedcervix.errors import ModelError, TrainingError
from site_agent.data.image_sets import Images
from site_agent.manifest.details import ImageDetails
from site_agent.network.augmentation import augment, draw, pack, standardise, to_input
from site_agent.network.devices import Machine
from site_agent.network.encoder import Encoder, apply_weights, build_encoder, load_weights, save_weights, snapshot
from site_agent.network.optimizer import make_optimiser, optimiser_state, restore_optimiser
from site_agent.network.views import scoring_draws, views
from site_agent.training.context import TrainingContext
from site_agent.training.ddp import Team
from site_agent.training.epochs import best_epoch
from site_agent.training.loop import Keeper, Position, StepReport, TrainedEpoch, train_epochs, validation_loss
from site_agent.training.pretrain import Callbacks, pretrain
from site_agent.training.steps import Learner, make_learner, make_step

torch.set_num_threads(1)

CPU = torch.device("cpu")
SMALL = Recipe(architecture="resnet18", image_px=32, width=16, batch_images=4)
GENTLE = Augment(rotation_deg=5, shift=0.03, zoom_min=0.95, zoom_max=1.05, gamma_min=0.95, gamma_max=1.05)


def drawn_images(count: int, seed: int = 0) -> Images:
    """Blotches of colour, every image different, each of its own woman."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return Images(pixels, tuple(f"woman {i}" for i in range(count)))


def context(recipe: Recipe = SMALL, stream: str = "north", device: torch.device = CPU) -> TrainingContext:
    return TrainingContext(recipe=recipe, seed=0, stream=stream, machine=Machine(device))


def train(
    encoder: Encoder,
    images: Images,
    recipe: Recipe = SMALL,
    *,
    optimiser: torch.optim.SGD | None = None,
    stream: str = "north",
    first_epoch: int = 1,
    epochs: int = 1,
    on_step: Callable[[StepReport], None] = lambda _: None,
    at: Position | None = None,
    keeper: Keeper | None = None,
) -> list[TrainedEpoch]:
    given = context(recipe, stream)
    learner = make_learner(encoder, given)
    if optimiser:
        learner = Learner(encoder, optimiser, learner.anchors, make_step(encoder, optimiser, given))
    numbers = range(first_epoch, first_epoch + epochs)
    return train_epochs(learner, images, given, numbers, on_step=on_step, at=at, keeper=keeper)


def trained(images: Images, recipe: Recipe = SMALL, **options: Any) -> dict[str, Tensor]:
    encoder = build_encoder(recipe, seed=0)
    train(encoder, images, recipe, **options)
    return snapshot(encoder)


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def mean(*states: dict[str, Tensor]) -> dict[str, Tensor]:
    """Plain weight averaging, as the server does it: float64 sum, float32 out; counters take the maximum."""
    return {
        name: (sum(s[name].double() for s in states) / len(states)).float()  # type: ignore[union-attr]
        if states[0][name].is_floating_point()
        else torch.stack([s[name] for s in states]).amax(dim=0)
        for name in states[0]
    }


# The mini-batch (section II-A)


def test_a_mini_batch_is_n_images_and_an_augmented_version_of_each() -> None:
    """II-A: "every mini-batch of size 2N is constructed with N random images and an augmented version of them"."""
    pixels = drawn_images(3).pixels
    draws = draw(3, Augment(), torch.Generator().manual_seed(0))
    x = views(torch.from_numpy(pixels), pack(draws, 32, 32))
    originals = to_input(torch.from_numpy(pixels))
    assert x.shape == (6, 3, 32, 32)
    assert torch.equal(x[:3], standardise(originals))
    assert torch.allclose(x[3:], standardise(augment(originals, draws)), atol=1e-6)
    assert (x[3:] - x[:3]).abs().amax(dim=(1, 2, 3)).min() > 0.1


def test_with_both_views_augmented_neither_is_the_original() -> None:
    pixels = drawn_images(3).pixels
    x = views(torch.from_numpy(pixels), pack(draw(6, Augment(), torch.Generator().manual_seed(0)), 32, 32))
    original = standardise(to_input(torch.from_numpy(pixels)))
    for one, two in ((x[:3], original), (x[3:], original), (x[:3], x[3:])):
        assert (one - two).abs().amax(dim=(1, 2, 3)).min() > 0.1


def test_an_epoch_takes_every_full_mini_batch_and_drops_the_rest() -> None:
    steps: list[StepReport] = []
    [record] = train(build_encoder(SMALL, seed=0), drawn_images(11), on_step=steps.append)
    assert [(s.epoch, s.step, s.steps, s.images) for s in steps] == [(1, 1, 2, 4), (1, 2, 2, 4)]
    assert (record.epoch, record.steps, record.images) == (1, 2, 8)
    assert record.loss == pytest.approx(sum(s.loss for s in steps) / 2)
    assert steps[-1].loss_sum == pytest.approx(2 * record.loss)


# The optimiser (section III-D)


def test_one_step_is_sgd_with_momentum_and_weight_decay() -> None:
    """One step by hand: v = g + wd w; w -= lr v. The second: v = .9 v + g + wd w."""
    encoder = build_encoder(SMALL, seed=0)
    optimiser = make_optimiser(encoder, dataclasses.replace(SMALL, lr=0.01, momentum=0.9, weight_decay=0.1))
    bias = encoder.head[0].bias
    before = bias.detach().clone()
    for p in encoder.parameters():
        p.grad = torch.ones_like(p)
    optimiser.step()
    velocity = 1 + 0.1 * before
    after_one = before - 0.01 * velocity
    assert torch.allclose(bias, after_one)
    optimiser.step()
    velocity = 0.9 * velocity + 1 + 0.1 * after_one
    assert torch.allclose(bias, after_one - 0.01 * velocity)


def test_weight_decay_spares_norms_and_biases_only_where_the_recipe_says_so() -> None:
    encoder = build_encoder(SMALL, seed=0)
    [everything] = make_optimiser(encoder, SMALL).param_groups
    assert len(everything["params"]) == len(list(encoder.parameters()))
    decayed, spared = make_optimiser(encoder, dataclasses.replace(SMALL, decay_norms_and_biases=False)).param_groups
    assert decayed["weight_decay"] == 1e-5
    assert spared["weight_decay"] == 0
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert {p.ndim for p in spared["params"]} == {1}


# Learning


def test_training_on_eight_images_learns_to_tell_them_apart() -> None:
    recipe = dataclasses.replace(SMALL, batch_images=8, lr=0.03, width=64, augment=GENTLE)
    records = train(build_encoder(recipe, seed=0), drawn_images(8), recipe, epochs=25)
    assert records[0].loss > 1.5
    assert records[-1].loss < 0.15
    assert records[-1].gauges.effective_rank > 4
    assert records[-1].gauges.alignment < 0.3


EFFECTS: dict[str, Any] = {
    "architecture": "resnet50",
    "width": 8,
    "head": "linear",
    "views": "both-augmented",
    "normalise": False,
    "loss": "dcl",
    "temperature": 0.5,
    "batch_images": 3,
    "lr": 0.02,
    "schedule": "cosine",
    "warmup_epochs": 1.0,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "positives": "same-stage-visit",
    "avoid_same_patient": True,
    "precision": "bfloat16",
    "augment": GENTLE,
}


@pytest.fixture(scope="module")
def two_women() -> Images:
    return Images(drawn_images(8).pixels, ("a", "a", "a", "a", "b", "c", "d", "e"))


@pytest.fixture(scope="module")
def ordinary(two_women: Images) -> dict[str, Tensor]:
    return trained(two_women)


@pytest.mark.parametrize("key", EFFECTS)
def test_every_key_of_the_recipe_changes_the_weights(key: str, two_women: Images, ordinary: dict[str, Tensor]) -> None:
    changed = trained(two_women, dataclasses.replace(SMALL, **{key: EFFECTS[key]}))
    assert not equal(changed, ordinary)


def test_pairs_where_nobody_has_a_second_image_are_the_papers_to_the_bit() -> None:
    """Also of the score: the draws are those of the paper's views, and no term is left out of the sum."""
    images, recipe = drawn_images(8), dataclasses.replace(SMALL, positives="same-stage-visit")
    assert equal(trained(images, recipe), trained(images))
    encoder = build_encoder(SMALL, seed=0)
    assert score(encoder, images, recipe) == score(encoder, images)


def test_pairs_are_scored_by_the_leader_of_a_team_as_by_one_process() -> None:
    drawn, recipe = drawn_images(8), dataclasses.replace(SMALL, positives="same-stage-visit")
    known = (ImageDetails(stage="acetic", visit="1"),) * 8
    images = Images(drawn.pixels, tuple(f"woman {i // 2}" for i in range(8)), details=known)
    encoder = build_encoder(SMALL, seed=0)
    alone = validation_loss(encoder, images, context(recipe))
    leading = validation_loss(encoder, images, dataclasses.replace(context(recipe), team=Team(0, 2)))
    assert leading.loss_sum == alone.loss_sum != validation_loss(encoder, images, context()).loss_sum


def test_weight_decay_on_norms_and_biases_changes_the_weights(two_women: Images) -> None:
    strong = dataclasses.replace(SMALL, weight_decay=0.1)
    spared = dataclasses.replace(strong, decay_norms_and_biases=False)
    assert not equal(trained(two_women, strong), trained(two_women, spared))


def test_images_of_another_size_than_the_recipes_are_refused() -> None:
    with pytest.raises(TrainingError, match="asks for images of 64 px; these are 32 px"):
        trained(drawn_images(4), dataclasses.replace(SMALL, image_px=64))


def test_a_diverged_loss_stops_the_training_and_says_what_to_try() -> None:
    encoder = build_encoder(SMALL, seed=0)
    with torch.no_grad():
        encoder.backbone.conv1.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="in epoch 1, step 1: training has diverged") as caught:
        train(encoder, drawn_images(4))
    assert "learning rate 0.01" in caught.value.cause
    assert "lower lr" in caught.value.next_step
    with pytest.raises(TrainingError, match="on the validation images"):
        validation_loss(encoder, drawn_images(4), context())


# Time and randomness are arguments


def test_the_same_run_ends_with_the_same_bits_whatever_the_global_generator_holds() -> None:
    images = drawn_images(8)
    torch.manual_seed(1)
    one = trained(images)
    torch.manual_seed(2)
    assert equal(one, trained(images))


def test_sites_and_epochs_draw_different_numbers() -> None:
    images = drawn_images(8)
    assert not equal(trained(images), trained(images, stream="south"))
    assert not equal(trained(images), trained(images, first_epoch=2))


class Killed(Exception):  # noqa: N818 (it is no error)
    """The process dies here."""


class DiesAfter:
    """Keeps where training stands after a step, and dies."""

    def __init__(self, step: int) -> None:
        self._step, self._taken = step, 0
        self.position: Position | None = None

    def due(self) -> bool:
        self._taken += 1
        return self._taken == self._step

    def keep(self, position: Position) -> None:
        self.position = position
        raise Killed


def test_a_run_resumed_in_the_middle_of_an_epoch_ends_with_the_same_bits() -> None:
    images = drawn_images(12)
    whole = build_encoder(SMALL, seed=0)
    [record] = train(whole, images)

    half, keeper = build_encoder(SMALL, seed=0), DiesAfter(2)
    optimiser = make_optimiser(half, SMALL)
    with pytest.raises(Killed):
        train(half, images, optimiser=optimiser, keeper=keeper)
    resumed = build_encoder(SMALL, seed=9)
    apply_weights(resumed, snapshot(half), what="the checkpoint")
    fresh = make_optimiser(resumed, SMALL)
    restore_optimiser(fresh, resumed, optimiser_state(optimiser, half))
    [again] = train(resumed, images, optimiser=fresh, at=keeper.position)
    assert equal(snapshot(resumed), snapshot(whole))
    assert (again.loss, again.gauges) == (record.loss, record.gauges)


# A federation (section II-B)


def test_one_site_that_keeps_its_optimiser_is_local_training_bit_for_bit(tmp_path: Path) -> None:
    """R rounds of E epochs = R x E local epochs: weights and momentum travel through files between the rounds."""
    images = drawn_images(8)
    local = build_encoder(SMALL, seed=0)
    train(local, images, epochs=4)

    save_weights(tmp_path / "model", build_encoder(SMALL, seed=0).state_dict())
    save_weights(tmp_path / "optimiser", {})
    for first_epoch in (1, 3):
        site = build_encoder(SMALL, seed=first_epoch)
        apply_weights(site, mean(load_weights(tmp_path / "model")), what="the round's model")
        optimiser = make_optimiser(site, SMALL)
        restore_optimiser(optimiser, site, load_weights(tmp_path / "optimiser"))
        train(site, images, optimiser=optimiser, first_epoch=first_epoch, epochs=2)
        save_weights(tmp_path / "model", site.state_dict())
        save_weights(tmp_path / "optimiser", optimiser_state(optimiser, site))
    assert equal(load_weights(tmp_path / "model"), snapshot(local))


def test_an_optimiser_that_is_reset_between_rounds_is_not_local_training() -> None:
    images = drawn_images(8)
    federated = build_encoder(SMALL, seed=0)
    train(federated, images, epochs=1)
    train(federated, images, first_epoch=2, epochs=1)
    assert not equal(snapshot(federated), trained(images, epochs=2))


def test_two_sites_with_the_same_images_and_random_numbers_equal_one_site() -> None:
    one, two = trained(drawn_images(8)), trained(drawn_images(8))
    assert equal(mean(one, two), one)
    assert not equal(mean(one, trained(drawn_images(8, seed=1))), one)


def test_momentum_of_another_model_is_refused() -> None:
    encoder = build_encoder(SMALL, seed=0)
    with pytest.raises(ModelError, match="does not fit"):
        restore_optimiser(make_optimiser(encoder, SMALL), encoder, {"momentum.head.0.bias": torch.zeros(16)})


# Validation and stopping (section III-D)


def score(encoder: Encoder, images: Images, recipe: Recipe = SMALL) -> tuple[float, int]:
    found = validation_loss(encoder, images, context(recipe))
    return found.loss_sum, found.count


def test_the_same_weights_get_the_same_score_and_are_not_touched() -> None:
    encoder, images = build_encoder(SMALL, seed=0).train(), drawn_images(11)
    before = snapshot(encoder)
    assert score(encoder, images) == score(encoder, images)
    assert equal(snapshot(encoder), before)
    assert encoder.training


def test_the_score_counts_every_image_and_uses_running_statistics() -> None:
    """With batch statistics a batch of equal images would be all beta; with running ones they are told apart."""
    encoder, images = build_encoder(SMALL, seed=0), drawn_images(11)
    loss_sum, count = score(encoder, images)
    assert count == 11
    encoder.backbone.bn1.running_mean += 1
    assert score(encoder, images)[0] != loss_sum


def test_a_collapsed_encoder_scores_each_batch_by_its_own_n() -> None:
    """11 images at N = 4: batches of 4, 4 and 3, so the sum is 8 log 7 + 3 log 5. 9 images: 5 and 4, never 1."""
    encoder = build_encoder(SMALL, seed=0)
    with torch.no_grad():
        encoder.head[0].bias.fill_(-1e6)
    assert score(encoder, drawn_images(11))[0] == pytest.approx(8 * collapse_loss(4) + 3 * collapse_loss(3), rel=1e-6)
    assert score(encoder, drawn_images(9))[0] == pytest.approx(5 * collapse_loss(5) + 4 * collapse_loss(4), rel=1e-6)


@pytest.mark.parametrize("scheme", ["one-augmented", "both-augmented"])
def test_the_validation_views_of_an_image_do_not_depend_on_its_neighbours(scheme: str) -> None:
    recipe = dataclasses.replace(SMALL, views=scheme)
    alone, among = (scoring_draws(np.array(which), recipe, seed=0, stream="north") for which in ([5], [2, 5, 7]))
    views_per_image = 1 if scheme == "one-augmented" else 2
    assert len(alone) == views_per_image
    assert torch.equal(among[1::3], alone)  # rows 1 and 1 + N are image 5's
    assert len({tuple(row) for row in among.tolist()}) == 3 * views_per_image


def pretrained(recipe: Recipe, validation: Images, on_epoch: Callable[[Any], None] = lambda _: None) -> Any:
    encoder = build_encoder(recipe, seed=0)
    result = pretrain(
        encoder,
        drawn_images(8),
        validation,
        context(recipe),
        Callbacks(epoch=on_epoch),
    )
    return result, encoder


def test_training_stops_when_the_validation_loss_has_not_fallen_and_keeps_the_best_weights() -> None:
    """III-D: "The learning stops when the validation loss is not decreasing for 5 epochs"; here for 2.

    With this learning rate, which moves nothing but the running statistics, it soon is not.
    """
    recipe = dataclasses.replace(SMALL, lr=1e-12, patience_epochs=2, epochs_max=40)
    seen: list[Any] = []
    result, encoder = pretrained(recipe, drawn_images(6, seed=5), seen.append)
    losses = [epoch.valid.loss for epoch in result.history]
    assert len(losses) < 40
    assert result.best_epoch == best_epoch(losses) == len(losses) - 2
    assert seen == list(result.history)
    assert not equal(result.best_state, snapshot(encoder))
    apply_weights(encoder, result.best_state, what="the best weights")
    loss_sum, count = score(encoder, drawn_images(6, seed=5), recipe)
    assert loss_sum / count == min(losses)


def test_training_ends_after_the_last_epoch_of_the_recipe() -> None:
    result, _ = pretrained(dataclasses.replace(SMALL, epochs_max=2, patience_epochs=50), drawn_images(4))
    assert [epoch.train.epoch for epoch in result.history] == [1, 2]


@pytest.mark.parametrize(("losses", "expected"), [([3.0], 1), ([3.0, 2.0, 2.0], 2), ([1.0, 2.0, 0.5, 4.0], 3)])
def test_a_loss_that_stands_still_has_not_fallen(losses: list[float], expected: int) -> None:
    assert best_epoch(losses) == expected


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_learns_the_same_as_the_cpu(precision: str) -> None:
    gpu = torch.device("cuda")
    recipe = dataclasses.replace(SMALL, batch_images=8, lr=0.03, width=64, augment=GENTLE, precision=precision)
    encoder = build_encoder(recipe, seed=0)
    on_cpu = validation_loss(encoder, drawn_images(8), context(recipe))
    on_gpu = validation_loss(encoder, drawn_images(8), context(recipe, device=gpu))
    assert on_gpu.loss == pytest.approx(on_cpu.loss, rel=0.05)
    learner = make_learner(encoder, context(recipe, device=gpu))
    records = train_epochs(learner, drawn_images(8), context(recipe, device=gpu), range(1, 31), on_step=lambda _: None)
    assert records[-1].loss < 0.2
    assert all(tensor.device.type == "cpu" for tensor in snapshot(encoder).values())


def test_images_that_are_not_square_bytes_or_lack_a_patient_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="bytes"):
        Images(np.zeros((1, 32, 16, 3), dtype=np.uint8), ("a",))
    with pytest.raises(ValueError, match="bytes"):
        Images(np.zeros((1, 32, 32, 3), dtype=np.float32), ("a",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 patients for 1 images"):
        Images(np.zeros((1, 32, 32, 3), dtype=np.uint8), ("a", "b"))
