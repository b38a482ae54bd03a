"""Files of other versions: which a version reads, how it brings an older database up to date, and what it refuses.

docs/formats.md lists every file that is kept, its format and its rule.

Rules
1. A later format is refused in one sentence: the file, both formats, and the backup that lies beside it.
2. A database of an earlier format is copied whole (`backup_of`, 0600) before it is changed. The copy and all changes
   are one transaction: nobody writes in between, and a process that is killed leaves the file in its old format or in
   the new one.
3. A file that is damaged is not taken for one of another version: only a number says which version wrote it.
4. To look at a database changes nothing: of an earlier format, a copy in memory is brought up to date.
5. Nobody upgrades a file under a process of an earlier version that uses it: see `alone` of `bring_up`.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from fedcervix.core.formats import FIRST, UnknownFormat
from fedcervix.disk.databases import copy_database, reader
from fedcervix.disk.files import sync_path
from fedcervix.disk.storage import INSTALL, LATER
from fedcervix.errors import FormatError


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of a database, and how those of earlier formats become them. Its format counts the upgrades."""

    what: str
    """such as "the journal" """
    tables: tuple[str, ...]
    """statements that make an empty database one of the newest format"""
    upgrades: tuple[tuple[str, ...], ...] = ()
    """statements that lead from one format to the next, from format 1 on"""
    go_back: str = ""
    """what else is to be known by who goes back to the backup of an upgrade"""

    @property
    def format(self) -> int:
        """The newest format."""
        return FIRST + len(self.upgrades)


def backup_of(path: Path, found: int) -> Path:
    """Return where the copy of a database lies that was made before an upgrade changed its format, `found`."""
    return path.with_name(f"{path.name}.format-{found}")


Alone = Callable[[], AbstractContextManager[object]]


def bring_up(db: sqlite3.Connection, path: Path, schema: Schema, alone: Alone = nullcontext) -> None:
    """Make the tables of an empty database; bring one of an earlier format up to date, and keep a copy of it.

    `alone`: held while an earlier format is brought up to date; it keeps out processes that know that format only.

    Raises FormatError where a later version wrote it, sqlite3.Error, StorageError, and what `alone` raises.
    """
    found = check_readable(db, path, schema)
    if _number(db) == schema.format:
        return
    with alone() if _is_earlier(found, schema) else nullcontext(), db:
        db.execute("BEGIN IMMEDIATE")
        found = check_readable(db, path, schema)  # another process may have been here first
        if _is_earlier(found, schema):
            _keep(path, schema.what, backup_of(path, found))
        _upgrade(db, schema, found)


def _is_earlier(found: int, schema: Schema) -> bool:
    return FIRST <= found < schema.format


def look_at(db: sqlite3.Connection, path: Path, schema: Schema) -> sqlite3.Connection:
    """Return what to read of a database that is not to be changed; an empty one is returned as it is.

    Raises FormatError where a later version wrote it, sqlite3.Error.
    """
    found = check_readable(db, path, schema)
    if not _is_earlier(found, schema):
        return db
    copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    db.backup(copy)
    db.close()
    _upgrade(copy, schema, _format(copy))
    return copy


def check_readable(db: sqlite3.Connection, path: Path, schema: Schema) -> int:
    """Return the format of a database. Raises FormatError where it is a later one than this version reads."""
    found = _format(db)
    if found <= schema.format:
        return found
    kept = backup_of(path, schema.format)
    what = str(UnknownFormat(f"{schema.what} {path}", found, schema.format))
    if not kept.exists():
        raise FormatError(what, cause=LATER, next_step=INSTALL)
    old, new = shlex.quote(str(kept)), shlex.quote(str(path))
    raise FormatError(
        f"{what}; its backup in format {schema.format} is {kept}",
        cause=LATER,
        next_step=f"{INSTALL}; or go back to the backup (everything done since then is lost): "
        f"rm -f {new}-* && mv {old} {new}{schema.go_back}",
    )


def _format(db: sqlite3.Connection) -> int:
    """Return the format of a database; 0: it is empty. Format 1 had no number at first."""
    query = "SELECT (SELECT count(*) FROM sqlite_master), user_version FROM pragma_user_version"  # both of one moment
    tables, number = db.execute(query).fetchone()
    if number < 0 or (number and not tables):
        raise sqlite3.DatabaseError(f"it says format {number} and holds {tables} tables")
    return number or (FIRST if tables else 0)


def _number(db: sqlite3.Connection) -> int:
    (number,) = db.execute("PRAGMA user_version").fetchone()
    return int(number)


def _keep(path: Path, what: str, to: Path) -> None:
    """Copy a database as it was before the transaction in progress, whole or not at all.

    Raises StorageError, OSError.
    """
    making = to.with_name(f".{to.name}.{os.getpid()}")
    making.unlink(missing_ok=True)
    making.touch(mode=0o600)
    try:
        with reader(path, what) as before:
            copy_database(before, making)
        sync_path(making)  # SQLite does not
        making.replace(to)
        sync_path(to.parent)
    finally:
        making.unlink(missing_ok=True)


def _upgrade(db: sqlite3.Connection, schema: Schema, found: int) -> None:
    """Make the tables, or those of a later format of them."""
    upgrades = schema.upgrades[found - FIRST :] if found else (schema.tables,)
    for statement in (one for statements in upgrades for one in statements):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {schema.format}")
