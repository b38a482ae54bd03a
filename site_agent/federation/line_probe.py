"""How fast is the line to the coordinator? A few tries with bytes of no meaning, on the way that models take.

Each try has four times the bytes of the one before, until one lasts long enough to be believed. What the last one took
beyond the one before it is free of the time in which a call begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fedcervix.core.pace import NOTHING, SitePace, Span
from fedcervix.errors import FedcervixError, NoSuchMethodError
from fedcervix.runtime.quantities import rates
from fedcervix.transport.codec import PROBE_BYTES_MAX

FIRST_BYTES = 256 * 2**10
TIMES = 4
LONG_ENOUGH_S = 1.5
"""of one try"""
SLOWER, FASTER = 0.15, 0.05
"""by so much a line may be slower, or faster, than both of its measures"""


class ProbeLink(Protocol):
    """A line, as far as it is needed here."""

    def probe_down(self, size_bytes: int) -> None:
        """Let the coordinator send so many bytes. Raises a FedcervixError."""

    def probe_up(self, size_bytes: int) -> None:
        """Send the coordinator so many bytes. Raises a FedcervixError."""


@dataclass(frozen=True, slots=True)
class LinePace:
    """How many bytes a second a line takes, each way; 0 where it is not known."""

    down: Span = NOTHING
    up: Span = NOTHING
    why_not: str = ""
    """it is not known"""

    def __str__(self) -> str:
        if self.why_not:
            return f"not measured: {self.why_not}"
        return f"{rates(self.down)} from the coordinator, {rates(self.up)} to it"

    def of(self, pace: SitePace) -> SitePace:
        """Return what a site has measured, with its line."""
        return replace(pace, down_low=self.down.low, down_high=self.down.high, up_low=self.up.low, up_high=self.up.high)


def measured(link: ProbeLink, clock: Callable[[], float] = time.monotonic) -> LinePace:
    """Return how fast a line is. A line that cannot be measured hinders nothing: then it is not known."""
    try:
        return LinePace(_bytes_per_s(link.probe_down, clock), _bytes_per_s(link.probe_up, clock))
    except NoSuchMethodError:
        return LinePace(why_not="the coordinator's version of fedcervix is an earlier one")
    except FedcervixError as error:
        return LinePace(why_not=error.what)


def _bytes_per_s(attempt: Callable[[int], None], clock: Callable[[], float]) -> Span:
    size_bytes, taken = FIRST_BYTES, list[tuple[int, float]]()
    while True:
        started_s = clock()
        attempt(size_bytes)
        taken.append((size_bytes, max(1e-6, clock() - started_s)))
        if taken[-1][1] >= LONG_ENOUGH_S or size_bytes >= PROBE_BYTES_MAX:
            return _range(taken)
        size_bytes = min(size_bytes * TIMES, PROBE_BYTES_MAX)


def _range(taken: Sequence[tuple[int, float]]) -> Span:
    """Return the rate, by (bytes, seconds) of tries of growing length.

    What the last one took beyond an earlier one is free of the time in which a call begins. It is compared with the
    first and with the one before it: where one of them stalled, the other one tells.
    """
    size_bytes, last_s = taken[-1]
    beyond = [(size_bytes - less) / (last_s - less_s) for less, less_s in (taken[0], taken[-2:][0]) if less_s < last_s]
    whole = size_bytes / last_s
    found = (whole, min(beyond, default=whole))
    return Span(min(found) * (1 - SLOWER), max(found) * (1 + FASTER))
