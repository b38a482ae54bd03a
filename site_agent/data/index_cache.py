"""What indexing learned from the image files, so that a file that did not change is not decoded to be indexed again.

The file has a line that names the version, then a line per image: the CRC-32 of the rest, and the rest as JSON. A line
that is damaged is passed over, and its image is looked at anew. Rules of the folder: see `cache_files`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

from fedcervix.json_text import parsed
from site_agent.data import cache_files
from site_agent.images.appearance import Appearance

LOOKS_VERSION = 3
"""of what a look holds; decoded images are not made again for it"""


@dataclass(frozen=True, slots=True)
class ImageFingerprint:
    """What indexing learned from decoding one file, and how to tell that the file is still the same."""

    size_bytes: int
    mtime_ns: int
    digest: str
    """SHA-256 of the decoded pixels, 64 hexadecimal digits"""
    thumbnail: bytes
    """as `thumbnails.thumbnail` makes it, or none"""
    oddities: tuple[str, ...] = ()
    """names of the checks of `quality` that hold"""
    size_px: tuple[int, int] = (0, 0)
    """width and height, upright"""
    appearance: Appearance | None = None


def read_looks(cache_folder: Path, key: str) -> dict[str, ImageFingerprint]:
    """Return what was seen under this key (image path -> look); nothing if there is no usable file."""
    try:
        with _file(cache_folder, key).open("rb") as lines:
            if next(lines, b"") != _head():
                return {}
            return dict(found for line in lines if (found := _parsed(line)) is not None)
    except OSError:
        return {}


def write_looks(cache_folder: Path, key: str, looks: Mapping[str, ImageFingerprint]) -> None:
    """Keep what was seen. A disk that does not take it is logged and otherwise ignored."""
    try:
        cache_files.put(_file(cache_folder, key), _lines(looks))
    except OSError as error:
        cache_files.not_kept(error)


def _file(cache_folder: Path, key: str) -> Path:
    return cache_folder / f"index-{hashlib.sha256(key.encode()).hexdigest()[:16]}.looks"


def _head() -> bytes:
    return json.dumps({"version": cache_files.VERSION, "looks": LOOKS_VERSION}, allow_nan=False).encode() + b"\n"


def _lines(looks: Mapping[str, ImageFingerprint]) -> Iterator[bytes]:
    yield _head()
    for path, look in looks.items():
        seen = None if look.appearance is None else astuple(look.appearance)
        known = [look.size_bytes, look.mtime_ns, look.digest, look.thumbnail.hex(), look.oddities, look.size_px, seen]
        text = json.dumps([path, *known], allow_nan=False).encode()
        yield _check(text) + b" " + text + b"\n"


def _parsed(line: bytes) -> tuple[str, ImageFingerprint] | None:
    check, _, text = line.removesuffix(b"\n").partition(b" ")
    if check != _check(text):
        return None
    path, size_bytes, mtime_ns, digest, thumbnail, oddities, size_px, seen = parsed(text)  # the checksum: we wrote it
    shown, known = bytes.fromhex(thumbnail), None if seen is None else Appearance.of(seen)
    return path, ImageFingerprint(size_bytes, mtime_ns, digest, shown, tuple(oddities), tuple(size_px), known)


def _check(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
