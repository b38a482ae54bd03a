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
from typing import TYPE_CHECKING

import pytest

from tests.e2e.loopback import Process, start, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NO_BROWSER = "" if CHROMIUM else "chromium is not installed: apt-get install chromium"
STOPS_MAX = 120
STOP = """() => {
  const at = document.activeElement;
  if (at === document.body) return null;
  const top = document.querySelector(".top").getBoundingClientRect().bottom;
  const name = at.getAttribute("aria-label") || at.textContent.slice(0, 60);
  return [name, getComputedStyle(at).outlineStyle, at.getBoundingClientRect().bottom > top];
}"""
"""where the keyboard is: its name, whether that is seen, and whether it is in sight"""
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 360, "height": 740}


def browser_or_skip() -> None:
    """Skip where no browser is installed."""
    if NO_BROWSER:
        pytest.skip(NO_BROWSER)
    pytest.importorskip("playwright", reason="playwright is not installed")


def check_keyboard(page: Page) -> None:
    """Check that a page is reached, left and read with the Tab key alone, and that one sees where one is."""
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen: list[str] = []
    for _ in range(STOPS_MAX):
        page.keyboard.press("Tab")
        told = page.evaluate(STOP)
        if told is None:
            break
        name, outline, place = told
        assert outline != "none", f"nobody sees that the keyboard is at {name}"
        assert place, f"{name} lies below the frame at the top"
        seen.append(name)
    else:
        pytest.fail(f"the keyboard does not leave the page: {seen}")
    wanted = page.locator("summary:visible, a:visible:not(.skip), .scroll:visible").count()
    assert len(seen) == wanted, seen


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
