"""Random fields and the few pointwise operations that painting needs.

A field is a small grid of normal numbers, enlarged bicubically: its grain is the canvas side over the number of
cells. Fields are float32 arrays of shape (side, side), about zero mean and unit deviation.
A painting is planar, float32, shape (3, height, width), values 0 to 255 that may overshoot until it is developed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Plane = npt.NDArray[np.float32]
"""shape (height, width)"""
Painting = npt.NDArray[np.float32]
"""shape (3, height, width)"""
Colour = tuple[float, float, float]
"""red, green, blue; 0 to 255"""

BICUBIC_DEVIATION = 0.72
"""what bicubic enlargement leaves of the deviation of white noise (measured)"""


def generator(seed: int) -> np.random.Generator:
    """Return the generator of one stream; `seed` comes from `fedcervix.core.seeds.derive`."""
    return np.random.Generator(np.random.PCG64(seed))


def field(rng: np.random.Generator, size_px: tuple[int, int], cells: int, cells_down: int | None = None) -> Plane:
    """Return a smooth random field of `size_px` (width, height) with `cells` across and `cells_down` down."""
    down = cells if cells_down is None else cells_down
    grid = rng.standard_normal((down + 2, cells + 2), dtype=np.float32)
    # the outermost cells only feed the interpolation: without them the border would be flat
    grown = Image.fromarray(grid).resize(size_px, Image.Resampling.BICUBIC, box=(1, 1, cells + 1, down + 1))
    return np.asarray(grown, dtype=np.float32) / np.float32(BICUBIC_DEVIATION)


def step(low: float, high: float, values: Plane) -> Plane:
    """Return a soft step from 0 at `low` to 1 at `high`; `low` above `high` steps downwards."""
    t: Plane = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    squared: Plane = t * t
    return squared * (3 - 2 * t)


def lay(painting: Painting, colour: Colour, cover: Plane) -> None:
    """Lay `colour` over the painting, in place; `cover` is 0 (nothing) to 1 (opaque) per pixel."""
    for plane, value in zip(painting, colour, strict=True):
        plane += cover * (np.float32(value) - plane)


def shade(painting: Painting, light: Plane) -> None:
    """Multiply the painting by `light`, in place."""
    painting *= light
