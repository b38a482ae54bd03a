"""On which women an update is audited: training women, and test women, who trained nothing and chose nothing.

Only women with a label are taken. Women without one are in no test part, so they would tell how images with a label
differ from images without, and not who was trained on.
"""

from __future__ import annotations

import numpy as np

from fedcervix.core.seeds import derive
from site_agent.data.collection import Collection, Image
from site_agent.manifest.reading import Split

WOMEN_MAX = 250
"""of a side"""
IMAGES_MAX = 500
"""of both sides: an audit takes minutes, whatever a site has"""

SIDES: tuple[Split, Split] = ("train", "test")


def chosen_for_audit(collection: Collection, seed: int) -> tuple[tuple[Image, ...], tuple[Image, ...]]:
    """Return the images of training women and of test women; of each woman the first ones in the manifest."""
    train, test = (_women(collection, split, seed) for split in SIDES)
    each = max(1, IMAGES_MAX // max(1, len(train) + len(test)))
    return tuple(image for images in train for image in images[:each]), tuple(
        image for images in test for image in images[:each]
    )


def _women(collection: Collection, split: Split, seed: int) -> list[list[Image]]:
    """Return the images of labelled women of a split, at most WOMEN_MAX women, drawn by the seed."""
    labelled = {image.woman for image in collection.labelled(split)}
    women: dict[str, list[Image]] = {woman: [] for woman in sorted(labelled)}
    for image in collection.images:
        if image.woman in women:
            women[image.woman].append(image)
    order = np.random.default_rng(derive(seed, "audited-women", split)).permutation(len(women))
    listed = list(women.values())
    return [listed[place] for place in order[:WOMEN_MAX]]
