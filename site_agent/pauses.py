"""How long to wait before the next try, and what is done for as long as a disk is full."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

from fedcervix.errors import FedcervixError, FullDiskError

T = TypeVar("T")

NO_ROOM = {"stage": "waiting for room on the disk", "done": 0, "of": 0, "unit": ""}
"""the progress of what waits"""


class Pauses:
    """Jittered, growing pauses between tries: 0.2 s at first, 5 s at most.

    A returning coordinator finds its sites within seconds, and is not met by all of them at once.
    """

    FIRST_S = 0.2
    MOST_S = 5.0

    def __init__(self, chance: random.Random) -> None:
        self._chance, self._next_s = chance, self.FIRST_S

    def reset(self) -> None:
        """The line is up."""
        self._next_s = self.FIRST_S

    def next_s(self) -> float:
        """Return the next pause, in seconds."""
        pause_s, self._next_s = self._next_s, min(self.MOST_S, 2 * self._next_s)
        return pause_s * self._chance.uniform(0.5, 1.0)


def with_room(act: Callable[[], T], on_progress: Callable[[dict[str, Any]], None], wait: Callable[[float], Any]) -> T:
    """Do something that writes to the disk; where that is full, say so once and try again until there is room.

    What is to be written may be the work of hours, and in memory alone. `wait` may raise, to give up.
    """
    pauses, told = Pauses(random.Random()), ""  # noqa: S311  (jitter, not a secret, and no result depends on it)
    while True:
        try:
            return act()
        except FullDiskError as error:
            if error.what != told:
                on_progress({**NO_ROOM, "trouble": trouble(error)})
            told = error.what
        wait(pauses.next_s())


def trouble(error: FedcervixError) -> list[str]:
    """Return an error's three lines as progress carries them, within the site."""
    return [error.what, error.cause, error.next_step]
