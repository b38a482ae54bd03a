"""Finds the scene in a picture: inside a uniform surround, or everywhere.

Endoscopes and pocket colposcopes show a round field on black; a video grabber adds bars or a frame. Such a surround is
the same in all pictures of a device and contains no information about the woman, but its edge is the strongest
structure in them.

A surround is
- one colour in at least two corners, to the noise of a camera or of JPEG (black, grey, white);
- connected with the border of the picture;
- at least SURROUND_MIN of the picture, with a sharp edge: dark tissue and vignettes have none.
Thin or small things in it (text, a logo) are no scene. Of a scene that is not a rectangle the largest rectangle of its
own proportions is returned: it holds next to nothing of the surround.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Box = tuple[float, float, float, float]
"""left, top, right, bottom, in pixels, with fractions"""
Mask = npt.NDArray[np.bool_]
Grid = npt.NDArray[np.float32]

SURROUND_MIN = 0.10
"""share of the picture: a smaller surround changes no comparison (docs/decisions.md, 18)"""
SCENE_MIN = 0.02
"""share of the picture below which there is no scene, only a mark on an empty picture"""
GRID_PX = 256
"""longer side of the grid on which the edge of the scene is looked for"""
SAMPLES = 3
"""pixels of the picture, along a side, that make one of the grid: the others of a large picture are passed over"""
CORNER = 0.03
"""side of the corners that are looked at, of the shorter side"""
CORNER_PX = 8
DARK_UP_TO = 32
NOISE_DARK, NOISE_OTHER = 8.0, 4.0
"""levels from its median that 90 % of a corner keep within; a grey or white surround is drawn, not photographed"""
SAME_CORNERS = 8.0
"""levels between corners of one surround"""
TOLERANCE_DARK, TOLERANCE_OTHER = 16.0, 8.0
"""levels from the surround's colour up to which a pixel belongs to it"""
SHARP_MIN = 0.5
"""share of the scene's edge that is sharp"""
SHARP_RISE = 3
SHARP_WITHIN = 3
"""a sharp edge rises by so many tolerances within so many pixels of the grid"""
STROKE = 2
"""half the width, in pixels of the grid, of what counts as text"""
EDGE_SHARE = 0.1
"""the scene begins where a row or column holds this share of the fullest one"""
INSIDE_SHARE = 0.985
"""of the rectangle that is scene"""


@dataclass(frozen=True, slots=True)
class Surround:
    """The colour of a surround, and how far from it a pixel may be."""

    colour: npt.NDArray[np.float32]
    tolerance: float


def scene_box(pixels: npt.NDArray[np.uint8]) -> Box | None:
    """Return the part of an (H, W, 3) picture that shows the scene; all of it where there is no surround.

    None where there is nothing but surround, with or without marks on it.
    """
    height, width = pixels.shape[:2]
    whole = (0.0, 0.0, float(width), float(height))
    surround = _surround(pixels)
    if surround is None:
        return whole
    away = _away(pixels, surround)
    around = _around(away <= surround.tolerance)
    scene = _scene(around)
    if scene.mean() < SCENE_MIN:
        return None
    if around.mean() < SURROUND_MIN or not _sharp(scene, away, surround.tolerance):
        return whole
    return _scaled(_inner(scene, _bounds(scene, away)), scene.shape, whole)


def _surround(pixels: npt.NDArray[np.uint8]) -> Surround | None:
    """Return the surround that most corners show, or None where no two show one."""
    side = max(2, round(CORNER * min(pixels.shape[:2])))
    near, far = slice(None, side), slice(-side, None)
    colours = [_colour(pixels[rows, columns]) for rows in (near, far) for columns in (near, far)]
    known = [colour for colour in colours if colour is not None]
    groups = [[other for other in known if np.abs(other - one).max() <= SAME_CORNERS] for one in known]
    largest = max(groups, key=len, default=[])
    if len(largest) < 2:
        return None
    colour = np.median(largest, axis=0)
    return Surround(colour, TOLERANCE_DARK if colour.max() <= DARK_UP_TO else TOLERANCE_OTHER)


def _colour(corner: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32] | None:
    """Return the one colour of a corner, or None."""
    small = Image.fromarray(np.ascontiguousarray(corner)).resize((CORNER_PX, CORNER_PX), Image.Resampling.BOX)
    levels = np.asarray(small, np.float32).reshape(-1, 3)
    colour: npt.NDArray[np.float32] = np.median(levels, axis=0)
    noise = NOISE_DARK if colour.max() <= DARK_UP_TO else NOISE_OTHER
    return colour if np.quantile(np.abs(levels - colour).max(axis=1), 0.9) <= noise else None


def _away(pixels: npt.NDArray[np.uint8], surround: Surround) -> Grid:
    """Return how far the pixels of the grid are from the surround's colour, in levels."""
    height, width = pixels.shape[:2]
    scale = GRID_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    every = max(1, round(1 / (SAMPLES * scale)))
    samples = Image.fromarray(np.ascontiguousarray(pixels[::every, ::every]))
    filtered = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    grid = np.asarray(samples.resize(size, filtered), np.float32)
    red, green, blue = np.moveaxis(np.abs(grid - surround.colour), 2, 0)
    away: Grid = np.maximum(np.maximum(red, green), blue)
    return away


def _around(near: Mask) -> Mask:
    """Return which of the pixels near the surround's colour are connected with the border."""
    from scipy import ndimage  # loaded where a picture is looked at

    regions, count = ndimage.label(near)
    at_border = np.zeros(count + 1, np.bool_)
    for line in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        at_border[line] = True
    at_border[0] = False
    around: Mask = at_border[regions]
    return around


def _scene(around: Mask) -> Mask:
    """Return the largest connected part that is not surround, without thin strokes and with its holes filled."""
    from scipy import ndimage  # loaded where a picture is looked at

    regions, count = ndimage.label(_grown(~_grown(around, STROKE), STROKE))
    if not count:
        return np.zeros_like(around)
    area = np.bincount(regions.ravel())
    area[0] = 0
    return ~_around(regions != area.argmax())


def _grown(mask: Mask, by: int) -> Mask:
    """Return the mask and what is up to `by` pixels from it, in both directions."""
    grown = mask.copy()
    for step in range(1, by + 1):
        grown[step:] |= mask[:-step]
        grown[:-step] |= mask[step:]
    across = grown.copy()
    for step in range(1, by + 1):
        across[:, step:] |= grown[:, :-step]
        across[:, :-step] |= grown[:, step:]
    return across


def _sharp(scene: Mask, away: Grid, tolerance: float) -> bool:
    edge = _grown(scene, 1) & ~scene
    risen = _grown(away >= SHARP_RISE * tolerance, SHARP_WITHIN)
    return bool(edge.any() and risen[edge].mean() >= SHARP_MIN)


def _bounds(scene: Mask, away: Grid) -> Box:
    """Return the box around the scene. Pixels on its edge count in part, so it is right to a fraction of a pixel."""
    covered = np.where(_grown(scene, 1), np.minimum(away / np.maximum(_highest_near(away), 1), 1), 0)
    covered[~_grown(~scene, 2)] = 1
    rows, columns = covered.sum(axis=1), covered.sum(axis=0)
    height, width = scene.shape
    return _begin(columns), _begin(rows), width - _begin(columns[::-1]), height - _begin(rows[::-1])


def _highest_near(away: Grid) -> Grid:
    """Return the highest value up to two pixels from each."""
    from scipy import ndimage  # loaded where a picture is looked at

    found: Grid = ndimage.maximum_filter1d(ndimage.maximum_filter1d(away, 5, axis=0), 5, axis=1)
    return found


def _begin(filled: npt.NDArray[np.float64]) -> float:
    """Return where a profile begins: what its first lines hold, in parts of the line after them, ends there."""
    first = int(np.argmax(filled >= EDGE_SHARE * filled.max()))
    if first == 0:
        return 0.0
    return first + 1 - min(2.0, float(filled[first - 1 : first + 1].sum() / filled[min(first + 1, len(filled) - 1)]))


def _inner(scene: Mask, bounds: Box) -> Box:
    """Return the largest box with the centre and the proportions of `bounds` that is scene to INSIDE_SHARE."""
    summed = np.pad(scene.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0))).astype(np.float64)

    def inside(box: Box) -> bool:
        left, top, right, bottom = box
        held = _at(summed, bottom, right) - _at(summed, top, right) - _at(summed, bottom, left) + _at(summed, top, left)
        return held >= INSIDE_SHARE * (right - left) * (bottom - top)

    return bounds if inside(_shrunk(bounds, INSIDE_SHARE)) else _shrunk(bounds, _largest(bounds, inside))


def _largest(bounds: Box, inside: Callable[[Box], bool]) -> float:
    """Return the largest scale of `bounds` that is inside, to a four-thousandth."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(_shrunk(bounds, middle)) else (low, middle)
    return high


def _shrunk(box: Box, scale: float) -> Box:
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    across, down = scale * (right - left) / 2, scale * (bottom - top) / 2
    return x - across, y - down, x + across, y + down


def _at(summed: npt.NDArray[np.float64], row: float, column: float) -> float:
    """Return a summed-area table between its entries."""
    i, j = (min(int(at), size - 2) for at, size in zip((row, column), summed.shape, strict=True))
    down, across = row - i, column - j
    above = summed[i, j] * (1 - across) + summed[i, j + 1] * across
    below = summed[i + 1, j] * (1 - across) + summed[i + 1, j + 1] * across
    return float(above * (1 - down) + below * down)


def _scaled(box: Box, grid: tuple[int, ...], whole: Box) -> Box:
    """Return a box of the grid in pixels of the picture."""
    left, top, right, bottom = box
    across, down = whole[2] / grid[1], whole[3] / grid[0]
    return max(0.0, left * across), max(0.0, top * down), min(whole[2], right * across), min(whole[3], bottom * down)
