"""Parses JSON from any source, only here.

A text of 3,000 brackets is an error of a class of its own to the standard library, and one of 900 may be one to whoever
writes, compares or quotes its value later: a reader that expects a `ValueError` ends with a traceback. Here everything
that cannot be read is a ValueError, and so is what is nested deeper than any value of ours.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

T = TypeVar("T")

DEPTH_MAX = 64
"""of lists and objects within each other; ours have less than ten"""


def parsed(text: str | bytes, **hooks: Any) -> Any:
    """Return the value that a JSON text stands for; the hooks are those of `json.loads`.

    Raises ValueError where it stands for none that can be read: no JSON, not UTF-8, nested too deeply, too large.
    """
    try:
        return shallow(json.loads(text, **hooks))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except MemoryError as error:
        raise ValueError("it is too large") from error


def shallow(value: T) -> T:
    """Return a value of lists and tables as it is. Raises ValueError where it is nested deeper than DEPTH_MAX."""
    level: list[Any] = [value]
    for _ in range(DEPTH_MAX):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, dict | list)
        ]
        if not level:
            return value
    raise ValueError("it is nested too deeply")
