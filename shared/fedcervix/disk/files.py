"""How files and folders are made: readable by their owner alone, and a file whole or not at all.

Rules
1. Files are made with mode 0600 and folders with 0700, whatever the umask is. To share a file, copy it or change
   its mode by hand.
2. A file appears under its name when it is complete. Until then the old file, if any, stays as it was.
3. A file or folder in the making has a name that nobody can foresee, is made anew, and is no link: another user of the
   machine cannot lay something in its way, also where all may write (/tmp).
4. A program says `keep_private` when it starts: this covers the files that libraries make (SQLite, Matplotlib, ONNX),
   and the processes that it starts.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

from fedcervix.disk.storage import disk

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def keep_private() -> None:
    """Let this process, and those that it starts, make files and folders that only their owner may use."""
    os.umask(0o777 & ~FOLDER_MODE)


def make_folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing, each 0700; return its path. Raises StorageError.

    A folder that is there keeps its mode.
    """
    with disk(path, "write"):
        missing = [path, *path.parents]
        for folder in reversed([folder for folder in missing if not folder.is_dir()]):
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return path


def aside(path: Path) -> Path:
    """Return a path beside `path` for what is in the making: hidden, and with a name that nobody can foresee."""
    return path.with_name(f".{secrets.token_hex(8)}.new")


def private(path: str, flags: int) -> int:
    """Open a file for `open(path, mode, opener=private)`: where it is new, it is made with mode 0600."""
    return os.open(path, flags, FILE_MODE)


def _anew(path: str, flags: int) -> int:
    """Open a file that must not be there, 0600; a link is not followed. Raises OSError."""
    return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)


@contextmanager
def writing(path: Path, *, sync: bool = True) -> Iterator[BufferedWriter]:
    """Write a file that takes the place of `path` when the block ends well, and leaves no trace when it does not.

    Without `sync` a killed process changes nothing of that; a machine that loses its power within seconds may leave the
    old content, or on some file systems an empty file or one of zero bytes. Raises StorageError.
    """
    making = aside(path)
    with disk(path, "write"):
        try:
            with open(making, "wb", opener=_anew) as out:
                yield out
                out.flush()
                if sync:
                    os.fsync(out.fileno())
            making.replace(path)
        finally:
            making.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a file: whatever happens, either the old or the new content is there (see `writing`). Raises StorageError.

    Its mode is 0600.
    """
    with writing(path, sync=sync) as out:
        out.write(data)


def write_secret(path: Path, data: bytes) -> None:
    """Write a key, or a file that is as secret as one: 0600, through no link of another user. Raises StorageError."""
    write_whole(path, data)
