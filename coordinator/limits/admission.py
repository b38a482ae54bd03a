"""How much of the coordinator one certificate may use at a time and per second. The clock is an argument.

Rules
1. A call over a limit is refused with an error that means "wait and try again"; an honest agent does so.
2. A caller that continues after a refusal loses its connections, and is shut out for OUT_S: refusals also cost time,
   and the calls of others wait behind its calls.
3. Of many calls at once, the first are answered at once and the others one by one, so that they fill nobody's time.
4. A limit is far above what an honest agent needs, on a fast network with short rounds and also on a slow one, where
   the answers to its signs of life wait behind a model.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

from fedcervix.runtime.budgets import Budget

MINUTE_S = 60.0
AT_ONCE = 32
"""calls of a certificate that are answered immediately: each takes half a millisecond of the event loop, and other
calls wait behind it"""
OUT_S = 10.0
"""for which a certificate is not answered; a flood of calls that are cancelled at once begins anew after it"""
ALARM_PER_MIN = 60
"""from this number of refused calls of a site in a minute, the operator is told"""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one certificate."""

    open_max: int
    """calls at once, streams and transfers among them"""
    per_s: float
    """calls"""
    burst: float
    """calls"""
    refused_per_s: float = 2.0
    """refused calls before the certificate is shut out"""
    refused_burst: float = 30.0


LIMITS: Mapping[str, Limits] = {
    "site": Limits(open_max=64, per_s=100.0, burst=200.0),
    "enroll": Limits(open_max=2, per_s=0.5, burst=10.0, refused_burst=10.0),
    "used invitation": Limits(open_max=1, per_s=0.1, burst=5.0, refused_burst=1.0),
    "operator": Limits(open_max=16, per_s=100.0, burst=200.0),
}
"""by what calls"""


@dataclass(frozen=True, slots=True)
class Held:
    """What a site holds now."""

    open: int = 0
    """calls"""
    refused: int = 0
    """calls in the last minute"""
    connections: int = 0

    def __add__(self, other: Held) -> Held:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Held(*(mine + others for mine, others in pairs))


NOTHING = Held()


@dataclass(slots=True)
class _Usage:
    """What one certificate has used."""

    site: str
    limits: Limits
    calls: Budget
    patience: Budget
    words: Budget
    """lines in the log"""
    out_until_s: float = -math.inf
    open: int = 0
    refused: deque[list[float]] = field(default_factory=deque)
    """[second, count], the last minute's"""


class Admission:
    """What each certificate uses. Belongs to one thread."""

    def __init__(self, limits: Mapping[str, Limits] = LIMITS) -> None:
        self._limits = limits
        self._used: dict[str, _Usage] = {}

    def begin(self, serial: str, site: str, kind: str, now_s: float) -> bool:
        """Say whether a call of a certificate is within its limits, those of `kind`; it is open then until `end`."""
        usage = self._usage(serial, site, kind)
        within = usage.open < usage.limits.open_max
        if not (usage.calls.take(now_s) and within):
            return False
        usage.open += 1
        return True

    def pause_s(self, serial: str) -> float:
        """Return how long the call that was begun last is to wait for its turn."""
        usage = self._used[serial]
        return max(0.0, (usage.calls.used - AT_ONCE) / usage.limits.per_s)

    def refuse(self, serial: str, site: str, now_s: float) -> bool:
        """Count a call that is refused, for whatever reason; say whether the certificate may go on: else it is out."""
        usage, second = self._used.get(serial) or self._usage(serial, site, "site"), math.floor(now_s)
        if not usage.refused or usage.refused[-1][0] != second:
            usage.refused.append([second, 0])
        usage.refused[-1][1] += 1
        _forget(usage, now_s)
        goes_on = usage.patience.take(now_s)
        if not goes_on:
            usage.out_until_s = now_s + OUT_S
        return goes_on

    def is_out(self, serial: str, now_s: float) -> bool:
        """Say whether a certificate is shut out."""
        usage = self._used.get(serial)
        return usage is not None and now_s < usage.out_until_s

    def end(self, serial: str) -> None:
        """An open call has ended."""
        self._used[serial].open -= 1

    def may_say(self, serial: str, now_s: float) -> bool:
        """Say whether a refused call of this certificate is worth a line in the log: one a minute is."""
        return self._used[serial].words.take(now_s)

    def held(self, now_s: float) -> dict[str, Held]:
        """Return the usage of each site that has open calls, or refused calls in the last minute."""
        found: dict[str, Held] = {}
        for usage in self._used.values():
            _forget(usage, now_s)
            mine = Held(usage.open, int(sum(count for _, count in usage.refused)))
            if mine != NOTHING:
                found[usage.site] = found.get(usage.site, NOTHING) + mine
        return found

    def _usage(self, serial: str, site: str, kind: str) -> _Usage:
        limits = self._limits[kind]
        usage = self._used.get(serial)
        if usage is None:
            budgets = Budget(limits.per_s, limits.burst), Budget(limits.refused_per_s, limits.refused_burst)
            usage = self._used[serial] = _Usage(site, limits, *budgets, words=Budget(1 / MINUTE_S, 1))
        elif usage.limits is not limits:  # an invitation was used
            usage.limits = limits
            usage.calls = Budget(limits.per_s, limits.burst)
            usage.patience = Budget(limits.refused_per_s, limits.refused_burst)
        return usage


def _forget(usage: _Usage, now_s: float) -> None:
    while usage.refused and usage.refused[0][0] <= now_s - MINUTE_S:
        usage.refused.popleft()


def alarm(held: Mapping[str, Held]) -> str:
    """Return the warning to the operator about sites with many refused calls; empty if there are none."""
    many = {site: found.refused for site, found in sorted(held.items()) if found.refused >= ALARM_PER_MIN}
    return "; ".join(
        f"{count:,} calls from {site or 'unknown callers'} were refused in the last minute"
        for site, count in many.items()
    )
