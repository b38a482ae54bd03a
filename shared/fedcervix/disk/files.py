"""How files and folders are created: readable only by their owner, and a file completely or not at all.

Rules
1. Files are made with mode 0600 and folders with 0700, whatever the umask is. To share a file, copy it or change
   its mode by hand.
2. A file appears under its name when it is complete. Until then the old file, if any, stays as it was.
3. An unfinished file is always a new file, never a link. Its name is random, so another user of the machine cannot put
   something in its place, even in a folder where all can write (/tmp). Only if one process at a time writes a path, the
   name derives from the path: then the remains of a killed process are found and overwritten.
4. A large file is written piece by piece, and its digest is computed at the same time: it is never completely in
   memory.
5. A program calls `keep_private` when it starts: this covers the files that libraries make (SQLite, Matplotlib, ONNX),
   and the processes that it starts.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedWriter, FileIO
from pathlib import Path

from fedcervix.disk.storage import disk, known
from fedcervix.errors import StorageError

FILE_MODE = 0o600
FOLDER_MODE = 0o700
WRITE_AHEAD_BYTES = 4 * 2**20
BEHIND_BYTES = 2**20
"""of a buffer that is hashed and written while the next one is filled: it holds any block of a model"""
COPY_BYTES = 2**20
CANNOT_SYNC_FOLDERS = (errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES)
"""what network file systems say, and folders that this user may not list: there is then nothing to wait for"""


def keep_private() -> None:
    """Let this process, and those that it starts, make files and folders that only their owner may use."""
    os.umask(0o777 & ~FOLDER_MODE)


def make_folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing, each 0700; return its path. Raises StorageError.

    A folder that is there keeps its mode.
    """
    with disk(path, "write"):
        missing = [path, *path.parents]
        for folder in reversed([folder for folder in missing if not folder.is_dir()]):
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return path


UNFINISHED = ".new"


def aside(path: Path) -> Path:
    """Return a path in the folder of `path` for an unfinished file: hidden, with a random name."""
    return path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")


def private(path: str, flags: int) -> int:
    """Open a file for `open(path, mode, opener=private)`: where it is new, it is made with mode 0600."""
    return os.open(path, flags, FILE_MODE)


def _anew(path: str, flags: int) -> int:
    """Open a file that must not exist, 0600; links are not followed. Raises OSError."""
    return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)


# ------------------------------------------------------------------------------------------------ writing


class Sink:
    """A file that is being written: its bytes go to the disk and into the digest.

    `hasher` has perhaps hashed something before them. Without `sync` nothing is to reach the disk soon.
    """

    def __init__(self, file: BufferedWriter, hasher: hashlib._Hash | None = None, *, sync: bool = True) -> None:
        self._file = file
        self._sha256 = hasher or hashlib.sha256()
        self._ahead = WriteAhead(file.fileno()) if sync else None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes. Raises OSError."""
        self._file.write(data)
        self._sha256.update(data)
        if self._ahead is not None:
            self._ahead.wrote(len(data))

    @property
    def digest(self) -> str:
        """SHA-256 of all that was written, hexadecimal."""
        return self._sha256.hexdigest()


class Behind:
    """Hashes and writes on a thread, a buffer at a time, while the next one is filled.

    A buffer holds many blocks: to wake a thread takes as long as to compute a small one.
    """

    def __init__(self, sink: Sink, thread: ThreadPoolExecutor) -> None:
        self._sink, self._thread = sink, thread
        self._buffers = itertools.cycle(memoryview(bytearray(BEHIND_BYTES)) for _ in range(2))
        self._buffer, self._filled = next(self._buffers), 0
        self._on_its_way: Future[None] | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes, which may change afterwards. Raises the error of the thread."""
        for start in range(0, len(data), BEHIND_BYTES):
            part = data[start : start + BEHIND_BYTES]
            self.room(len(part))[:] = part

    def room(self, count_bytes: int) -> memoryview:
        """Return where to put the next bytes, at most BEHIND_BYTES; fill it before the next call."""
        if self._filled + count_bytes > BEHIND_BYTES:
            self.hand_over()
        start, self._filled = self._filled, self._filled + count_bytes
        return self._buffer[start : self._filled]

    def hand_over(self) -> None:
        """Pass the filled buffer to the thread. Raises its error from the buffer before."""
        self.finish()
        self._on_its_way = self._thread.submit(self._sink.write, self._buffer[: self._filled])
        self._buffer, self._filled = next(self._buffers), 0

    def finish(self) -> None:
        """Wait for the thread. Raises its error."""
        if self._on_its_way is not None:
            self._on_its_way.result()


@contextmanager
def written_behind(sink: Sink) -> Iterator[Behind]:
    """Write to a sink on another thread; at the end all of it is written. Raises the error of that thread."""
    with ThreadPoolExecutor(1) as thread:
        behind = Behind(sink, thread)
        yield behind
        behind.hand_over()
        behind.finish()


class WriteAhead:
    """Lets the disk begin with what was written to a file, so that the fsync at its end finds little left to wait for.

    Linux begins to write out the range that it is told will not be needed (posix_fadvise(2)); what is not on the disk
    yet stays in memory. Elsewhere nothing happens, and the fsync takes as long as it takes.
    """

    def __init__(self, descriptor: int, *, written_bytes: int = 0) -> None:
        self._descriptor, self._written, self._begun = descriptor, written_bytes, written_bytes

    def wrote(self, count_bytes: int) -> None:
        """So many bytes were appended."""
        self._written += count_bytes
        if self._written - self._begun >= WRITE_AHEAD_BYTES and hasattr(os, "posix_fadvise"):
            length = self._written - self._begun
            os.posix_fadvise(self._descriptor, self._begun, length, os.POSIX_FADV_DONTNEED)
            self._begun = self._written


@contextmanager
def in_place_of(path: Path, *, sole_writer: bool = False) -> Iterator[Path]:
    """Yield where to make a file, which takes the place of `path` when the block ends well and is removed if not.

    `sole_writer`: one process at a time writes this path (rule 3). Raises OSError.
    """
    new = path.with_name(f".{path.name}.part") if sole_writer else aside(path)
    new.unlink(missing_ok=True)
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def replacing(
    path: Path, *, sync: bool = True, sole_writer: bool = False, hasher: hashlib._Hash | None = None
) -> Iterator[Sink]:
    """Do as `writing` does, for callers that go on without the file. Raises OSError."""
    with in_place_of(path, sole_writer=sole_writer) as new, open(new, "wb", opener=_anew) as file:
        yield Sink(file, hasher, sync=sync)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    if sync:
        sync_path(path.parent)


@contextmanager
def writing(
    path: Path, *, sync: bool = True, sole_writer: bool = False, hasher: hashlib._Hash | None = None
) -> Iterator[Sink]:
    """Write a file that takes the place of `path` when the block ends well, and leaves no trace when it does not.

    Without `sync` a killed process changes nothing of that; a machine that loses its power within seconds may leave the
    old content, or on some file systems an empty file or one of zero bytes. Large files have a `sole_writer` (see
    `in_place_of`), or each killed process would cost their size. Raises StorageError.
    """
    with disk(path, "write"), replacing(path, sync=sync, sole_writer=sole_writer, hasher=hasher) as out:
        yield out


def check_writable(path: Path) -> None:
    """Raise StorageError where a file cannot be made in the folder of `path`: before hours of work, not after them."""
    with disk(path, "write"), tempfile.TemporaryFile(dir=path.parent):
        pass


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Write a large file piece by piece as the sole writer (see `writing`); return the SHA-256 of its bytes.

    A thread hashes and writes while `parts` makes the next ones. Raises StorageError, and what `parts` raises.
    """
    with writing(path, sole_writer=True) as out, written_behind(out) as behind:
        for part in parts:
            behind.write(part)
    return out.digest


def copy_file(source: Path, to: Path) -> str:
    """Copy a large file, as `write_parts` writes one; return the SHA-256 of its bytes. Raises StorageError."""
    with opened(source) as file:
        return write_parts(to, iter(lambda: file.read(COPY_BYTES), b""))


def write_whole(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file: whatever happens, either the old or the new content is there (see `writing`). Raises StorageError.

    Its mode is 0600.
    """
    with writing(path, sync=sync) as out:
        out.write(data)


def write_secret(path: Path, data: bytes) -> None:
    """Write a key, or a file that is as secret as one: 0600, through no link of another user. Raises StorageError."""
    write_whole(path, data)


def write_new(path: Path, data: bytes) -> bool:
    """Write a file unless one of this name, or a link, is there; return whether it was written. Raises StorageError."""
    with disk(path, "write"):
        try:
            file = open(path, "wb", opener=_anew)  # noqa: SIM115 (closed below)
        except FileExistsError:
            return False
        try:
            with file as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        except OSError:
            path.unlink(missing_ok=True)  # a part of it would be taken for the whole
            raise
        sync_path(path.parent)
    return True


def append_line(path: Path, line: str, *, sync: bool) -> None:
    """Append a line to a file, made if it is missing; with `sync` the disk then has it. Raises StorageError.

    The line break goes before the line: the last one may have been torn. Empty lines are to be expected.
    """
    rest = memoryview(f"\n{line}".encode())
    with disk(path, "write"), open(path, "ab", buffering=0, opener=private) as out:
        while rest:  # a disk that has room for a part takes that part
            rest = rest[out.write(rest) :]
        if sync:
            os.fsync(out.fileno())


def sync_path(path: Path) -> None:
    """Have the disk hold what was written to a file, or the names in a folder, which a power cut may else forget.

    Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC_FOLDERS or not path.is_dir():
            raise


# ------------------------------------------------------------------------------------------------ reading


@contextmanager
def opened(path: Path) -> Iterator[FileIO]:
    """Open a file for unbuffered reading; close it at the end. Raises StorageError if it cannot be opened."""
    with disk(path, "read"):
        file = path.open("rb", buffering=0)
    with file:
        yield file


def read_at(file: FileIO, start: int, into: memoryview) -> None:
    """Fill `into` with the bytes of `file` from offset `start`. Raises StorageError."""
    descriptor, filled = file.fileno(), 0
    try:  # not `disk`: a round reads ten thousand blocks, and what that takes is seen
        while filled < len(into):
            count = os.preadv(descriptor, [into[filled:] if filled else into], start + filled)
            if not count:
                raise StorageError(
                    f"{file.name} ends before byte {start + len(into)}",
                    cause="the file was cut while it was being read",
                    next_step="check the disk and start again; the file is fetched again",
                )
            filled += count
    except OSError as error:
        raise known(error, str(file.name), "read") from error


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file (hexadecimal), read in blocks. Raises StorageError."""
    with disk(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
