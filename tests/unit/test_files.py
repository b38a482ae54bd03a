"""Files and folders are their owner's alone, and a file is there whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedcervix.disk.files import (
    _anew,
    append_line,
    aside,
    copy_file,
    digest_file,
    make_folder,
    private,
    write_new,
    write_parts,
    write_secret,
    write_whole,
    writing,
)
from fedcervix.disk.storage import disk
from fedcervix.errors import FullDiskError, StorageError


@pytest.fixture(autouse=True, params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_are_their_owners_whatever_the_umask_is(tmp_path: Path) -> None:
    write_whole(tmp_path / "report.html", b"a page")
    with writing(tmp_path / "rows.csv") as out:
        out.write(b"a,b\n")
    with open(tmp_path / "log", "ab", opener=private) as out:
        out.write(b"a line\n")
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == {
        "report.html": 0o600,
        "rows.csv": 0o600,
        "log": 0o600,
    }


def test_a_file_that_others_could_read_is_replaced_by_one_that_they_cannot(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text("old")
    file.chmod(0o644)
    write_whole(file, b"new")
    assert (file.read_text(), mode(file)) == ("new", 0o600)


def test_folders_are_their_owners_and_those_that_were_there_stay_as_they_are(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o755)
    assert make_folder(there / "home" / "reports") == there / "home" / "reports"
    make_folder(there)
    assert [mode(path) for path in (there, there / "home", there / "home" / "reports")] == [0o755, 0o700, 0o700]


def test_nobody_can_lay_something_in_the_way_of_a_file_in_the_making(tmp_path: Path) -> None:
    """In /tmp all may make files: its name cannot be foreseen, it must be new, and no link is followed."""
    assert aside(tmp_path / "key") != aside(tmp_path / "key")
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    for place in (tmp_path / "link", victim):
        if place != victim:
            place.symlink_to(victim)
        with pytest.raises(FileExistsError):
            os.close(_anew(str(place), os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    write_secret(tmp_path / "link", b"a key")
    assert (victim.read_text(), (tmp_path / "link").is_symlink()) == ("as it was", False)
    assert mode(tmp_path / "link") == 0o600


def write_half(file: Path) -> None:
    with writing(file) as out:
        out.write(b"half")
        raise ZeroDivisionError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    write_whole(file, b"old")
    with pytest.raises(ZeroDivisionError):
        write_half(file)
    assert (file.read_bytes(), list(tmp_path.iterdir())) == (b"old", [file])


def test_a_sole_writer_writes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    """Not through a link that lies there: the file in the making is a new one."""
    file, left, victim = tmp_path / "weights", tmp_path / ".weights.part", tmp_path / "victim"
    victim.write_text("as it was")
    for leave in (lambda: left.write_bytes(b"half of a large file"), lambda: left.symlink_to(victim)):
        leave()
        digest = write_parts(file, iter([b"new", memoryview(b" weights")]))
        assert digest == digest_file(file) == hashlib.sha256(b"new weights").hexdigest()
        assert (mode(file), sorted(tmp_path.iterdir())) == (0o600, [victim, file])
    assert victim.read_text() == "as it was"
    assert copy_file(file, tmp_path / "copy") == digest
    assert ((tmp_path / "copy").read_bytes(), mode(tmp_path / "copy")) == (b"new weights", 0o600)


def test_a_new_file_takes_the_place_of_nothing(tmp_path: Path) -> None:
    assert write_new(tmp_path / "key", b"first")
    assert not write_new(tmp_path / "key", b"second")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert not write_new(tmp_path / "link", b"third")
    assert {path.name for path in tmp_path.iterdir()} == {"key", "link"}
    assert ((tmp_path / "key").read_bytes(), mode(tmp_path / "key")) == (b"first", 0o600)


def test_a_new_file_that_finds_no_room_is_not_there_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a key would be a damaged one for ever."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as room:
        room.setattr(os, "fsync", full)
        with pytest.raises(FullDiskError):
            write_new(tmp_path / "key", b"first")
    assert not list(tmp_path.iterdir())
    assert write_new(tmp_path / "key", b"first")


def test_a_line_is_found_behind_one_that_was_torn(tmp_path: Path) -> None:
    (tmp_path / "history").write_bytes(b"\nwhole\nto")
    append_line(tmp_path / "history", "next", sync=True)
    assert (tmp_path / "history").read_text().splitlines() == ["", "whole", "to", "next"]


OTHER_WRITERS = {
    "site_agent/data/pixel_store.py": "its squares grow in place",
    "shared/fedcervix/models/blobs.py": "a transfer goes on where it was interrupted",
    "coordinator/backup/placing.py": "it gives a file that is complete its name where the disk knows one name only",
    "shared/fedcervix/doctor/home_checks.py": "it tries whether the file system has locks, with a file that vanishes",
    "site_agent/federation/fencing.py": "on a full disk it writes in place",
    "site_agent/store/sum_journal.py": "its lines follow each other; it asks the system for the file's generation",
}
"""files of the product that sync what they wrote themselves, and why"""


def test_the_disk_has_one_writer_and_one_lock() -> None:
    root = Path(__file__).parents[2]
    own = re.compile(r"os\.(fsync|replace|rename)\(|\bmkstemp\(|NamedTemporaryFile|\bfcntl\b|\bfilelock\b")
    found = {
        str(path.relative_to(root))
        for package in ("coordinator", "site_agent", "shared", "cervix_study")
        for path in (root / package).rglob("*.py")
        if own.search(path.read_text()) and path.parent != root / "shared" / "fedcervix" / "disk"
    }
    assert found == set(OTHER_WRITERS)


def test_what_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    for wrong in (lambda: make_folder(tmp_path / "a file" / "home"), lambda: write_whole(tmp_path / "no" / "x", b"")):
        with pytest.raises(StorageError, match="cannot write") as raised:
            wrong()
        assert raised.value.next_step


def test_a_program_keeps_private_what_libraries_and_its_processes_write(tmp_path: Path) -> None:
    program = (
        "import click, sqlite3, subprocess, pathlib; from fedcervix.runtime.cli_runtime import exits\n"
        "@click.command()\n"
        "def command():\n"
        "    sqlite3.connect('a.db').execute('create table t (x)'); pathlib.Path('b').mkdir()\n"
        "    subprocess.run(['touch', 'c'], check=True)\n"
        "exits(command)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == {"a.db": 0o600, "b": 0o700, "c": 0o600}


COMMANDS = (
    "coordinator.cli --home coordinator init",
    "coordinator.cli --home coordinator invite nhs",
    "site_agent.cli data phantom nhs --institution nhs --women 4",
    "site_agent.cli data check nhs/manifest.csv --splits splits/nhs.csv --cache cache",
    "site_agent.cli data sheet nhs/manifest.csv sheet.png --images 1",
)


@pytest.mark.parametrize("umask", [0o000], indirect=True, ids=oct)
def test_all_that_commands_leave_is_their_owners(tmp_path: Path) -> None:
    """The umask of this process is theirs: the one that takes nothing away."""
    for command in COMMANDS:
        subprocess.run([sys.executable, "-m", *command.split()], cwd=tmp_path, check=True, capture_output=True)
    found = {path.relative_to(tmp_path): (path.is_dir(), mode(path)) for path in tmp_path.rglob("*")}
    assert len(found) > 20
    assert {path: how for path, how in found.items() if how not in ((True, 0o700), (False, 0o600))} == {}


@pytest.mark.parametrize(
    ("name", "nearest", "cause"),
    [
        ("there/none/file", "there", "the path is misspelt"),
        ("there", "there", "the path names a folder"),
        ("there/file/below", "there/file", "there/file is a file, not a folder"),
        ("there/" + 300 * "n", "there", "the name is longer"),
    ],
)
def test_a_path_that_cannot_be_read_is_explained_by_what_is_there(
    tmp_path: Path, name: str, nearest: str, cause: str
) -> None:
    """The next step can be typed: it lists a place that exists."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(StorageError) as refused, disk(tmp_path / name, "read"):
        (tmp_path / name).read_bytes()
    assert cause in refused.value.cause
    assert refused.value.next_step == f"check the path: ls -la {tmp_path / nearest}"
