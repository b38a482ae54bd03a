"""Decoded images, all of one size, wherever they lie: in memory where that is large enough, else on the disk.

Every image is decoded once, whatever it is used for, and kept at its size and fit (`pixel_store`): by indexing where it
knows the size (`keeper`), else by `load`. A second start, another split or a grown collection decodes only what is not
there yet.

Memory: `load` takes, beside what it returns in memory (n S S 3 bytes, `memory_bytes_max` at most),
- what threads have open: PIXELS_MAX pixels together, 24 bytes each at worst (`decode.opened`): 2.4 GB for pictures
  of 100 megapixels, 0.1 GB for eight threads on JPEGs of 2 megapixels;
- `pixel_store.COMMIT_BYTES` (64 MiB) of squares on their way to the disk;
- about 0.5 KB per image for names, digests and checksums.
Squares on the disk are mapped read-only: the system caches what there is room for, and takes that back at will.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from fedcervix.core.grouped import grouped
from fedcervix.core.plan import Fit
from fedcervix.disk.storage import FULL
from fedcervix.errors import DataError, FullDiskError, StorageError
from site_agent.data import cache_files
from site_agent.data.memory import available_bytes
from site_agent.data.pixel_arrays import Bytes, Gathered
from site_agent.data.pixel_store import Kind, Store, opened
from site_agent.data.pixels import Pixels
from site_agent.images import decode
from site_agent.images.decode import OnCount, each, pixel_digest, silent, square
from site_agent.images.preparation import PLAIN, Preparation
from site_agent.images.unreadable import UnreadableError

MEMORY_BYTES_MAX = 4 << 30
"""what `load` returns in memory unless it is told otherwise; never more than half of what is available"""
GOLDEN = (5**0.5 - 1) / 2
"""multiples of it lie far from each other, modulo 1"""
_READ_IMAGES = 64


class StoredImage(Protocol):
    """What is needed to find an image and to know it again."""

    @property
    def path(self) -> str:
        """Below the collection's folder."""

    @property
    def digest(self) -> str:
        """SHA-256 of the decoded pixels."""


def load(
    collection_folder: Path,
    images: Sequence[StoredImage],
    side_px: int,
    fit: Fit,
    cache_folder: Path,
    on_progress: OnCount = silent,
    *,
    prepared: Sequence[Preparation] = (),
    memory_bytes_max: int = MEMORY_BYTES_MAX,
) -> Pixels:
    """Return the images as (n, side_px, side_px, 3) 8-bit RGB, in the order given.

    `prepared` says how each is prepared (`preparation`); none: as they are. They are an array if they fit in
    `memory_bytes_max` and in half of the memory that is available, else `Gathered` from the disk. `on_progress` counts
    what has to be decoded. Every square that was kept is checked as it is loaded; what is damaged is decoded again.
    Afterwards neither image files nor cache are needed (the mapped file may be deleted, not shortened:
    `pixel_store`, rule 4). Raises DataError if an image vanished or changed since the collection was indexed,
    StorageError if squares fit neither in memory nor on the disk: FullDiskError if that lacks only room.
    """
    how = tuple(prepared) or (PLAIN,) * len(images)
    asked = _Asked(collection_folder, images, how, Kind(side_px, fit))
    digests = [one.key(bytes.fromhex(image.digest)) for image, one in zip(images, how, strict=True)]
    fits = len(images) * asked.kind.record_bytes <= min(memory_bytes_max, available_bytes() // 2)
    held = np.empty((len(images), side_px, side_px, 3), np.uint8) if fits else None
    with opened(cache_folder, asked.kind) as store:
        absent = _absent(store, digests, held)
        if held is None:
            _check_room(store, absent, cache_folder)
        _bring(asked, store, absent, held, on_progress)
        if held is None:
            _check_kept(store, absent, cache_folder)
            return _mapped(store, digests)
        if absent and store.why_not_kept is not None:
            cache_files.not_kept(store.why_not_kept)
        return held


@contextlib.contextmanager
def keeper(cache_folder: Path, kinds: Iterable[Kind]) -> Iterator[Callable[[str, Bytes], None]]:
    """Yield what keeps a decoded picture (digest, (H, W, 3) 8-bit RGB) as squares of these kinds, from any thread.

    `load` then need not decode it. What the disk does not take is not kept.
    """
    with contextlib.ExitStack() as opening:
        stores = [opening.enter_context(opened(cache_folder, kind)) for kind in sorted(set(kinds), key=astuple)]
        for store in stores:
            opening.callback(store.commit)

        def keep(digest: str, pixels: Bytes) -> None:
            for store in stores:
                if store.why_not_kept is None and not store.holds(key := bytes.fromhex(digest)):
                    store.put(key, square(pixels, store.kind.side_px, store.kind.fit))

        yield keep


@dataclass(frozen=True, slots=True)
class _Asked:
    """What `load` was asked for."""

    folder: Path
    images: Sequence[StoredImage]
    how: Sequence[Preparation]
    kind: Kind


def _bring(
    asked: _Asked, store: Store, absent: Mapping[bytes, list[int]], held: Bytes | None, on_progress: OnCount
) -> None:
    """Decode what is absent (digest -> places) into the store and into memory; stop where neither can hold it."""

    def bring(digest: bytes) -> None:
        if held is None and store.why_not_kept is not None:
            return
        places = absent[digest]
        found = np.empty((asked.kind.side_px, asked.kind.side_px, 3), np.uint8)
        if not store.read(digest, found):  # another process may have kept it meanwhile
            found = _decode_square(asked, places[0])
            store.put(digest, found)
        if held is not None:
            held[places] = found

    try:
        each(bring, _from_elsewhere(list(absent), os.getpid()), on_progress)
    finally:
        store.commit()  # also what was decoded before an error: the next start goes on there


def _from_elsewhere(digests: list[bytes], process: int) -> list[bytes]:
    """Begin at a place of one's own: of processes that decode the same images each then finds what others have kept."""
    start = int(len(digests) * (process * GOLDEN % 1))
    return digests[start:] + digests[:start]


def _mapped(store: Store, digests: Sequence[bytes]) -> Gathered:
    rows = np.fromiter((store.row(digest) for digest in digests), np.int64, len(digests))
    return Gathered((store.mapped(),), np.zeros(len(rows), np.int64), rows)


def _absent(store: Store, digests: Sequence[bytes], held: Bytes | None) -> dict[bytes, list[int]]:
    """Read what is kept, into `held` or only to check it; return what is not: digest -> its places in the order."""

    def read(begin: int) -> list[int]:
        part = range(begin, min(begin + _READ_IMAGES, len(digests)))
        scratch = np.empty((store.kind.side_px, store.kind.side_px, 3), np.uint8)
        return [k for k in part if not store.read(digests[k], scratch if held is None else held[k])]

    absent = itertools.chain.from_iterable(each(read, range(0, len(digests), _READ_IMAGES)))
    return grouped((digests[k], k) for k in absent)


def _decode_square(asked: _Asked, place: int) -> Bytes:
    image, how = asked.images[place], asked.how[place]
    try:
        with decode.opened(asked.folder / image.path) as seen:
            same = pixel_digest(seen.pixels) == image.digest
            found = how.square(seen.pixels, asked.kind.side_px, asked.kind.fit) if same else None
    except UnreadableError as error:
        raise _changed(image, error.reason) from error
    if found is None:
        raise _changed(image, "its pixels have changed")
    return found


def _changed(image: StoredImage, reason: str) -> DataError:
    return DataError(
        f"{image.path} has changed since the collection was indexed: {reason}",
        cause="the image folder was edited, or its disk is not mounted any more",
        next_step="put the file back, or check the manifest again: site-agent data check",
    )


def _check_room(store: Store, absent: Mapping[bytes, list[int]], cache_folder: Path) -> None:
    """Raise StorageError before hours of decoding, not after them, if the squares cannot be kept."""
    _check_kept(store, absent, cache_folder)
    if _new_bytes(store, absent) > store.free_bytes():
        raise _no_room(store, absent, cache_folder)


def _check_kept(store: Store, absent: Mapping[bytes, list[int]], cache_folder: Path) -> None:
    """Raise StorageError where the disk does not take what is absent."""
    if absent and store.why_not_kept is not None:
        raise _no_room(store, absent, cache_folder)


def _new_bytes(store: Store, absent: Mapping[bytes, list[int]]) -> int:
    return sum(not store.holds(digest) for digest in absent) * store.kind.record_bytes


def _no_room(store: Store, absent: Mapping[bytes, list[int]], cache_folder: Path) -> StorageError:
    needed, why = _new_bytes(store, absent), store.why_not_kept
    missing = max(0, needed - store.free_bytes())
    full = missing > 0 if why is None else why.errno in FULL
    return (FullDiskError if full else StorageError)(
        f"decoded images fit neither in memory nor in {cache_folder}: they need {needed:,} more bytes, "
        f"with no room for {missing:,} of these ({'the disk is full' if why is None else cache_files.reason(why)})",
        cause="the disk is full" if full else "this account has no permission to write there, or its quota is used up",
        next_step=f"free some space (df -h {cache_folder}), or allow more memory: [hardware] images_in_memory_gib",
    )
