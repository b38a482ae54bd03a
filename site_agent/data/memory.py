"""How much memory this process may still take: what the machine has, and what the system lets this service use."""

from __future__ import annotations

import os
from pathlib import Path

from fedcervix.runtime.cgroups import group_limits


def available_bytes() -> int:
    """Return what can be taken without swapping: what the machine has available, or less where a cgroup says so."""
    machine = _meminfo(_text(Path("/proc/meminfo")))
    if machine is None:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # not Linux: half of all there is, at most
    left = group_limits().memory_left_bytes
    return machine if left is None else min(machine, left)


def _meminfo(text: str) -> int | None:
    found = (line.split() for line in text.splitlines() if line.startswith("MemAvailable:"))
    return next((int(fields[1]) * 1024 for fields in found), None)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, ValueError):
        return ""
