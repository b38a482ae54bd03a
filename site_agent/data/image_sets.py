"""Decoded images with the women they are of: for contrastive training, and with labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from fedcervix.errors import DataError
from site_agent.data.device_batches import Feed
from site_agent.data.image_pairs import ImagePairs
from site_agent.data.pixels import Pixels
from site_agent.manifest.classes import BINARY, Classes
from site_agent.manifest.details import NO_DETAILS, ImageDetails


@dataclass(frozen=True)
class Images:
    """Decoded images and whose they are."""

    pixels: Pixels
    """(n, S, S, 3) bytes, RGB; in memory or mapped from a file"""
    patients: tuple[str, ...]
    runs: tuple[int, ...] = ()
    """of pooled images: how many of them, one behind the other, are of one site each; none: all are of one site"""
    details: tuple[ImageDetails, ...] = ()
    """stage, visit, device, covariates of each image; none: nothing is known of any"""
    _feeds: dict[torch.device, Feed] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise ValueError(f"images are bytes (n, S, S, 3); found {self.pixels.dtype} {shape}")
        if len(self.patients) != len(self.pixels):
            raise ValueError(f"{len(self.patients)} patients for {len(self.pixels)} images")
        if len(self.details) not in (0, len(self.pixels)):
            raise ValueError(f"details of {len(self.details)} images for {len(self.pixels)} images")
        if self.runs and sum(self.runs) != len(self.pixels):
            raise ValueError(f"runs of {self.runs} images are not {len(self.pixels)} images")

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def partners(self) -> ImagePairs:
        """With which images each can be paired."""
        known = zip(self.patients, self.details or (NO_DETAILS,) * len(self), strict=True)
        return ImagePairs.among([(woman, one.visit, one.stage) for woman, one in known])

    @cached_property
    def women(self) -> NDArray[np.int64]:
        """Whose each image is, as a number: (n,)."""
        numbers = {patient: number for number, patient in enumerate(dict.fromkeys(self.patients))}
        return np.array([numbers[patient] for patient in self.patients], np.int64)

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
    details: tuple[ImageDetails, ...] = ()
    """as in `Images`"""
    ranks: NDArray[np.int64] | None = None
    """(n,), the class of each image, from 0; None where there are two classes: the label is the class"""
    classes: Classes = BINARY

    @property
    def grades(self) -> NDArray[np.int64]:
        """The class of each image (n,), from 0 to the number of classes less one."""
        return self.labels if self.ranks is None else self.ranks

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.pixels.dtype != np.uint8 or len(self.pixels.shape) != 4 or self.pixels.shape[3] != 3:
            raise DataError(f"images are uint8 (n, S, S, 3); found {self.pixels.dtype} {self.pixels.shape}")
        if not len(self.pixels) == count == len(self.patients):
            raise DataError(
                f"{len(self.pixels)} images, {count} labels and {len(self.patients)} patients differ in number"
            )
        if len(self.details) not in (0, count):
            raise DataError(f"details of {len(self.details)} images for {count} images")
        if not np.isin(self.labels, (0, 1)).all():
            raise DataError("a label is 1 (case) or 0 (control)")
        if not np.array_equal(self.labels, self.grades >= self.classes.cut):
            raise DataError(f"a class from {self.classes.case_from} on is a case, and no other is")
