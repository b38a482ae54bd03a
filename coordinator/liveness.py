"""Who shows signs of life. Not journaled, on purpose: a restarted coordinator gives everyone a new lease.

A site shows a sign of life by reporting, and by every chunk of a model it sends or fetches. A site that has nothing to
do needs no more than its open stream, which keepalive pings watch. Times are of a monotonic clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fedcervix.codec import Progress


@dataclass(slots=True)
class Sign:
    """The last that was heard of a site."""

    at_s: float
    streams: int = 0
    """open Attach streams: 0 or 1, briefly 2 while one replaces the other"""
    progress: Progress | None = None


class Liveness:
    """The table of signs. Not thread-safe: its owner holds a lock."""

    def __init__(self, sites: Iterable[str], lease_s: float, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._lease_s = lease_s
        self.signs = {site: Sign(clock_s()) for site in sites}

    def heard(self, site: str, progress: Progress | None = None) -> None:
        """Note a sign of life."""
        sign = self.signs[site]
        sign.at_s = self._clock_s()
        if progress is not None:
            sign.progress = progress

    def lease_ends_in_s(self, site: str, *, working: bool) -> float | None:
        """Return the seconds left of a site's lease; None while an idle site keeps its stream open."""
        sign = self.signs[site]
        if sign.streams and not working:
            return None
        return sign.at_s + self._lease_s - self._clock_s()
