"""Is there a quorum? Three answers: yes, not yet, and never.

The third answer is what keeps a federation from waiting for ever for something that cannot come.
"""

from __future__ import annotations

from enum import StrEnum


class Quorum(StrEnum):
    """The state of a vote in which some have answered, some may still, and some never will."""

    MET = "met"
    PENDING = "pending"
    IMPOSSIBLE = "impossible"


def quorum(*, needed: int, answered: int, open_: int) -> Quorum:
    """Return the state of a vote: `answered` have, `open_` still may; both counts exclude each other."""
    if answered >= needed:
        return Quorum.MET
    return Quorum.PENDING if answered + open_ >= needed else Quorum.IMPOSSIBLE
