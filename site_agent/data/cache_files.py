"""The folder of what a site may throw away: how every file in it is written, locked and given up.

Rules
1. A cache may be deleted at any time; it is only ever a shortcut.
2. What is damaged, older or made by another version is never trusted and never fatal: it is made again.
3. A disk that is full or not writable costs time, not the run, as long as the memory is enough; a warning is logged.
4. Files are readable by their owner only. Small files appear whole or not at all (temporary name, fsync, rename).
   The large one, of squares, grows; `pixel_store` says how it stays sound.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import PIL
import simplejpeg

from fedcervix.disk import locks
from fedcervix.disk.files import replacing
from fedcervix.runtime.log import logger

VERSION = f"4 pillow {PIL.__version__} simplejpeg {simplejpeg.__version__}"
"""of what is stored: another decoder may decode to other pixels"""


def put(path: Path, parts: Iterable[bytes], *, sole_writer: bool = False) -> None:
    """Put a file of these parts in place, whole or not at all (see `files.writing`). Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, sole_writer=sole_writer) as file:
        for part in parts:
            file.write(part)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file. Raises OSError where that is not possible.

    It is held for one write, never while images are decoded, so the wait ends with the write of another process; and
    the system lets go of it when a process dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locks.locked(path, wait=True):
        yield


def reason(error: OSError) -> str:
    """Return why something is not kept, in a few words that name no path."""
    return error.strerror or type(error).__name__


def not_kept(error: OSError) -> None:
    """Log that the work goes on without keeping what it made."""
    logger().warning("cache_not_kept", reason=reason(error))
