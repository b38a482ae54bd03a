"""Records of a site that could not be read: the report then lacks only their section."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from fedcervix.errors import FedcervixError

UNREADABLE = (
    FedcervixError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
)
"""what reading a damaged record raises"""

Part = TypeVar("Part")


@dataclass(slots=True)
class Unread:
    """Collects what could not be read, one sentence each."""

    said: list[str] = field(default_factory=list)

    def part(self, what: str, read: Callable[[], Part], otherwise: Part) -> Part:
        """Return what `read` gives; where it fails, `otherwise`, and note that `what` is missing."""
        try:
            return read()
        except UNREADABLE as error:
            why = error.what if isinstance(error, FedcervixError) else f"{type(error).__name__}: {error}"
            self.said.append(f"{what} cannot be read and is not in this report ({why:.300}).")
            return otherwise
