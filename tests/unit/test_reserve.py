"""The reserve: its blocks are on the disk, it is given up piece by piece, and comes back when there is room."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from fedcervix.disk.reserve import FREE_BYTES_MIN, NAME, PIECE_BYTES, RESERVE_BYTES, Reserve
from fedcervix.errors import FullDiskError, StorageError


@pytest.fixture
def reserve(tmp_path: Path) -> Reserve:
    made = Reserve.beside(tmp_path / "journal.db")
    made.make()
    return made


def full() -> None:
    raise FullDiskError("no room")


def test_its_blocks_are_allocated_and_it_is_private(reserve: Reserve) -> None:
    found = (reserve.path.parent / NAME).stat()
    assert (found.st_size, found.st_mode & 0o777) == (RESERVE_BYTES, 0o600)
    assert found.st_blocks * 512 >= RESERVE_BYTES
    assert reserve.words() == ""


def test_a_piece_is_given_up_until_what_is_done_succeeds(reserve: Reserve) -> None:
    tries = iter([full, full, lambda: "done"])
    assert reserve.spend(lambda: next(tries)()) == "done"
    assert reserve.left_bytes() == RESERVE_BYTES - 2 * PIECE_BYTES
    assert reserve.words().startswith("the disk is (nearly) full: 14 of 16 MiB are left")


def test_when_nothing_is_left_the_error_is_told(reserve: Reserve) -> None:
    with pytest.raises(FullDiskError):
        reserve.spend(full)
    assert reserve.left_bytes() == 0
    with pytest.raises(FullDiskError):
        reserve.spend(full)


def test_another_error_costs_nothing(reserve: Reserve) -> None:
    def damaged() -> None:
        raise StorageError("damaged")

    with pytest.raises(StorageError):
        reserve.spend(damaged)
    assert reserve.left_bytes() == RESERVE_BYTES


def test_it_is_made_whole_when_there_is_room_beside_what_is_left_free(
    reserve: Reserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FullDiskError):
        reserve.spend(full)
    free = shutil.disk_usage(reserve.path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free._replace(free=RESERVE_BYTES + FREE_BYTES_MIN - 1))
    reserve.make_whole()
    assert reserve.left_bytes() == 0
    monkeypatch.undo()
    reserve.make_whole()
    assert reserve.left_bytes() == RESERVE_BYTES


def test_where_none_was_made_nothing_is_made_and_nothing_is_said(tmp_path: Path) -> None:
    none = Reserve.beside(tmp_path / "registry.db")
    none.make_whole()
    assert (list(tmp_path.iterdir()), none.words(), none.left_bytes()) == ([], "", 0)
    with pytest.raises(FullDiskError):
        none.spend(full)


def test_a_disk_that_is_full_while_it_is_made_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr("os.posix_fallocate", no_room)
    made = Reserve.beside(tmp_path / "journal.db")
    made.make()
    assert made.left_bytes() == 0
    assert "0 of 16 MiB are left" in made.words()
