"""What is timed before round 1: steps and scores on noise, the model's file, images that are not decoded yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fedcervix.core.pace import SitePace, Span
from fedcervix.core.plan import Recipe, Terms
from fedcervix.models.blobs import BlobStore
from site_agent.network.devices import Machine
from site_agent.network.encoder import build_encoder
from site_agent.training.context import TrainingContext
from site_agent.training.step_timing import (
    BLOCK_STEPS,
    BLOCKS_MIN,
    DRIFT,
    NOISE_BYTES_MAX,
    TIMED_STEPS,
    around,
    block_steps,
    score_s,
    step_s,
)
from site_agent.training.steps import Learner, make_learner
from site_agent.worker.measuring import TIMED_MASKS, model_file

torch.set_num_threads(1)
pytestmark = pytest.mark.timeout(120)

RECIPE = Recipe(architecture="resnet18", image_px=32, batch_images=2, width=8)


@pytest.fixture(scope="module")
def context() -> TrainingContext:
    return TrainingContext(recipe=RECIPE, seed=0, stream="timing", machine=Machine(torch.device("cpu")))


@pytest.fixture(scope="module")
def learner(context: TrainingContext) -> Learner:
    return make_learner(build_encoder(RECIPE, 0), context, proximal=True)


class Clock:
    """A clock that goes on by the next of some seconds at each look, and by the last one from then on."""

    def __init__(self, *steps_s: float) -> None:
        self._steps: Iterator[float] = iter(steps_s)
        self._now_s, self._step_s, self.looks = 0.0, 0.0, 0

    def __call__(self) -> float:
        self.looks += 1
        self._step_s = next(self._steps, self._step_s)
        self._now_s += self._step_s
        return self._now_s


def test_a_step_is_a_range_of_the_blocks_and_a_slow_machine_takes_fewer(
    learner: Learner, context: TrainingContext
) -> None:
    slow = Clock(1000.0)  # every block takes so long by this clock
    found = step_s(learner, context, 100, slow)
    each_s = 1000.0 / BLOCK_STEPS
    assert (found.low, found.high) == pytest.approx((each_s * (1 - DRIFT), each_s * (1 + DRIFT)))
    assert slow.looks < 3 * TIMED_STEPS // BLOCK_STEPS
    assert slow.looks <= 2 + 3 * BLOCKS_MIN


def test_a_score_is_of_validation_images_and_of_labelled_ones(learner: Learner, context: TrainingContext) -> None:
    found = score_s(learner, context, 20, 40, Clock(1.0))  # ten images are tried, and each try takes a second
    assert (found.low, found.high) == pytest.approx((6 * (1 - DRIFT), 6 * (1 + DRIFT)))


def test_noise_never_takes_more_memory_than_it_may() -> None:
    assert block_steps(8, 64) == BLOCK_STEPS
    assert block_steps(65_536, 1024) == 1
    for batch, side_px in ((64, 224), (1024, 224), (256, 512)):
        steps = block_steps(batch, side_px)
        assert steps == 1 or steps * batch * side_px * side_px * 3 <= NOISE_BYTES_MAX


def test_the_range_is_a_little_wider_than_what_was_measured() -> None:
    assert around([2.0, 1.0, 4.0]) == Span(1 - DRIFT, 4 * (1 + DRIFT))


@pytest.mark.parametrize(("compression", "share"), [("none", 0.0), ("bfloat16", 0.5), ("int8", 0.25)], ids=str)
def test_a_model_s_file_has_the_bytes_that_travel_and_nothing_of_it_stays(
    learner: Learner, tmp_path: Path, compression: str, share: float
) -> None:
    blobs, state = BlobStore(tmp_path), learner.encoder.state_dict()
    found = model_file(blobs, state, Terms(compression=compression), Clock(1.0))  # type: ignore[arg-type]
    numbers = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    assert numbers < found.size_bytes < numbers + 64 * 1024
    assert found.packed_bytes == pytest.approx(share * found.size_bytes, rel=0.05)
    assert found.task_s > found.load_s > 0
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    assert dataclasses.replace(SitePace(), model_bytes=found.size_bytes)


def test_the_masks_of_a_secure_sum_are_timed_and_nothing_of_them_stays(learner: Learner, tmp_path: Path) -> None:
    terms = Terms(secure_sum=True, holders=("a", "b"))
    looks = Clock(*[1.0] * 4, 1.0, 2.0, 4.0, 2.0 + 4 * TIMED_MASKS, 8.0)  # looks of the file; then of the sum
    found = model_file(BlobStore(tmp_path), learner.encoder.state_dict(), terms, looks)
    assert (found.vector_s, found.mask_s, found.sum_s) == (6.0, (4 * TIMED_MASKS - 2.0) / TIMED_MASKS, 8.0)
    assert found.size_bytes < found.vector_bytes < 1.01 * found.size_bytes
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    assert model_file(BlobStore(tmp_path), learner.encoder.state_dict(), Terms()).vector_bytes == 0
