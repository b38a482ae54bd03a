"""A wrong user is told who owns what, and as whom to give the command. Needs root, to be somebody else for a moment."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedcervix.disk.ownership import check_private, denied, made_readable, user_name
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError, RunError, StorageError
from fedcervix.runtime.config import read_toml
from tests.unit.coordinator_homes import let_in

NOBODY = 65_534
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@contextmanager
def somebody_else() -> Iterator[str]:
    """Be a user who owns nothing; yield the name."""
    os.seteuid(NOBODY)
    try:
        yield pwd.getpwuid(NOBODY).pw_name
    finally:
        os.seteuid(0)


@root
def test_a_closed_folder_is_named_with_its_owner_and_the_user_who_asks(tmp_path: Path) -> None:
    let_in(tmp_path)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "file").write_text("x")
    with somebody_else() as me:
        with pytest.raises(StorageError) as caught, disk(home / "file", "read"):
            (home / "file").read_text()
        with pytest.raises(ConfigError) as configured:
            read_toml(home / "file")
    for error in (caught.value, configured.value):
        assert error.cause == f"{home} belongs to user root; this command runs as user {me}"
        assert error.next_step.endswith(f"sudo install -o {me} -m 0600 {home / 'file'} FOLDER/")


@root
def test_a_closed_file_is_named_itself(tmp_path: Path) -> None:
    let_in(tmp_path)
    (tmp_path / "file").touch(mode=0o600)
    with somebody_else():
        cause, _ = denied(tmp_path / "file")
    assert cause.startswith(f"{tmp_path / 'file'} belongs to user root")


@root
def test_a_link_into_a_closed_folder_names_that_folder(tmp_path: Path) -> None:
    let_in(tmp_path)
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "closed" / "file")
    with somebody_else() as me, pytest.raises(StorageError) as caught, disk(tmp_path / "link", "read"):
        (tmp_path / "link").read_bytes()
    assert caught.value.cause == f"{tmp_path / 'closed'} belongs to user root; this command runs as user {me}"


@root
def test_nobody_is_sent_to_make_a_home_as_root(tmp_path: Path) -> None:
    let_in(tmp_path)
    new = tmp_path / "new"
    with somebody_else() as me, pytest.raises(StorageError) as caught, disk(new, "write"):
        new.mkdir()
    assert "sudo -H" not in caught.value.next_step
    assert caught.value.next_step.startswith(f"name a folder that user {me} can write")


@root
def test_a_file_of_the_hospital_s_is_made_readable_where_it_is(tmp_path: Path) -> None:
    let_in(tmp_path)
    (tmp_path / "images").mkdir(mode=0o700)
    with somebody_else() as me:
        cause, next_step = made_readable(tmp_path / "images" / "a.png")
    assert cause == f"user {me}, who runs this command, has no permission for {tmp_path / 'images'}"
    assert f"setfacl -m u:{me}:x {tmp_path / 'images'}" in next_step


def test_a_user_without_a_name_has_a_number() -> None:
    assert user_name(4_000_000_000) == "4000000000"


def test_a_home_that_others_can_write_to_is_none_and_one_that_is_here_is_closed(tmp_path: Path) -> None:
    """`init` took a folder of mode 777: another user put their keys in the place of the federation's."""
    home = tmp_path / "home"
    check_private(home, "or another one")
    home.mkdir(mode=0o755)
    check_private(home, "or another one")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    home.chmod(0o777)
    with pytest.raises(RunError, match="every user of this machine can replace files in"):
        check_private(home, "or another one")
