"""What is measured of a machine and of a process on it, before anything is decided (`fedcervix.doctor.machine_checks`).

A running service has limits of its own, which are not those of the shell in which somebody types: so the facts are
those of the running process where there is one.
"""

from __future__ import annotations

import ctypes
import locale
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from fedcervix.runtime.cgroups import GroupLimits, group_limits

LIMITS = {"Max open files": "files", "Max file size": "file_bytes", "Max processes": "processes"}
"""lines of /proc/PID/limits (proc(5))"""
_LINE = re.compile(r"(Max [a-z ]+?) {2,}(\S+) +(\S+)")
CLOCK_UNSYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2)"""
UNLIMITED = GroupLimits()
TIMEX_BYTES = 512
"""at least the size of the structure; it is only read"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What a process may use; None where there is no limit, or it is not known."""

    process: str
    """whose limits they are, in words"""
    files: int | None = None
    """open files and connections: the soft limit"""
    files_hard: int | None = None
    file_bytes: int | None = None
    """the largest file that may be written"""
    processes: int | None = None
    """threads and processes of this user"""
    groups: GroupLimits = UNLIMITED
    cores: int = 1
    """on which this process may run"""
    shared_memory_bytes: int | None = None
    """free in /dev/shm; None where there is none"""
    encoding: str = "utf-8"
    """of the locale"""
    zone: str = ""
    """what the variable TZ says; empty where it is not set"""
    zone_known: bool = True
    utc_offset_s: int = 0
    clock_synchronised: bool | None = None
    """as the kernel says"""


def measure(pid: int | None, role: str, environment: Mapping[str, str], root: Path = Path("/")) -> MachineFacts:
    """Return the facts of a running process; of this one where `pid` is None. Raises nothing.

    `role`: what the running process is, such as "agent". `root`: where /proc, /sys and /dev are, for tests.
    """
    soft, hard = process_limits(_text(root / f"proc/{pid or 'self'}/limits"))
    zone = environment.get("TZ", "")
    return MachineFacts(
        process=f"the running {role} (process {pid})" if pid else "this shell",
        files=soft.get("files"),
        files_hard=hard.get("files"),
        file_bytes=soft.get("file_bytes"),
        processes=soft.get("processes") if os.geteuid() else None,  # root has no such limit
        groups=group_limits(pid or "self", root),
        cores=len(os.sched_getaffinity(0)),
        shared_memory_bytes=_free_bytes(root / "dev/shm"),
        encoding=locale.getencoding().lower(),
        zone=zone,
        zone_known=_is_zone(zone),
        utc_offset_s=time.localtime().tm_gmtoff or 0,
        clock_synchronised=clock_synchronised(),
    )


def process_limits(text: str) -> tuple[dict[str, int], dict[str, int]]:
    """Return (soft, hard) limits by name, of the text of /proc/PID/limits; what is unlimited is left out."""
    rows = [found.groups() for line in text.splitlines() if (found := _LINE.match(line)) and found[1] in LIMITS]
    soft = {LIMITS[name]: int(value) for name, value, _ in rows if value.isdigit()}
    hard = {LIMITS[name]: int(value) for name, _, value in rows if value.isdigit()}
    return soft, hard


def clock_synchronised() -> bool | None:
    """Return whether the kernel's clock is kept by a time service (adjtimex(2)); None where it cannot be asked."""
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):  # another system
        return None
    return None if answer < 0 else answer != CLOCK_UNSYNCHRONISED


def _is_zone(name: str) -> bool:
    """Say whether TZ names a time zone that is installed; a rule such as `CET-1CEST` names none and works."""
    name = name.removeprefix(":")
    if not name or "/" not in name:
        return True
    if name.startswith("/"):
        return Path(name).exists()
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return False
    return True


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else None
    except OSError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""
