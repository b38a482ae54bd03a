"""How long does the network take on this machine? Timed on noise, for estimates alone."""

from __future__ import annotations

import numpy as np
import torch

from fedcervix.core.plan import Recipe
from site_agent.data.image_sets import Images
from site_agent.network.devices import Machine
from site_agent.network.encoder import build_encoder
from site_agent.training.context import TrainingContext
from site_agent.training.loop import train_epochs
from site_agent.training.steps import make_learner

STEPS = 2
"""of an epoch; there are two epochs, and the second is timed"""


def encoder_pace(recipe: Recipe, device: torch.device, *, steps: int = STEPS) -> float:
    """Return the seconds that one image takes in a training step (both of its views, forward and backward).

    The recipe's precision is settled. Raises TrainingError where the batch does not fit into the GPU's memory.
    """
    images = noise(steps * recipe.batch_images, recipe.image_px)
    context = TrainingContext(recipe=recipe, seed=0, stream="timing", machine=Machine(device))
    learner = make_learner(build_encoder(recipe, 0), context)
    noisy = Images(images, tuple(map(str, range(len(images)))))
    records = train_epochs(learner, noisy, context, range(1, 3), on_step=lambda _step: None)
    return records[-1].seconds / records[-1].images


def noise(count: int, side_px: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return images of noise, (count, side_px, side_px, 3) 8-bit RGB: the same at every call."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8)
