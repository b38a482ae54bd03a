"""The site's page in a real browser, beside a process that holds the agent's lock as an agent does."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedcervix.core.plan import Plan, Recipe, Terms
from site_agent.federation.activity import Doing, ExaminedSite, Note, here, note, write_doing, write_examined
from site_agent.home import SiteHome, create
from site_agent.store.run_store import RunStore
from tests.e2e.loopback import BIN, Process, start
from tests.e2e.page_browser import CHROMIUM, browser_or_skip, check_keyboard

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
RUN = "20261130-120000-csfssl-0badcafe"
PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
HOLDS = (
    "import sys; from pathlib import Path; from fedcervix.disk.locks import locked\n"
    "with locked(Path(sys.argv[1]), wait=False): print('held', flush=True); import time; time.sleep(600)"
)
SEEN_S = 2.0
"""within which a killed agent is on the page"""
BUSY = 5
"""times as long on a machine that does other work"""


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    """Make the home of a site that trains in round 2."""
    home, now = SiteHome(tmp_path / "ada"), time.time()
    create(home, coordinator="localhost:50051")
    folder = home.run_folder(RUN)
    RunStore(folder).open(PLAN)
    states = ("check", "train", "transfer", "score", "train")
    for back_s, state in zip((300, 200, 100, 90, 60), states, strict=True):
        note(folder, Note(at=now - back_s, round=2 if back_s == 60 else 1, state=state))  # type: ignore[arg-type]
    for epoch in range(1, 6):
        note(folder, Note(at=now - 150, round=1, epoch=epoch, loss=6.0 - epoch / 2))
    found = ExaminedSite(at=now - 300, images=90, training_images=60, women=30, unreadable_for={"it ends too early": 2})
    write_examined(folder, found)
    doing = Doing(written_at=now, pid=1, place=here(), state="train", since=now - 60, run=RUN, round=2)
    working = replace(
        doing, task="train in round 2", stage="training", stage_since=now - 50, done=5, of=9, unit="steps"
    )
    write_doing(home.doing, replace(working, loss=4.5, heard_at=now - 1, connected=True, line_since=now - 300))
    return home


@pytest.fixture
def agent(home: SiteHome, tmp_path: Path) -> Iterator[Process]:
    process = start("agent", [sys.executable, "-c", HOLDS, home.lock], tmp_path / "logs")
    process.says("held")
    yield process
    process.end()


@pytest.fixture
def page(home: SiteHome, agent: Process, tmp_path: Path) -> Iterator[Page]:
    """Open the page in a browser; whatever the browser complains of is an error of the test."""
    browser_or_skip()
    from playwright.sync_api import sync_playwright

    del agent
    served = start("page", [BIN / "site-agent", "--home", home.folder, "page"], tmp_path / "logs")
    try:
        served.says("/enter?token=")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            found = browser.new_page()
            found.on("console", lambda said: pytest.fail(said.text) if said.type in ("error", "warning") else None)
            found.on("pageerror", lambda error: pytest.fail(str(error)))
            found.goto(re.findall(r"http://\S+", served.text)[0])
            found.get_by_role("heading", name="Training in round 2").wait_for()
            yield found
            browser.close()
    finally:
        served.end()


def test_a_site_at_work_is_shown_for_everybody_and_a_killed_agent_at_once(page: Page, agent: Process) -> None:
    from axe_playwright_python.sync_playwright import Axe

    check_keyboard(page)
    for width in (360, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(page, options={"runOnly": LEVELS}).response["violations"]
        assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == []
    page.get_by_text("it ends too early").wait_for()
    page.get_by_text("Training loss: table").press("Enter")  # by keyboard
    page.get_by_role("region", name="Training loss: table").get_by_text("5.5", exact=True).wait_for()
    agent.kill()
    page.get_by_role("heading", name="The agent does not run", exact=True).wait_for(timeout=1000 * SEEN_S * BUSY)
    page.locator("#trouble").get_by_text("What to do").first.wait_for()
