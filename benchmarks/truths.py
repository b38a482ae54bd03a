"""What `recipes.py` asks features beside the label: stage, device, and whether pictures of one visit lie together.

Each question is of rows with a label and a woman each, and its answer an AUC. Stage and device are asked by the linear
probe, in folds by woman. The third needs no probe: the similarity (cosine) of a picture with another one of its visit
and stage, against that with pictures of other women at that stage.

A recipe that is to spare acetic acid gives the stage a high AUC; one that is to be blind to the device gives the device
one near .5; positives of one visit give the third a high one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from site_agent.data.collection import Image
from site_agent.data.image_pairs import ImagePairs

OTHERS = 4
"""women that a picture is compared with"""
CLASSES: Mapping[str, Mapping[str, int]] = {
    "acetic or native": {"native": 0, "acetic": 1},
    "which device": {"1": 0, "2": 1},
}
SAID: Mapping[str, Callable[[Image], str]] = {
    "acetic or native": lambda image: image.stage,
    "which device": lambda image: image.device,
}
SAME_VISIT = "same visit"
NAMES = (*CLASSES, SAME_VISIT)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question's rows: a picture each, or two of them whose similarity is asked."""

    first: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    women: list[str]
    second: npt.NDArray[np.int64] | None = None

    def similarities(self, features: Any) -> list[float]:
        """Return the cosine of every pair."""
        assert self.second is not None
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        return [round(float(one), 5) for one in (unit[self.first] * unit[self.second]).sum(axis=1)]


def questions(images: Sequence[Image]) -> dict[str, Asked]:
    """Return what can be asked of these pictures: both answers must be there."""
    found = {name: _classes(images, name) for name in CLASSES} | {SAME_VISIT: _pairs(images)}
    return {name: asked for name, asked in found.items() if len(set(asked.labels.tolist())) == 2}


def _classes(images: Sequence[Image], name: str) -> Asked:
    known = {place: CLASSES[name].get(SAID[name](image)) for place, image in enumerate(images)}
    rows = [place for place, label in known.items() if label is not None]
    labels = [known[place] for place in rows]
    return Asked(np.array(rows, np.int64), np.array(labels, np.int64), [images[place].woman for place in rows])


def _pairs(images: Sequence[Image]) -> Asked:
    partners = ImagePairs.among([(image.woman, image.visit, image.stage) for image in images])
    rng, rows = np.random.default_rng(0), []
    for place, image in enumerate(images):
        theirs = [k for k, one in enumerate(images) if one.stage == image.stage and one.woman != image.woman]
        if len(partners.of[place]) and theirs:
            rows.append((place, int(partners.of[place][0]), 1))
            rows += [(place, int(other), 0) for other in rng.choice(theirs, OTHERS)]
    first, second, labels = np.array(rows, np.int64).reshape(-1, 3).T
    return Asked(first, labels, [images[place].woman for place in first], second)
