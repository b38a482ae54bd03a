"""When does a silent worker count as hung? A rule without a number to set.

A lease holds as long as a site shows signs of life, and the agent shows them for its worker: a step may take longer
than a lease. But a worker that hangs (a lost GPU, a file system that does not answer) would so keep its lease for ever.
How long a worker may be silent nobody can know beforehand: from milliseconds to many minutes, by model and machine. The
worker itself shows it.

    A worker hangs when it has been silent TIMES as long as its longest silence within this task, and at least FLOOR_S.

The silence before its first word (libraries load, perhaps on a slow disk) counts against the floor alone, and so does
nearly always the first step, which may have to be compiled. While the whole machine stood still (a virtual machine that
was moved, a container that was paused) nobody could have spoken: the silence begins anew.
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
