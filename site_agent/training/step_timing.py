"""How long does the network take on this machine? Timed on noise, for predictions alone.

What is timed is the step of a training: the same function, on the same device, with the batch of the recipe. The first
steps are dropped: libraries choose their algorithms in them, and a GPU wakes up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from fedcervix.core.pace import Span
from fedcervix.core.plan import Recipe
from site_agent.data.image_sets import Images
from site_agent.network.devices import Machine
from site_agent.network.encoder import build_encoder
from site_agent.training.context import TrainingContext
from site_agent.training.knn_probe import embed, neighbour_scores
from site_agent.training.loop import train_epochs, validation_loss
from site_agent.training.steps import Learner, make_learner

STEPS = 2
"""of an epoch; there are two epochs, and the second is timed"""
DROPPED_STEPS, TIMED_STEPS = 3, 20
BLOCK_STEPS = 5
"""that are timed together: the fastest and the slowest block make the range"""
BLOCKS_MIN = 2
SECONDS_MOST = 60.0
"""of timing: a slow machine is timed with fewer steps"""
NOISE_BYTES_MAX = 256 << 20
DRIFT = 0.1
"""by so much the mean of a long training may lie beside all blocks: other programs, heat"""
SCORED_TIMES = 3

Clock = Callable[[], float]


def encoder_pace(recipe: Recipe, device: torch.device, *, steps: int = STEPS) -> float:
    """Return the seconds that one image takes in a training step (both of its views, forward and backward).

    The recipe's precision is settled. Raises TrainingError where the batch does not fit into the GPU's memory.
    """
    context = TrainingContext(recipe=recipe, seed=0, stream="timing", machine=Machine(device))
    learner = make_learner(build_encoder(recipe, 0), context)
    noisy = noisy_images(steps * recipe.batch_images, recipe.image_px)
    records = train_epochs(learner, noisy, context, range(1, 3), on_step=lambda _step: None)
    return records[-1].seconds / records[-1].images


def step_s(learner: Learner, context: TrainingContext, count: int, clock: Clock = time.monotonic) -> Span:
    """Return the seconds of one step of a site with `count` training images, as a range. The learner is trained.

    Raises TrainingError where the batch does not fit into the GPU's memory.
    """
    batch = min(context.recipe.batch_images, count)
    noisy = noisy_images(batch * block_steps(batch, context.recipe.image_px), context.recipe.image_px)

    def train(epoch: int) -> int:
        [record] = train_epochs(learner, noisy, context, range(epoch, epoch + 1), on_step=lambda _step: None)
        return record.steps

    began_s, epoch, dropped, timed = clock(), 0, 0, 0
    while dropped < DROPPED_STEPS:
        dropped, epoch = dropped + train(epoch + 1), epoch + 1
    blocks: list[float] = []
    while timed < TIMED_STEPS and (len(blocks) < BLOCKS_MIN or clock() - began_s < SECONDS_MOST):
        started_s = clock()
        steps, epoch = train(epoch + 1), epoch + 1
        blocks.append((clock() - started_s) / steps)
        timed += steps
    return around(blocks)


def score_s(
    learner: Learner, context: TrainingContext, count: int, labelled: int, clock: Clock = time.monotonic
) -> Span:
    """Return the seconds of scoring a model on `count` validation images, and by `labelled` ones, as a range."""
    batch = min(context.recipe.batch_images, count)
    tried = min(count, batch * block_steps(batch, context.recipe.image_px))
    noisy, taken = noisy_images(tried, context.recipe.image_px), list[float]()
    for _ in range(SCORED_TIMES):
        started_s = clock()
        validation_loss(learner.encoder, noisy, context)
        scored_s = (clock() - started_s) * count / tried
        if labelled:
            started_s = clock()
            features = embed(learner.encoder, noisy.pixels, context.device)
            neighbour_scores(features, np.arange(tried) % 2, features)
            scored_s += (clock() - started_s) * labelled / tried
        taken.append(scored_s)
    return around(taken[1:])


def around(taken: Sequence[float]) -> Span:
    """Return the range of what was measured, a little wider."""
    return Span(min(taken) * (1 - DRIFT), max(taken) * (1 + DRIFT))


def block_steps(batch_images: int, side_px: int) -> int:
    """Return how many steps of noise fit into the memory that is used for it."""
    return min(BLOCK_STEPS, max(1, NOISE_BYTES_MAX // (batch_images * side_px * side_px * 3)))


def noisy_images(count: int, side_px: int) -> Images:
    """Return so many images of noise, each of another woman."""
    return Images(noise(count, side_px), tuple(map(str, range(count))))


def noise(count: int, side_px: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return images of noise, (count, side_px, side_px, 3) 8-bit RGB: the same at every call."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)
