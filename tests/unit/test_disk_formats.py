"""Databases of other versions: brought up to date after a backup, or refused in one sentence that names it."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coordinator.home import registry
from fedcervix.disk import journal
from fedcervix.disk.formats import Schema, backup_of, bring_up, look_at
from fedcervix.errors import FormatError

ONE = Schema("the notes", ("CREATE TABLE notes (words TEXT)",))
TWO = Schema(
    "the notes",
    ("CREATE TABLE notes (words TEXT, at REAL)",),
    (("ALTER TABLE notes ADD COLUMN at REAL", "UPDATE notes SET at = 5"),),
)
BROKEN = dataclasses.replace(TWO, upgrades=(("ALTER TABLE notes ADD COLUMN at REAL", "UPDATE nothing SET at = 5"),))


def opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def rows(path: Path) -> list[tuple[object, ...]]:
    db = opened(path)
    found = db.execute("SELECT * FROM notes").fetchall()
    db.close()
    return found


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "notes.db"
    db = opened(path)
    bring_up(db, path, ONE)
    db.execute("INSERT INTO notes VALUES ('hello')")
    db.close()
    return path


def test_an_earlier_format_is_brought_up_to_date_after_a_backup(old: Path) -> None:
    umask = os.umask(0)
    try:
        bring_up(opened(old), old, TWO)
    finally:
        os.umask(umask)
    assert rows(old) == [("hello", 5.0)]
    assert rows(backup_of(old, 1)) == [("hello",)]
    assert backup_of(old, 1).stat().st_mode & 0o777 == 0o600


def test_it_is_done_once(old: Path) -> None:
    bring_up(opened(old), old, TWO)
    backup_of(old, 1).write_bytes(b"kept as it is")
    before = old.read_bytes()
    bring_up(opened(old), old, TWO)
    assert (old.read_bytes(), backup_of(old, 1).read_bytes()) == (before, b"kept as it is")


class Before(sqlite3.Connection):
    """A connection whose first transaction finds that something has been done just before it."""

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:  # type: ignore[override]
        if statement.startswith("BEGIN") and (do := self.__dict__.pop("do", None)):
            do()
        return super().execute(statement, *values)  # type: ignore[arg-type]


def before_it(path: Path, do: Callable[[], object]) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, factory=Before)
    db.__dict__["do"] = do
    return db


def test_a_process_that_comes_late_leaves_the_backup_of_the_first_one(old: Path) -> None:
    """Two commands find the earlier format; one of them upgrades the file before the other does."""

    def first() -> None:
        bring_up(opened(old), old, TWO)
        backup_of(old, 1).chmod(0o400)

    bring_up(before_it(old, first), old, TWO)
    assert (rows(old), rows(backup_of(old, 1))) == ([("hello", 5.0)], [("hello",)])
    assert backup_of(old, 1).stat().st_mode & 0o777 == 0o400, "it was made once"
    assert {path.name for path in old.parent.iterdir()} == {old.name, backup_of(old, 1).name}


def test_a_later_version_that_was_faster_is_not_undone(old: Path) -> None:
    three = dataclasses.replace(TWO, upgrades=(*TWO.upgrades, ("ALTER TABLE notes ADD COLUMN place TEXT",)))
    with pytest.raises(FormatError, match="has format 3"):
        bring_up(before_it(old, lambda: bring_up(opened(old), old, three)), old, TWO)
    assert opened(old).execute("PRAGMA user_version").fetchone() == (3,)


def test_what_is_written_until_the_upgrade_begins_is_in_the_backup_and_nothing_is_written_after_that(
    old: Path,
) -> None:
    def write() -> None:
        with closing(sqlite3.connect(old, isolation_level=None, timeout=0)) as other:
            other.execute("INSERT INTO notes (words) VALUES ('late')")

    def cannot_write() -> int:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write()
        return 1

    db = before_it(old, write)
    db.create_function("cannot_write", 0, cannot_write)
    checked = dataclasses.replace(TWO, upgrades=(("SELECT cannot_write()", *TWO.upgrades[0]),))
    bring_up(db, old, checked)
    assert rows(backup_of(old, 1)) == [("hello",), ("late",)]
    assert rows(old) == [("hello", 5.0), ("late", 5.0)]


def test_only_an_upgrade_needs_to_be_alone(old: Path, tmp_path: Path) -> None:
    """A process of the earlier version may use the file meanwhile: it could not read the new one."""

    @contextmanager
    def alone() -> Iterator[None]:
        raise BlockingIOError
        yield

    bring_up(opened(tmp_path / "new.db"), tmp_path / "new.db", TWO, alone)
    bring_up(opened(old), old, ONE, alone)
    before = old.read_bytes()
    with pytest.raises(BlockingIOError):
        bring_up(opened(old), old, TWO, alone)
    assert (old.read_bytes(), backup_of(old, 1).exists()) == (before, False)


def test_a_new_file_has_the_newest_format_and_no_backup(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    bring_up(opened(path), path, TWO)
    assert (rows(path), list(tmp_path.glob("*.format-*"))) == ([], [])


def test_an_upgrade_that_fails_changes_nothing_and_is_done_again(old: Path) -> None:
    before = old.read_bytes()
    with pytest.raises(sqlite3.OperationalError, match="nothing"):
        bring_up(opened(old), old, BROKEN)
    assert (old.read_bytes(), rows(old)) == (before, [("hello",)])
    backup_of(old, 1).write_bytes(b"torn")
    bring_up(opened(old), old, TWO)
    assert rows(backup_of(old, 1)) == [("hello",)]


def test_a_later_format_is_refused_in_one_sentence_that_names_the_backup(old: Path) -> None:
    bring_up(opened(old), old, TWO)
    before = old.read_bytes()
    for use in (bring_up, look_at):
        with pytest.raises(FormatError) as caught:
            use(opened(old), old, ONE)
        assert f"the notes {old} has format 2; fedcervix" in caught.value.what
        assert caught.value.what.endswith(f"reads formats up to 1; its backup in format 1 is {backup_of(old, 1)}")
        assert f"mv {backup_of(old, 1)} {old}" in caught.value.next_step
    assert old.read_bytes() == before


def test_a_later_format_without_a_backup_is_refused_too(old: Path) -> None:
    bring_up(opened(old), old, TWO)
    backup_of(old, 1).unlink()
    with pytest.raises(FormatError) as caught:
        bring_up(opened(old), old, ONE)
    assert "backup" not in caught.value.explain()
    assert "install that version" in caught.value.next_step


def test_to_go_back_to_the_backup_works(old: Path) -> None:
    bring_up(opened(old), old, TWO)
    backup_of(old, 1).rename(old)
    bring_up(opened(old), old, ONE)
    assert rows(old) == [("hello",)]


def test_to_look_at_an_earlier_format_changes_nothing(old: Path) -> None:
    before = old.read_bytes()
    found = look_at(sqlite3.connect(f"{old.as_uri()}?mode=ro", uri=True, isolation_level=None), old, TWO)
    assert found.execute("SELECT * FROM notes").fetchall() == [("hello", 5.0)]
    assert (old.read_bytes(), list(old.parent.iterdir())) == (before, [old])


@pytest.mark.parametrize("number", [-1, 1, 7])
def test_a_number_without_tables_is_no_format(tmp_path: Path, number: int) -> None:
    path = tmp_path / "notes.db"
    db = opened(path)
    db.execute(f"PRAGMA user_version = {number}")
    with pytest.raises(sqlite3.DatabaseError, match="holds 0 tables"):
        bring_up(db, path, TWO)


@pytest.mark.parametrize("schema", [journal.SCHEMA, registry.SCHEMA], ids=lambda schema: schema.what)
def test_a_database_that_had_no_number_yet_is_format_1(tmp_path: Path, schema: Schema) -> None:
    path = tmp_path / "old.db"
    db = opened(path)
    for statement in schema.tables:
        db.execute(statement)
    bring_up(db, path, schema)
    assert db.execute("PRAGMA user_version").fetchone() == (schema.format,)


@pytest.mark.parametrize(
    ("schema", "words"), [(registry.SCHEMA, "repeat the revocations"), (journal.SCHEMA, "`coordinator restore`")]
)
def test_the_way_back_of_each_database_says_what_else_is_to_be_done(tmp_path: Path, schema: Schema, words: str) -> None:
    later = Schema(schema.what, ("CREATE TABLE one (x)",), ((),) * schema.format)
    path = tmp_path / "later.db"
    bring_up(opened(path), path, later)
    backup_of(path, schema.format).touch()
    with pytest.raises(FormatError) as caught:
        look_at(opened(path), path, schema)
    assert words in caught.value.next_step
