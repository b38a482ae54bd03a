"""Translates the operating system's errors about a disk into FedcervixErrors."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from fedcervix import __version__
from fedcervix.core.formats import UnknownFormat
from fedcervix.disk.descriptors import USED_UP, used_up
from fedcervix.disk.ownership import denied
from fedcervix.errors import FormatError, FullDiskError, StorageError

T = TypeVar("T")

LATER = "a later version of fedcervix wrote it"
INSTALL = "install that version again, or a later one"

FULL = (errno.ENOSPC, errno.EDQUOT)


Verb = Literal["read", "write", "use"]


@contextmanager
def disk(path: Path | str, verb: Verb) -> Iterator[None]:
    """Translate an OSError into a StorageError that says what to do: a FullDiskError where there is no room.

    Raises StorageError.
    """
    try:
        yield
    except OSError as error:
        raise known(error, path, verb) from error


def known(error: OSError, path: Path | str, verb: Verb) -> StorageError:
    """Return an OSError as a StorageError that says what to do."""
    what = f"cannot {verb} {path}: {error.strerror or error}"
    if error.errno in FULL:
        return FullDiskError(
            what,
            cause="the disk is full",
            next_step=f"free some space (df -h {Path(path).parent}); nothing was lost",
        )
    if isinstance(error, PermissionError):
        denied_at = Path(error.filename if isinstance(error.filename, str) else path)
        cause, next_step = denied(denied_at, writing=verb == "write")
    elif found := USED_UP.get(error.errno or 0) or used_up():
        cause, next_step = found
    else:
        nearest = nearest_existing(path)
        cause, next_step = _cause(error, nearest), f"check the path: ls -la {shlex.quote(str(nearest))}"
    return StorageError(what, cause=cause, next_step=next_step)


def damaged(file: Path, why: object, *, next_step: str) -> StorageError:
    """Return the error for a file of ours whose content cannot be used; one of a later version is called so."""
    if isinstance(why, UnknownFormat):
        return later(file, why)
    return StorageError(
        f"{file} is damaged: {why}",
        cause="it was edited by hand, its disk was full, or the disk is failing",
        next_step=next_step,
    )


def read_file(file: Path) -> bytes:
    """Return what is in a file. Raises StorageError."""
    with disk(file, "read"):
        return file.read_bytes()


def read_back(file: Path, read: Callable[[bytes], T], *, next_step: str) -> T:
    """Return what `read` makes of a file of ours. Raises StorageError where it cannot be read or is damaged."""
    content = read_file(file)
    try:
        return read(content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(file, error, next_step=next_step) from error


def read_kept(file: Path, read: Callable[[bytes], T], *, missing: T, next_step: str) -> T:
    """Return what `read` makes of a file of ours; `missing` where there is none. Raises StorageError."""
    return read_back(file, read, next_step=next_step) if file.exists() else missing


def nearest_existing(path: Path | str) -> Path:
    """Return the path where it exists, else the nearest folder above it that does. Raises nothing."""
    absolute = Path(path).absolute()
    return next((place for place in (absolute, *absolute.parents) if _exists(place)), Path("/"))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a disk that does not answer
        return False


def _cause(error: OSError, nearest: Path) -> str:
    """Return the likely cause of an error that is neither a full disk nor a missing permission."""
    if isinstance(error, NotADirectoryError):
        return f"{nearest} is a file, not a folder"
    return {
        errno.ENOENT: "the path is misspelt, a folder of it is missing, or its disk is not mounted",
        errno.EISDIR: "the path names a folder, not a file",
        errno.EEXIST: "a file of this name exists already",
        errno.EFBIG: "this process or the file system limits the size of files (ulimit -f)",
        errno.EROFS: "the file system is mounted read-only",
        errno.ENAMETOOLONG: "the name is longer than the file system allows",
    }.get(error.errno or 0, "the disk or the network drive does not answer")


def later(path: Path, error: UnknownFormat) -> FormatError:
    """Return what is said of a file that a later version wrote."""
    return FormatError(f"{path} cannot be read by fedcervix {__version__}: {error}", cause=LATER, next_step=INSTALL)
