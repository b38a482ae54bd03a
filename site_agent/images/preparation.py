"""What is done to a picture beside scaling it, before a network sees it: cropped to the cervix, colours of a site.

The colours of a site (`harmonise = "site-colour"`) are brought to one reference by one fixed line for each channel,
made from the tissue in the site's training pictures, light on wet tissue left out. All pictures of the site get the
same lines: what differs between two of its pictures, such as white with acetic acid, stays. It works on the scaled
picture and gives bytes again, so it is a table of 3 x 256 bytes, in an exported file as well.

A picture that is not prepared has its own digest as the key of its square; any other has a digest of all that made it.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcervix.core.plan import Fit
from site_agent.images.appearance import Corners, Tissue
from site_agent.images.decode import square
from site_agent.images.samples import Pixels

REFERENCE_MEAN = (165.0, 105.0, 102.0)
REFERENCE_SPREAD = (40.0, 38.0, 38.0)
"""of red, green and blue, in grey levels: about those of three public atlases together"""
PICTURES_MIN = 8
"""with tissue, of which a site's colours can be told"""
GAIN_MIN, GAIN_MAX = 0.5, 2.0

Three = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SiteColour:
    """A level of a channel becomes gain x level + offset, rounded, within 0 and 255."""

    gain: Three
    offset: Three

    def __post_init__(self) -> None:
        numbers = (*self.gain, *self.offset)
        if len(numbers) != 6 or not all(map(math.isfinite, numbers)):
            raise ValueError(f"the colours of a site are six numbers; found {numbers}")

    def table(self) -> npt.NDArray[np.uint8]:
        """Return (3, 256): channel, level -> level."""
        lines = np.outer(self.gain, np.arange(256)) + np.array(self.offset)[:, None]
        found: npt.NDArray[np.uint8] = np.clip(np.rint(lines), 0, 255).astype(np.uint8)
        return found

    def applied(self, pixels: Pixels) -> Pixels:
        """Return (..., 3) pixels of the site with the reference's colours."""
        return np.stack([row[pixels[..., k]] for k, row in enumerate(self.table())], axis=-1)


def site_colour(tissues: Sequence[Tissue]) -> SiteColour:
    """Return the lines that bring the tissue of these pictures, all together, to the reference. Raises ValueError."""
    if len(tissues) < PICTURES_MIN:
        raise ValueError(f"{len(tissues)} pictures with tissue; {PICTURES_MIN} are needed")
    mean = np.mean([one.mean for one in tissues], axis=0)
    spread = np.sqrt(np.maximum(np.mean([one.square for one in tissues], axis=0) - mean**2, 1))
    gain = np.clip(np.array(REFERENCE_SPREAD) / spread, GAIN_MIN, GAIN_MAX)
    return SiteColour(_three(gain), _three(np.array(REFERENCE_MEAN) - gain * mean))


def _three(values: npt.NDArray[np.float64]) -> Three:
    red, green, blue = (round(float(value), 6) for value in values)
    return red, green, blue


@dataclass(frozen=True, slots=True)
class Preparation:
    """How one picture is prepared."""

    box: Corners | None = None
    """crop to it; None: all of the picture"""
    colour: SiteColour | None = None

    def key(self, digest: bytes) -> bytes:
        """Return what names the prepared picture, by the SHA-256 of its pixels."""
        if self.box is None and self.colour is None:
            return digest
        box = struct.pack("<?4q", self.box is not None, *(self.box or (0, 0, 0, 0)))
        colour = self.colour.table().tobytes() if self.colour else b""
        return hashlib.sha256(b"fedcervix prepared picture\0" + digest + box + colour).digest()

    def square(self, pixels: Pixels, side_px: int, fit: Fit) -> Pixels:
        """Return the prepared picture as (side_px, side_px, 3)."""
        found = square(pixels if self.box is None else cropped(pixels, self.box), side_px, fit)
        return found if self.colour is None else self.colour.applied(found)


PLAIN = Preparation()


def cropped(pixels: Pixels, box: Corners) -> Pixels:
    """Return the part around a box: a square where the picture is large enough, so that nothing is stretched."""
    height, width = pixels.shape[:2]
    x, y, w, h = box
    side = max(w, h)
    left, right = _around(x, w, side, width)
    top, bottom = _around(y, h, side, height)
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def _around(begin: int, length: int, wanted: int, whole: int) -> tuple[int, int]:
    size = min(wanted, whole)
    first = min(max(0, begin + (length - size) // 2), whole - size)
    return first, first + size
