"""Unusual pictures that can be read, as `site-agent data check` counts them. One table, pure functions.

None of these is refused: a dark or letterboxed photograph may be correct. The data manager should look at them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from site_agent.images.samples import Decoded, Pixels

FLAT_BELOW = 1.0
"""standard deviation of every channel, in grey levels"""
BLACK_BELOW = 16
"""99 % of the values of a black picture are below this grey level"""
EMPTY_ROWS = 8
"""one of so many rows, at the top or at the bottom, is one flat value; or of the columns, as a picture may be turned"""
EMPTY_RANGE = 4
"""grey levels by which flat rows may differ: JPEG is not exact"""
TRANSPARENT_SHARE = 1 / 2
SAMPLE_PX = 64


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the checks look at."""

    picture: Decoded
    sample: Pixels
    """(3, n): pixels of a regular grid, SAMPLE_PX and more on a side if the picture has as many"""
    flat: bool


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that may be odd about a picture."""

    name: str
    heading: str
    """follows the number of pictures"""
    holds: Callable[[_Seen], bool]


def _is_black(seen: _Seen) -> bool:
    return not seen.picture.narrow and bool((seen.sample >= BLACK_BELOW).mean() < 1 / 100)


def _is_half_empty(seen: _Seen) -> bool:
    if seen.flat or seen.picture.narrow:
        return False
    upright = seen.picture.pixels
    return any(_is_one_value(part) for pixels in (upright, upright.swapaxes(0, 1)) for part in _ends(pixels))


def _ends(pixels: Pixels) -> tuple[Pixels, Pixels]:
    rows = -(-len(pixels) // EMPTY_ROWS)
    return pixels[-rows:], pixels[:rows]


def _is_one_value(rows: Pixels) -> bool:
    return _spread(rows[0]) <= EMPTY_RANGE and _spread(rows.reshape(-1, 3)) <= EMPTY_RANGE


def _spread(values: Pixels) -> int:
    return int(np.ptp(values, axis=0).max())


CHECKS: Final = (
    Check("flat", "pictures of one colour", lambda seen: seen.flat),
    Check("black", "black pictures (99 % of the values are below 16)", _is_black),
    Check(
        "transparent",
        "mostly transparent pictures (transparent areas become black; alpha 0 everywhere is ignored)",
        lambda seen: seen.picture.transparent > TRANSPARENT_SHARE,
    ),
    Check(
        "narrow",
        "nearly black 16-bit pictures: the brightest value is below a sixteenth of the range "
        "(a device that uses 10 or 12 of the 16 bits? export these as 8 bits)",
        lambda seen: seen.picture.narrow,
    ),
    Check(
        "half-empty",
        "pictures whose first or last rows or columns, an eighth or more of all, are one flat value: half-written, or "
        "a border",
        _is_half_empty,
    ),
    Check("pages", "files of several pages; the first page is used", lambda seen: seen.picture.pages),
)


def oddities(picture: Decoded) -> tuple[str, ...]:
    """Return the names of the checks that hold for a picture."""
    step = max(1, min(picture.pixels.shape[:2]) // SAMPLE_PX)
    sample = np.ascontiguousarray(picture.pixels[::step, ::step].transpose(2, 0, 1)).reshape(3, -1)
    seen = _Seen(picture, sample, flat=bool(sample.std(axis=1).max() < FLAT_BELOW))
    return tuple(check.name for check in CHECKS if check.holds(seen))
