"""The number of a text's format: by it a version knows whether it can read what another version wrote.

A text that names no format has format 1. A version reads every format up to its own, and refuses those of later
versions: it never guesses what a later version meant.
"""

from __future__ import annotations

from typing import Any

from fedcervix import __version__
from fedcervix.printable import quoted

FIRST = 1
KEY = "format"
"""of an object that names its format"""


class UnknownFormat(ValueError):  # noqa: N818 (nobody's fault: the text is of a later version)
    """A later version of fedcervix wrote the text: it has a format that this version does not know."""

    def __init__(self, what: str, found: int, known: int) -> None:
        super().__init__(f"{what} has format {found}; fedcervix {__version__} reads formats up to {known}")
        self.what, self.found, self.known = what, found, known


def checked_format(what: str, found: object, known: int) -> int:
    """Return the format that `what` names. Raises UnknownFormat; ValueError where it is no format at all."""
    if type(found) is not int or found < FIRST:
        raise ValueError(f"{KEY} is a whole number from {FIRST}; found {quoted(found)}")
    if found > known:
        raise UnknownFormat(what, found, known)
    return found


def contents(what: str, raw: Any, known: int = FIRST) -> dict[str, object]:
    """Return the keys of an object but that of its format. Raises UnknownFormat; ValueError where it is no object."""
    if not isinstance(raw, dict):
        raise ValueError(f"{what} is no object; found {quoted(raw)}")  # noqa: TRY004 (as of any text that is not ours)
    checked_format(what, raw.get(KEY, FIRST), known)
    return {key: value for key, value in raw.items() if key != KEY}
