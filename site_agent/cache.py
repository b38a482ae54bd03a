"""What a site keeps on disk so that no image is decoded twice: an index of what was seen, and squares of pixels.

Rules
1. A cache may be deleted at any time; it is only ever a shortcut.
2. What is damaged, older or made by another version is ignored and made again.
3. A disk that is full or not writable costs time, not the run: work goes on in memory and a warning is logged.
4. Files appear whole or not at all (temporary name, fsync, rename), readable by their owner only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL
import structlog

from fedcervix.errors import DataError
from fedcervix.plan import Fit
from site_agent.images import PIXELS_MAX, Pixels, Progress, UnreadableError, decode, each, pixel_digest, silent, square

VERSION = f"1 pillow {PIL.__version__}"
"""of what is stored: another decoder may decode to other pixels"""
PIXEL_FILES_MAX = 12
"""kept in one folder; the least recently used go first"""
_CHUNK_BYTES = 1 << 20

log = structlog.get_logger(__name__)


class Picture(Protocol):
    """What is needed to find an image and to know it again."""

    @property
    def path(self) -> str:
        """Below the collection's folder."""

    @property
    def digest(self) -> str:
        """SHA-256 of the decoded pixels."""


@dataclass(frozen=True, slots=True)
class Look:
    """What indexing learnt from decoding one file, and how to tell that the file is still the same."""

    size_bytes: int
    mtime_ns: int
    digest: str
    thumbnail: bytes


def read_looks(cache_folder: Path, key: str) -> dict[str, Look]:
    """Return what was seen under this key (image path -> look); nothing if there is no usable file."""
    try:
        kept = json.loads(_looks_file(cache_folder, key).read_text("utf-8"))
        looks = kept["looks"] if kept["version"] == VERSION else {}
        return {path: _look(fields) for path, fields in looks.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def write_looks(cache_folder: Path, key: str, looks: Mapping[str, Look]) -> None:
    """Keep what was seen. A disk that does not take it is logged and otherwise ignored."""
    fields = {path: {**dataclasses.asdict(look), "thumbnail": look.thumbnail.hex()} for path, look in looks.items()}
    text = json.dumps({"version": VERSION, "looks": fields}, sort_keys=True)
    try:
        _put(_looks_file(cache_folder, key), text.encode())
    except OSError as error:
        _warn_not_kept(error)


def load(
    collection_folder: Path,
    images: Sequence[Picture],
    side_px: int,
    fit: Fit,
    cache_folder: Path,
    on_progress: Progress = silent,
    *,
    pixels_max: int = PIXELS_MAX,
) -> Pixels:
    """Return the images as (n, side_px, side_px, 3) 8-bit RGB, in the order given.

    The array may be backed by a private (copy-on-write) mapping of the cache file. Raises DataError if an image
    vanished or changed since the collection was indexed.
    """
    shape = (len(images), side_px, side_px, 3)
    kept = cache_folder / f"pixels-{_pixels_key(images, side_px, fit)}.npy"
    found = _read_pixels(kept, shape)
    if found is not None:
        return found
    pixels = np.empty(shape, np.uint8)

    def decode_one(k: int) -> None:
        pixels[k] = _decode_square(collection_folder / images[k].path, images[k], side_px, fit, pixels_max)

    each(decode_one, range(len(images)), on_progress)
    _write_pixels(kept, pixels)
    return pixels


def _looks_file(cache_folder: Path, key: str) -> Path:
    return cache_folder / f"index-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _look(fields: Mapping[str, Any]) -> Look:
    look = Look(fields["size_bytes"], fields["mtime_ns"], str(fields["digest"]), bytes.fromhex(fields["thumbnail"]))
    if len(look.digest) != 64 or len(look.thumbnail) not in (0, 256):
        raise ValueError("not a look")
    return look


def _pixels_key(images: Sequence[Picture], side_px: int, fit: Fit) -> str:
    text = "\n".join([VERSION, str(side_px), fit, *(image.digest for image in images)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _decode_square(path: Path, image: Picture, side_px: int, fit: Fit, pixels_max: int) -> Pixels:
    try:
        pixels = decode(path, pixels_max=pixels_max)
    except UnreadableError as error:
        raise _changed(image, error.reason) from error
    if pixel_digest(pixels) != image.digest:
        raise _changed(image, "its pixels are others")
    return square(pixels, side_px, fit)


def _changed(image: Picture, reason: str) -> DataError:
    return DataError(
        f"{image.path} is no longer what it was when the collection was indexed: {reason}",
        cause="the image folder was edited, or its disk is not mounted any more",
        next_step="put the file back, or check the manifest again: site-agent data check",
    )


def _read_pixels(kept: Path, shape: tuple[int, ...]) -> Pixels | None:
    """Return the mapped array, or None unless file, checksum, type and shape are all as they should be."""
    try:
        if _checksum_file(kept).read_text("ascii") != _file_digest(kept):
            return None
        pixels = np.load(kept, mmap_mode="c" if shape[0] else None, allow_pickle=False)
        os.utime(kept)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _write_pixels(kept: Path, pixels: Pixels) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(pixels))
    digest = hashlib.sha256(header.getvalue())
    digest.update(pixels.data)
    try:
        _put(kept, header.getvalue(), pixels.data)
        _put(_checksum_file(kept), digest.hexdigest().encode())
        _prune(kept.parent)
    except OSError as error:
        _warn_not_kept(error)


def _put(path: Path, *parts: bytes | memoryview) -> None:
    """Put a file of these parts in place, whole or not at all (a full disk keeps no rest of it). Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _checksum_file(kept: Path) -> Path:
    return kept.with_suffix(".sha256")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _prune(cache_folder: Path) -> None:
    """Keep the folder bounded: drop the pixel files that were not used for longest."""
    newest_first = sorted(cache_folder.glob("pixels-*.npy"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in newest_first[PIXEL_FILES_MAX:]:
        with contextlib.suppress(OSError):
            file.unlink()
            _checksum_file(file).unlink()


def _warn_not_kept(error: OSError) -> None:
    log.warning("cache_not_kept", reason=error.strerror or type(error).__name__)
