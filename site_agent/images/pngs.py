"""PNG: its checksums, its statement of significant bits, its transparent colour.

Pillow reads the pixels; it does not compare the checksums of pixel data, scales no transparent colour of 1, 2, 4 or 16
bits, and keeps only the high bytes of 16-bit colour.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from site_agent.images.samples import Decoded, eight_bits, of_deep, of_image, of_key, sixteen_bits
from site_agent.images.unreadable import UnreadableError

_SIGNATURE_BYTES: Final = 8
_PIECE_BYTES: Final = 1 << 20
_CHECKED: Final = (b"IHDR", b"PLTE", b"IDAT", b"tRNS")
"""what the picture is made of; of other chunks Pillow compares those before the pixels"""
_GREY: Final = 0
_RGB: Final = 2
_PALETTE: Final = 3
_RGB_ALPHA: Final = 6
_BITS_USED: Final = (9, 16)
"""of 16, in which a statement makes sense"""


@dataclass(frozen=True, slots=True)
class _Chunks:
    bits: int
    colour: int
    significant_bits: int
    """the most of any channel"""
    key: tuple[int, ...]
    """the transparent colour; empty if there is none"""
    colours: int
    """of the palette"""


def load(image: Image.Image, file: BinaryIO) -> Decoded:
    """Decode an opened PNG. Raises UnreadableError, and what Pillow raises on damaged bytes."""
    chunks = _chunks(file)
    _check_palette(chunks)
    image.load()
    _check_indices(image, chunks)
    if chunks.bits == 16:
        return _deep(image, file, chunks)
    if not chunks.key:
        return of_image(image)
    image.info.pop("transparency", None)
    rgb = of_image(image).pixels
    unit = 255 // (2**chunks.bits - 1)
    return of_key(rgb, rgb, np.resize(np.array(chunks.key) * unit, 3))


def _check_palette(chunks: _Chunks) -> None:
    if chunks.colour == _PALETTE and not chunks.colours:
        raise UnreadableError("damaged: the PNG has no palette")


def _check_indices(image: Image.Image, chunks: _Chunks) -> None:
    """Raise UnreadableError where pixels name colours that the palette does not have: Pillow shows these black."""
    if chunks.colour == _PALETTE and int(np.asarray(image).max()) >= chunks.colours:
        raise UnreadableError("damaged: the palette of the PNG is shorter than its pixels need")


def _deep(image: Image.Image, file: BinaryIO, chunks: _Chunks) -> Decoded:
    """Decode 16 bits: by their high bytes where that is enough, else by all of them."""
    if chunks.colour == _GREY:
        samples = np.asarray(image)[:, :, None]
        found = _of_grey(samples, chunks.significant_bits)
    elif chunks.key or (chunks.significant_bits < 16 and chunks.colour in (_RGB, _RGB_ALPHA)):
        samples = sixteen_bits(image, file)
        found = of_deep(samples, chunks.significant_bits)
    else:
        return of_image(image, deep=True)
    if not chunks.key:
        return found
    return of_key(found.pixels, samples, np.array(chunks.key), narrow=found.narrow)


def _of_grey(samples: npt.NDArray[np.uint16], stated_bits: int) -> Decoded:
    grey, narrow = eight_bits(samples, stated_bits)
    return Decoded(np.repeat(grey, 3, axis=2), narrow=narrow)


def _chunks(file: BinaryIO) -> _Chunks:
    """Read the chunks that matter and compare their checksums. Raises UnreadableError."""
    file.seek(_SIGNATURE_BYTES)
    kept = {}
    while len(head := file.read(8)) == 8:
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind in _CHECKED:
            kept[kind] = _checked(file, kind, size)
        elif kind == b"sBIT":
            kept[kind] = file.read(size)[:4]
            file.seek(4, os.SEEK_CUR)
        else:
            file.seek(size + 4, os.SEEK_CUR)
        if kind == b"IEND":
            break
    return _parsed(kept)


def _checked(file: BinaryIO, kind: bytes, size: int) -> bytes:
    """Return the beginning of a chunk whose checksum agrees; at most 1 MiB is held."""
    check, first, rest = zlib.crc32(kind), b"", size
    while rest and (piece := file.read(min(rest, _PIECE_BYTES))):
        check, first, rest = zlib.crc32(piece, check), first or piece, rest - len(piece)
    if rest or len(stored := file.read(4)) < 4:
        raise UnreadableError("damaged or cut short")
    if stored != check.to_bytes(4, "big"):
        raise UnreadableError("damaged: a checksum of the PNG does not agree")
    return first


def _parsed(kept: Mapping[bytes, bytes]) -> _Chunks:
    bits, colour = kept[b"IHDR"][8], kept[b"IHDR"][9]
    stated = max(kept.get(b"sBIT", b""), default=bits)
    channels = {_GREY: 1, _RGB: 3}.get(colour, 0)
    key = kept.get(b"tRNS", b"")[: 2 * channels]
    return _Chunks(
        bits=bits,
        colour=colour,
        significant_bits=stated if _BITS_USED[0] <= stated <= _BITS_USED[1] else bits,
        key=tuple(int.from_bytes(key[k : k + 2], "big") for k in range(0, len(key), 2)),
        colours=len(kept.get(b"PLTE", b"")) // 3,
    )
