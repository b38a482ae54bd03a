"""What a running coordinator uses, read from outside: /proc, and the files of its home."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

ESTABLISHED = "01"


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a coordinator."""

    rss_bytes: int
    threads: int
    descriptors: int
    journal_bytes: int
    log_bytes: int
    blob_bytes: int
    free_bytes: int
    cpu_s: float
    """used since the process began"""

    def most(self, other: Reading) -> Reading:
        """Return the most of everything that either saw, and the least room."""
        names = [name for name in self.__dataclass_fields__ if name != "free_bytes"]
        worst = {name: max(getattr(self, name), getattr(other, name)) for name in names}
        return Reading(**worst, free_bytes=min(self.free_bytes, other.free_bytes))


def reading(pid: int, home: Path, log: Path) -> Reading:
    """Look at a process, its home and its log; what is not there (any more) counts as 0."""
    status = _status(pid)
    return Reading(
        rss_bytes=int(status.get("VmRSS", "0").split()[0]) << 10,
        threads=int(status.get("Threads", "0")),
        descriptors=_descriptors(pid),
        journal_bytes=sum(_size(file) for file in home.glob("journal.db*")),
        log_bytes=_size(log),
        blob_bytes=bytes_below(home / "blobs"),
        free_bytes=shutil.disk_usage(home).free,
        cpu_s=cpu_s(pid),
    )


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used; 0 where it is gone."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def bytes_below(folder: Path) -> int:
    """Return how much the files of a folder hold."""
    return sum(_size(file) for file in folder.rglob("*"))


def _status(pid: int) -> dict[str, str]:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {}


def _descriptors(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def _size(file: Path) -> int:
    with contextlib.suppress(OSError):
        return file.stat().st_size if file.is_file() else 0
    return 0


def connections(pid: int, port: int, address: str) -> set[int]:
    """Return the far ports of the open connections to this port that come from an address of this machine."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                near, far, state = line.split()[1:4]
                if state == ESTABLISHED and _place(near)[1] == port and _place(far)[0] == address:
                    found.add(_place(far)[1])
    return found


def _place(text: str) -> tuple[str, int]:
    """Return (address, port) of a word of the kernel's table; its bytes are in this machine's order, word by word."""
    address, _, port = text.partition(":")
    raw = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
    if len(raw) == 16:
        inner = IPv6Address(raw)
        return str(inner.ipv4_mapped or inner), int(port, 16)
    return ".".join(map(str, raw)), int(port, 16)


def quantile(values: list[float], share: float) -> float:
    """Return a quantile by the nearest rank; infinite where there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


def rounds_done(diaries: list[Path]) -> int:
    """Return how many rounds the sites have begun to train, by their own diaries."""
    rounds: Counter[int] = Counter()
    for diary in diaries:
        with contextlib.suppress(OSError):
            for line in diary.read_text().splitlines():
                words = line.split()
                if len(words) == 4 and words[1] == "train":
                    rounds[int(words[2])] += 1
    return max(rounds, default=0)
