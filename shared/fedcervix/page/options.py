"""The options that `coordinator page` and `site-agent page` have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fedcervix.runtime.commandline import ANY_PATH, Function

if TYPE_CHECKING:
    from fedcervix.page.doors import Door

_OPTIONS = (
    click.option("--port", type=click.IntRange(0, 65535), help="Port on loopback. Default: the system chooses one."),
    click.option("--unix", type=ANY_PATH, help="Unix socket to listen at instead, for a proxy of your own."),
    click.option("--bind", default="", help="HOST:PORT in a network to listen at instead; needs the TLS options."),
    click.option("--name", default="", help="With --unix or --bind: the HOST that browsers have in their address."),
    click.option("--tls-certificate", type=ANY_PATH, help="With --bind: the page's certificate, as PEM."),
    click.option("--tls-key", type=ANY_PATH, help="With --bind: its private key, as PEM."),
    click.option(
        "--client-authority",
        type=ANY_PATH,
        help="With --bind: authority (PEM) whose client certificates let a browser in.",
    ),
)


def page_options(function: Function) -> Function:
    """Give a command the options of a page; its function is called with them as `door`, a function that makes one."""

    @functools.wraps(function)
    def called(*positional: Any, **options: Any) -> None:
        told = {name: options.pop(name) for name in ("port", "unix", "bind", "name")}
        tls = tuple(options.pop(name) for name in ("tls_certificate", "tls_key", "client_authority"))

        def door() -> Door:
            """Return where the page is to listen. Raises ConfigError."""
            from fedcervix.page.doors import door_of

            return door_of(**told, tls=tls)

        function(*positional, door=door, **options)

    made: Callable[..., Any] = called
    for option in reversed(_OPTIONS):
        made = option(made)
    return made  # type: ignore[return-value]
