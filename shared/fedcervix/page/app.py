"""The routes of a page: the role's document, the assets of both, the stream of events, and what a role adds.

Assets are read once, when the process starts: a file that is replaced meanwhile changes nothing, and no request reaches
the disk by a path that it names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from fedcervix.page.board import Board
from fedcervix.page.fanout import STREAMS_MAX, Fanout

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""of assets; other files of the folders are not served"""
FRAME = "frame.html"
"""the document of both roles, but its body"""
BODY = "body.html"
STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class PageContent:
    """What a role's page is made of."""

    role: str
    """names the page, and its script and style in `folder`"""
    folder: Traversable
    """holds the body of the document (`BODY`), and script and style of the role, which are served below /own/"""
    board: Board
    routes: Sequence[BaseRoute] = field(default=())
    """further ones; they answer GET, and stand behind the same guard"""
    open_paths: frozenset[str] = frozenset()
    """of these, the ones that need no cookie: programs read them"""


def assets(folder: Traversable) -> dict[str, Response]:
    """Return the files of a folder as answers, by name."""
    found = {}
    for file in folder.iterdir():
        kind = TYPES.get(f".{file.name.rpartition('.')[2]}")
        if kind and file.is_file():
            found[file.name] = Response(file.read_bytes(), headers={"Content-Type": kind})
    return found


def document_of(content: PageContent) -> Response:
    """Return the document of a role: the frame around its body."""
    frame = Template((files("fedcervix.page") / FRAME).read_text("utf-8"))
    body = (content.folder / BODY).read_text("utf-8")
    return HTMLResponse(frame.substitute(role=content.role, body=body.strip()))


def application(content: PageContent, fanout: Fanout) -> Starlette:
    """Return the application, without its guard."""
    shared, own = assets(files("fedcervix.page") / "static"), assets(content.folder)
    page = document_of(content)
    missing = PlainTextResponse("there is no such file here\n", status_code=404)

    def document(_: Request) -> Response:
        return page

    def shared_file(request: Request) -> Response:
        return shared.get(request.path_params["name"], missing)

    def own_file(request: Request) -> Response:
        return own.get(request.path_params["name"], missing)

    async def events(request: Request) -> Response:
        if fanout.streams >= STREAMS_MAX:
            return PlainTextResponse("too many browsers are connected; close some pages\n", status_code=503)
        if request.method == "HEAD":
            return Response(media_type=STREAM)
        # A proxy in between must pass each event on at once.
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(fanout.stream(), media_type=STREAM, headers=headers)

    return Starlette(
        routes=[
            Route("/", document),
            Route("/shared/{name}", shared_file),
            Route("/own/{name}", own_file),
            Route("/events", events),
            *content.routes,
        ]
    )
