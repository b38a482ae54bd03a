"""Models that were looked at and refused: the same one is not looked at again.

A report of 150 bytes can name a model that takes seconds to check. What was wrong with it stays wrong: the bytes of a
model have its digest, and a task has one base. Kept in memory only, and the last few of each site.
"""

from __future__ import annotations

from collections import OrderedDict

from fedcervix.core.events import Task, UpdateStored
from fedcervix.errors import RemoteError

REMEMBERED_MAX = 64
"""of each site"""

_Key = tuple[Task, str, str]


class Refused:
    """Whatever was refused of one site."""

    def __init__(self) -> None:
        self._why: OrderedDict[_Key, tuple[str, str, str]] = OrderedDict()

    def check(self, update: UpdateStored) -> None:
        """Raise RemoteError, with the same words as before, where this model was refused for this task."""
        if (said := self._why.get(_key(update))) is not None:
            what, cause, next_step = said
            raise RemoteError(what, cause=cause, next_step=next_step)

    def note(self, update: UpdateStored, error: RemoteError) -> None:
        """Remember what is wrong with a model; the oldest one is forgotten."""
        self._why[_key(update)] = (error.what, error.cause, error.next_step)
        if len(self._why) > REMEMBERED_MAX:
            self._why.popitem(last=False)


def _key(update: UpdateStored) -> _Key:
    return update.task, update.digest, update.packed
