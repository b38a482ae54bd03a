"""How long to wait before the next try: growing pauses with a random part. And how often a site sends a sign of life.

When a coordinator returns, its sites connect within five seconds, but not all at the same moment. Two pauses add up:
the one before a site's next call (here), and the one before gRPC connects again (`rpc.CLIENT_OPTIONS`).
"""

from __future__ import annotations

import random

FIRST_S = 0.2
MOST_S = 2.0
SIGN_S = 4.0
"""A site sends a sign of life this often, busy or idle, so a silent site is named within seconds. Pings (`rpc`) cut its
connection much later, because on a slow network an answer may wait behind a model."""


class Pauses:
    """Pauses between tries: each is up to twice as long as the one before it."""

    def __init__(self, chance: random.Random | None = None, *, most_s: float = MOST_S) -> None:
        self._chance = chance or random.Random()  # noqa: S311  (jitter: not a secret, and no result depends on it)
        self._most_s, self._next_s = most_s, FIRST_S

    def reset(self) -> None:
        """It has succeeded."""
        self._next_s = FIRST_S

    def next_s(self) -> float:
        """Return the next pause, in seconds."""
        pause_s, self._next_s = self._next_s, min(self._most_s, 2 * self._next_s)
        return pause_s * self._chance.uniform(0.5, 1.0)
