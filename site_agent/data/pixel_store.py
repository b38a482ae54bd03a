"""One file of squares, which only grows, and an index that says which picture each of them shows.

    pixels-224-crop.squares   record after record: side x side x 3 bytes, RGB; no header
    pixels-224-crop.index     a line of JSON: version, side_px, fit, records, crc32 (of all that follows); then 36 bytes
                              a record: SHA-256 of the picture's pixels, CRC-32 of that digest and the square
    pixels-224-crop.lock      empty; held while squares are added

Rules
1. Squares are on the disk before an index names them, and the index is replaced whole. A process that is killed loses
   what it decoded since its last commit (COMMIT_BYTES at most); the next one goes on there.
2. A checksum is compared whenever a square is loaded. It covers digest and square, so it also guards the index, entry
   by entry. What does not agree counts as absent: it is decoded again, and written again in its place.
3. Several processes may add to one file. Each holds the lock for one commit, and begins it by reading what the others
   have added. A picture that was there meanwhile is written again in its place: the same bytes.
4. Where an index once named a record, nobody writes another picture, and nobody cuts the file there: what a trainer
   has mapped stays what it was. Only what no index named (the rest of a killed or failed write) is written over or cut
   off. Another version begins another file under the same name; the old one stays with those who have it open. So a
   trainer gets no SIGBUS by our doing, nor by deleting the cache. What remains is a foreign program that shortens the
   file in place, or a disk that cannot read it any more: that ends the process, and it goes on from its checkpoint.
5. The last SPARE_BYTES of a disk are left to those who need them more: checkpoints and journals.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedcervix.core.grouped import grouped
from fedcervix.core.plan import Fit
from fedcervix.disk.files import FILE_MODE
from fedcervix.json_text import parsed
from site_agent.data import cache_files

Bytes = npt.NDArray[np.uint8]

COMMIT_BYTES = 64 << 20
"""squares in memory, at most, that the disk does not have yet"""
SPARE_BYTES = 512 << 20
"""of the disk are never filled with squares"""
STORES_MAX = 6
"""kept in one folder; the least recently used go first"""
SQUARES, INDEX, LOCK = ".squares", ".index", ".lock"
_ENTRY = struct.Struct("<32sI")


@dataclass(frozen=True, slots=True)
class Kind:
    """What the squares of one file have in common."""

    side_px: int
    fit: Fit

    @property
    def record_bytes(self) -> int:
        """Size of one square."""
        return self.side_px * self.side_px * 3


@dataclass(frozen=True, slots=True)
class _Index:
    entries: bytes
    """as far as they can be read"""
    whole: bool
    """exactly as written: then it names every record that any index of this file ever named"""


class Store:
    """The squares of one kind, open. Reading and `put` may be called from several threads."""

    def __init__(self, stem: Path, kind: Kind, file: int | None, index: _Index, why_not_kept: OSError | None) -> None:
        self.kind = kind
        self.why_not_kept = why_not_kept
        """why squares cannot be added (any more), if so"""
        self._stem = stem
        self._file = file
        self._index = index
        self._records = _records(index.entries)
        self._waiting: dict[bytes, Bytes] = {}
        self._lock = threading.Lock()

    def row(self, digest: bytes) -> int:
        """Return which record a picture has; it must have been read, or put and committed."""
        return self._records[digest][0]

    def holds(self, digest: bytes) -> bool:
        """Say whether a picture has a record, sound or not."""
        return digest in self._records

    def read(self, digest: bytes, into: Bytes) -> bool:
        """Read a picture's square into a contiguous array; False if it is not there, or not as it was written."""
        found = self._records.get(digest)
        if found is None or self._file is None:
            return False
        number, check = found
        try:
            got = os.preadv(self._file, [into.data], number * self.kind.record_bytes)
        except OSError:
            return False
        return got == self.kind.record_bytes and _check(digest, into) == check

    def put(self, digest: bytes, square: Bytes) -> None:
        """Add a picture's square, or mend it. If the disk does not take it, `why_not_kept` says so from then on."""
        with self._lock:
            if self.why_not_kept is None:
                self._waiting[digest] = square
                if len(self._waiting) * self.kind.record_bytes >= COMMIT_BYTES:
                    self._commit()

    def commit(self) -> None:
        """Bring to the disk what was put."""
        with self._lock:
            if self.why_not_kept is None and self._waiting:
                self._commit()

    def free_bytes(self) -> int:
        """Return what the disk takes beside the spare bytes."""
        try:
            disk = os.statvfs(self._stem.parent)
        except OSError:
            return 0
        return max(0, disk.f_bavail * disk.f_frsize - SPARE_BYTES)

    def mapped(self) -> Bytes:
        """Return all squares on the disk as a read-only array (records, S, S, 3) that takes no memory of its own.

        Raises ValueError.
        """
        if self._file is None:
            raise ValueError("there is no file to map")
        count = os.fstat(self._file).st_size // self.kind.record_bytes
        view = mmap.mmap(self._file, count * self.kind.record_bytes, prot=mmap.PROT_READ)
        view.madvise(mmap.MADV_RANDOM)  # batches are drawn at random: reading ahead would read for nothing
        return np.frombuffer(view, np.uint8).reshape(count, self.kind.side_px, self.kind.side_px, 3)

    def _commit(self) -> None:
        try:
            with cache_files.locked(self._stem.with_suffix(LOCK)):
                self._add(self._open_file())
        except OSError as error:
            self.why_not_kept = error
        self._waiting.clear()

    def _open_file(self) -> int:
        """Return the file. Raises OSError where it was deleted, or replaced by that of another version."""
        there = self._stem.with_suffix(SQUARES).stat()
        if self._file is None or not os.path.samestat(os.fstat(self._file), there):
            raise FileNotFoundError(errno.ENOENT, "it was deleted meanwhile")
        return self._file

    def _add(self, file: int) -> None:
        """Write what waits, then the index that names it. Raises OSError, and leaves nothing half-written."""
        index = self._stem.with_suffix(INDEX)
        self._take_over(_read_index(index, self.kind))
        before = os.fstat(file).st_size
        entries = bytearray(self._index.entries)
        if not self._index.whole:  # rule 4: a record behind its end may have been named once
            entries = entries.ljust(-(-before // self.kind.record_bytes) * _ENTRY.size, b"\0")
        added = _numbered(self._waiting, self._records, len(entries) // _ENTRY.size)
        end = 1 + max(number for number, _ in added.values())
        if end * self.kind.record_bytes - before > self.free_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            for digest, (number, check) in added.items():
                _write_at(file, self._waiting[digest], number * self.kind.record_bytes)
                entries[number * _ENTRY.size : (number + 1) * _ENTRY.size] = _ENTRY.pack(digest, check)
            os.fsync(file)
            cache_files.put(index, [_head(self.kind, entries), bytes(entries)], sole_writer=True)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, before)  # rule 4: what is behind was never named
            raise
        self._index = _Index(bytes(entries), whole=True)
        self._records.update(added)

    def _take_over(self, index: _Index | None) -> None:
        """Learn what other processes have added since. Raises OSError where another version has."""
        if index is None:
            raise FileNotFoundError(errno.ENOENT, "it was replaced by another version")
        if index != self._index:
            self._index, self._records = index, _records(index.entries)


@contextlib.contextmanager
def opened(folder: Path, kind: Kind) -> Iterator[Store]:
    """Open the store of a kind, and make it where there is none. It may be only to read: see `why_not_kept`."""
    stem = folder / f"pixels-{kind.side_px}-{kind.fit}"
    with contextlib.ExitStack() as opening:
        file: int | None = None
        why_not_kept: OSError | None = None
        try:
            with cache_files.locked(stem.with_suffix(LOCK)):
                _tidy(stem)
                file = _open(stem, kind)
        except OSError as error:
            why_not_kept = error
            with contextlib.suppress(OSError):
                file = os.open(stem.with_suffix(SQUARES), os.O_RDONLY)
        if file is not None:
            opening.callback(os.close, file)
        index = _read_index(stem.with_suffix(INDEX), kind) or _Index(b"", whole=True)
        yield Store(stem, kind, file, index, why_not_kept)


def _open(stem: Path, kind: Kind) -> int:
    """Return the file, open for writing; an empty one where no index of this version is there. Raises OSError."""
    squares, index = stem.with_suffix(SQUARES), stem.with_suffix(INDEX)
    if _read_index(index, kind) is not None:
        os.utime(index)  # it is in use: see _tidy
    else:
        cache_files.put(squares, [], sole_writer=True)
        cache_files.put(index, [_head(kind, b"")], sole_writer=True)
    return os.open(squares, os.O_RDWR | os.O_CREAT, FILE_MODE)


def _tidy(stem: Path) -> None:
    """Remove what a killed process left half-written, and the stores that were not used for longest."""
    for rest in stem.parent.glob(f".{stem.name}.*"):
        rest.unlink(missing_ok=True)
    files = stem.parent.glob("pixels-*")
    stores = grouped((file.stem, file) for file in files if file.suffix != LOCK and file.stem != stem.name)
    newest_first = sorted(stores.values(), key=lambda files: max(map(_mtime_ns, files)), reverse=True)
    for file in itertools.chain.from_iterable(newest_first[STORES_MAX - 1 :]):
        file.unlink(missing_ok=True)


def _mtime_ns(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def _head(kind: Kind, entries: bytes | bytearray) -> bytes:
    fields = {"version": cache_files.VERSION, "side_px": kind.side_px, "fit": kind.fit}
    return (
        json.dumps(
            {**fields, "records": len(entries) // _ENTRY.size, "crc32": zlib.crc32(entries)}, allow_nan=False
        ).encode()
        + b"\n"
    )


def _read_index(path: Path, kind: Kind) -> _Index | None:
    """Return what can be read of an index of this version and kind; None where there is none."""
    try:
        head, _, entries = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if head + b"\n" == _head(kind, entries):
        return _Index(entries, whole=True)
    try:
        fields = parsed(head)
        same = all(fields[key] == value for key, value in parsed(_head(kind, b"")).items() if key in _SAME)
    except (ValueError, KeyError, TypeError):
        return None
    return _Index(entries[: len(entries) // _ENTRY.size * _ENTRY.size], whole=False) if same else None


_SAME = ("version", "side_px", "fit")


def _records(entries: bytes) -> dict[bytes, tuple[int, int]]:
    """Return digest -> (number, checksum)."""
    return {digest: (number, check) for number, (digest, check) in enumerate(_ENTRY.iter_unpack(entries))}


def _numbered(
    squares: Mapping[bytes, Bytes], known: Mapping[bytes, tuple[int, int]], end: int
) -> dict[bytes, tuple[int, int]]:
    """Give each square a number, the one it has or the next, and its checksum."""
    new = itertools.count(end)
    return {
        digest: (known[digest][0] if digest in known else next(new), _check(digest, square))
        for digest, square in squares.items()
    }


def _check(digest: bytes, square: Bytes) -> int:
    return zlib.crc32(square.data, zlib.crc32(digest))


def _write_at(file: int, square: Bytes, offset: int) -> None:
    rest = square.data.cast("B")
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written
