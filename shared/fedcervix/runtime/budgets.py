"""How much of something one party may use: a burst, then a rate per second (a token bucket).

The unit is up to the caller: calls, journaled events, bytes, log lines. The clock is the caller's, monotonic, in
seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedcervix.core.plan import check


@dataclass(slots=True)
class Budget:
    """One party's budget of one thing. Not thread-safe: its owner holds a lock, or is one thread."""

    per_s: float
    burst: float
    _left: float = field(init=False)
    _at_s: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check(self.per_s >= 0 and self.burst > 0, f"a budget is above 0; found {self.burst} and {self.per_s} a second")
        self._left = self.burst

    @property
    def used(self) -> float:
        """How much of the burst was gone when it was last asked."""
        return self.burst - self._left

    def take(self, now_s: float, amount: float = 1.0) -> bool:
        """Use `amount` if it is available at `now_s`; say whether it was."""
        if self._at_s is not None:
            self._left = min(self.burst, self._left + max(0.0, now_s - self._at_s) * self.per_s)
        self._at_s = now_s
        if amount > self._left:
            return False
        self._left -= amount
        return True
