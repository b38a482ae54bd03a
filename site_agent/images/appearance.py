"""What a picture shows, as far as colour and light tell: its stage, where the cervix is, sharpness, light.

It is measured on a reduced picture (GRID_PX), once, when the picture is indexed. Nothing is decided here but what is
plain to see, and everything else is *unsure*:

1. Stage: a green filter leaves nothing pink; iodine makes tissue orange and brown. Before and after acetic acid cannot
   be told apart by the colours of one picture of an unknown device: no stage is said.
2. Cervix: the lit pink region in the middle, with a margin. There is no box where the region is small, ragged, far from
   the middle, or nearly the whole picture; nor under a green filter or iodine, whose colours hide its edge.
3. Light on wet tissue (specular pixels) says nothing of its colour: it is left out of every measurement of colour.

The numbers were chosen on photographs of public atlases, and tried on others of these and on phantoms
(docs/decisions.md). What is white with acetic acid is pink enough to count as tissue, and is never called glare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Grid = npt.NDArray[np.float32]
Corners = tuple[int, int, int, int]
"""x, y, w, h in whole pixels of the picture"""

GRID_PX = 128
"""longer side of the reduced picture"""
FINE_PX = 256
"""longer side of the one whose sharpness is measured: what is lost below it, no network of 224 px sees"""
EDGE = 8
"""an eighth of each side is the edge, where speculum and surround lie; colours are those of the rest"""
DARK_BELOW = 40
SPECULAR_FROM = 225
"""of the lowest channel; tissue that is white with acetic acid stays below"""

GREEN_SHARE = 0.17
"""of the middle: pixels in which green exceeds red. Blue plastic (blue far above green) does not count"""
BLUE_PLASTIC = 1.25
IODINE_SHARE = 0.2
"""of the middle: pixels with so little blue that they are orange or brown"""
ORANGE = 0.62
"""blue to green; pink tissue has .8 and more"""
TISSUE_RED = 0.09
"""(red - green) / sum"""
WARM = 0.01
"""(red - green) / sum: pale tissue has .02 and more"""
LIT = 0.66
"""of the median brightness of the middle: the fold around the cervix lies in shadow"""
SMALL, WHOLE = 0.25, 0.85
"""share of the picture that a box covers, below which and from which on it is unsure"""
FILLED = 0.65
OFF_CENTRE = 0.22
LONG = 2.0
MARGIN = 0.04
SIDE_MIN_PX = 16
"""of a box (`details.BOX_PX_MIN`)"""


@dataclass(frozen=True, slots=True)
class Tissue:
    """The colour of tissue in a picture, specular pixels left out: mean and mean square of red, green and blue."""

    mean: tuple[float, float, float]
    square: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Appearance:
    """What a picture shows."""

    stage: Literal["", "green", "iodine"]
    """empty: unsure"""
    cervix: Corners | None
    """None: unsure"""
    warm: float
    """share of the middle that is redder than grey, however pale"""
    sharpness: float
    """spread of the fine structure in the middle, in grey levels"""
    brightness: float
    """median of the middle, in grey levels"""
    clipped: float
    """share of the middle in which a channel is at its end"""
    specular: float
    """share of the middle that reflects the lamp"""
    tissue: Tissue | None
    """None where there is hardly any"""

    @classmethod
    def of(cls, fields: Sequence[Any]) -> Appearance:
        """Rebuild it from its fields in order, as JSON has them."""
        stage, cervix, *numbers, tissue = fields
        box = None if cervix is None else tuple(cervix)
        return cls(*(stage, box, *numbers, None if tissue is None else Tissue(*map(tuple, tissue))))


def appearance(pixels: Pixels) -> Appearance:
    """Measure an (H, W, 3) picture."""
    picture = Image.fromarray(pixels)
    grid = _reduced(picture, GRID_PX)
    middle = _middle(grid).reshape(-1, 3)
    low, high = middle.min(axis=1), middle.max(axis=1)
    lit = (high > DARK_BELOW) & (low < SPECULAR_FROM)
    smooth = _middle(_smooth(grid)).reshape(-1, 3)
    stage = _stage(smooth[lit & (low < 200)])
    pink = _pink(smooth) & lit
    return Appearance(
        stage=stage,
        cervix=None if stage else _cervix(grid, pixels.shape[1], pixels.shape[0]),
        warm=float(_warm(smooth).mean()),
        sharpness=_sharpness(_reduced(picture, FINE_PX)),
        brightness=float(np.median(middle.mean(axis=1))),
        clipped=float((high >= 254).mean()),
        specular=float((low >= SPECULAR_FROM).mean()),
        tissue=_tissue(middle[pink]) if pink.mean() > 0.1 else None,
    )


def _reduced(picture: Image.Image, longest_px: int) -> Grid:
    scale = min(1.0, longest_px / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0), np.float32)


def _smooth(grid: Grid) -> Grid:
    """Return the grid without the noise of a camera, which has colours of its own."""
    from scipy import ndimage  # loaded where a picture is looked at

    found: Grid = ndimage.uniform_filter(grid, (5, 5, 0))
    return found


def _middle(grid: Grid) -> Grid:
    top, left = grid.shape[0] // EDGE, grid.shape[1] // EDGE
    return grid[top : grid.shape[0] - top, left : grid.shape[1] - left]


def _stage(lit: Grid) -> Literal["", "green", "iodine"]:
    """Return the stage that the lit pixels (n, 3) of the middle show beyond doubt."""
    if len(lit) < GRID_PX:
        return ""
    red, green, blue = lit.T
    coloured = (lit.max(axis=1) - lit.min(axis=1)) > 0.08 * lit.max(axis=1)
    if ((green > red) & (blue < BLUE_PLASTIC * green) & coloured).mean() > GREEN_SHARE:
        return "green"
    return "iodine" if (blue < ORANGE * green).mean() > IODINE_SHARE else ""


def _pink(pixels: Grid) -> Mask:
    """Say which pixels (..., 3) have the colour of tissue: not metal, not tanned skin, not plastic."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    tanned = (blue < 0.62 * red) & (green > 0.68 * red)
    found: Mask = (red - green > TISSUE_RED * np.maximum(red + green + blue, 1)) & (red > 1.02 * blue) & ~tanned
    return found


def _warm(pixels: Grid) -> Mask:
    red, green, _ = np.moveaxis(pixels, -1, 0)
    found: Mask = red - green > WARM * np.maximum(pixels.sum(axis=-1), 1)
    return found


def _cervix(grid: Grid, width_px: int, height_px: int) -> Corners | None:
    """Return the box of the lit pink region in the middle, or None where that is unsure."""
    region = _region(grid)
    if not region.any():
        return None
    rows, columns = region.sum(axis=1), region.sum(axis=0)
    (top, bottom), (left, right) = _reach(rows), _reach(columns)
    height, width = region.shape
    filled = region[top:bottom, left:right].mean()
    off = max(abs((top + bottom) / height - 1), abs((left + right) / width - 1)) / 2
    tall, wide = bottom - top, right - left
    if filled < FILLED or off > OFF_CENTRE or max(tall, wide) > LONG * min(tall, wide):
        return None
    margin = MARGIN * max(tall, wide)
    x, y = max(0.0, left - margin) / width, max(0.0, top - margin) / height
    w, h = min(1.0, (right + margin) / width) - x, min(1.0, (bottom + margin) / height) - y
    if not SMALL <= w * h < WHOLE:
        return None
    box = int(x * width_px), int(y * height_px), int(w * width_px), int(h * height_px)
    return box if min(box[2:]) >= SIDE_MIN_PX else None


def _region(grid: Grid) -> Mask:
    """Return the lit pink region that covers most of the middle, its holes filled."""
    from scipy import ndimage  # as above

    height, width = grid.shape[:2]
    specular = grid.min(axis=2) > 170
    light = ndimage.gaussian_filter(np.minimum(grid.mean(axis=2), 200), 1.5)
    core = (slice(int(height * 0.3), int(height * 0.7) + 1), slice(int(width * 0.3), int(width * 0.7) + 1))
    dull = light[core][~specular[core]]
    usual = float(np.median(dull)) if dull.size else 128.0
    tissue = _pink(grid) & (grid.max(axis=2) > DARK_BELOW) & (light > LIT * usual)
    tissue |= specular & ndimage.binary_dilation(tissue, iterations=2)
    tissue = ndimage.binary_closing(np.pad(tissue, 4), iterations=2)[4:-4, 4:-4]
    regions, count = ndimage.label(ndimage.binary_opening(tissue, iterations=5))
    if not count:
        return np.zeros_like(tissue)
    y, x = (np.arange(height) / height - 0.5) / 0.3, (np.arange(width) / width - 0.5) / 0.3
    near = np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / 2)
    best = 1 + int(np.argmax(ndimage.sum(near, regions, range(1, count + 1))))
    found: Mask = ndimage.binary_fill_holes(regions == best)
    return found


def _reach(filled: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Return where a profile is at least three tenths of its largest value: first, and one past the last."""
    wide = np.flatnonzero(filled >= 0.3 * filled.max())
    return int(wide[0]), int(wide[-1]) + 1


def _sharpness(fine: Grid) -> float:
    from scipy import ndimage  # as above

    grey = np.minimum(_middle(fine).mean(axis=2), 200)
    return float((grey - ndimage.gaussian_filter(grey, 1.5)).std())


def _tissue(pink: Grid) -> Tissue:
    mean, square = pink.mean(axis=0), (pink**2).mean(axis=0)
    return Tissue(tuple(map(float, mean)), tuple(map(float, square)))  # type: ignore[arg-type]
