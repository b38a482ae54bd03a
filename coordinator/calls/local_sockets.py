"""Unix sockets: a listener that only this machine can reach, and only users who may enter its folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fedcervix.disk.storage import disk

NAME_BYTES_MAX = 107
"""bytes of a Unix socket's path, as the system limits it"""


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Yield a name that fits for a socket, however long its path is: then by the descriptor of its folder.

    Raises StorageError where the folder is not there.
    """
    if len(os.fsencode(path)) <= NAME_BYTES_MAX:
        yield str(path)
        return
    with disk(path.parent, "read"):
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Yield a place for a socket: `path`, or a private folder if that file system has no sockets."""
    with reachable(path) as name:
        takes = _takes_sockets(name)
    if takes:
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
        return
    folder = Path(tempfile.mkdtemp(prefix="fedcervix-"))
    try:
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _takes_sockets(name: str) -> bool:
    """Say whether a socket can be made under this name; one of a process that was killed goes."""
    with contextlib.suppress(OSError):
        Path(name).unlink()
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(name)
    except OSError:
        return False
    Path(name).unlink()
    return True
