"""Parses JSON from any source, only here.

A text of 3,000 brackets is an error of a class of its own to the standard library: a reader that expects a `ValueError`
ends with a traceback. Here everything that cannot be read is a ValueError.
"""

from __future__ import annotations

import json
from typing import Any


def parsed(text: str | bytes, **hooks: Any) -> Any:
    """Return the value that a JSON text stands for; the hooks are those of `json.loads`.

    Raises ValueError where it stands for none that can be read: no JSON, not UTF-8, nested too deeply, too large.
    """
    try:
        return json.loads(text, **hooks)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except MemoryError as error:
        raise ValueError("it is too large") from error
