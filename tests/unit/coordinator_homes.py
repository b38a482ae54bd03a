"""Homes of coordinators, for tests of what is done with them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from coordinator.home.founding import Founding, create
from coordinator.home.home import Home


def made(folder: Path, **told: str | tuple[str, ...]) -> Home:
    """Make a home and return it."""
    values = {"name": "cervix", "advertise": "localhost:8443", "bind": "127.0.0.1:0", "profile": "paper"}
    home = Home(folder)
    create(home, Founding(**{**values, "sites": ("nhs", "alts"), **told}), datetime.now(UTC))  # type: ignore[arg-type]
    return home


def let_in(folder: Path) -> None:
    """Let every user enter a test's folder, which pytest keeps to its own."""
    for way in (folder, *folder.parents):
        if way.stat().st_uid == os.geteuid() and way.stat().st_mode & 0o055 != 0o055:
            way.chmod(0o755)


@contextmanager
def no_room() -> Iterator[None]:
    """A disk on which no file can grow."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
