"""What this home remembers of secure sums, over all its runs: the entries of `fedcervix.trust.sum_memory`, on disk.

Rules
1. An entry is on the disk before the site does what it says (`remember`).
2. The file is only appended to, and each line is whole: a line that a power cut has torn stands at the end, nothing
   was done because of it, and it is cut off before the next one. A line in the middle that is none is damage.
3. The file knows its place: the numbers that the file system has given it. A copy, and a file from a backup, has other
   ones. Then the home was copied or restored, and may have forgotten what it did since: `HomeRestored`. So it was where
   there is no file, and secrets of a run are there.

A disk that is set back as a whole keeps the numbers: nobody can find that out from the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedcervix.core.formats import contents
from fedcervix.core.plan import check
from fedcervix.disk.files import append_line, sync_path
from fedcervix.disk.storage import disk, read_back, read_kept
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json, to_text
from fedcervix.trust.sum_memory import OPEN, Entry, HomeRestored, SumMemory, recalled, remembered
from site_agent.home import SiteHome
from site_agent.store.run_secrets import runs_with_secrets

GENERATION = 0x80087601
"""the request FS_IOC_GETVERSION of Linux: which use of its inode number a file is"""


@dataclass(frozen=True, slots=True)
class HomePlaced:
    """The first line, and the line after each restore: where the file lies."""

    place: str


@dataclass(frozen=True, slots=True)
class JournalLine:
    """A line of the file."""

    kind: str
    """the name of the entry's type"""
    entry: Entry | HomePlaced

    def __post_init__(self) -> None:
        check(self.kind == type(self.entry).__name__, "an entry is of another kind than its line says")


class SumJournal:
    """The file, and what its entries come to. One process has it: the one that holds the home's lock."""

    def __init__(self, home: SiteHome) -> None:
        """Read the file, or make it; note where the home was copied or restored. Raises StorageError, FormatError."""
        self._file, self._lock = home.sums, threading.Lock()
        self._whole_bytes = 0
        """of the file, as far as its lines are whole"""
        if not self._file.exists():
            with disk(self._file, "write"):
                os.close(os.open(self._file, os.O_CREAT | os.O_WRONLY, 0o600))
                sync_path(self._file.parent)
        found = self._read()
        places = [line.place for line in found if isinstance(line, HomePlaced)]
        self.memory: SumMemory = recalled(line for line in found if not isinstance(line, HomePlaced))
        self._settle(places[-1] if places else "", home)

    def _settle(self, known: str, home: SiteHome) -> None:
        """Compare the file's place with the one that it knows; empty: it is new.

        Secrets of a run are drawn only once there is a file: a new one beside them is in the place of one that is lost.
        """
        here = place_of(self._file)
        if known == here:
            return
        if known or runs_with_secrets(home):
            self.remember(HomeRestored())
        self._append(HomePlaced(here))

    def remember(self, entry: Entry | None) -> None:
        """Write an entry down; None: it is there already. From any thread: a run may open while another one ends.

        Raises StorageError.
        """
        if entry is not None:
            with self._lock:
                self._append(entry)
                self.memory = remembered(self.memory, entry)

    def _append(self, line: Entry | HomePlaced) -> None:
        """Add a line; what a full disk has taken of one before is cut off first. Raises StorageError."""
        with disk(self._file, "write"):
            if self._file.stat().st_size > self._whole_bytes:
                os.truncate(self._file, self._whole_bytes)
        append_line(self._file, to_text(JournalLine(type(line).__name__, line)), sync=True)
        self._whole_bytes = self._file.stat().st_size

    def _read(self) -> list[Entry | HomePlaced]:
        with disk(self._file, "read"):
            lines = self._file.read_bytes().split(b"\n")
        if not _is_whole(lines[-1]):
            lines.pop()
            with disk(self._file, "write"):
                os.truncate(self._file, sum(len(line) + 1 for line in lines))
                sync_path(self._file)
        self._whole_bytes = self._file.stat().st_size
        return read_back(self._file, lambda _: _entries(lines), next_step=_next_step(self._file))


def rounds_summed(home: SiteHome, run: str) -> tuple[int, ...]:
    """Return the rounds of a run of which this home knows what was added up, by its journal, which stays as it is.

    Raises StorageError.
    """
    none: list[Entry | HomePlaced] = []
    whole = read_kept(home.sums, _whole_entries, missing=none, next_step=_next_step(home.sums))
    memory = recalled(line for line in whole if not isinstance(line, HomePlaced))
    places = (place for at_base in memory.uses.values() for place, parts in at_base.items() if parts != OPEN)
    return tuple(sorted(round_ for of, round_ in places if of == run))


def _is_whole(line: bytes) -> bool:
    try:
        return not line or bool(parsed(line))
    except ValueError:
        return False


def _entries(lines: Iterable[bytes]) -> list[Entry | HomePlaced]:
    return [from_json(JournalLine, contents("the line", parsed(line))).entry for line in lines if line]


def _whole_entries(content: bytes) -> list[Entry | HomePlaced]:
    """Return the entries of a file that may be written just now: a last line that is torn is none yet."""
    lines = content.split(b"\n")
    return _entries(lines if _is_whole(lines[-1]) else lines[:-1])


def _next_step(file: Path) -> str:
    return f"look at the disk (dmesg | tail); then restore this home from a backup: ls -l {file}"


def place_of(file: Path) -> str:
    """Return what a file system calls a file, and never another one at the same time; a copy has another name.

    Where the file system counts how often it has used an inode number, the count is part of it.
    """
    with disk(file, "read"), file.open("rb") as opened:
        count = bytearray(8)
        with contextlib.suppress(OSError):  # this file system does not count
            fcntl.ioctl(opened.fileno(), GENERATION, count)
        return f"{os.fstat(opened.fileno()).st_ino}-{count.hex()}"
