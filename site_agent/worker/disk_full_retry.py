"""A full disk at the site is waited for: what is to be written may be the work of hours, and in memory alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fedcervix.errors import FedcervixError, FullDiskError
from fedcervix.network.backoff import Pauses

T = TypeVar("T")

NO_ROOM = {"stage": "waiting for room on the disk", "done": 0, "of": 0, "unit": ""}
"""the progress of what waits"""


def with_room(act: Callable[[], T], on_progress: Callable[[dict[str, Any]], None], wait: Callable[[float], Any]) -> T:
    """Do something that writes to the disk; where that is full, say so once and try again until there is room.

    Every try is a sign of life. `wait` may raise, to give up.
    """
    pauses, told = Pauses(), ""
    while True:
        try:
            return act()
        except FullDiskError as error:
            on_progress({**NO_ROOM, "trouble": trouble(error)} if error.what != told else NO_ROOM.copy())
            told = error.what
        wait(pauses.next_s())


def trouble(error: FedcervixError) -> list[str]:
    """Return an error's three lines as progress carries them, within the site."""
    return [error.what, error.cause, error.next_step]
