"""The backup of a coordinator's home: what goes in, what is refused, what a half-made one leaves behind."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coordinator.backup import making, restoring
from coordinator.backup.archive import SUMS
from coordinator.backup.placing import SCRATCH, give_name
from coordinator.commands import commands
from coordinator.commands.backups import backup as command
from coordinator.commands.backups import restore
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from fedcervix.errors import ConfigError, FedcervixError, FormatError, RunError, StorageError
from tests.unit.coordinator_homes import made, no_room

NOW = datetime(2026, 11, 30, 3, 40, tzinfo=UTC)
Edit = Callable[[list[tuple[tarfile.TarInfo, bytes]]], list[tuple[tarfile.TarInfo, bytes]]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = made(tmp_path / "coordinator")
    Registry(home.registry)
    return home


@pytest.fixture
def file(home: Home, tmp_path: Path) -> Path:
    making.backup(home, tmp_path / "b.tar", NOW)
    return tmp_path / "b.tar"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def edited(file: Path, edit: Edit) -> Path:
    with tarfile.open(file) as tar:
        entries = [(entry, tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]
    to = file.with_name("edited.tar")
    with tarfile.open(to, "w") as tar:
        for entry, data in edit(entries):
            entry.size = len(data) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(data))
    return to


def entry(name: str, data: bytes = b"x", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(made, key, value)
    return made, data


def test_a_restored_home_is_the_home(home: Home, file: Path, tmp_path: Path) -> None:
    label = restoring.restore(Home(tmp_path / "new"), file)
    before, after = contents(home.folder), contents(tmp_path / "new")
    assert (label.federation, label.run, label.made_at) == ("cervix", "", "2026-11-30T03:40:00+00:00")
    assert after.keys() <= before.keys()
    assert {"coordinator.toml", "keys/authority.key", "keys/authority.crt", "registry.db"} <= after.keys()
    assert all(data == before[name] for name, data in after.items() if not name.endswith(".db"))
    modes = {path: path.stat().st_mode & 0o777 for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert file.stat().st_mode & 0o777 == 0o600


def test_tar_and_sha256sum_can_read_it_without_us(file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", file, "-C", tmp_path / "out"], check=True)
    done = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=tmp_path / "out", capture_output=True)
    assert done.returncode == 0, done.stderr
    assert set(contents(tmp_path / "out")) - {SUMS} == {
        line.split("  ")[1] for line in (tmp_path / "out" / SUMS).read_text().splitlines()
    }


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_one_that_was_cut_off_is_refused_and_leaves_nothing(part: float, file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar"
    with tarfile.open(file) as tar:
        end = tar.getmembers()[-1].offset_data
    cut.write_bytes(file.read_bytes()[: int(end * part)])
    before = names(tmp_path)
    with pytest.raises(StorageError, match="not a complete backup"):
        restoring.restore(Home(tmp_path / "new"), cut)
    assert names(tmp_path) == before
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError, match="not a complete backup"):
        restoring.restore(Home(tmp_path / "there"), cut)
    assert not names(tmp_path / "there")


OTHERS: dict[str, Edit] = {
    "a flipped byte": lambda all_: [
        (e, d[:-1] + bytes([d[-1] ^ 1]) if e.name == "registry.db" else d) for e, d in all_
    ],
    "one file less": lambda all_: [one for one in all_ if one[0].name != "keys/authority.key"],
    "one file more": lambda all_: [all_[0], entry("blobs/x"), *all_[1:]],
    "a path out of the home": lambda all_: [all_[0], entry("keys/../../x"), *all_[1:]],
    "an absolute path": lambda all_: [all_[0], entry("/tmp/x"), *all_[1:]],
    "another file": lambda all_: [all_[0], entry("cron.d/x"), *all_[1:]],
    "a link": lambda all_: [all_[0], entry("keys/x", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), *all_[1:]],
    "a folder": lambda all_: [all_[0], entry("blobs", b"", type=tarfile.DIRTYPE), *all_[1:]],
    "a file twice": lambda all_: [*all_[:2], *all_[1:]],
    "a file below a file": lambda all_: [all_[0], entry("coordinator.toml/x"), *all_[1:]],
    "a file for a folder": lambda all_: [all_[0], entry("blobs"), *all_[1:]],
    "contiguous": lambda all_: [all_[0], entry("blobs/x", type=tarfile.CONTTYPE), *all_[1:]],
    "no label": lambda all_: all_[1:],
    "a label that says something else": lambda all_: [
        (all_[0][0], all_[0][1].replace(b'cervix"', b'cancer"')),
        *all_[1:],
    ],
    "a label of another program": lambda all_: [(all_[0][0], b'{"a": 1}'), *all_[1:]],
    "a label that is no object": lambda all_: [(all_[0][0], b"[1]"), *all_[1:]],
    "a huge label": lambda all_: [(all_[0][0], b" " * 10**6 + all_[0][1]), *all_[1:]],
    "nothing": lambda _: [],
}


@pytest.mark.parametrize("what", OTHERS)
def test_one_that_is_not_as_it_was_made_is_refused_and_leaves_nothing(what: str, file: Path, tmp_path: Path) -> None:
    wrong = edited(file, OTHERS[what])
    before = names(tmp_path)
    with pytest.raises(StorageError, match="not a complete backup") as caught:
        restoring.restore(Home(tmp_path / "new"), wrong)
    assert caught.value.cause
    assert caught.value.next_step
    assert names(tmp_path) == before


def relabelled(**values: object) -> Edit:
    """Make the label say something else, and its checksum, too."""

    def edit(all_: list[tuple[tarfile.TarInfo, bytes]]) -> list[tuple[tarfile.TarInfo, bytes]]:
        (first, label), *files, (last, sums) = all_
        said = json.dumps({**json.loads(label), **values}).encode()
        before, after = (hashlib.sha256(text).hexdigest().encode() for text in (label, said))
        return [(first, said), *files, (last, sums.replace(before, after))]

    return edit


def without(name: str, **label: object) -> Edit:
    """Take out a file and its checksum."""

    def edit(all_: list[tuple[tarfile.TarInfo, bytes]]) -> list[tuple[tarfile.TarInfo, bytes]]:
        rest = [one for one in relabelled(**label)(all_) if one[0].name != name]
        sums = b"".join(line for line in rest[-1][1].splitlines(True) if not line.endswith(f"  {name}\n".encode()))
        return [*rest[:-1], (rest[-1][0], sums)]

    return edit


@pytest.mark.parametrize("name", ["coordinator.toml", "keys/authority.key", "keys/authority.crt"])
def test_one_without_what_a_home_needs_is_refused(name: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"it has no {name}"):
        restoring.restore(Home(tmp_path / "new"), edited(file, without(name)))
    with pytest.raises(StorageError, match=r"it has no journal\.db"):
        restoring.restore(Home(tmp_path / "new"), edited(file, relabelled(run="20261130-034000-csfssl-12345678")))
    assert not (tmp_path / "new").exists()


def test_one_of_a_later_format_is_called_so(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="format 2"):
        restoring.restore(Home(tmp_path / "new"), edited(file, relabelled(format=2, news="of that version")))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "value",
    [
        {"run": "a\nnext: rm"},
        {"run": []},
        {"round": "1"},
        {"round": -1},
        {"round": 10**30},
        {"federation": None},
        {"more": 1},
    ],
)
def test_a_label_says_what_it_may(value: dict[str, object], file: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a complete backup") as caught:
        restoring.restore(Home(tmp_path / "new"), edited(file, relabelled(**value)))
    assert "checksum" not in caught.value.what


def test_a_thousand_headers_end_in_an_error(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = tarfile.XHDTYPE
    (tmp_path / "deep.tar").write_bytes(header.tobuf(tarfile.USTAR_FORMAT) * 3000)
    with pytest.raises(StorageError, match="not a complete backup"):
        restoring.restore(Home(tmp_path / "new"), tmp_path / "deep.tar")


def test_a_link_beside_the_home_is_not_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / ".new.part").symlink_to(tmp_path / "theirs")
    restoring.restore(Home(tmp_path / "new"), file)
    assert not (tmp_path / "new").is_symlink()
    assert not names(tmp_path / "theirs")


def test_of_two_backups_to_one_name_the_second_says_so(home: Home, file: Path, tmp_path: Path) -> None:
    before, there = file.read_bytes(), names(tmp_path)
    with pytest.raises(RunError, match="is there already"):
        making.backup(home, file, NOW)
    (tmp_path / "dangling.tar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is there already"):
        command(home, tmp_path / "dangling.tar")
    assert file.read_bytes() == before
    assert names(tmp_path) == sorted([*there, "dangling.tar"])


def test_a_folder_as_target_gets_a_file(home: Home, tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    command(home, tmp_path / "backups")
    [made] = (tmp_path / "backups").iterdir()
    assert made.name.endswith(".backup.tar")


def test_another_archive_and_no_archive_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n" * 1000)
    for source in (tmp_path / "text", tmp_path / "missing", tmp_path):
        with pytest.raises(StorageError):
            restoring.restore(Home(tmp_path / "new"), source)
    assert not (tmp_path / "new").exists()


def test_a_home_that_is_there_is_never_overwritten(home: Home, file: Path) -> None:
    before = contents(home.folder)
    with pytest.raises(ConfigError, match="not empty") as caught:
        restoring.restore(home, file)
    assert "--home" in caught.value.next_step
    assert contents(home.folder) == before


def test_an_empty_folder_is_no_hindrance(file: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "lost+found").mkdir()
    place = (tmp_path / "new").stat().st_ino
    restoring.restore(Home(tmp_path / "new"), file)
    assert (tmp_path / "new").stat().st_ino == place, "it may be the top of a file system"
    assert names(tmp_path / "new") == ["coordinator.toml", "keys", "lost+found", "registry.db"]


def test_a_backup_never_replaces_a_file(home: Home, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(RunError, match="is there already") as caught:
        command(home, file)
    assert file.read_bytes() == before
    assert "backup" in caught.value.next_step


def test_a_backup_that_fails_leaves_nothing(home: Home, tmp_path: Path) -> None:
    home.key_file("authority.key").unlink()
    before = names(tmp_path)
    with pytest.raises(FedcervixError):
        making.backup(home, tmp_path / "b.tar", NOW)
    with pytest.raises(StorageError):
        making.backup(made(tmp_path / "other"), tmp_path / "no-such-folder" / "b.tar", NOW)
    assert names(tmp_path) == sorted([*before, "other"])


def test_what_a_killed_backup_has_left_is_removed_by_the_next_one(home: Home, tmp_path: Path) -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path / "killed.tar"], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    )
    with killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().decode().strip())
        making.backup(home, tmp_path / "1.tar", NOW)
        assert left.is_dir(), "its process is still at work"
        killed.kill()
    assert left.is_dir()
    (tmp_path / f"{SCRATCH}theirs").mkdir()
    making.backup(home, tmp_path / "2.tar", NOW)
    assert names(tmp_path) == [f"{SCRATCH}theirs", "1.tar", "2.tar", "coordinator"]


KILLED = """
import pathlib, sys
from coordinator.backup.placing import scratch_beside
with scratch_beside(pathlib.Path(sys.argv[1])) as scratch:
    print(scratch, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("folder", ["", "keys", "blobs", "results"])
def test_a_backup_into_the_home_itself_is_refused(folder: str, home: Home, tmp_path: Path) -> None:
    (home.folder / folder).mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(home.folder / folder)
    before = contents(home.folder)
    for to in (home.folder / folder / "b.tar", tmp_path / "link" / "b.tar"):
        with pytest.raises(RunError, match="lies in the home folder"):
            command(home, to)
    assert contents(home.folder) == before


def test_where_a_file_can_have_one_name_only_it_is_copied(home: Home, file: Path, tmp_path: Path) -> None:
    def none(_made: Path, _to: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    give_name(file, tmp_path / "copy.tar", none)
    assert (tmp_path / "copy.tar").read_bytes() == file.read_bytes()
    assert (tmp_path / "copy.tar").stat().st_mode & 0o777 == 0o600
    (tmp_path / "there.tar").write_text("there")
    with pytest.raises(RunError, match="is there already"):
        give_name(file, tmp_path / "there.tar", none)
    assert (tmp_path / "there.tar").read_text() == "there"
    with no_room(), pytest.raises(OSError, match="large"):
        give_name(file, tmp_path / "full.tar", none)
    assert not (tmp_path / "full.tar").exists()


def test_a_disk_that_is_full_is_named_as_it_was_typed(home: Home, file: Path, tmp_path: Path) -> None:
    with no_room(), pytest.raises(StorageError) as caught:
        restoring.restore(Home(tmp_path / "new"), file)
    assert caught.value.what.startswith(f"cannot write {tmp_path / 'new'}: ")
    with no_room(), pytest.raises(StorageError) as caught:
        making.backup(home, tmp_path / "2.tar", NOW)
    assert ".coordinator-backup" not in caught.value.explain()
    assert names(tmp_path) == ["b.tar", "coordinator"]


@pytest.mark.parametrize("compression", ["none", "bfloat16", "int8"])
def test_restoring_says_where_a_run_cannot_repeat_many_rounds(
    compression: str, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = home.config_file.read_text()
    home.config_file.write_text(text.replace('# compression = "none"', f'compression = "{compression}"'))
    commands.begin(home, "csfssl", new=False)
    making.backup(home, tmp_path / "b.tar", NOW)
    restore(Home(tmp_path / "new"), tmp_path / "b.tar")
    said = capsys.readouterr().out
    assert "start --new" in said
    assert (f"travel as {compression}: a site can repeat its last round only" in said) == (compression != "none")


def test_a_home_in_which_nothing_has_happened_is_backed_up_too(tmp_path: Path) -> None:
    home = made(tmp_path / "young")
    making.backup(home, tmp_path / "young.tar", NOW)
    restoring.restore(Home(tmp_path / "new"), tmp_path / "young.tar")
    assert contents(tmp_path / "new") == contents(home.folder)


def test_two_backups_of_one_moment_are_the_same_bytes(home: Home, file: Path, tmp_path: Path) -> None:
    making.backup(home, tmp_path / "again.tar", NOW)
    assert (tmp_path / "again.tar").read_bytes() == file.read_bytes()
