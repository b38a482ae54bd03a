"""Small disks that a test can fill: a tmpfs each, where this user may mount one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

PIECE_BYTES = 1 << 20


class MayNotMountError(Exception):
    """This user may not mount a small disk."""


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    """Make a folder that is a disk of its own. Raises MayNotMountError."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode != 0:
        folder.rmdir()
        raise MayNotMountError("this user may not mount a small disk (tmpfs)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave not one byte on a disk; return the file to delete."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size_bytes in (PIECE_BYTES, 4096):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size_bytes) == size_bytes:
                    pass
    return ballast
