"""A full disk at the site is waited for: what is to be written may be the work of hours, and in memory alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from fedcervix.errors import FullDiskError
from fedcervix.runtime.worker_protocol import ErrorParts, OnProgress, WorkProgress
from fedcervix.transport.backoff import Pauses

T = TypeVar("T")

NO_ROOM = WorkProgress("waiting for room on the disk")
"""the progress of what waits"""


def with_room(act: Callable[[], T], on_progress: OnProgress, wait: Callable[[float], Any]) -> T:
    """Do something that writes to the disk; where that is full, say so once and try again until there is room.

    Every try is a sign of life. `wait` may raise, to give up.
    """
    pauses, told = Pauses(), ""
    while True:
        try:
            return act()
        except FullDiskError as error:
            on_progress(dataclasses.replace(NO_ROOM, trouble=ErrorParts.of(error)) if error.what != told else NO_ROOM)
            told = error.what
        wait(pauses.next_s())
