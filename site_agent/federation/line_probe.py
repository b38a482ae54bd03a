"""How fast is the line to the coordinator? A few tries with bytes of no meaning, on the way that models take.

Each try has four times the bytes of the one before, until one lasts long enough to be believed. What the last one took
beyond the one before it is free of the time in which a call begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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
    size_bytes, before_bytes, before_s = FIRST_BYTES, 0, 0.0
    while True:
        started_s = clock()
        attempt(size_bytes)
        taken_s = max(1e-6, clock() - started_s)
        if taken_s >= LONG_ENOUGH_S or size_bytes >= PROBE_BYTES_MAX:
            break
        before_bytes, before_s, size_bytes = size_bytes, taken_s, min(size_bytes * TIMES, PROBE_BYTES_MAX)
    rates_found = [size_bytes / taken_s]
    if before_bytes and taken_s > before_s:
        rates_found.append((size_bytes - before_bytes) / (taken_s - before_s))
    return Span(min(rates_found) * (1 - SLOWER), max(rates_found) * (1 + FASTER))
