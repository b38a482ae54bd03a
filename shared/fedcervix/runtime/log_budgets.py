"""How many lines the other side may cause: a burst, then a number per minute. One line says how many were left out.

In a coordinator's log, lines are counted for each site and level, so that a flood of refused calls does not hide lines
about the site's updates. Lines without a site are the coordinator's own and have a separate budget. On the screen of a
site's agent they are counted for each kind of line. Nothing important is only there: the journal has what counted,
failed and was missing.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedcervix.runtime.budgets import Budget

SITE = (0.5, 300.0)
"""lines of one level or kind per second, and in a burst; the line that says that others are left out is additional"""
OWN = (10.0, 2000.0)
"""the same of lines that name no site"""
KEPT_MAX = 2048
"""number of budgets; the least recently used one is forgotten"""

PAUSE = "further messages of this kind are left out for a while"


@dataclass(slots=True)
class _Lines:
    budget: Budget
    left_out: int = 0


class LineBudgets:
    """Decides for each line whether it is written (see `fedcervix.runtime.log.ration`). Thread-safe."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._lines: OrderedDict[tuple[str, str], _Lines] = OrderedDict()

    def __call__(self, event: Mapping[str, object]) -> Mapping[str, object] | None:
        """Return what else stands in the line; None: it is left out."""
        with self._lock:
            lines, now_s = self._of(str(event.get("site", "")), str(event.get("level", ""))), self._clock_s()
            if not lines.budget.take(now_s):
                lines.left_out += 1
                return {"left_out": PAUSE} if lines.left_out == 1 else None
            more = {"left_out": lines.left_out - 1} if lines.left_out > 1 else {}
            lines.left_out = 0
            return more

    def _of(self, site: str, level: str) -> _Lines:
        found = self._lines.get((site, level)) or _Lines(Budget(*(SITE if site else OWN)))
        self._lines[site, level] = found
        self._lines.move_to_end((site, level))
        if len(self._lines) > KEPT_MAX:
            self._lines.popitem(last=False)
        return found
