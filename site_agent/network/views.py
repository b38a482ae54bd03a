"""From decoded images to the network's input: two views of every image, and the random numbers that make them.

Section II-A: a mini-batch is "N random images and an augmented version of them", 2N views in all. Every view's numbers
come from a seed of its own purpose: in training from the step, in validation from the image.

With `positives = "same-stage-visit"` the second view is of a partner: of another image of the same visit and stage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedcervix.core.plan import Recipe
from fedcervix.core.seeds import derive
from site_agent.data.batches import Indices
from site_agent.network.augmentation import apply, draw, join, pack, standardise, to_input

CHUNK_IMAGES = 16
"""a CPU makes views of so many images at a time: what lies between two passes then stays in its cache"""


def views(pixels: Tensor, packed: Tensor, partners: Tensor | None = None) -> Tensor:
    """Turn N images, bytes (N, S, S, 3), into the input (2N, 3, S, S): all first views, then all second views.

    `packed` are the augmentations, on the images' device. N of them augment the second views only, the original
    being the first view; 2N augment both. `partners`, bytes like `pixels`, are the images that the second views are of;
    None: of the same images.
    """
    n, side_px = len(pixels), pixels.shape[1]
    made = torch.empty((2 * n, 3, side_px, side_px), device=pixels.device, memory_format=torch.channels_last)
    for rows in _chunks(n, CHUNK_IMAGES if pixels.device.type == "cpu" else n):
        originals = to_input(pixels[rows])  # (n, 3, S, S)
        first = originals if len(packed) == n else apply(originals, packed[:n][rows])
        made[:n][rows] = standardise(first)
        others = originals if partners is None else to_input(partners[rows])
        made[n:][rows] = standardise(apply(others, packed[-n:][rows]))
    return made


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def augmented(recipe: Recipe) -> int:
    """Return how many views of an image are augmented."""
    return 1 if recipe.views == "one-augmented" else 2


def training_draws(images: int, recipe: Recipe, *, seed: int, stream: str, epoch: int, step: int) -> Tensor:
    """Draw the augmentations of one training step of `images` images: (N or 2N, PACKED), on the CPU."""
    generator = torch.Generator().manual_seed(derive(seed, "views", stream, epoch, step))
    drawn = draw(augmented(recipe) * images, recipe.augment, generator)
    return pack(drawn, recipe.image_px, recipe.image_px)


def scoring_draws(chosen: Indices, recipe: Recipe, *, seed: int, stream: str) -> Tensor:
    """Draw the augmentation of each image from its own seed, so that it does not depend on its neighbours."""
    each = []
    for image in chosen:
        generator = torch.Generator().manual_seed(derive(seed, "validation-views", stream, int(image)))
        each.append(draw(augmented(recipe), recipe.augment, generator))
    joined = join(each)  # one image after the other; wanted: all first views, then all second views
    turn = torch.arange(len(joined.gamma)).view(len(chosen), -1).T.flatten()
    return pack(joined.select(turn), recipe.image_px, recipe.image_px)
