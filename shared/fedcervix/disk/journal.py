"""The coordinator's state: an append-only journal of events in SQLite (WAL, synchronous=FULL).

An event is durable when `append` returns. The order everywhere is: journal, step, act, acknowledge. Recovery reads the
events back, some at a time, and replays them (see `fedcervix.core.rounds.step`). So a long journal needs no more
memory than a short one.

On a full disk it uses the reserve in the same folder (see `fedcervix.disk.reserve`).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fedcervix.core.bounds import DIGEST
from fedcervix.core.events import MOMENT_MAX, RUN_NAME, Event, event_from_json, event_to_json
from fedcervix.core.formats import UnknownFormat
from fedcervix.core.plan import Plan, check
from fedcervix.disk.databases import translated
from fedcervix.disk.formats import Schema, bring_up, check_readable, look_at
from fedcervix.disk.reserve import Reserve
from fedcervix.disk.storage import INSTALL, LATER
from fedcervix.errors import FormatError
from fedcervix.printable import quoted

T = TypeVar("T")

Countersigned = tuple[int, str, bytes]
"""round of a head, site, signature"""
Entry = tuple[str, bytes]
"""of a run's ledger: its text, and the signature over the record in it (see `fedcervix.trust.ledger`)"""
Entries = tuple[int, Sequence[Entry]]
"""the number of the first one, and all of them"""
NO_ENTRIES: Entries = (0, ())

READ_AT_ONCE = 500
"""events"""
RUNS = """
CREATE TABLE runs (run TEXT PRIMARY KEY, plan TEXT NOT NULL, base TEXT NOT NULL, begun_at REAL NOT NULL) STRICT
"""
EVENTS = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL REFERENCES runs (run), event TEXT NOT NULL
) STRICT
"""
LEDGER = """
CREATE TABLE ledger (
    run TEXT NOT NULL REFERENCES runs (run), entry INTEGER NOT NULL, text TEXT NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (run, entry)
) STRICT
"""
COUNTERSIGNATURES = """
CREATE TABLE countersignatures (
    run TEXT NOT NULL REFERENCES runs (run), round INTEGER NOT NULL, site TEXT NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (run, round, site)
) STRICT
"""
SCHEMA = Schema(
    "the journal",
    (RUNS, EVENTS, "CREATE INDEX events_of_run ON events (run, seq)", LEDGER, COUNTERSIGNATURES),
    ((LEDGER, COUNTERSIGNATURES),),
    go_back="  # models that were deleted since may be missing; `coordinator restore` of an earlier backup is safer",
)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How a run began."""

    run: str
    plan: Plan
    base: str
    begun_at: float
    """Unix seconds; 0: not known, as what is stored is no time"""

    def __post_init__(self) -> None:
        check(RUN_NAME.fullmatch(self.run) is not None, f"not a run's name: {quoted(self.run)}")
        check(self.base == "" or bool(DIGEST.fullmatch(self.base)), f"not a base digest: {quoted(self.base)}")


@dataclass(frozen=True, slots=True)
class UnreadRun:
    """A run whose entry this version cannot read."""

    run: str
    """`row-5` where the fifth entry names no run: no folder is called after anything else"""
    begun_at: float
    error: FormatError


class Journal:
    """One SQLite file; safe for several threads of one process."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the file; made if it is missing, unless `read_only`. Raises StorageError."""
        self._path = path
        self._lock = threading.Lock()
        self.reserve = Reserve.beside(path)
        self._is_empty = False
        self._db = self._with_room(lambda: self._opened(read_only=read_only))

    def _opened(self, *, read_only: bool) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            if read_only:
                # A process that found no room may have left a file without tables.
                found = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'runs'").fetchone()
                self._is_empty = found == (0,)
                db = look_at(db, self._path, SCHEMA)
            else:
                check_readable(db, self._path, SCHEMA)
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                bring_up(db, self._path, SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def begin(self, record: RunRecord, entries: Entries = NO_ENTRIES) -> None:
        """Write down that a run begins, and the first entries of its ledger. Raises StorageError."""
        began = (record.run, record.plan.canonical(), record.base, record.begun_at)
        self._write(("INSERT INTO runs VALUES (?, ?, ?, ?)", began), *_inserted(record.run, entries))

    def append(
        self, run: str, event: Event, entries: Entries = NO_ENTRIES, countersigned: Sequence[Countersigned] = ()
    ) -> None:
        """Make one event durable, with its entries of the ledger, and what sites have signed before it.

        Raises StorageError; then nothing was written.
        """
        happened = ("INSERT INTO events (run, event) VALUES (?, ?)", (run, event_to_json(event)))
        self._write(happened, *_inserted(run, entries), *(_countersignature(run, *one) for one in countersigned))

    def add(self, run: str, entries: Entries) -> None:
        """Write entries of a run's ledger that are of no event. Raises StorageError; then nothing was written.

        They outlive the process at once, and a power cut from the next event on: it is synced with all before it.
        """

        def write() -> None:
            self._db.execute("PRAGMA synchronous = NORMAL")
            try:
                with self._db:
                    self._db.execute("BEGIN IMMEDIATE")
                    for statement, values in _inserted(run, entries):
                        self._db.execute(statement, values)
            finally:
                self._db.execute("PRAGMA synchronous = FULL")

        with self._lock:
            self._with_room(write)

    def countersign(self, run: str, round_: int, site: str, signature: bytes) -> None:
        """Keep a site's signature over the head of a round; the first one stays. Raises StorageError."""
        self._write(_countersignature(run, round_, site, signature))

    def _write(self, *statements: tuple[str, tuple[object, ...]]) -> None:
        """Write all of it or nothing."""

        def write() -> None:
            if len(statements) == 1:
                self._db.execute(*statements[0])
                return
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                for statement, values in statements:
                    self._db.execute(statement, values)

        with self._lock:
            self._with_room(write)

    def _with_room(self, act: Callable[[], T]) -> T:
        def once() -> T:
            with _translated(self._path):
                return act()

        return self.reserve.spend(once)

    def runs(self) -> list[RunRecord | UnreadRun]:
        """Return all runs, oldest first. Raises StorageError."""
        if self._is_empty:
            return []
        with self._lock, _translated(self._path):
            rows = self._db.execute("SELECT rowid, run, plan, base, begun_at FROM runs ORDER BY rowid").fetchall()
        return [self._run(*row) for row in rows]

    def _run(self, row: int, run: str, plan: str, base: str, begun_at: float) -> RunRecord | UnreadRun:
        begun_at = begun_at if 0 <= begun_at <= MOMENT_MAX else 0.0
        try:
            with _translated(self._path):
                return RunRecord(run, Plan.parse(plan), base, begun_at)
        except FormatError as error:
            return UnreadRun(run if RUN_NAME.fullmatch(run) else f"row-{row}", begun_at, error)

    def events(self, run: str) -> Iterator[Event]:
        """Yield a run's events in order. Raises StorageError."""
        for _, event in self.numbered(run):
            yield event

    def numbered(self, run: str, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Yield a run's events in order, each with its number, from those after number `after` on.

        Numbers grow; they are those of all runs together. Raises StorageError.
        """
        while rows := self._read(run, after):
            with _translated(self._path):
                yield from [(number, event_from_json(text)) for number, text in rows]
            after = rows[-1][0]

    def _read(self, run: str, after: int) -> list[tuple[int, str]]:
        with self._lock, _translated(self._path):
            query = "SELECT seq, event FROM events WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?"
            return self._db.execute(query, (run, after, READ_AT_ONCE)).fetchall()

    def last_seq(self, run: str = "") -> int:
        """Return the number of the last event, of all runs or of one; 0 where there is none. Raises StorageError."""
        if self._is_empty:
            return 0
        with self._lock, _translated(self._path):
            query = "SELECT coalesce(max(seq), 0) FROM events WHERE ? IN ('', run)"
            [(seq,)] = self._db.execute(query, (run,)).fetchall()
        return int(seq)

    def after(self, seq: int, most: int = READ_AT_ONCE) -> list[tuple[int, str, Event]]:
        """Return (number, run, event) of the events after a number, of all runs, oldest first. Raises StorageError."""
        if self._is_empty:
            return []
        with self._lock, _translated(self._path):
            query = "SELECT seq, run, event FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = self._db.execute(query, (seq, most)).fetchall()
            return [(number, run, event_from_json(text)) for number, run, text in rows]

    def ledger(self, run: str, since: int = 0) -> Iterator[Entry]:
        """Yield the entries of a run's ledger, in order, from entry `since` on. Raises StorageError."""
        query = "SELECT entry, text, signature FROM ledger WHERE run = ? AND entry >= ? ORDER BY entry LIMIT ?"
        while True:
            with self._lock, _translated(self._path):
                rows = self._db.execute(query, (run, since, READ_AT_ONCE)).fetchall()
            if not rows:
                return
            yield from ((text, signature) for _, text, signature in rows)
            since = rows[-1][0] + 1

    def countersignatures(self, run: str, since: int = 0) -> list[tuple[int, str, bytes]]:
        """Return (round, site, signature) of the sites that have signed heads of a run. Raises StorageError."""
        query = "SELECT round, site, signature FROM countersignatures WHERE run = ? AND round >= ? ORDER BY round, site"
        with self._lock, _translated(self._path):
            return self._db.execute(query, (run, since)).fetchall()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read everything within as it stood at the first read, although another process goes on writing.

        Only where nothing is written here. Raises StorageError.
        """
        with self._lock, _translated(self._path):
            self._db.execute("BEGIN")
        try:
            yield
        finally:
            with self._lock, _translated(self._path):
                self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


def _countersignature(run: str, round_: int, site: str, signature: bytes) -> tuple[str, tuple[object, ...]]:
    return "INSERT OR IGNORE INTO countersignatures VALUES (?, ?, ?, ?)", (run, round_, site, signature)


def _inserted(run: str, entries: Entries) -> list[tuple[str, tuple[object, ...]]]:
    """Return the statements that write entries of a ledger."""
    first, lines = entries
    return [
        ("INSERT INTO ledger VALUES (?, ?, ?, ?)", (run, number, text, signature))
        for number, (text, signature) in enumerate(lines, first)
    ]


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Translate SQLite's errors."""
    try:
        with translated(path, "the journal"):
            yield
    except ValueError as error:
        is_later = isinstance(error, UnknownFormat)
        raise FormatError(
            f"the journal {path} holds an entry that this version cannot read: {error}",
            cause=LATER if is_later else "it was written by another version, or the file is damaged",
            next_step=INSTALL
            if is_later
            else "start it with the version that wrote it, or restore the home folder from its backup",
        ) from error
