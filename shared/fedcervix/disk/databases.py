"""SQLite files: their errors as FedcervixErrors, with a likely cause and a next step for each kind; copies of them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fedcervix.disk.descriptors import used_up
from fedcervix.disk.ownership import denied
from fedcervix.errors import FullDiskError, StorageError

FAULTS: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: (
        "the disk is full",
        "free some space (df -h {folder}) and try again; nothing that was acknowledged is lost",
    ),
    sqlite3.SQLITE_IOERR: ("the disk is full or failing", "check the disk (df -h {folder}, dmesg), then try again"),
    sqlite3.SQLITE_READONLY: ("the file or its file system is read-only", "check it: ls -l {path}; mount"),
    sqlite3.SQLITE_CANTOPEN: ("the home folder is missing or not accessible", "check its path: ls -ld {folder}"),
    sqlite3.SQLITE_BUSY: ("another process uses the file", "end other `coordinator` commands and try again"),
    sqlite3.SQLITE_NOTADB: ("the file is damaged, or is a different file", "restore the home folder from a backup"),
    sqlite3.SQLITE_CORRUPT: ("the file is damaged", "restore the home folder from a backup"),
}
"""primary result code -> (likely cause, next step)"""
NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE)
"""extended result codes of a full disk: of the file itself, of the shared memory beside it, and of a quota"""
UNKNOWN = ("the file does not have the expected form", "restore the home folder from a backup")
OF_ACCESS = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)

OF_FILES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)
"""it needs another file beside the one"""


@contextmanager
def translated(path: Path, what: str) -> Iterator[None]:
    """Translate SQLite's errors about `what` (such as "the journal"). Raises StorageError, FullDiskError."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        cause, next_step = _explained(path, code & 0xFF)
        kind = FullDiskError if code in NO_ROOM else StorageError
        raise kind(f"{what} {path} cannot be used: {error}", cause=cause, next_step=next_step) from error


@contextmanager
def reader(path: Path, what: str) -> Iterator[sqlite3.Connection]:
    """Open a file that is there, to read it. Raises StorageError."""
    with translated(path, what):
        opened = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=30)
        with closing(opened) as connection:
            yield connection


def data_version(connection: sqlite3.Connection) -> int:
    """Return a number that is another one when another connection has changed the file since."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def copy_database(connection: sqlite3.Connection, to: Path) -> None:
    """Copy the file as it is at one moment, also while others write it. `to` must not be there yet, or be empty."""
    connection.execute("VACUUM INTO ?", (str(to),))


def _explained(path: Path, code: int) -> tuple[str, str]:
    """Return cause and next step of a primary result code; a wrong user is told as such, and so is a lack of files."""
    if path.is_dir():
        return "the path names a folder, not a file", f"check the path: ls -la {path}"
    if code in OF_FILES and (found := used_up()):
        return found
    if code in OF_ACCESS and not _usable(path):
        return denied(path)
    cause, next_step = FAULTS.get(code, UNKNOWN)
    return cause, next_step.format(path=path, folder=path.parent)


def _usable(path: Path) -> bool:
    """Say whether this user may write the file, and files beside it, as SQLite does."""
    effective = os.access in os.supports_effective_ids
    return all(os.access(place, os.R_OK | os.W_OK, effective_ids=effective) for place in (path, path.parent))
