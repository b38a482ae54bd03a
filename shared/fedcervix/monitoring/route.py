"""/metrics on a page: for whoever shows the token, and for nobody else. The page's guard stands before it."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fedcervix.errors import FedcervixError
from fedcervix.monitoring.exposition import CONTENT_TYPE

PATH = "/metrics"


def metrics_route(read: Callable[[], bytes], token: str) -> Route:
    """Return the route. `read` makes the text, on a thread of the server; what it raises is said in one line."""
    wanted = f"Bearer {token}".encode()

    def metrics(request: Request) -> Response:
        given = request.headers.get("authorization", "").encode("latin-1", "replace")
        if not hmac.compare_digest(given, wanted):
            words = "metrics are read with the header `Authorization: Bearer TOKEN`\n"
            return PlainTextResponse(words, status_code=401, headers={"WWW-Authenticate": "Bearer"})
        try:
            return Response(read(), headers={"Content-Type": CONTENT_TYPE})
        except FedcervixError as error:
            return PlainTextResponse(f"{error.what}\n", status_code=503)

    return Route(PATH, metrics)
