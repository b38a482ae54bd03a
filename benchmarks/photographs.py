"""What is trained on: a folder of 2-megapixel JPEG files, drawn, so that nobody's image is needed.

The phantom's camera gets a larger sensor. Its scene is painted on 320 px and enlarged, which alone would compress to
nothing; grain at half the sensor's resolution brings a file to about .4 MB, and decoding to what such files cost.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from site_agent.data import pixel_cache
from site_agent.data.collection import Collection, Image, IndexSettings, index
from site_agent.phantom import INSTITUTIONS, write_institution

WIDTH_PX, HEIGHT_PX = 1600, 1200
GRAIN = 8.0

Pixels = npt.NDArray[np.uint8]
Kind = TypeVar("Kind", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Photographs:
    """An institution's images on disk, and what finding them cost."""

    folder: Path
    collection: Collection
    mean_bytes: float
    index_s: float
    """to decode every file once and to fingerprint it"""

    @property
    def files(self) -> Path:
        """The folder of JPEG files alone."""
        return self.folder / "images"


@dataclass(frozen=True, slots=True)
class Decoding:
    """What it costs to have squares of one size, the first time and any later time."""

    px: int
    images: int
    first_s: float
    again_s: float

    def __str__(self) -> str:
        rate = self.images / self.first_s
        return (
            f"{self.images} squares of {self.px} px: decoded in {self.first_s:.1f} s ({rate:.0f} images/s), "
            f"once; from the cache in {self.again_s:.3f} s"
        )


def draw(folder: Path, women: int) -> Photographs:
    """Draw four photographs of each of `women` women, a third of whom are cases, and index them."""
    nhs = INSTITUTIONS["nhs"]
    camera = dataclasses.replace(nhs.camera, width_px=WIDTH_PX, height_px=HEIGHT_PX, grain=GRAIN)
    write_institution(folder, dataclasses.replace(nhs, camera=camera), women=women, seed=0, unlabelled_per_labelled=1.0)
    sizes = [file.stat().st_size for file in (folder / "images").iterdir()]
    started = time.perf_counter()
    collection = index(folder / "manifest.csv", IndexSettings(splits_file=folder / "splits.csv"))
    return Photographs(folder, collection, sum(sizes) / len(sizes), time.perf_counter() - started)


def squares(photographs: Photographs, images: Sequence[Image], px: int) -> tuple[Pixels, Decoding]:
    """Return the images as the site agent caches them, (n, px, px, 3), and what that cost."""
    kept = photographs.folder / "cache"
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        pixels = np.asarray(pixel_cache.load(photographs.collection.folder, images, px, "squash", kept))
        taken.append(time.perf_counter() - started)
    return pixels, Decoding(px, len(images), *taken)


def repeated(rows: npt.NDArray[Kind], count: int) -> npt.NDArray[Kind]:
    """Return `count` rows: these, over and over."""
    return rows[np.arange(count) % len(rows)]
