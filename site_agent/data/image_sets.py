"""Decoded images with the women they are of: for contrastive training, and with labels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from fedcervix.errors import DataError
from site_agent.data.device_batches import Feed
from site_agent.data.pixels import Pixels


@dataclass(frozen=True, slots=True)
class Images:
    """Decoded images and whose they are."""

    pixels: Pixels
    """(n, S, S, 3) bytes, RGB; in memory or mapped from a file"""
    patients: tuple[str, ...]
    runs: tuple[int, ...] = ()
    """of pooled images: how many of them, one behind the other, are of one site each; none: all are of one site"""
    _feeds: dict[torch.device, Feed] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise ValueError(f"images are bytes (n, S, S, 3); found {self.pixels.dtype} {shape}")
        if len(self.patients) != len(self.pixels):
            raise ValueError(f"{len(self.patients)} patients for {len(self.pixels)} images")
        if self.runs and sum(self.runs) != len(self.pixels):
            raise ValueError(f"runs of {self.runs} images are not {len(self.pixels)} images")

    def __len__(self) -> int:
        return len(self.pixels)

    def on(self, device: torch.device) -> Feed:
        """Return the images as batches on a device; they are brought there once."""
        if device not in self._feeds:
            self._feeds[device] = Feed(self.pixels, device)
        return self._feeds[device]


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """The labelled images of one split."""

    pixels: Pixels
    """(n, S, S, 3) bytes, RGB"""
    labels: NDArray[np.int64]
    """(n,), 1 case, 0 control"""
    patients: tuple[str, ...]
    """the woman of each image"""

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.pixels.dtype != np.uint8 or len(self.pixels.shape) != 4 or self.pixels.shape[3] != 3:
            raise DataError(f"images are uint8 (n, S, S, 3); found {self.pixels.dtype} {self.pixels.shape}")
        if not len(self.pixels) == count == len(self.patients):
            raise DataError(
                f"{len(self.pixels)} images, {count} labels and {len(self.patients)} patients differ in number"
            )
        if not np.isin(self.labels, (0, 1)).all():
            raise DataError("a label is 1 (case) or 0 (control)")
