"""From the samples of a file to 8-bit RGB: how alpha and more than 8 bits are converted.

- Alpha: composited on black, the surround of a cervigram. If alpha is 0 in every pixel, it is ignored: frame grabbers
  and Windows leave the fourth byte empty, and the colours are the picture.
- 16 bits: the whole range 0..65535 becomes 0..255, never clipped. Where the file says that fewer bits are used, and
  its samples agree, that smaller range is the whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from site_agent.images.unreadable import UnreadableError

Pixels = npt.NDArray[np.uint8]

NARROW_BELOW = 1 / 16
"""of the range of 16 bits: a picture that stays below it is nearly black, as 12 or 10 bits in 16 are"""
_TOP = 65_535
_BLOCK_ROWS = 64
_SURE_BITS = 12
"""at most so many bits at the upper end would be a picture that is nearly black"""
_OTHER_BYTE = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """One picture, and what its pixels no longer tell about the file."""

    pixels: Pixels
    """(H, W, 3), 8-bit RGB"""
    transparent: float = 0.0
    """share of pixels with alpha 0"""
    narrow: bool = False
    """of more than 8 bits, the brightest sample is below NARROW_BELOW of the range"""
    pages: bool = False
    """the file has further pages, which are not used"""


def of_image(image: Image.Image, *, deep: bool = False) -> Decoded:
    """Return a loaded Pillow image of 8 bits a channel. `deep`: these are the high bytes of 16 bits."""
    if not image.has_transparency_data:
        rgb = np.asarray(_as(image, "RGB"))
        return Decoded(rgb, narrow=deep and _is_narrow(rgb))
    rgba = np.asarray(_as(_as(image, "LA") if image.mode == "La" else image, "RGBA"))
    return of_alpha(rgba[:, :, :3], rgba[:, :, 3], narrow=deep and _is_narrow(rgba[:, :, :3]))


def of_alpha(rgb: Pixels, alpha: Pixels, *, narrow: bool = False) -> Decoded:
    """Return colours (H, W, 3) under an alpha (H, W), composited on black."""
    transparent = 1 - np.count_nonzero(alpha) / alpha.size
    if transparent == 1:
        return Decoded(np.ascontiguousarray(rgb), 1.0, narrow)
    pixels = np.empty(rgb.shape, np.uint8)
    for rows in _blocks(len(rgb)):
        pixels[rows] = (rgb[rows].astype(np.uint16) * alpha[rows, :, None] + 127) // 255
    return Decoded(pixels, transparent, narrow)


def of_deep(samples: npt.NDArray[np.uint16], stated_bits: int) -> Decoded:
    """Return 16-bit colours (H, W, 3), or colours and alpha (H, W, 4), of which so many bits are used."""
    colours, narrow = eight_bits(samples[:, :, :3], stated_bits)
    if samples.shape[2] == 3:
        return Decoded(colours, narrow=narrow)
    return of_alpha(colours, eight_bits(samples[:, :, 3], stated_bits)[0], narrow=narrow)


def of_key(rgb: Pixels, samples: npt.NDArray[Any], key: npt.NDArray[Any], *, narrow: bool = False) -> Decoded:
    """Return colours in which pixels whose samples (H, W, C) are the key (C,) are transparent."""
    hidden = np.logical_and.reduce([samples[:, :, channel] == value for channel, value in enumerate(key)])
    return of_alpha(rgb, np.where(hidden, np.uint8(0), np.uint8(255)), narrow=narrow)


def eight_bits(samples: npt.NDArray[np.uint16], stated_bits: int = 16) -> tuple[Pixels, bool]:
    """Scale 16-bit samples (H, ...) to 8 bits; return whether they are narrow.

    `stated_bits`: how many bits the file says are used. They may lie at the upper end of the 16, as PNG asks for, or at
    the lower end, as cameras write them: there, if no sample is larger than they allow. Of 13 bits and more, a dark
    picture at the upper end could look so; it is told by the bits below, which are filled.
    """
    brightest = int(samples.max())
    top = 2**stated_bits - 1
    if brightest > top or (stated_bits > _SURE_BITS and _at_upper_end(samples, stated_bits)):
        top = _TOP
    scale = ((np.arange(top + 1, dtype=np.uint32) * 510 + top) // (2 * top)).astype(np.uint8)
    scaled = np.empty(samples.shape, np.uint8)
    for rows in _blocks(len(samples)):
        scaled[rows] = scale[samples[rows]]
    return scaled, brightest < NARROW_BELOW * (top + 1)


def sixteen_bits(image: Image.Image, file: BinaryIO) -> npt.NDArray[np.uint16]:
    """Return the 16-bit samples (H, W, C) of a loaded image, of which Pillow keeps the high bytes: it reads them twice.

    Other than planar and premultiplied files only.
    """
    file.seek(0)
    pairs = np.empty((image.height, image.width, len(image.getbands()), 2), np.uint8)
    with Image.open(file, formats=(image.format or "",)) as again:
        assert isinstance(again, ImageFile.ImageFile)
        again.tile = [tile._replace(args=_other_byte(tile.args)) for tile in again.tile]
        again.load()
        pairs[..., 0] = np.asarray(again)
    pairs[..., 1] = np.asarray(image)
    return pairs.view("<u2")[..., 0].astype(np.uint16, copy=False)


def whole_numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Return grey values of up to 32 bits as 16-bit ones. Raises UnreadableError where they are too large."""
    if values.min() < 0 or values.max() > _TOP:
        raise UnreadableError("32-bit grey values beyond 16 bits")
    return values.astype(np.uint16)


def _as(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _is_narrow(rgb: Pixels) -> bool:
    return int(rgb.max()) < NARROW_BELOW * 256


def _at_upper_end(samples: npt.NDArray[np.uint16], bits: int) -> bool:
    """Say whether the samples were shifted up to 16 bits, filled with zeros or with a copy of their first bits."""
    blocks = [samples[rows] for rows in _blocks(len(samples))]
    up, down = np.uint16(16 - bits), np.uint16(2 * bits - 16)
    return all(np.array_equal(part, part >> up << up) for part in blocks) or all(
        np.array_equal(part, part >> up << up | part >> up >> down) for part in blocks
    )


def _blocks(rows: int) -> Iterator[slice]:
    """Yield slices of some rows: what is computed takes little memory beside the picture."""
    return (slice(top, top + _BLOCK_ROWS) for top in range(0, rows, _BLOCK_ROWS))


def _other_byte(args: Any) -> Any:
    """Return a decoder's arguments with the raw mode that takes the other byte of 16."""
    if isinstance(args, str):
        return args[:-4] + _OTHER_BYTE[args[-4:]]
    return (_other_byte(args[0]), *args[1:])
