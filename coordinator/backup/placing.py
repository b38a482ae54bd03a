"""Where a backup file is made, and how it gets its name: complete, and in the place of no other file.

Until it is complete, all lies in a hidden folder beside its name. Its process holds a lock in that folder. What a
process that was killed has left behind is removed by the next backup in the same place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from coordinator.home.home import Home
from fedcervix.disk.files import COPY_BYTES, private, sync_path
from fedcervix.disk.locks import NO_LOCKS, is_held, locked
from fedcervix.errors import RunError, StorageError

SCRATCH = ".coordinator-backup-"
LOCK = "in-use"
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
"""what file systems say that give a file one name only, such as those of USB sticks and of Windows shares"""

Link = Callable[[Path, Path], None]
"""what gives a file a second name; a test gives one that cannot"""


def check_outside(home: Home, to: Path) -> None:
    """Raise RunError where a backup would lie in the home that it is made of."""
    if not to.parent.resolve().is_relative_to(home.folder.resolve()):
        return
    raise RunError(
        f"{to} lies in the home folder: nothing was written",
        cause="a backup that lies in the home is lost together with it",
        next_step=f"name a file elsewhere: {home.command('backup FILE')}",
    )


def taken_name(to: Path) -> RunError:
    """Return what is said where a backup would replace something."""
    return RunError(
        f"{to} is there already: nothing was written",
        cause="a backup never replaces another file",
        next_step="give another name: coordinator backup FILE",
    )


@contextlib.contextmanager
def scratch_beside(to: Path) -> Iterator[Path]:
    """Yield a folder in which a backup is made; remove those of processes that were killed. Raises OSError."""
    for lock in to.parent.glob(f"{SCRATCH}*/{LOCK}"):
        with contextlib.suppress(StorageError, OSError):
            if lock.stat().st_uid == os.geteuid() and not is_held(lock):
                shutil.rmtree(lock.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=SCRATCH) as name, contextlib.ExitStack() as held:
        scratch = Path(name)
        try:
            held.enter_context(locked(scratch / "new", wait=False))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        (scratch / "new").rename(scratch / LOCK)  # who finds it finds it held
        yield scratch


def give_name(made: Path, to: Path, link: Link = os.link) -> None:
    """Give a complete file its name, which nothing may have yet. Raises RunError, OSError."""
    try:
        link(made, to)
    except FileExistsError as error:
        raise taken_name(to) from error
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _copy(made, to)
    sync_path(to.parent)


def _copy(made: Path, to: Path) -> None:
    """Copy a file to a new name. If the process is killed, a part is left; nobody takes it for a complete backup."""
    try:
        out = open(to, "xb", opener=private)  # noqa: SIM115 (closed below)
    except FileExistsError as error:
        raise taken_name(to) from error
    try:
        with out, made.open("rb") as source:
            shutil.copyfileobj(source, out, COPY_BYTES)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        to.unlink(missing_ok=True)
        raise
