"""What the system lets the group of a process use (control groups, version 1 and 2): memory, processors, tasks.

systemd, containers and batch systems limit a service this way. /proc/PID/cgroup names the process's group; a limit of a
group above it counts too. In a container the named folder is often not visible: then the folders above it are read,
which are the container's own.

Form of the files: cgroups(7), and the kernel's documents `cgroup-v2` and `cgroup-v1/memory`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

NO_LIMIT = 2**60
"""version 1 writes the largest number of pages where there is no limit"""


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What a process's groups may use; None where nothing limits it."""

    memory_bytes: int | None = None
    """the lowest limit"""
    memory_left_bytes: int | None = None
    """the least that is left of a limit; cached files do not count as used"""
    processors: float | None = None
    """that the group may keep busy"""
    tasks_left: int | None = None
    """threads and processes that may still be made"""


def group_limits(pid: int | str = "self", root: Path = Path("/")) -> GroupLimits:
    """Return the limits of a process. `root`: where /proc and /sys are, for tests. Raises nothing."""
    places = dict(_places(_text(root / f"proc/{pid}/cgroup")))
    memory = [found for folder in _folders(root, places, "memory") if (found := _memory(folder))]
    processors = [quota for folder in _folders(root, places, "cpu") if (quota := _processors(folder))]
    tasks = [left for folder in _folders(root, places, "pids") if (left := _tasks(folder)) is not None]
    return GroupLimits(
        min((limit for limit, _ in memory), default=None),
        min((room for _, room in memory), default=None),
        min(processors, default=None),
        min(tasks, default=None),
    )


def _places(text: str) -> Iterator[tuple[str, str]]:
    """Yield (controller, path) of /proc/PID/cgroup; the controller of version 2 is called ''."""
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            yield from ((name, fields[2]) for name in fields[1].split(","))


def _folders(root: Path, places: dict[str, str], controller: str) -> Iterator[Path]:
    """Yield the folders in which a controller of this process has its files: the process's group and those above it."""
    mounts = root / "sys/fs/cgroup"
    for name, mount in ((controller, mounts / controller), ("", mounts)):
        if name in places:
            inside = PurePosixPath(places[name].lstrip("/"))
            if ".." not in inside.parts:  # outside what a container may see
                yield from (mount / part for part in (inside, *inside.parents))
            else:
                yield mount


def _memory(folder: Path) -> tuple[int, int] | None:
    """Return (limit, what is left of it), in bytes; None where there is no limit."""
    for limit_file, used_file, inactive in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _number(folder / limit_file), _number(folder / used_file)
        if limit is not None and used is not None and limit < NO_LIMIT:
            stat = dict(line.split(maxsplit=1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
            cached = stat.get(inactive, "0")
            return limit, max(0, limit - used + (int(cached) if cached.isdigit() else 0))
    return None


def _processors(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _tasks(folder: Path) -> int | None:
    limit, used = _number(folder / "pids.max"), _number(folder / "pids.current")
    return None if limit is None or used is None else max(0, limit - used)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, ValueError):
        return ""
