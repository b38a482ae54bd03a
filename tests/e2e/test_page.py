"""The coordinator's page in a real browser: it can be read by everybody, keeps to its rules, and shows what happens."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.loopback import until
from tests.e2e.page_browser import CHROMIUM, NARROW, WIDE, Shown, browser_or_skip, check_keyboard, shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Route

LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
TABS = 8


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser_or_skip()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Shown]:
    with shown(tmp_path_factory.mktemp("star"), "star") as found:
        yield found


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    found = browser.new_context(viewport=WIDE)
    yield found
    found.close()


def opened(context: BrowserContext, served: Shown) -> Page:
    """Open the page; whatever the browser complains of is an error of the test."""
    page = context.new_page()
    page.on("console", lambda said: pytest.fail(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(served.address())
    page.get_by_role("heading", name="Federation").wait_for()
    page.get_by_text("Round 12 of at most 40:").wait_for()
    return page


def wrong(page: Page) -> list[str]:
    """Return what axe-core finds, and where."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"runOnly": LEVELS})
    return [f"{one['id']}: {node['target']}" for one in found.response["violations"] for node in one["nodes"]]


@pytest.mark.timeout(240)
def test_everybody_can_read_it_and_it_shows_what_happens(context: BrowserContext, star: Shown) -> None:
    page = opened(context, star)
    heading = page.get_by_role("heading", level=1)
    assert heading.inner_text() == "All is well"
    star.tell("cut kiel")
    page.get_by_role("heading", name="kiel: its connection is cut").wait_for(timeout=5000)
    star.tell("silence ghent")
    star.tell("fail porto")
    page.get_by_role("heading", name="porto has failed").wait_for(timeout=5000)
    assert heading.inner_text() == "2 things need a person"
    row = page.get_by_role("region", name="Sites: table").get_by_role("row").filter(has_text="ghent")
    assert "silent" in row.inner_text()
    picture = page.get_by_role("img", name=re.compile("A star of 5 sites"))
    assert "porto: failed" in str(picture.get_attribute("aria-label"))
    page.get_by_text("Validation loss: table").click()
    table = page.get_by_role("region", name="Validation loss: table")
    assert table.get_by_role("row").count() == 13  # one of headings, and twelve rounds
    assert table.get_by_role("row").nth(2).inner_text().startswith("11")
    assert page.title().startswith("✖ 2 things need a person")
    aloud = "[...document.querySelectorAll('[role=status], [aria-live=polite]')].map((one) => one.innerText).join()"
    assert "as of" not in page.evaluate(aloud)  # a screen reader would say the time each second
    moving = page.locator("[aria-live=polite] [data-since]")
    assert {one.get_attribute("aria-live") for one in moving.all()} == {"off"}
    for scheme in ("light", "dark"):
        for size in (WIDE, NARROW):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.set_viewport_size(size)  # type: ignore[arg-type]
            assert wrong(page) == [], f"{scheme}, {size}"
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= size["width"], f"it must be scrolled sideways at {size}"


@pytest.mark.long
@pytest.mark.timeout(120)
def test_all_tabs_of_a_browser_share_one_stream_and_the_next_takes_it_over(
    context: BrowserContext, star: Shown
) -> None:
    streams: list[str] = []
    context.on("request", lambda request: streams.append(request.url) if request.url.endswith("/events") else None)
    first = opened(context, star)
    root = first.url
    tabs = [context.new_page() for _ in range(TABS)]
    for tab in tabs:
        tab.goto(root)
        tab.get_by_text("Round 12 of at most 40:").wait_for()
    assert len(streams) == 1
    first.close()
    until("another tab has the stream", lambda: tabs[0].wait_for_timeout(50) or len(streams) == 2)


@pytest.mark.timeout(120)
def test_it_is_used_by_keyboard(context: BrowserContext, star: Shown) -> None:
    page = opened(context, star)
    check_keyboard(page)
    twin = page.get_by_text("Timeline: table of the time since")
    twin.focus()
    page.keyboard.press("Enter")
    page.get_by_role("region", name="Timeline: table").wait_for()


def refusing(code: int) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=code, body="")


@pytest.mark.timeout(120)
def test_a_stream_that_is_dead_or_refused_is_said_in_the_right_words_and_opened_again(
    context: BrowserContext, star: Shown
) -> None:
    page = context.new_page()
    page.clock.install()
    streams: list[str] = []
    page.on("request", lambda request: streams.append(request.method) if request.url.endswith("/events") else None)
    page.goto(star.address())
    status = page.get_by_role("status")
    page.get_by_text("Round 12 of at most 40:").wait_for()
    star.process.signal(signal.SIGSTOP)  # as a tunnel that is gone: the connection stays, and nothing comes
    try:
        page.clock.run_for(20_000)
        status.get_by_text("the page's server does not answer").wait_for()
        assert streams.count("GET") > 1  # the browser itself would wait for ever
    finally:
        star.process.signal(signal.SIGCONT)
    page.clock.run_for(20_000)
    status.get_by_text("live").wait_for()
    for code, words in ((403, "not let in any more"), (503, "too many pages are open"), (502, "does not answer")):
        page.route("**/events", refusing(code))
        page.reload()
        status.get_by_text(words).wait_for()
    page.unroute("**/events")
    page.clock.run_for(20_000)
    status.get_by_text("live").wait_for()


@pytest.mark.timeout(120)
def test_a_link_from_another_web_page_opens_no_door_and_a_bookmark_does(context: BrowserContext, star: Shown) -> None:
    page = opened(context, star)
    portal = context.new_page()
    portal.route("http://portal.example/", lambda route: route.fulfill(
        body=f'<a href="{page.url}">the page</a><img src="{page.url}shared/icon.svg" alt="">', content_type="text/html"
    ))  # fmt: skip
    portal.goto("http://portal.example/")
    assert portal.locator("img").evaluate("image => image.decode().then(() => 'shown', () => 'refused')") == "refused"
    portal.get_by_role("link").click()
    portal.get_by_text("you are not logged in here").wait_for()  # the cookie does not come along
    portal.goto(page.url)
    portal.get_by_text("Round 12 of at most 40:").wait_for()


@pytest.mark.timeout(120)
def test_a_browser_that_is_not_let_in_is_told_what_to_do(context: BrowserContext, star: Shown) -> None:
    used = star.address()
    opened(context, star)
    other = context.browser.new_context()  # type: ignore[union-attr]
    page = other.new_page()
    assert page.goto(used).status == 403  # type: ignore[union-attr]
    assert "coordinator page" in page.inner_text("body")
    other.close()


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_ring_shows_who_holds_the_model(context: BrowserContext, tmp_path: Path) -> None:
    with shown(tmp_path, "ring") as served:
        page = opened(context, served)
        page.get_by_role("img", name=re.compile("A ring of 5 sites. nhs holds the model.")).wait_for()
        served.tell("away")
        page.get_by_role("heading", name="The coordinator is away", level=1).wait_for()
        assert "from the journal" in page.get_by_role("status").inner_text()


@pytest.mark.timeout(120)
def test_what_a_site_says_is_text_and_never_markup(context: BrowserContext, tmp_path: Path) -> None:
    with shown(tmp_path, "pair") as served:
        page = opened(context, served)
        served.tell("inject alts")
        page.get_by_text("<script>document.title='owned'</script>").first.wait_for()
        assert "owned" not in page.title()
        assert page.locator("main img, main script, main b").count() == 0
