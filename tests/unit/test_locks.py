"""The one lock: who holds it, and what is said where the file system gives none."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.home.home import Home
from fedcervix.disk.locks import held, holder, is_held, locked
from fedcervix.errors import RunError, StorageError
from site_agent.home import SiteHome

BUSY = RunError("busy")
NO_LOCKS = "#include <errno.h>\nint flock(int fd, int op) { errno = ENOLCK; return -1; }\n"


def refusing(number: int):  # type: ignore[no-untyped-def]
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    return flock


def test_a_lock_is_held_for_the_block_and_no_longer(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_held(lock)
    with held(lock, busy=BUSY):
        assert is_held(lock)
        with pytest.raises(RunError, match="busy"), held(lock, busy=BUSY):
            pass
        with pytest.raises(BlockingIOError), locked(lock, wait=False):
            pass
    assert not is_held(lock)
    assert lock.stat().st_mode & 0o777 == 0o600


def test_asking_leaves_nothing_behind(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


def test_an_error_within_the_block_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), held(tmp_path / "lock", busy=BUSY):
        raise FileNotFoundError("of the block")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(tmp_path: Path, number: int) -> None:
    (tmp_path / "lock").touch()
    for ask in (lambda: is_held(tmp_path / "lock", flock=refusing(number)), lambda: hold(tmp_path, number)):
        with pytest.raises(StorageError) as caught:
            ask()
        assert caught.value.what.startswith(f"this file system does not support locks ({os.strerror(number)})")
        assert "local disk" in caught.value.next_step
        assert caught.value.exit_code == 8


def hold(folder: Path, number: int) -> None:
    with held(folder / "lock", busy=BUSY, flock=refusing(number)):
        pass


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("home", [Home, SiteHome])
def test_a_home_on_such_a_file_system_ends_with_eight(tmp_path: Path, home: type[Home | SiteHome]) -> None:
    (tmp_path / "nolock.c").write_text(NO_LOCKS)
    library = tmp_path / "nolock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "nolock.c"], check=True)
    code = (
        f"from pathlib import Path; from {home.__module__} import {home.__name__} as Home\n"
        "from fedcervix.errors import StorageError\n"
        "try:\n    with Home(Path('.')).locked(): pass\nexcept StorageError as error: print(error.explain())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LD_PRELOAD": str(library)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("this file system does not support locks (No locks available)")


def test_the_process_that_holds_a_lock_is_found_in_the_systems_table(tmp_path: Path) -> None:
    lock, table = tmp_path / "lock", tmp_path / "locks"
    lock.touch()
    found = lock.stat()
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    table.write_text(
        f"1: POSIX  ADVISORY  WRITE 11 {place} 0 EOF\n2: FLOCK  ADVISORY  WRITE 12 00:00:1 0 EOF\n"
        f"3: FLOCK  ADVISORY  WRITE 13 {place} 0 EOF\n"
    )
    assert holder(lock, table) == 13
    table.write_text("")
    assert holder(lock, table) is None
    assert holder(lock, tmp_path / "none") is None
