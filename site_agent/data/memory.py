"""How much memory this process may still take: what the machine has, and what the system lets this service use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Return what can be taken without swapping: what the machine has available, or less where a cgroup says so."""
    machine = _meminfo(_text(Path("/proc/meminfo")))
    if machine is None:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # not Linux: half of all there is, at most
    return min([machine, *_cgroup_bytes()])


def _meminfo(text: str) -> int | None:
    found = (line.split() for line in text.splitlines() if line.startswith("MemAvailable:"))
    return next((int(fields[1]) * 1024 for fields in found), None)


def _cgroup_bytes() -> list[int]:
    """Return what the limits of this process's cgroup (v2) and of those above it leave."""
    own = next((line[3:] for line in _text(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::")), None)
    if own is None:
        return []
    folder = _CGROUPS / own.lstrip("/")
    above = [folder, *(parent for parent in folder.parents if parent.is_relative_to(_CGROUPS))]
    return [left for one in above if (left := _left(one)) is not None]


def _left(folder: Path) -> int | None:
    """Return limit - used, where cached files do not count as used; None where there is no limit."""
    limit, used = _text(folder / "memory.max").strip(), _text(folder / "memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):
        return None
    stat = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
    return max(0, int(limit) - int(used) + int(stat.get("inactive_file", 0)))


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, ValueError):
        return ""
