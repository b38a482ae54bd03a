"""Killed at any step and started again, a training ends with the same bits."""

from __future__ import annotations

import dataclasses
import itertools
import math
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedcervix.core.plan import Recipe
from fedcervix.errors import ModelError, TrainingError
from site_agent.data.image_sets import Images
from site_agent.manifest.details import ImageDetails
from site_agent.network.devices import Machine
from site_agent.network.encoder import build_encoder
from site_agent.network.views import training_draws, views
from site_agent.training.async_losses import Readings
from site_agent.training.checkpoints import Checkpoints
from site_agent.training.context import TrainingContext
from site_agent.training.loop import Keeper, StepReport, train_epochs
from site_agent.training.memory_limit import fits
from site_agent.training.pretrain import Callbacks, Pretrained, pretrain
from site_agent.training.resume import CheckpointWriter, unpack
from site_agent.training.steps import Learner, make_learner
from site_agent.worker.tasks import superseded

torch.set_num_threads(1)

CPU = torch.device("cpu")
RECIPE = Recipe(
    architecture="resnet18", image_px=32, width=16, batch_images=4, epochs_max=2, schedule="cosine", warmup_epochs=0.5
)


class Killed(Exception):  # noqa: N818 (it is no error)
    pass


def images(count: int, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    return Images(pixels, tuple(f"woman {i}" for i in range(count)))


TRAIN, VALID = images(12, 0), images(5, 1)
CONTEXT = TrainingContext(recipe=RECIPE, seed=0, stream="north", machine=Machine(CPU), clock=lambda: 0.0)


def run(folder: Path | None, die_at: int | None = None, images: Images = TRAIN, recipe: Recipe = RECIPE) -> Pretrained:
    """Pre-train, every step being kept; die after the step of that number (over the whole call)."""
    numbers = itertools.count(1)

    def on_step(_step: StepReport) -> None:
        if next(numbers) == die_at:
            raise Killed

    return pretrain(
        build_encoder(RECIPE, 0),
        images,
        VALID,
        dataclasses.replace(CONTEXT, seed=3, recipe=recipe),
        Callbacks(on_step),
        checkpoints=Checkpoints(folder, "contract", interval_s=0.0) if folder else None,
    )


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def undisturbed() -> Pretrained:
    return run(None)


@pytest.mark.parametrize("die_at", [*(pytest.param(step, marks=pytest.mark.long) for step in (1, 2, 4, 5)), 3, 6])
def test_died_after_any_step_it_ends_with_the_same_bits_and_the_same_history(
    tmp_path: Path, undisturbed: Pretrained, die_at: int
) -> None:
    with pytest.raises(Killed):
        run(tmp_path, die_at)
    again = run(tmp_path)
    assert same(again.best_state, undisturbed.best_state)
    assert again.history == undisturbed.history
    assert again.best_epoch == undisturbed.best_epoch


def test_pairs_of_one_visit_are_drawn_again_as_they_were(tmp_path: Path, undisturbed: Pretrained) -> None:
    recipe = dataclasses.replace(RECIPE, positives="same-stage-visit", loss="dcl")
    women = tuple(f"woman {i // 4}" for i in range(12))  # so each has three partners to choose from
    images = Images(TRAIN.pixels, women, details=(ImageDetails(stage="acetic", visit="1"),) * 12)
    with pytest.raises(Killed):
        run(tmp_path, 4, images, recipe)
    again, whole = run(tmp_path, None, images, recipe), run(None, None, images, recipe)
    assert same(again.best_state, whole.best_state)
    assert again.history == whole.history
    assert not same(whole.best_state, undisturbed.best_state)


def test_died_again_and_again_it_ends_with_the_same_bits(tmp_path: Path, undisturbed: Pretrained) -> None:
    """Every start takes one step of its own before it dies: the step it died in was not kept, the one before was."""
    for _ in range(5):
        with pytest.raises(Killed):
            run(tmp_path, die_at=2)
    assert same(run(tmp_path).best_state, undisturbed.best_state)


def test_a_round_of_several_epochs_goes_on_within_any_of_them(tmp_path: Path) -> None:
    def round_(keep: Checkpoints | None, die_at: int | None = None) -> tuple[list[float], dict[str, Tensor]]:
        numbers = itertools.count(1)

        def on_step(_step: StepReport) -> None:
            if next(numbers) == die_at:
                raise Killed

        learner = make_learner(build_encoder(RECIPE, 0), CONTEXT)
        kept = keep.latest() if keep else None
        records = train_epochs(
            learner,
            TRAIN,
            dataclasses.replace(CONTEXT, epochs_total=10),
            range(3, 5),
            on_step=on_step,
            at=unpack(kept, learner).position if kept else None,
            keeper=CheckpointWriter(keep, learner) if keep else None,
        )
        return [record.loss for record in records], dict(learner.encoder.state_dict())

    keep = Checkpoints(tmp_path, "round", interval_s=0.0)
    with pytest.raises(Killed):
        round_(keep, die_at=5)
    losses, state = round_(keep)
    expected_losses, expected = round_(None)
    assert losses == expected_losses
    assert same(state, expected)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, die_at=3)
    kept = Checkpoints(tmp_path, "contract").latest()
    assert kept is not None
    wider = dataclasses.replace(RECIPE, width=32)
    learner = make_learner(build_encoder(wider, 0), dataclasses.replace(CONTEXT, recipe=wider))
    with pytest.raises(ModelError, match="the checkpoint does not fit"):
        unpack(kept, learner)


def one_epoch(learner: Learner, keeper: Keeper | None = None) -> None:
    train_epochs(learner, TRAIN, CONTEXT, range(1, 2), on_step=lambda _: None, keeper=keeper)


def test_a_batch_too_large_for_the_gpu_is_said_with_one_that_fits_and_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(build_encoder(RECIPE, 0), CONTEXT)
    before = {name: tensor.clone() for name, tensor in learner.encoder.state_dict().items()}
    learner.encoder.head.register_forward_hook(_full_from(images=4))
    with pytest.raises(TrainingError, match="too small for 4 images of 32 px") as caught:
        one_epoch(learner, CheckpointWriter(Checkpoints(tmp_path, "contract"), learner))
    assert "batch_images = 2 fits" in caught.value.next_step
    kept = Checkpoints(tmp_path, "contract").latest()
    assert kept is not None
    assert (kept.facts["epoch"], kept.facts["step"]) == (1, 0)
    assert same(kept.part("model."), before), "running statistics had changed when the memory ended"


def _full_from(images: int) -> Callable[[nn.Module, object, Tensor], None]:
    """Let the memory end in the last layer, for so many images or more, in words as CUDA's libraries use."""

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        if len(output) >= 2 * images:
            raise RuntimeError("CUDA error: out of memory")

    return hook


def _inputs(images: int) -> tuple[Tensor, Tensor]:
    draws = training_draws(images, RECIPE, seed=0, stream="north", epoch=1, step=1)
    return torch.from_numpy(TRAIN.pixels[np.arange(images)]), draws


def test_what_the_failed_batch_held_is_free_when_a_smaller_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error keeps the variables of the functions it came through: a trial beside them would find too little."""
    held: list[weakref.ref[Tensor]] = []

    def tight(pixels: Tensor, packed: Tensor, _partners: Tensor | None = None) -> Tensor:
        assert not any(ref() is not None for ref in held)
        activations = views(pixels, packed)
        held.append(weakref.ref(activations))
        if len(pixels) > 1:
            raise torch.OutOfMemoryError
        return activations

    for module in ("steps", "memory_limit"):
        monkeypatch.setattr(f"site_agent.training.{module}.views", tight)
    with pytest.raises(TrainingError, match="too small for 4 images"):
        one_epoch(make_learner(build_encoder(RECIPE, 0), CONTEXT))
    assert len(held) == 2


def test_what_a_site_keeps_between_rounds_is_there_for_a_round_done_again_however_many_it_missed() -> None:
    """Round 7 is done again from what round 3 left, where the site took part in none between."""
    kept = {round_: Path(f"own-{round_}") for round_ in (1, 3, 7)}
    assert superseded(kept, 7) == [Path("own-1")]
    assert superseded(kept, 3) == []


def test_another_error_of_torch_is_not_taken_for_lack_of_memory() -> None:
    encoder = build_encoder(RECIPE, 0)

    def broken(_images: int) -> tuple[Tensor, Tensor]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        fits(encoder, RECIPE, CPU, broken)(2)


def test_a_loss_that_is_not_finite_is_noticed_before_a_checkpoint_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU losses are read late; what is kept has all of its losses read."""
    learner = make_learner(build_encoder(RECIPE, 0), CONTEXT)
    keep = Checkpoints(tmp_path, "contract", interval_s=0.0)

    class Late(Readings):
        def arrived(self) -> Iterator[tuple[int, float]]:
            return iter(())

    def step(_pixels: Tensor, _packed: Tensor) -> tuple[Tensor, ...]:
        return torch.zeros(8, 16), torch.tensor(math.nan)

    monkeypatch.setattr("site_agent.training.loop.Readings", Late)
    with pytest.raises(TrainingError, match="diverged"):
        one_epoch(dataclasses.replace(learner, step=step), CheckpointWriter(keep, learner))
    assert keep.latest() is None


def test_the_search_for_a_batch_that_fits_changes_no_weight() -> None:
    encoder = build_encoder(RECIPE, 0)
    before = [p.detach().clone() for p in encoder.parameters()]
    assert fits(encoder, RECIPE, CPU, _inputs)(2)
    assert all(torch.equal(p, b) for p, b in zip(encoder.parameters(), before, strict=True))
    assert all(p.grad is None for p in encoder.parameters())
