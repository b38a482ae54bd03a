"""What the page shows: one JSON object, made of named parts; and the difference of two such objects.

A part is made of plain tables, lists, texts and finite numbers. Tables are keyed by a name (of a site, a round): a
difference then has only the lines that are new. There is no null in a part: in a merge patch it means that a key is
gone (RFC 7396).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

Part = Mapping[str, object]


def difference(before: Part, after: Part) -> dict[str, object]:
    """Return the merge patch (RFC 7396) that makes `after` of `before`; empty where they are equal."""
    patch: dict[str, object] = {name: None for name in before if name not in after}
    for name, value in after.items():
        known = before.get(name)
        if known is value or known == value:
            continue
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        patch[name] = difference(known, value) if both else value  # type: ignore[arg-type]
    return patch


class Board:
    """What the page shows now. Any thread may change it; whoever listens is told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: dict[str, Part] = {}
        self._ring: Callable[[], None] = lambda: None

    def put(self, **parts: Part) -> None:
        """Replace parts by name."""
        with self._lock:
            self._parts = {**self._parts, **parts}
        self._ring()

    def parts(self) -> Mapping[str, Part]:
        """Return all parts. The value does not change any more: `put` makes another one."""
        with self._lock:
            return self._parts

    def on_change(self, ring: Callable[[], None]) -> None:
        """Name what is called after each change, on the thread that made it; it must not wait."""
        self._ring = ring
