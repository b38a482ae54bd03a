"""The files and folders of a home, each named in one line of its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Below:
    """A path below an object's `folder`: with `cache = Below("cache")`, `home.cache` is `home.folder / "cache"`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, home: Any, _kind: object) -> Path:
        return Path(home.folder, self._name)
