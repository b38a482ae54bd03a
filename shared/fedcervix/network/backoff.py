"""How long to wait before the next try: growing, jittered, never for long. And how often a site shows that it is there.

A coordinator that returns finds its sites within five seconds, and is not met by all of them at once. Two pauses add up
to that: the one before a site's next call (here), and the one before gRPC dials again (`rpc.CLIENT_OPTIONS`).
"""

from __future__ import annotations

import random

FIRST_S = 0.2
MOST_S = 2.0
SIGN_S = 4.0
"""A site says that it is there so often, at work and at rest: who has fallen silent is named within seconds. Its line
is cut much later, by pings (`rpc`): an answer may have to stand behind a model on a slow line."""


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
