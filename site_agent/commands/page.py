"""The command `page`: what this site is doing, in a browser."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING

from fedcervix.runtime.printing import say
from site_agent.home import SiteHome

if TYPE_CHECKING:
    from starlette.routing import Route

    from fedcervix.page.doors import Door


def page(home: SiteHome, door: Callable[[], Door], *, metrics: bool = False) -> None:
    """Show a site's home in a browser until the process is ended; `metrics`: also to Prometheus.

    Raises a FedcervixError.
    """
    home.config()  # a folder that is no home of a site is told here, and not on the page
    from fedcervix.page.app import PageContent
    from fedcervix.page.board import Board
    from fedcervix.page.serving import serve
    from site_agent.page.feeding import feeder

    opened, board = door(), Board()
    routes = [_metrics(home)] if metrics else []
    content = PageContent(
        "site", files("site_agent.page") / "static", board, routes, frozenset(one.path for one in routes)
    )
    authority = home.key_file("authority.crt")
    members = home.pem(authority.name) if authority.exists() else b""  # a site that has not joined has a page, too
    serve(content, opened, feeder(home, board), command=home.command("page"), members=members)


def _metrics(home: SiteHome) -> Route:
    from fedcervix.monitoring.bearer import bearer_token
    from fedcervix.monitoring.route import metrics_route
    from site_agent.commands.metrics import reader

    file = home.key_file("metrics.token")
    token = bearer_token(file)
    say(f"metrics: /metrics of the same address, with the token in {file}")
    return metrics_route(reader(home), token)
