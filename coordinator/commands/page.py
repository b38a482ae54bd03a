"""The command `page`: the coordinator's page, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from coordinator.home.home import Home
from fedcervix.extras import require
from fedcervix.runtime.malloc_tuning import share_memory_among_threads
from fedcervix.runtime.printing import say

if TYPE_CHECKING:
    from starlette.routing import Route

    from coordinator.page.watching import Watching
    from fedcervix.page.doors import Door


def page(home: Home, door: Callable[[], Door]) -> None:
    """Serve the page until it is ended. Raises a FedcervixError."""
    share_memory_among_threads()
    from coordinator.commands.operator import watched  # with gRPC
    from coordinator.page.records import record_route
    from coordinator.page.watching import Watching
    from fedcervix.page.app import PageContent
    from fedcervix.page.board import Board
    from fedcervix.page.serving import serve

    opened, board = door(), Board()
    watching = Watching(home, board, watched)
    numbers = _metrics(home, watching)
    routes = [record_route(home), numbers]
    content = PageContent("coordinator", files("coordinator.page") / "static", board, routes, frozenset({numbers.path}))
    members = home.pem("authority.crt")
    serve(content, opened, watching, command=home.command("page"), members=members)


def _metrics(home: Home, watching: Watching) -> Route:
    """Return the route of the metrics: of the status that the page shows."""
    from coordinator.monitoring.facts import facts
    from coordinator.monitoring.measuring import measured
    from fedcervix.monitoring.bearer import bearer_token
    from fedcervix.monitoring.exposition import text
    from fedcervix.monitoring.route import metrics_route

    def read() -> bytes:
        known = facts(home, datetime.now(UTC), answers=watching.answers)
        return text(measured(watching.document, known), {"federation": known.federation})

    require("prometheus_client")
    file = home.key_file("metrics.token")
    token = bearer_token(file)
    say(f"metrics: /metrics of the same address, with the token in {file}")
    return metrics_route(read, token)
