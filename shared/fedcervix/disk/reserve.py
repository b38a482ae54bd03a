"""Disk space for what must work on a full disk: journal, registry, and the commands of the operator.

A file whose blocks are allocated, so that neither a flood nor another program can take them. On a full disk it is used
piece by piece: each piece is enough for some hundred events. When there is space again, it is filled again. (A file
system that compresses or copies on write, such as Btrfs or ZFS, may promise more than it keeps.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fedcervix.disk.files import private
from fedcervix.errors import FullDiskError

T = TypeVar("T")

NAME = "reserve"
RESERVE_BYTES = 16 * 2**20
PIECE_BYTES = 2**20
FREE_BYTES_MIN = 48 * 2**20
"""left free on the disk by incoming models, and by the reserve when it is made whole again"""


@dataclass(frozen=True, slots=True)
class Reserve:
    """The file at `path`. Several processes may give of it at once."""

    path: Path

    @classmethod
    def beside(cls, file: Path) -> Reserve:
        """Return the reserve of the folder in which a file lies; where none was made, it holds nothing."""
        return cls(file.with_name(NAME))

    def left_bytes(self) -> int:
        """Return how much of it is left; 0 where none was made."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def words(self) -> str:
        """Return what the operator should know of it; empty while it is whole, and where none was made."""
        left_bytes = self.left_bytes()
        if left_bytes >= RESERVE_BYTES or not self.path.exists():
            return ""
        return (
            f"the disk is (nearly) full: {left_bytes >> 20} of {RESERVE_BYTES >> 20} MiB are left of the reserve for "
            f"journal and registry\n  likely cause: models, logs or another program have filled it\n"
            f"  next: free some space (df -h {self.path.parent}); the reserve is then filled again automatically"
        )

    def make(self) -> None:
        """Make it, or make it whole, where there is room; else as much stays as was left."""
        with contextlib.suppress(OSError), open(self.path, "r+b", opener=_made) as file:
            left_bytes = os.fstat(file.fileno()).st_size
            missing_bytes = RESERVE_BYTES - left_bytes
            if missing_bytes > 0 and shutil.disk_usage(self.path.parent).free >= missing_bytes + FREE_BYTES_MIN:
                os.posix_fallocate(file.fileno(), left_bytes, missing_bytes)

    def make_whole(self) -> None:
        """Make it whole again, if it was ever made here and there is room."""
        if self.left_bytes() < RESERVE_BYTES and self.path.exists():
            self.make()

    def spend(self, act: Callable[[], T]) -> T:
        """Do something that may be done again; while the disk has no room for it, give up a piece and try again.

        Raises FullDiskError when nothing is left, and whatever else `act` raises.
        """
        while True:
            try:
                return act()
            except FullDiskError:
                if not self._give():
                    raise

    def _give(self) -> bool:
        left_bytes = self.left_bytes()
        with contextlib.suppress(OSError):
            os.truncate(self.path, max(0, left_bytes - PIECE_BYTES))
            return left_bytes > 0
        return False


def _made(path: str, flags: int) -> int:
    """Open the file, and make it where it is missing.

    To read, too, and not to append: else nothing is allocated where the file system cannot do it by itself (NFS), which
    the C library does then (posix_fallocate(3)).
    """
    return private(path, flags | os.O_CREAT)
