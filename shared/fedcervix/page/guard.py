"""What every request must fulfil before any route sees it, and what every answer says to the browser.

Rules
1. The page only reads: GET and HEAD.
2. `Host` is one of the page's own names. A foreign name that was made to point here (DNS rebinding) is refused.
3. What a page of another origin asks for is refused, also from another port of the same machine. One thing is not: the
   document, as a page of its own in a window, because a hospital's portal links to it and a sign-in page sends back to
   it. It has no data.
4. On loopback a cookie is needed, which the printed address gives (`fedcervix.page.sessions`). Where a Unix socket's
   permissions or client certificates decide who connects, there is no cookie.
5. An answer lets the browser load script, style and data from here alone, and lets nobody frame or store it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedcervix.page.sessions import Sessions

ENTRANCE = "/enter"
"""path of the address that works once"""
DOCUMENT = "/"
"""path of the document, which a person may come to by a link"""
METHODS = ("GET", "HEAD")
ANSWER_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What requests are held against."""

    hosts: frozenset[str]
    """values of `Host`, in lower case"""
    cookie: str
    """its name. Cookies are shared by all ports of a host: it names the port"""
    command: str
    """that prints a new address"""
    open_paths: frozenset[str] = frozenset()
    """that need no cookie"""


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """Why a request is refused."""

    status: int
    words: str


def refusal(method: str, path: str, headers: Mapping[str, str], rules: Rules) -> RefusedRequest | None:
    """Return why a request is refused, whoever sent it; None where it is not. Names of `headers` are in lower case."""
    if method not in METHODS:
        return RefusedRequest(405, "this page only shows: GET and HEAD are all it answers")
    if headers.get("host", "").lower() not in rules.hosts:
        words = "an SSH tunnel must have the same port at both ends, and a proxy must pass on the Host header"
        return RefusedRequest(
            421, f"this page is not known by that name; its names: {', '.join(sorted(rules.hosts))}; {words}"
        )
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _is_followed_link(path, headers):
        return RefusedRequest(403, "another web page asked for this; type the address, or open it from a bookmark")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers["host"].lower():
        return RefusedRequest(403, "another web page asked for this")
    return None


def _is_followed_link(path: str, headers: Mapping[str, str]) -> bool:
    """Say whether a person comes to the document from another page."""
    fetched = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return path == DOCUMENT and fetched == ("navigate", "document")


def session_of(cookies: str, name: str) -> str:
    """Return the value of a cookie; empty where it is not there, or the header is none."""
    try:
        found = SimpleCookie(cookies).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


class Guard:
    """Stands before all routes. `sessions` is None where nobody needs a cookie."""

    def __init__(self, app: ASGIApp, rules: Rules, sessions: Sessions | None) -> None:
        self._app, self._rules, self._sessions = app, rules, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return  # no websocket is spoken here: the server closes it

        async def said(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(ANSWER_HEADERS)
            await send(message)

        answer = self._own_answer(scope, Headers(scope=scope))
        await (answer or self._app)(scope, receive, said)

    def _own_answer(self, scope: Scope, headers: Headers) -> Response | None:
        refused = refusal(scope["method"], scope["path"], headers, self._rules)
        if refused:
            return _told(refused, {"Allow": ", ".join(METHODS)} if refused.status == 405 else {})
        if self._sessions is None or scope["path"] in self._rules.open_paths:
            return None
        if scope["path"] == ENTRANCE:
            return self._enter(self._sessions, scope, headers)
        if self._sessions.knows(session_of(headers.get("cookie", ""), self._rules.cookie)):
            return None
        words = "you are not logged in here: the browser was closed, or this page was started again"
        return _told(
            RefusedRequest(403, f"{words}; open the address that this command printed last: {self._rules.command}")
        )

    def _enter(self, sessions: Sessions, scope: Scope, headers: Headers) -> Response:
        """Change a token for a cookie. A preview of the address, or a HEAD, does not use it up."""
        if scope["method"] == "HEAD" or "prefetch" in headers.get("sec-purpose", ""):
            return _told(RefusedRequest(403, "this address is opened by a person"))
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        session = sessions.enter(given)
        if session is None:
            words = "this address was used already, or is not one of this page"
            return _told(
                RefusedRequest(403, f"{words}; open the one that this command printed last: {self._rules.command}")
            )
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(self._rules.cookie, session, httponly=True, samesite="strict", path="/")
        return answer


def _told(refused: RefusedRequest, headers: Mapping[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{refused.words}\n", status_code=refused.status, headers=dict(headers or {}))
