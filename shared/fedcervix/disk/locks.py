"""The only kind of lock in the project: a process holds it on a file; the system releases it when the process ends.

Home folders, studies and caches are locked here. A file system may not support locks (NFS without a lock daemon, some
network and FUSE file systems); then an error says so, because nothing else keeps two processes apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fedcervix.disk.storage import disk
from fedcervix.errors import FedcervixError, StorageError

NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})

Flock = Callable[[int, int], None]
"""`fcntl.flock`, or what stands in its place in a test"""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool, flock: Flock | None = None) -> Iterator[None]:
    """Hold the lock file `path` (made if it is missing, 0600) for the block.

    Raises OSError where that is not possible: BlockingIOError where another process holds it and `wait` is not set.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # to write as well: NFS gives no lock otherwise
    try:
        (flock or fcntl.flock)(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held(path: Path, *, busy: FedcervixError | None, flock: Flock | None = None) -> Iterator[None]:
    """Hold the lock file `path` for the block, as `locked` does.

    Raises `busy` where another process holds it (None: waits for that one), StorageError where the file cannot be
    opened or its file system gives no locks.
    """
    with contextlib.ExitStack() as holding:
        with _explained(path):
            try:
                holding.enter_context(locked(path, wait=busy is None, flock=flock))
            except BlockingIOError as error:
                if busy is None:
                    raise
                raise busy from error
        yield


def is_held(path: Path, *, flock: Flock | None = None) -> bool:
    """Say whether a process holds the lock file `path`; a missing file is not held.

    Raises StorageError where this user may not ask, or the file system gives no locks.
    """
    with _explained(path):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            (flock or fcntl.flock)(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def holder(path: Path, table: Path = Path("/proc/locks")) -> int | None:
    """Return the process that holds the lock file `path`; None where the system does not say.

    Format of the table: proc_locks(5), with the file as MAJOR:MINOR:INODE.
    """
    with contextlib.suppress(OSError, ValueError):
        found = path.stat()
        place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        for line in table.read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5] == place and int(fields[4]) > 0:
                return int(fields[4])
    return None


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Translate an OSError into a StorageError that says what to do."""
    with disk(path, "write"):
        try:
            yield
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise StorageError(
                f"this file system does not support locks ({error.strerror}): {path.parent}",
                cause="a network file system (NFS) without its lock service, or another file system without locks; "
                "without a lock two processes could write in the same folder",
                next_step=f"put the folder on a local disk (df -hT {path.parent} shows where it is now)",
            ) from error
