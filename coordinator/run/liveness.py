"""Who shows signs of life. Not journaled, on purpose: a restarted coordinator gives everyone a new lease.

A site shows a sign of life with every report (one every few seconds, `backoff.SIGN_S`) and with every chunk of a model
that it sends or fetches. `status` shows that a site is quiet long before its lease runs out. The lease runs while the
site works. At rest its open stream is enough: pings watch the stream. Times are of a monotonic clock, in seconds.

A lease is not a sign of life. It begins again when a site is asked something new, whether the site is connected or not.
Who is alive follows only from what was heard. Otherwise a site that is away would seem alive while rounds are short,
and its next agent would be refused as a duplicate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it loads what signs, and `status` reads without that
    from fedcervix.transport.codec import Progress

STOPPED = "stopped by its engineer"


@dataclass(slots=True)
class LastSeen:
    """The last that was heard of a site."""

    at_s: float
    """when it was heard"""
    lease_began_s: float
    """when the coordinator last began its lease; anything heard later begins it again"""
    connected: bool = False
    """its Attach stream is open"""
    cut_s: float | None = None
    """when its stream ended; None where it is open, or there was none yet"""
    progress: Progress | None = None
    stopped: bool = False
    """its engineer has stopped it, and it has not come back"""
    software: str = ""
    """version of fedcervix there, as it said last"""
    upgrade: str = ""
    """why its version was refused; empty where it was not"""
    received_bytes: int = 0
    """of models that it has sent"""
    sent_bytes: int = 0
    """of models that it was sent"""


@dataclass(frozen=True, slots=True)
class Line:
    """How a site's line is at a moment; durations in seconds."""

    connected: bool
    cut_for_s: float | None
    """since its stream ended; None while it is open, and before the first one since this process began"""
    unheard_for_s: float
    """since its last sign of life"""
    lease_ends_in_s: float | None
    """None: no lease runs"""
    progress: Progress | None
    stopped: bool = False
    """the site's engineer has stopped its agent"""
    software: str = ""
    """version of fedcervix at the site; empty where it has not said so"""
    upgrade: str = ""
    """what must be installed before it can take part; empty where nothing"""
    set_aside: int = 0
    """its reports that were not written down since the coordinator was started (see coordinator.limits.allowances)"""
    received_bytes: int = 0
    """of models that the site has sent since then"""
    sent_bytes: int = 0
    """of models that it was sent since then"""


class Liveness:
    """The table of signs. Its owner holds a lock, but for `heard`."""

    def __init__(self, sites: Iterable[str], lease_s: float, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._lease_s = lease_s
        self.signs = {site: LastSeen(clock_s(), clock_s()) for site in sites}

    def heard(self, site: str, progress: Progress | None = None) -> None:
        """Note a sign of life."""
        sign = self.signs[site]
        sign.at_s = self._clock_s()
        if progress is not None:
            sign.progress = progress

    def moved(self, site: str, *, received_bytes: int = 0, sent_bytes: int = 0) -> None:
        """Count bytes of a model that a site has sent, or was sent."""
        sign = self.signs[site]
        sign.received_bytes += received_bytes
        sign.sent_bytes += sent_bytes

    def begin_lease(self, site: str) -> None:
        """Give a site its whole lease from now on. That is no sign of life."""
        self.signs[site].lease_began_s = self._clock_s()

    def stood_still(self, seconds: float) -> None:
        """Nobody could be heard for so long: it does not count against those who were heard just before."""
        for sign in self.signs.values():
            sign.at_s = min(sign.at_s + seconds, self._clock_s())

    def opened(self, site: str) -> None:
        """A site listens."""
        self.heard(site)
        self.signs[site].connected, self.signs[site].cut_s, self.signs[site].stopped = True, None, False

    def installed(self, site: str, software: str, *, upgrade: str = "") -> None:
        """A site has said which version it runs; `upgrade`: what must be installed before it is let in."""
        self.signs[site].software, self.signs[site].upgrade = software, upgrade

    def stopped(self, site: str) -> None:
        """A site's engineer has stopped its agent."""
        self.heard(site)
        self.signs[site].stopped = True

    def closed(self, site: str) -> None:
        """A site's line was cut."""
        self.heard(site)
        self.signs[site].connected, self.signs[site].cut_s = False, self._clock_s()

    def line(self, site: str, *, working: bool) -> Line:
        """Return how a site's line is now."""
        sign = self.signs[site]
        cut_for_s = None if sign.cut_s is None else self._clock_s() - sign.cut_s
        lease_s, unheard_for_s = self.lease_ends_in_s(site, working=working), self._clock_s() - sign.at_s
        said = (sign.progress, sign.stopped, sign.software, sign.upgrade)
        line = Line(sign.connected, cut_for_s, unheard_for_s, lease_s, *said)
        return replace(line, received_bytes=sign.received_bytes, sent_bytes=sign.sent_bytes)

    def alive(self, site: str) -> bool:
        """Say whether a site's stream is open, or something was heard of it within its lease."""
        return self.signs[site].connected or self.signs[site].at_s + self._lease_s > self._clock_s()

    def lease_ends_in_s(self, site: str, *, working: bool) -> float | None:
        """Return the seconds left of a site's lease; None while an idle site keeps its stream open."""
        sign = self.signs[site]
        if sign.connected and not working:
            return None
        return max(sign.at_s, sign.lease_began_s) + self._lease_s - self._clock_s()
