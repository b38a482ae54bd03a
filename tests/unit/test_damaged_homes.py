"""Every file of both homes, damaged in every way: a command ends in three lines whose next step helps, or it works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import coordinator.cli
import site_agent.cli
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from fedcervix.errors import ConfigError, FedcervixError, StorageError
from fedcervix.transport.address import Address
from site_agent.federation import account, fencing
from site_agent.home import SiteHome
from site_agent.store import leak_guard
from tests.unit.coordinator_homes import let_in, made
from tests.unit.test_joining import Federation

NOBODY = 65_534


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "half": _cut,
    "garbage": lambda file: file.write_bytes(bytes(range(256)) * 4),
    "a folder": _replace_by_folder,
    "closed": lambda file: file.chmod(0),
}


@contextmanager
def as_owner(home: Path) -> Iterator[None]:
    """Be the owner of a home. Root may read everything: a home with a file that is closed belongs to somebody else."""
    was = os.geteuid()
    os.seteuid(home.stat().st_uid)
    try:
        yield
    finally:
        os.seteuid(was)


def tried(cli: click.Command, home: Path, *words: str) -> FedcervixError | None:
    """Give a command, and return the error that ended it: one of ours, in three parts. The other ones are bugs."""
    with as_owner(home):
        done = CliRunner().invoke(cli, ["--home", str(home), *words])
    assert "Traceback" not in done.output
    if done.exception is None or isinstance(done.exception, SystemExit):
        return None
    assert isinstance(done.exception, FedcervixError), f"{words}: {done.exception!r}"
    assert done.exception.cause, done.exception.explain()
    assert done.exception.next_step, done.exception.explain()
    return done.exception


def copies(home: Path, into: Path) -> Iterator[tuple[Path, str, Path]]:
    """Yield (file below the home, damage, a copy of the home with that damage), one at a time."""
    for file in sorted(path.relative_to(home) for path in home.rglob("*") if path.is_file()):
        for damage, do in DAMAGES.items():
            copy = into / f"{file.name}-{damage.replace(' ', '-')}"
            shutil.copytree(home, copy)
            if damage == "closed" and os.geteuid() == 0:
                for path in (copy, *copy.rglob("*")):
                    shutil.chown(path, NOBODY, NOBODY)
            do(copy / file)
            yield file, damage, copy


def test_a_damaged_file_of_a_coordinator_s_home(tmp_path: Path) -> None:
    home = made(tmp_path / "home").folder
    let_in(tmp_path)
    for words in (("begin", "--mode", "csfssl"), ("abort",), ("begin", "--mode", "ppfssl")):
        assert CliRunner().invoke(coordinator.cli.cli, ["--home", str(home), *words]).exit_code == 0
    Registry(Home(home).registry)
    refused = set()
    for file, damage, copy in copies(home, tmp_path):
        for words in (("status", "--json"), ("invite", "nhs", "--out", f"{copy}/nhs.toml"), ("start",)):
            if words == ("start",) and not file.name.startswith("authority."):
                continue  # it might serve
            error = tried(coordinator.cli.cli, copy, *words)
            refused |= {(file.name, damage)} if error else set()
            if error and file.parts[0] == "keys":
                assert str(copy / file) in error.what
                assert "site-agent" not in error.next_step
    for name in ("authority.crt", "authority.key"):
        assert {damage for file, damage in refused if file == name} == DAMAGES.keys(), name
    for name in ("coordinator.toml", "journal.db", "registry.db"):  # half a configuration is one
        assert {damage for file, damage in refused if file == name} >= {"empty", "garbage", "a folder", "closed"}, name


@pytest.mark.parametrize("name", ["journal.db", "registry.db"])
def test_an_empty_database_of_a_home_that_has_had_runs_is_damaged(name: str, tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    (home.folder / name).touch()
    assert tried(coordinator.cli.cli, home.folder, "begin", "--mode", "csfssl") is None, "its first command was killed"
    assert tried(coordinator.cli.cli, home.folder, "abort") is None
    (home.folder / name).write_bytes(b"")
    error = tried(coordinator.cli.cli, home.folder, "status")
    assert error is not None
    assert f"{home.folder / name} is empty" in error.what
    (home.folder / name).unlink()
    assert tried(coordinator.cli.cli, home.folder, "begin", "--mode", "csfssl") is None, "as the next step says"


@pytest.mark.parametrize("name", ["authority.crt", "operator.crt", "operator.key"])
@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["empty", "garbage", "missing"])
def test_a_damaged_key_of_the_operator_is_named_while_a_coordinator_runs(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    home = made(tmp_path / "home")
    home.key_file(name).unlink()
    if content is not None:
        home.key_file(name).write_bytes(content)
    with home.locked():
        home.write_running(os.getpid(), Address("localhost", 1), tmp_path / "operator.sock")
        error = CliRunner().invoke(coordinator.cli.cli, ["--home", str(home.folder), "stop"]).exception
    assert isinstance(error, ConfigError if content is None else StorageError)
    assert str(home.key_file(name)) in error.what
    restored = "from your backup" if name.startswith("authority") else "stop the coordinator that runs here"
    assert restored in error.next_step


def test_a_damaged_file_of_a_site_s_home(tmp_path: Path) -> None:
    federation = Federation()
    home = federation.joined(tmp_path / "home", "aa")
    let_in(tmp_path)
    for path in home.folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    fencing.succeed(home)
    leak_guard.site_key(home)
    home.account.write_text("{}")
    assert account.read(home.account) == {}
    invitation = tmp_path / "invitation.toml"
    invitation.write_text(federation.invite("aa").to_toml())
    invitation.chmod(0o644)
    shutil.copy(home.key_file("site.key"), home.key_file("site.key.new"))
    needed = {"authority.crt", "site.crt", "site.key"}
    for file, damage, copy in copies(home.folder, tmp_path):
        tried(site_agent.cli.cli, copy, "history")
        if file.name == "site.key.new":
            error = tried(site_agent.cli.cli, copy, "join", str(invitation))
            assert error
            assert str(copy / file) in error.what
        if file.name in needed or (file.name == "site.toml" and damage != "empty"):
            error = tried(site_agent.cli.cli, copy)
            assert error
            assert str(copy / file) in error.what
        if file.name in needed and damage == "half":
            (copy / "keys/site.crt").rename(copy / "keys/site.crt.old")  # what the error advises
            again = tried(site_agent.cli.cli, copy, "join", str(invitation))
            assert again
            assert "cannot be reached" in again.what, "the way is free, but nobody listens"


def test_a_damaged_key_of_an_unfinished_join_is_deleted_as_advised(tmp_path: Path) -> None:
    invitation = tmp_path / "invitation.toml"
    invitation.write_text(Federation().invite("aa").to_toml())
    home = SiteHome(tmp_path / "home")
    home.key_file("").mkdir(parents=True)
    home.key_file("site.key.new").write_bytes(b"")
    error = tried(site_agent.cli.cli, home.folder, "join", str(invitation))
    assert error
    assert error.next_step == f"rm {home.key_file('site.key.new')}, then join again"
