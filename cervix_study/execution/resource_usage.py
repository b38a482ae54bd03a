"""The cost of a piece of work: time, processor time, memory, and energy if the machine reports it."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cervix_study.records import Costs

RAPL = Path("/sys/class/powercap")
"""where Linux counts what Intel and AMD processors consume, in microjoules; often only root may read it"""
PROC = Path("/proc")
RESET_PEAK = "5"
"""written to /proc/self/clear_refs, it makes the peak begin anew (proc(5))"""


@dataclass(slots=True)
class UsageMeter:
    """Runs from when it is made."""

    _began_s: float = field(default_factory=time.monotonic)
    _cpu_s: float = field(default_factory=lambda: cpu_s())
    _energy_uj: dict[Path, int] = field(default_factory=lambda: energies_uj())
    _others_bytes: int = 0
    _wire_bytes: dict[str, int] | None = None

    def __post_init__(self) -> None:
        with contextlib.suppress(OSError):
            (PROC / "self" / "clear_refs").write_text(RESET_PEAK)

    def look_at(self, processes: Iterable[int]) -> None:
        """Note how large other processes have been; they must be looked at while they live."""
        self._others_bytes = max([self._others_bytes, *(peak_bytes(one) or 0 for one in processes)])

    def count_wire(self, bytes_by_site: dict[str, int]) -> None:
        """Note what passed the sites' lines until now."""
        self._wire_bytes = bytes_by_site

    def costs(self, *, interruptions: int = 0) -> Costs:
        """Return what it took until now; processes that were waited for are counted."""
        wire = self._wire_bytes or {}
        return Costs(
            seconds=time.monotonic() - self._began_s,
            cpu_s=cpu_s() - self._cpu_s,
            wire_bytes=None if self._wire_bytes is None else sum(wire.values()),
            wire_bytes_by_site=wire,
            peak_memory_bytes=max(self._others_bytes, peak_bytes("self") or 0) or None,
            energy_j=spent_j(self._energy_uj, energies_uj()),
            interruptions=interruptions,
        )


def added(before: Costs, then: Costs) -> Costs:
    """Return the costs of a work that was interrupted: what it had taken, and what it took from there."""
    by_site = {
        site: before.wire_bytes_by_site.get(site, 0) + then.wire_bytes_by_site.get(site, 0)
        for site in {**before.wire_bytes_by_site, **then.wire_bytes_by_site}
    }
    wired = before.wire_bytes is not None or then.wire_bytes is not None
    energies = (before.energy_j, then.energy_j)
    return Costs(
        seconds=before.seconds + then.seconds,
        cpu_s=before.cpu_s + then.cpu_s,
        wire_bytes=sum(by_site.values()) if wired else None,
        wire_bytes_by_site=by_site,
        peak_memory_bytes=max(before.peak_memory_bytes or 0, then.peak_memory_bytes or 0) or None,
        energy_j=None if None in energies else sum(energy or 0.0 for energy in energies),
        interruptions=before.interruptions + then.interruptions,
    )


def cpu_s() -> float:
    """Return the processor time of this process and of all that it started and that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_bytes(process: int | str) -> int | None:
    """Return a process's largest resident memory so far; None where it is gone or the system does not say."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (PROC / str(process) / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    return None


def descendants(process: int) -> list[int]:
    """Return a process and all that it and its own have started."""
    found, waiting = [], [process]
    while waiting:
        one = waiting.pop()
        found.append(one)
        with contextlib.suppress(OSError, ValueError):
            for thread in (PROC / str(one) / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
    return found


def energies_uj() -> dict[Path, int]:
    """Return the counter of every processor package that may be read."""
    found = {}
    for folder in sorted(RAPL.glob("*-rapl:[0-9]")):
        with contextlib.suppress(OSError, ValueError):
            found[folder] = int((folder / "energy_uj").read_text())
    return found


def spent_j(before: dict[Path, int], after: dict[Path, int]) -> float | None:
    """Return the difference of two readings, in joules; counters that ran over go on from zero."""
    if not before or before.keys() != after.keys():
        return None
    total = 0
    for folder, began in before.items():
        delta = after[folder] - began
        total += delta if delta >= 0 else delta + int((folder / "max_energy_range_uj").read_text())
    return total / 1e6
