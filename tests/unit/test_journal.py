"""The journal: what was appended is there, in order, whatever happens to the process or the disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from fedcervix.core.events import Event, RunAborted, SiteAttached, Tick
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.disk.journal import Journal, RunRecord, UnreadRun
from fedcervix.errors import StorageError

PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())
RECORD = RunRecord("run", PLAN, "", 1.5)
EVENTS = [SiteAttached("ada", 1.0), Tick(2.0), SiteAttached("bob", 3.0)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def begun(path: Path) -> Journal:
    journal = Journal(path)
    journal.begin(RECORD)
    for event in EVENTS:
        journal.append("run", event)
    return journal


def test_a_journal_that_is_opened_again_gives_the_same_events_in_order(path: Path) -> None:
    begun(path).close()
    again = Journal(path)
    assert again.runs() == [RECORD]
    assert list(again.events("run")) == EVENTS
    again.append("run", RunAborted("enough", 4.0))
    assert list(Journal(path).events("run")) == [*EVENTS, RunAborted("enough", 4.0)]


def test_runs_are_told_apart_and_listed_oldest_first(path: Path) -> None:
    journal = begun(path)
    journal.begin(RunRecord("another", PLAN, "5" * 64, 9.0))
    journal.append("another", Tick(10.0))
    assert [record.run for record in journal.runs()] == ["run", "another"]
    assert (list(journal.events("another")), list(journal.events("run"))) == ([Tick(10.0)], EVENTS)
    assert list(journal.events("a third")) == []


def test_a_run_begins_once(path: Path) -> None:
    journal = begun(path)
    with pytest.raises(StorageError, match="UNIQUE constraint failed"):
        journal.begin(RECORD)
    assert list(journal.events("run")) == EVENTS


def test_it_is_written_ahead_and_synchronised_at_every_event(path: Path) -> None:
    """The design: "SQLite, WAL, synchronous=FULL"."""
    db = begun(path)._db
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_what_was_appended_survives_a_kill(path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from fedcervix.core.events import Tick
        from fedcervix.disk.journal import Journal
        journal = Journal(Path(sys.argv[1]))
        for number in range(1_000_000):
            journal.append("run", Tick(float(number)))
            print(number, flush=True)
    """)
    journal = begun(path)
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)][-1]
        os.kill(process.pid, signal.SIGKILL)
    ticks = [event.at for event in list(journal.events("run"))[len(EVENTS) :]]
    assert len(ticks) > acknowledged
    assert ticks == [float(number) for number in range(len(ticks))]


def test_threads_append_side_by_side(path: Path) -> None:
    journal = begun(path)
    threads = [threading.Thread(target=lambda: [journal.append("run", Tick(5.0)) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(journal.events("run"))) == len(EVENTS) + 80


def append_for_ever(journal: Journal, written: list[Event]) -> None:
    while True:
        event = RunAborted("x" * 600, float(len(written)))
        journal.append("run", event)
        written.append(event)


def test_reading_a_long_journal_takes_no_more_memory_than_a_short_one(path: Path) -> None:
    journal = begun(path)
    journal._db.execute("BEGIN")
    for number in range(20_000):
        journal.append("run", RunAborted("x" * 500, float(number)))
    journal._db.execute("COMMIT")
    tracemalloc.start()
    assert sum(1 for _ in journal.events("run")) == len(EVENTS) + 20_000
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 * 2**20, "all at once are 12 MB"


# --- bad disks ----------------------------------------------------------------------------------------------------


def test_a_snapshot_stays_as_it_is_while_another_connection_writes(path: Path) -> None:
    with closing(begun(path)) as writer, closing(Journal(path, read_only=True)) as reader:
        with reader.snapshot():
            assert list(reader.events("run")) == EVENTS
            writer.append("run", Tick(4.0))
            assert list(reader.events("run")) == EVENTS
        assert list(reader.events("run")) == [*EVENTS, Tick(4.0)]


def test_a_full_disk_is_a_storage_error_and_loses_nothing(path: Path) -> None:
    journal = begun(path)
    (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    written: list[Event] = []
    with pytest.raises(StorageError, match="database or disk is full") as caught:
        append_for_ever(journal, written)
    assert "nothing that was acknowledged is lost" in caught.value.next_step
    expected = [*EVENTS, *written]
    assert list(journal.events("run")) == expected
    assert list(Journal(path).events("run")) == expected
    journal._db.execute("PRAGMA max_page_count = 100000")  # someone has made room
    journal.append("run", Tick(5.0))
    assert list(journal.events("run")) == [*expected, Tick(5.0)]


def test_a_damaged_file_is_a_storage_error(path: Path) -> None:
    path.write_bytes(b"this is no database, " * 500)
    with pytest.raises(StorageError, match=r"the journal .*journal\.db cannot be used: file is not a database"):
        Journal(path)


def test_a_file_whose_inside_is_damaged_is_a_storage_error(path: Path) -> None:
    begun(path).close()
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(byte ^ 0x5A for byte in content[4096:])
    path.write_bytes(content)
    with pytest.raises(StorageError):
        list(Journal(path).events("run"))


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open database file"):
        Journal(tmp_path / "nowhere" / "journal.db")


def test_a_file_that_may_only_be_read_is_a_storage_error(path: Path) -> None:
    journal = begun(path)
    journal._db.execute("PRAGMA query_only = 1")
    with pytest.raises(StorageError, match="readonly"):
        journal.append("run", Tick(5.0))


@pytest.mark.parametrize("text", ["{}", "not JSON", '{"event":"FromTheFuture","at":1}', '{"event":"Tick","at":"noon"}'])
def test_an_entry_of_another_version_is_named(path: Path, text: str) -> None:
    begun(path).close()
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO events (run, event) VALUES ('run', ?)", (text,))
    with pytest.raises(StorageError, match="holds an entry that this version cannot read") as caught:
        list(Journal(path).events("run"))
    assert "start it with the version that wrote it" in caught.value.next_step


def test_a_plan_of_another_version_is_named(path: Path) -> None:
    begun(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE runs SET plan = '{}'")
    [unread] = Journal(path).runs()
    assert (unread.run, "cannot read: not a plan" in unread.error.what) == ("run", True)


@pytest.mark.parametrize(
    ("column", "value"),
    [("base", "zz"), ("run", ""), ("run", "../x"), ("run", "a\nb"), ("run", "x" * 500)],
    ids=lambda value: value[:4],
)
def test_an_entry_with_an_impossible_value_costs_its_own_run(path: Path, column: str, value: str) -> None:
    journal = begun(path)
    journal.begin(RunRecord("other", PLAN, "", 4.0))
    journal.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE runs SET {column} = ? WHERE run = 'run'", (value,))
    [unread, other] = Journal(path).runs()
    assert isinstance(unread, UnreadRun)
    assert unread.run == ("run" if column == "base" else "row-1")
    assert other.run == "other"


def test_an_event_that_could_not_be_read_back_is_not_written(path: Path) -> None:
    journal = begun(path)
    with pytest.raises(ValueError, match="longer than 600"):
        journal.append("run", RunAborted("x" * 601, 4.0))
    assert list(journal.events("run")) == EVENTS
