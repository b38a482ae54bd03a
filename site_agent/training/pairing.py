"""What a step needs beside images and augmentations where two photographs are a positive pair, and their draws.

In training the partners come from the step's own seed, in validation from the image's. `positives = "view"` draws
nothing and adds nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedcervix.core.seeds import derive
from site_agent.data.batches import Indices
from site_agent.data.image_pairs import Uniform
from site_agent.data.image_sets import Images
from site_agent.training.context import TrainingContext
from site_agent.training.ddp import ALONE, Team, share


def training_pairs(
    images: Images, chosen: Indices, context: TrainingContext, *, epoch: int, step: int
) -> tuple[Tensor, ...]:
    """Return, on the device, this rank's partners of the joint batch, (n, S, S, 3), and whose its images are, (N,)."""
    if context.recipe.positives == "view":
        return ()
    drawn = _dice(context.seed, "partners", context.stream, epoch, step).random(len(chosen))
    return _paired(images, chosen, drawn, context, context.team)


def scoring_pairs(images: Images, chosen: Indices, context: TrainingContext) -> tuple[Tensor, ...]:
    """Return the same for a batch that one process scores: an image has the same partner in every epoch."""
    if context.recipe.positives == "view":
        return ()
    each = [_dice(context.seed, "validation-partners", context.stream, int(image)).random() for image in chosen]
    return _paired(images, chosen, np.array(each), context, ALONE)


def _paired(
    images: Images, chosen: Indices, drawn: Uniform, context: TrainingContext, team: Team
) -> tuple[Tensor, ...]:
    feed, partners = images.on(context.device), images.partners.choose(chosen, drawn)
    return feed.take(share(partners, team)), feed.send(torch.from_numpy(images.women[chosen]))


def _dice(seed: int, purpose: str, *names: int | str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive(seed, purpose, *names)))
