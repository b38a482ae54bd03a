"""When does a silent worker count as hung? A rule that needs no configuration.

A site keeps its lease as long as it reports. The agent repeats the last report of its worker, because one step can take
longer than a lease. A worker that hangs (a lost GPU, a file system that does not answer) would therefore keep the lease
for ever. How long a worker may be silent depends on model and machine: milliseconds or many minutes. The worker itself
shows it.

    A worker hangs when it has been silent TIMES as long as its longest silence within this task, and at least FLOOR_S.

The time before its first message (libraries load, perhaps from a slow disk) counts only against FLOOR_S. So does nearly
always the first step, which may have to be compiled. If the whole machine stood still (a virtual machine was moved, a
container was paused), nothing could be reported: the silence begins again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FLOOR_S = 600.0
TIMES = 10
STOOD_STILL_S = 60.0
"""whoever wakes so much later than it meant to was not slow: the machine stood still"""


@dataclass(frozen=True, slots=True)
class Silence:
    """A worker's silence within one task. Times are of a monotonic clock, in seconds."""

    since_s: float
    """when it was given the task, or said something last"""
    floor_s: float = FLOOR_S
    longest_s: float = 0.0
    """between two of its words"""
    spoke: bool = False

    @property
    def ends_at_s(self) -> float:
        """When it counts as hung, unless it says something before."""
        return self.since_s + max(self.floor_s, TIMES * self.longest_s)

    def heard(self, now_s: float) -> Silence:
        """It has said something."""
        silent_s = now_s - self.since_s if self.spoke else 0.0
        return replace(self, since_s=now_s, longest_s=max(self.longest_s, silent_s), spoke=True)

    def woke(self, now_s: float, meant_s: float) -> Silence:
        """Whoever listens has woken, which it meant to do at `meant_s`: much later if the machine stood still."""
        return replace(self, since_s=now_s) if now_s - meant_s > STOOD_STILL_S else self

    def hangs(self, now_s: float) -> bool:
        """Say whether it counts as hung."""
        return now_s >= self.ends_at_s
