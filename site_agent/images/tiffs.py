"""TIFF: which of its many kinds are read, and why others are not.

libtiff unpacks all of them, also uncompressed ones: Pillow's own way mistakes 16-bit planes. What is listed here is
held against known samples and a second decoder by tests/unit/test_image_formats.py; any other kind is refused, and
named.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import Image, TiffImagePlugin

from site_agent.images import jpegs
from site_agent.images.samples import Decoded, eight_bits, of_deep, of_image, sixteen_bits, whole_numbers
from site_agent.images.unreadable import DAMAGE, UnreadableError

TiffImagePlugin.READ_LIBTIFF = True
_OPEN_INFO = TiffImagePlugin.OPEN_INFO
# what Pillow has for the other byte order or bit order only
_OPEN_INFO[b"MM", 0, (1,), 1, (16,), ()] = ("I;16B", "I;16B")
_OPEN_INFO[b"MM", 1, (1,), 1, (12,), ()] = ("I;16", "I;12")
_OPEN_INFO[b"MM", 1, (1,), 1, (32,), ()] = ("I", "I;32N")
for _key, _modes in tuple(_OPEN_INFO.items()):
    _OPEN_INFO.setdefault((*_key[:3], 2, *_key[4:]), _modes)

Tags = Mapping[int, Any]

_NEW_SUBFILE_TYPE: Final = 254
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _MAX_SAMPLE = 273, 277, 278, 279, 281
_PLANAR, _COLOUR_MAP, _TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES = 284, 320, 322, 323, 324, 325
_INK_SET, _EXTRA, _FORMAT, _S_MAX_SAMPLE, _JPEG_TABLES = 332, 338, 339, 341, 347

_WHITE_IS_ZERO: Final = 0
_JPEG: Final = 7
_TILE_PIXELS_MAX: Final = 1 << 20
"""beyond those of the picture: a tile may be larger than it, but libtiff makes room for all of it"""
_MCU_PX: Final = 16
"""a JPEG may be that much larger than what it shows"""
_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, _JPEG, 8, 32773, 32946})
"""none, fax (of 1 bit), LZW, JPEG, Deflate, PackBits, Deflate under its old number"""
_COLOUR_SPACES: Final = {
    4: "a transparency mask",
    8: "colour space LAB",
    9: "colour space LAB",
    10: "colour space LAB",
    32803: "unprocessed sensor data (CFA)",
    32844: "colour space LogL",
    32845: "colour space LogLuv",
    34892: "unprocessed sensor data",
}
_SIGNED, _FLOATING = 2, 3
_OTHER_BIG_TIFF: Final = b"MM\0+"


def _bits(tags: Tags) -> int:
    bits: tuple[int, ...] = tags.get(_BITS, (1,))
    return max(bits)


def _formats(tags: Tags) -> set[int]:
    return set(tags.get(_FORMAT, (1,)))


def _is_planar(tags: Tags) -> bool:
    return bool(tags.get(_PLANAR, 1) == 2)


def _is_premultiplied(tags: Tags) -> bool:
    return 1 in tags.get(_EXTRA, ())


def _part_size(tags: Tags) -> tuple[int, int]:
    """Return width and length of a strip or tile, in pixels."""
    if _TILES in tags:
        return tags[_TILE_WIDTH], tags[_TILE_LENGTH]
    return tags[_WIDTH], min(tags[_LENGTH], tags.get(_ROWS_PER_STRIP, tags[_LENGTH]))


def _parts_needed(tags: Tags) -> int:
    width, length = _part_size(tags)
    planes: int = tags.get(_SAMPLES, 1) if _is_planar(tags) else 1
    return -(-int(tags[_WIDTH]) // width) * -(-int(tags[_LENGTH]) // length) * planes


def _parts(tags: Tags) -> Iterator[tuple[int, int]]:
    """Yield where strips or tiles begin, and how many bytes they have."""
    places = tags.get(_TILES, tags.get(_STRIPS, ()))
    return zip(places, tags.get(_TILE_BYTES, tags.get(_STRIP_BYTES, ())), strict=False)


def _is_tile_too_large(tags: Tags) -> bool:
    return math.prod(_part_size(tags)) > _TILE_PIXELS_MAX + int(tags[_WIDTH] * tags[_LENGTH])


def _parts_absent(tags: Tags) -> bool:
    """Say whether strips or tiles were never written: too few, at no place, or of no size."""
    return sum(place > 0 and size > 0 for place, size in _parts(tags)) < _parts_needed(tags)


_REFUSED: Final[tuple[tuple[str, Callable[[Tags], bool]], ...]] = (
    ("floating-point pixels", lambda tags: _FLOATING in _formats(tags)),
    ("signed pixel values", lambda tags: _SIGNED in _formats(tags) and _bits(tags) < 32),
    ("pixels that are not numbers", lambda tags: bool(_formats(tags) - {1, _SIGNED, _FLOATING, 4})),
    ("a TIFF that does not say how to interpret its samples", lambda tags: _PHOTOMETRIC not in tags),
    ("inks other than CMYK", lambda tags: tags.get(_INK_SET, 1) != 1),
    ("a TIFF whose first page is a preview", lambda tags: bool(tags.get(_NEW_SUBFILE_TYPE, 0) & 1)),
    ("grey and another sample in separate planes", lambda tags: _is_planar(tags) and tags.get(_SAMPLES) == 2),
    ("damaged: a tile of the TIFF is much larger than the picture", _is_tile_too_large),
    ("damaged or cut short: the TIFF lacks strips or tiles", _parts_absent),
)


def check(tags: Tags) -> None:
    """Raise UnreadableError if a TIFF with these tags (TIFF 6.0) is of a kind that is not read."""
    colour_space = _COLOUR_SPACES.get(tags.get(_PHOTOMETRIC, 1))
    if colour_space:
        raise UnreadableError(colour_space)
    for reason, applies in _REFUSED:
        if applies(tags):
            raise UnreadableError(reason)
    if tags.get(_COMPRESSION, 1) not in _COMPRESSIONS:
        raise UnreadableError(f"TIFF compression {tags[_COMPRESSION]}, which is not supported")


def reason(file: BinaryIO) -> str | None:
    """Return why a file that Pillow cannot open is not read, if it is a TIFF; else None."""
    file.seek(0)
    head = file.read(8)
    if head.startswith(_OTHER_BIG_TIFF):
        return "a big-endian BigTIFF, which is not read"  # Pillow takes its tags for damage
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
        check(tags)
        bits, samples = _bits(tags), tags.get(_SAMPLES, 1)
    except UnreadableError as error:
        return error.reason
    except DAMAGE:
        return None
    return f"a TIFF of {samples} x {bits} bits (PhotometricInterpretation {tags[_PHOTOMETRIC]}), which is not supported"


def load(image: TiffImagePlugin.TiffImageFile, file: BinaryIO) -> Decoded:
    """Decode the first page of an opened TIFF. Raises UnreadableError, and what Pillow raises on damaged bytes."""
    tags = dict(image.tag_v2)
    check(tags)
    if tags.get(_COMPRESSION, 1) == _JPEG:
        _check_jpegs(tags, file)
    image.load()
    found = _decoded(image, tags, file)
    return Decoded(found.pixels, found.transparent, found.narrow, pages=bool(image.tag_v2.next))


def _decoded(image: TiffImagePlugin.TiffImageFile, tags: Tags, file: BinaryIO) -> Decoded:
    if image.mode.startswith("I"):
        return _grey(image, tags)
    stated = _stated_bits(tags)
    if stated < 16 and image.mode in ("RGB", "RGBA") and not _is_planar(tags) and not _is_premultiplied(tags):
        return of_deep(sixteen_bits(image, file), stated)
    if image.mode == "P":
        _mend_colour_map(image, tags)
    found = of_image(image, deep=_bits(tags) == 16)
    if found.transparent == 1 and _is_premultiplied(tags):
        if _is_planar(tags):
            raise UnreadableError("colours in separate planes under an alpha that is 0 everywhere")
        return of_image(_undivided(image, file), deep=_bits(tags) == 16)
    return found


def _undivided(image: Image.Image, file: BinaryIO) -> Image.Image:
    """Return a picture whose alpha is 0 everywhere: where colours are multiplied by it, Pillow divides, and loses them.

    Such an alpha is none (`samples`), and the colours are as they stand.
    """
    if image.mode == "La":
        return Image.fromarray(np.ascontiguousarray(np.asarray(image)[:, :, 0]))
    file.seek(0)
    again = Image.open(file, formats=("TIFF",))
    assert isinstance(again, TiffImagePlugin.TiffImageFile)
    again.tile = [tile._replace(args=_as_they_stand(tile.args)) for tile in again.tile]
    again.load()
    return again


def _as_they_stand(args: Any) -> tuple[Any, ...]:
    """Return a decoder's arguments with the raw mode that divides nothing: RGBA instead of RGBa."""
    return (args[0].replace("a", "A", 1), *args[1:])


def _grey(image: Image.Image, tags: Tags) -> Decoded:
    samples = whole_numbers(np.asarray(image))
    if _bits(tags) == 12:
        samples = samples << np.uint16(4) | samples >> np.uint16(8)
    grey, narrow = eight_bits(samples, _stated_bits(tags))
    if tags[_PHOTOMETRIC] == _WHITE_IS_ZERO:
        grey = np.bitwise_not(grey)
    return Decoded(np.repeat(grey[:, :, None], 3, axis=2), narrow=narrow)


def _stated_bits(tags: Tags) -> int:
    """Return how many of 16 bits are used, where the largest sample value is given as a number of bits (4095: 12).

    A largest value of another form is a measurement of one picture. Scaling by it would change pictures by what they
    show; TIFF 6.0 forbids that.
    """
    if _bits(tags) != 16:
        return 16
    top = max(np.atleast_1d(tags.get(_S_MAX_SAMPLE, tags.get(_MAX_SAMPLE, 65_535))))
    bits = int(top).bit_length()
    return bits if top == 2**bits - 1 and 9 <= bits < 16 else 16


def _mend_colour_map(image: Image.Image, tags: Tags) -> None:
    """Take a colour map of 8-bit values as what it is; TIFF asks for 16 bits, and some programs did not know."""
    values = tags[_COLOUR_MAP]
    if max(values) < 256:
        image.putpalette(bytes(values), "RGB;L")


def _check_jpegs(tags: Tags, file: BinaryIO) -> None:
    """Raise UnreadableError if libjpeg warns of a strip or tile: libtiff drops its warnings."""
    tables = bytes(tags.get(_JPEG_TABLES, b""))[:-2]
    file_bytes = os.fstat(file.fileno()).st_size
    width, rows = _part_size(tags)
    for place, size in itertools.islice(_parts(tags), _parts_needed(tags)):
        file.seek(place)
        data = file.read(min(size, file_bytes))
        jpegs.check(tables + data[2:] if tables else data, (width + _MCU_PX) * (rows + _MCU_PX))
