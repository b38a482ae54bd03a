"""The coordinator's truth: an append-only journal of events in SQLite (WAL, synchronous=FULL).

An event is durable when `append` returns. The order everywhere is: journal, step, act, acknowledge. Recovery reads the
events back and replays them (see `rounds.replay`).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedcervix.databases import translated
from fedcervix.errors import StorageError
from fedcervix.events import Event, event_from_json, event_to_json
from fedcervix.plan import Plan

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, plan TEXT NOT NULL, base TEXT NOT NULL, begun_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL REFERENCES runs (run), event TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_of_run ON events (run, seq);
"""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How a run began."""

    run: str
    plan: Plan
    base: str
    begun_at: float


class Journal:
    """One SQLite file; safe for several threads of one process."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the file; made if it is missing, unless `read_only`. Raises StorageError."""
        self._path = path
        self._lock = threading.Lock()
        self._is_empty = False
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        with _translated(path):
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
            if read_only:
                # A process that found no room may have left a file without tables.
                found = self._db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'runs'").fetchone()
                self._is_empty = found == (0,)
                return
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)

    def begin(self, record: RunRecord) -> None:
        """Write down that a run begins. Raises StorageError."""
        row = (record.run, record.plan.canonical(), record.base, record.begun_at)
        with self._lock, _translated(self._path):
            self._db.execute("INSERT INTO runs VALUES (?, ?, ?, ?)", row)

    def append(self, run: str, event: Event) -> None:
        """Make one event durable. Raises StorageError; then nothing was written."""
        text = event_to_json(event)
        with self._lock, _translated(self._path):
            self._db.execute("INSERT INTO events (run, event) VALUES (?, ?)", (run, text))

    def runs(self) -> list[RunRecord]:
        """Return all runs, oldest first."""
        if self._is_empty:
            return []
        with self._lock, _translated(self._path):
            rows = self._db.execute("SELECT run, plan, base, begun_at FROM runs ORDER BY rowid").fetchall()
            return [RunRecord(run, Plan.parse(plan), base, begun_at) for run, plan, base, begun_at in rows]

    def events(self, run: str) -> list[Event]:
        """Return a run's events in order."""
        with self._lock, _translated(self._path):
            rows = self._db.execute("SELECT event FROM events WHERE run = ? ORDER BY seq", (run,)).fetchall()
            return [event_from_json(text) for (text,) in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Translate SQLite's errors, here at the seam."""
    try:
        with translated(path, "the journal"):
            yield
    except ValueError as error:
        raise StorageError(
            f"the journal {path} holds an entry that this version cannot read: {error}",
            cause="it was written by another version, or the file is damaged",
            next_step="start it with the version that wrote it, or restore the home folder from its backup",
        ) from error
