"""Who sees the page: an attacker's requests, asked of the real application, and what its answers let a browser do."""

from __future__ import annotations

import hashlib
import itertools
import re
from importlib.resources import files
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fedcervix.page.app import PageContent, application
from fedcervix.page.board import Board
from fedcervix.page.fanout import Fanout
from fedcervix.page.guard import ANSWER_HEADERS, Guard, Rules
from fedcervix.page.sessions import SESSIONS_MAX, Sessions
from tests.unit.asgi import Answered, ask

HOST = "127.0.0.1:4711"
COOKIE = "fedcervix-page-4711"
STATIC = Path(__file__).parents[2] / "shared" / "fedcervix" / "page" / "static"


def drawn() -> Sessions:
    numbers = itertools.count()
    return Sessions(lambda: f"secret-{next(numbers)}")


@pytest.fixture
def sessions() -> Sessions:
    return drawn()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "body.html").write_text("<main>own</main>")
    (tmp_path / "own.js").write_text("1")
    (tmp_path / "keys.pem").write_text("secret")
    return tmp_path


def made(folder: Path, sessions: Sessions | None) -> Guard:
    async def numbers(_: Request) -> PlainTextResponse:
        return PlainTextResponse("numbers")

    content = PageContent("site", folder, Board(), [Route("/metrics", numbers)], frozenset({"/metrics"}))
    rules = Rules(frozenset({HOST, "localhost:4711"}), COOKIE, "coordinator page", content.open_paths)
    return Guard(application(content, Fanout(content.board)), rules, sessions)


@pytest.fixture
def page(folder: Path, sessions: Sessions) -> Guard:
    return made(folder, sessions)


def logged_in(page: Guard, sessions: Sessions) -> dict[str, str]:
    answer = ask(page, f"/enter?token={sessions.token}", headers={"host": HOST})
    return {"host": HOST, "cookie": answer.headers["set-cookie"].partition(";")[0]}


def test_the_address_works_once_and_becomes_a_cookie_that_scripts_and_other_sites_do_not_get(
    page: Guard, sessions: Sessions
) -> None:
    address = f"/enter?token={sessions.token}"
    answer = ask(page, address, headers={"host": HOST})
    assert (answer.status, answer.headers["location"]) == (303, "/")
    flags = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= flags
    again = ask(page, address, headers={"host": HOST})
    assert again.status == 403
    assert "set-cookie" not in again.headers
    assert "coordinator page" in again.text
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert ask(page, "/", headers={"host": HOST, "cookie": cookie}).text.count("<main>own</main>") == 1


def test_a_used_token_is_replaced_and_the_new_one_is_announced(sessions: Sessions) -> None:
    announced: list[str] = []
    numbers = itertools.count()
    sessions = Sessions(lambda: f"secret-{next(numbers)}", announced.append)
    first = sessions.token
    assert sessions.enter("wrong") is None
    assert sessions.token == first
    session = sessions.enter(first)
    assert session is not None
    assert sessions.knows(session)
    assert announced == [sessions.token]
    assert len({first, session, sessions.token}) == 3
    assert not sessions.knows(first)
    assert not sessions.knows("")


def test_sessions_have_a_bound_and_the_oldest_goes(sessions: Sessions) -> None:
    opened = [sessions.enter(sessions.token) or "" for _ in range(SESSIONS_MAX + 1)]
    assert not sessions.knows(opened[0])
    assert all(map(sessions.knows, opened[1:]))


@pytest.mark.parametrize("path", ["/", "/events", "/shared/page.css", "/own/own.js", "/records/x", "/nothing"])
def test_nothing_is_shown_without_the_cookie(page: Guard, path: str) -> None:
    for cookie in ({}, {"cookie": f"{COOKIE}=guess"}, {"cookie": "fedcervix-page-1=x; ="}, {"cookie": "\x01=;"}):
        answer = ask(page, path, headers={"host": HOST, **cookie})
        assert answer.status == 403
        assert b"own</main>" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_only_get_and_head_are_answered(page: Guard, sessions: Sessions, method: str) -> None:
    answer = ask(page, "/", method, logged_in(page, sessions))
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_a_preview_of_the_address_does_not_use_it_up(page: Guard, sessions: Sessions) -> None:
    address = f"/enter?token={sessions.token}"
    assert ask(page, address, "HEAD", {"host": HOST}).status == 403
    assert ask(page, address, headers={"host": HOST, "sec-purpose": "prefetch;prerender"}).status == 403
    assert ask(page, address, headers={"host": HOST}).status == 303


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4711", "127.0.0.1", "127.0.0.1:80", "", "localhost"])
def test_a_foreign_name_that_points_here_is_refused(page: Guard, sessions: Sessions, host: str) -> None:
    """DNS rebinding: the attacker's page has the attacker's name as its origin, and this machine's address."""
    answer = ask(page, "/", headers={**logged_in(page, sessions), "host": host})
    assert answer.status == 421
    token = sessions.token
    assert ask(page, f"/enter?token={token}", headers={"host": host}).status == 421
    assert sessions.token == token


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of localhost
        {"sec-fetch-site": "anything"},
        {"origin": "http://evil.example"},
        {"origin": "null"},  # a sandboxed frame
        {"origin": ""},
        {"origin": "http://127.0.0.1:9999"},
    ],
    ids=lambda headers: "-".join(f"{name}.{value}" for name, value in headers.items()).replace("/", "_"),
)
def test_what_another_page_asks_for_is_refused(page: Guard, sessions: Sessions, headers: dict[str, str]) -> None:
    assert ask(page, "/events", headers={**logged_in(page, sessions), **headers}).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_in_a_portal_and_the_way_back_from_a_sign_in_page_open_the_document_alone(
    folder: Path, site: str
) -> None:
    """Behind a proxy there is no cookie: the first thing that a browser asks for comes from the sign-in page."""
    page = made(folder, None)
    link = {"host": HOST, "sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert ask(page, "/", headers=link).status == 200
    for path in ("/events", "/metrics", "/own/own.js", "/enter?token=x"):
        assert ask(page, path, headers=link).status == 403
    assert ask(page, "/", headers={**link, "sec-fetch-dest": "iframe"}).status == 403
    assert ask(page, "/", headers={**link, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}).status == 403


def test_a_link_from_elsewhere_lets_nobody_in_who_has_no_cookie(page: Guard) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert ask(page, "/", headers={"host": HOST, **link}).status == 403


def test_what_the_page_itself_asks_for_is_answered(page: Guard, sessions: Sessions) -> None:
    known = {**logged_in(page, sessions), "sec-fetch-site": "same-origin", "origin": f"http://{HOST}"}
    assert ask(page, "/shared/page.css", headers=known).status == 200
    assert ask(page, "/events", "HEAD", known).headers["content-type"].startswith("text/event-stream")


def test_a_path_that_is_open_needs_no_cookie_and_has_the_other_rules(page: Guard) -> None:
    assert ask(page, "/metrics", headers={"host": HOST}).text == "numbers"
    assert ask(page, "/metrics", headers={"host": "evil.example"}).status == 421
    assert ask(page, "/metrics", headers={"host": HOST, "sec-fetch-site": "cross-site"}).status == 403
    assert ask(page, "/metrics", "POST", {"host": HOST}).status == 405
    assert ask(page, "/metrics/../", headers={"host": HOST}).status == 403


def test_behind_a_socket_or_client_certificates_no_cookie_is_asked_for(folder: Path) -> None:
    page = made(folder, None)
    assert ask(page, "/", headers={"host": HOST}).status == 200
    assert ask(page, "/", headers={"host": "evil.example"}).status == 421


def every_answer(page: Guard, sessions: Sessions) -> list[Answered]:
    known = logged_in(page, sessions)
    return [
        ask(page, "/", headers=known),
        ask(page, "/own/own.js", headers=known),
        ask(page, "/nothing", headers=known),
        ask(page, "/", headers={"host": "evil.example"}),
        ask(page, "/", headers={"host": HOST}),
        ask(page, "/enter?token=x", headers={"host": HOST}),
    ]


def test_every_answer_says_what_a_browser_may_do_with_it(page: Guard, sessions: Sessions) -> None:
    for answer in every_answer(page, sessions):
        for name, value in ANSWER_HEADERS.items():
            assert answer.headers[name.lower()] == value
    policy = ANSWER_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert ANSWER_HEADERS["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    ["/own/keys.pem", "/own/../own/own.js", "/own/body.html", "/shared/../../guard.py", "/own/", "//own/own.js"],
)
def test_only_the_files_that_were_there_at_the_start_and_have_a_known_type_are_served(
    page: Guard, sessions: Sessions, path: str
) -> None:
    assert ask(page, path, headers=logged_in(page, sessions)).status == 404


def test_the_library_that_draws_charts_is_the_one_that_was_looked_at() -> None:
    """Version 1.6.32 of uPlot, as the npm registry has it; its licence (MIT) lies beside it."""
    digests = {
        "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
        "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
        "uPlot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    }
    assert {name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name in digests} == digests
    assert "MIT" in (STATIC / "uPlot.LICENSE.txt").read_text()


@pytest.mark.parametrize(("role", "package"), [("coordinator", "coordinator.page"), ("site", "site_agent.page")])
def test_the_document_has_no_script_or_style_of_its_own_and_nothing_from_elsewhere(role: str, package: str) -> None:
    content = PageContent(role, files(package) / "static", Board())
    page = application(content, Fanout(content.board))
    text = ask(page, "/").text
    assert "$" not in text
    assert "<style" not in text
    assert " style=" not in text
    assert "://" not in text
    assert " on" not in "".join(part.partition(">")[0] for part in text.split("<")[1:]).replace(" one", "")
    named = re.findall(r'(?:src|href)="(/[^"]*)"', text)
    assert f"/own/{role}.js" in named
    scripts = [path for path in named if path.endswith(".js")]
    for path in scripts:
        answer = ask(page, path)
        assert answer.status == 200, path
        imported = re.findall(r'from "([^"]+)"', answer.text) if "uPlot" not in path else []
        scripts += [new for one in imported if (new := one.replace("./", "/shared/")) not in scripts]
    assert [ask(page, path).status for path in named] == [200] * len(named)
