"""Which image is the other one of a positive pair: pure functions of names and random numbers.

Two photographs of one visit at one stage of the examination show the same tissue in the same state; what differs is
what a diagnosis must not depend on: angle, light, reflections. A picture before acetic acid and one after it differ in
what a diagnosis depends on, so they are no pair. Nor are two visits of a woman: her disease may have changed.

Rules
1. A pair is of one woman, one visit and one stage, and visit and stage of both are known.
2. An image without such a partner is its own: two views of itself, as in the paper.
3. Every image draws one number, whether it has partners or not, and that number chooses among them.

Source: MICLe (Azizi et al., Big Self-Supervised Models Advance Medical Image Classification, 2021); MedAug (Vu et al.,
2021), which pairs images of one study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcervix.core.grouped import grouped
from site_agent.data.batches import Indices

Sitting = tuple[str, str, str]
"""woman, visit, stage; empty: unknown"""
Uniform = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ImagePairs:
    """The images that each image can be paired with: (n,) arrays of indices, empty where there are none."""

    of: tuple[Indices, ...]

    @classmethod
    def among(cls, sittings: Sequence[Sitting]) -> ImagePairs:
        """Return the partners of images, by when each was taken."""
        together = grouped((sitting, image) for image, sitting in enumerate(sittings) if all(sitting))
        each = ((image, together.get(sitting, [])) for image, sitting in enumerate(sittings))
        return cls(tuple(np.array([one for one in hers if one != image], np.int64) for image, hers in each))

    @property
    def paired(self) -> int:
        """How many images have a partner."""
        return sum(1 for others in self.of if len(others))

    def choose(self, chosen: Indices, drawn: Uniform) -> Indices:
        """Return the partner of each chosen image: (N,). `drawn`, (N,) numbers of [0, 1), says which of several."""
        pairs = zip(chosen, drawn, strict=True)
        return np.array([self._one(int(image), float(u)) for image, u in pairs], np.int64)

    def _one(self, image: int, u: float) -> int:
        others = self.of[image]
        return int(others[int(u * len(others))]) if len(others) else image
