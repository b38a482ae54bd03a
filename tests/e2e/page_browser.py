"""A page in a real browser: the process that serves it, and Debian's chromium."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.loopback import Process, start, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NO_BROWSER = "" if CHROMIUM else "chromium is not installed: apt-get install chromium"
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 360, "height": 740}


def browser_or_skip() -> None:
    """Skip where no browser is installed."""
    if NO_BROWSER:
        pytest.skip(NO_BROWSER)
    pytest.importorskip("playwright", reason="playwright is not installed")


@dataclass
class Shown:
    """A page that is served, of a scene (see `tests.unit.page_process`)."""

    process: Process

    def address(self) -> str:
        """Return the address that was printed last."""
        self.process.says("/enter?token=")
        return re.findall(r"http://\S+", self.process.text)[-1]

    def tell(self, words: str) -> None:
        """Change the scene."""
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.write(f"{words}\n".encode())
        self.process.popen.stdin.flush()


@contextlib.contextmanager
def shown(folder: Path, scene: str) -> Iterator[Shown]:
    """Serve a scene."""
    process = start(
        "page", [sys.executable, "-m", "tests.unit.page_process", folder, scene], folder / "logs", stdin=subprocess.PIPE
    )
    try:
        found = Shown(process)
        until(
            "the page is served", lambda: "token=" in process.text or not process.running(), seen=lambda: process.text
        )
        yield found
    finally:
        process.end()
