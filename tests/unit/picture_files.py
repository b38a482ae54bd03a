"""Picture files written byte by byte, so that a test knows every sample that a decoder has to find."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.unsignedinteger]
"""(height, width, channels), as stored"""

_NUMBER_TYPES = {"short": (3, "H"), "long": (4, "I"), "byte": (1, "B"), "rational": (5, "I")}


def scene(height: int, width: int, channels: int, bits: int) -> Samples:
    """Ramps that differ by channel, with noise in the low bits: nothing symmetric, nothing flat, the whole range."""
    y, x = np.mgrid[0:height, 0:width]
    ramps = [x / width, y / height, (x + y) / (width + height), 1 - x / width, 1 - y / height][:channels]
    noise = np.random.default_rng(0).uniform(-0.03, 0.03, (height, width, channels))
    top = 2**bits - 1
    values = np.clip(np.stack(ramps, 2) + noise, 0, 1) * top
    values[0, 0], values[1, 1] = 0, top
    return np.rint(values).astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def packed(rows: Samples, bits: int, order: str) -> bytes:
    """Samples of (rows, values in a row) as bytes; rows of packed samples begin at a byte."""
    if bits % 8 == 0:
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    shifts = np.arange(bits - 1, -1, -1)
    ones = (rows[..., None].astype(np.uint32) >> shifts) & 1
    return np.packbits(ones.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def lzw(data: bytes) -> bytes:
    """TIFF's LZW, most significant bit first, the width changing one code early."""
    known = {bytes([k]): k for k in range(256)}
    codes, width, prefix = [(256, 9)], 9, b""
    for value in data:
        longer = prefix + bytes([value])
        if longer in known:
            prefix = longer
            continue
        codes.append((known[prefix], width))
        known[longer] = len(known) + 2
        width = max(9, (len(known) + 2).bit_length())
        if len(known) + 2 >= 4094:
            codes.append((256, width))
            known, width = {bytes([k]): k for k in range(256)}, 9
        prefix = bytes([value])
    codes += [(known[prefix], width), (257, max(9, (len(known) + 3).bit_length()))]
    text = "".join(f"{code:0{size}b}" for code, size in codes)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def packbits(data: bytes) -> bytes:
    """Runs that are all literal: legal, if not small."""
    pieces = (data[k : k + 128] for k in range(0, len(data), 128))
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


COMPRESSIONS: Mapping[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (1, bytes),
    "lzw": (5, lzw),
    "deflate": (8, zlib.compress),
    "old deflate": (32946, zlib.compress),
    "packbits": (32773, packbits),
}


@dataclass(frozen=True, kw_only=True)
class Tiff:
    """How a TIFF is to be written."""

    bits: int = 8
    photometric: int = 2
    order: str = "<"
    planar: bool = False
    compression: str = "none"
    predictor: bool = False
    tile_px: int = 0
    """0: strips"""
    rows_per_strip: int = 7
    extra: tuple[int, ...] = ()
    """ExtraSamples"""
    fill_order: int = 1
    orientation: int = 1
    tags: Mapping[int, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    """further tags, or others in place of those above: number -> (type, values); no values: the tag is left out"""

    def of(self, samples: Samples) -> bytes:
        """Return the file."""
        height, width, channels = samples.shape
        parts = self.parts(samples)
        tags: dict[int, tuple[str, tuple[int, ...]]] = {
            256: ("long", (width,)),
            257: ("long", (height,)),
            258: ("short", (self.bits,) * channels),
            259: ("short", (COMPRESSIONS[self.compression][0],)),
            262: ("short", (self.photometric,)),
            266: ("short", (self.fill_order,)),
            274: ("short", (self.orientation,)),
            277: ("short", (channels,)),
            284: ("short", (2 if self.planar else 1,)),
            317: ("short", (2 if self.predictor else 1,)),
            338: ("short", self.extra),
        }
        if self.tile_px:
            tags |= {322: ("long", (self.tile_px,)), 323: ("long", (self.tile_px,))}
        else:
            tags |= {278: ("long", (self.rows_per_strip,))}
        return self._file(tags, parts)

    def parts(self, samples: Samples) -> list[bytes]:
        """Return what strips or tiles hold."""
        planes = np.split(samples, samples.shape[2], 2) if self.planar else [samples]
        return [self._part(part) for plane in planes for part in self._parts(plane)]

    def _parts(self, plane: Samples) -> list[Samples]:
        height, width, channels = plane.shape
        if not self.tile_px:
            return [plane[top : top + self.rows_per_strip] for top in range(0, height, self.rows_per_strip)]
        side = self.tile_px
        whole = np.zeros((-(-height // side) * side, -(-width // side) * side, channels), plane.dtype)
        whole[:height, :width] = plane
        tops, lefts = range(0, len(whole), side), range(0, whole.shape[1], side)
        return [whole[top : top + side, left : left + side] for top in tops for left in lefts]

    def _part(self, samples: Samples) -> bytes:
        if self.predictor:
            samples = np.concatenate([samples[:, :1], samples[:, 1:] - samples[:, :-1]], 1)
        raw = packed(samples.reshape(len(samples), -1), self.bits, self.order)
        data = COMPRESSIONS[self.compression][1](raw)
        if self.fill_order == 2:
            data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little").tobytes()
        return data

    def _file(self, tags: dict[int, tuple[str, tuple[int, ...]]], parts: list[bytes]) -> bytes:
        offsets = [8 + sum(map(len, parts[:k])) for k in range(len(parts))]
        places, sizes = (324, 325) if self.tile_px else (273, 279)
        tags |= {places: ("long", tuple(offsets)), sizes: ("long", tuple(map(len, parts))), **self.tags}
        body = b"".join(parts)
        body += b"\0" * (len(body) % 2)
        entries, long_values = [], b""
        present = sorted((tag, kind, values) for tag, (kind, values) in tags.items() if values)
        after = 8 + len(body) + 2 + 12 * len(present) + 4
        for tag, kind, values in present:
            number, letter = _NUMBER_TYPES[kind]
            raw = struct.pack(f"{self.order}{len(values)}{letter}", *values)
            count = len(values) // (2 if kind == "rational" else 1)
            if len(raw) > 4:
                place = struct.pack(f"{self.order}I", after + len(long_values))
                long_values += raw + b"\0" * (len(raw) % 2)
            else:
                place = raw.ljust(4, b"\0")
            entries.append(struct.pack(f"{self.order}HHI", tag, number, count) + place)
        head = (b"II*\0" if self.order == "<" else b"MM\0*") + struct.pack(f"{self.order}I", 8 + len(body))
        directory = struct.pack(f"{self.order}H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
        return head + body + directory + long_values


_PNG_COLOURS = {"grey": 0, "rgb": 2, "palette": 3, "grey alpha": 4, "rgb alpha": 6}
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
"""first column, first row, step of columns, step of rows"""


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@dataclass(frozen=True, kw_only=True)
class Png:
    """How a PNG is to be written."""

    bits: int = 8
    colour: str = "rgb"
    interlaced: bool = False
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    """between header and pixels"""

    def of(self, samples: Samples) -> bytes:
        """Return the file."""
        height, width, _ = samples.shape
        header = struct.pack(
            ">IIBBBBB", width, height, self.bits, _PNG_COLOURS[self.colour], 0, 0, int(self.interlaced)
        )
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in _ADAM7] if self.interlaced else [samples]
        raw = b"".join(self._rows(part) for part in passes if part.size)
        parts = [(b"IHDR", header), *self.chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)

    def _rows(self, part: Samples) -> bytes:
        """Every second row is filtered by `up`, so that filters take part."""
        rows = packed(part.reshape(len(part), -1), self.bits, ">")
        lines = np.frombuffer(rows, np.uint8).reshape(len(part), -1)
        above = np.concatenate([np.zeros_like(lines[:1]), lines[:-1]])
        filtered = [
            b"\2" + (line - over).tobytes() if k % 2 else b"\0" + line.tobytes()
            for k, (line, over) in enumerate(zip(lines, above, strict=True))
        ]
        return b"".join(filtered)


@dataclass(frozen=True, kw_only=True)
class Bmp:
    """How a BMP is to be written: header of 40, 108 or 124 bytes; 24 or 32 bits."""

    header_bytes: int = 40
    top_down: bool = False

    def of(self, samples: Samples) -> bytes:
        """Return the file: three channels give 24 bits, four give 32."""
        height, width, channels = samples.shape
        stored = samples[:, :, [2, 1, 0, 3][:channels]]
        rows = stored.reshape(height, -1)
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
        raw = (rows if self.top_down else rows[::-1]).tobytes()
        fields = channels == 4 and self.header_bytes > 40
        header = struct.pack(
            "<IiiHHIIiiII", self.header_bytes, width, -height if self.top_down else height, 1, 8 * channels,
            3 if fields else 0, len(raw), 2835, 2835, 0, 0,
        )  # fmt: skip
        if fields:
            header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs"
        header = header.ljust(self.header_bytes, b"\0")
        return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(raw), 0, 0, 14 + len(header)) + header + raw
