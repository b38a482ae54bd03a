"""The process of a page: its listener, the thread that feeds the board, and a quick end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedcervix.errors import INTERRUPTED
from fedcervix.page.app import PageContent, application
from fedcervix.page.doors import Door, listening, new_secret, tls_context
from fedcervix.page.fanout import Fanout
from fedcervix.page.guard import ENTRANCE, Guard, Rules
from fedcervix.page.sessions import Sessions
from fedcervix.runtime.printing import say

CONNECTIONS_MAX = 256
ASK_S = 10.0
"""from a connection to its first whole request, and from one to the next"""
END_S = 2.0
"""given to answers that are on their way when the process is to end"""

Feed = Callable[[threading.Event], None]
"""fills the board until the event is set"""


def serve(content: PageContent, door: Door, feed: Feed, *, command: str, members: bytes) -> None:
    """Serve the page until SIGINT or SIGTERM, then exit with the code of a program that was interrupted.

    `command` is what was typed: a browser that is not let in is told to look at its output. `members` is the
    federation's own authority (`tls_context`). Raises a FedcervixError where the door cannot be opened, and what
    `feed` raises.
    """
    context = tls_context(door.tls, members) if door.tls else None
    with listening(door) as listener:
        failed = asyncio.run(_served(content, door, feed, listener, context, command))
    if failed is not None:
        raise failed
    sys.exit(INTERRUPTED)


async def _served(
    content: PageContent,
    door: Door,
    feed: Feed,
    listener: socket.socket,
    context: ssl.SSLContext | None,
    command: str,
) -> Exception | None:
    fanout, port = Fanout(content.board), _port(listener)
    rules = Rules(door.hosts(port), f"fedcervix-page-{port}", command, content.open_paths)
    sessions = _sessions(door, port)
    server = _server(Guard(application(content, fanout), rules, sessions), context)
    loop, feeding = asyncio.get_running_loop(), _Feeding(feed)

    def end() -> None:
        server.should_exit = True
        fanout.end()
        feeding.stop.set()

    feeding.start(on_end=lambda: loop.call_soon_threadsafe(end))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    say(_address(door, port, sessions))
    telling = asyncio.create_task(fanout.run())
    telling.add_done_callback(lambda _: end())  # a page that tells nobody any more must not look alive
    await server.serve(sockets=[listener])
    end()
    await telling
    return feeding.failed


class BrowserConnection(H11Protocol):
    """One that has asked nothing for `ASK_S` is closed, also where it sends a byte now and then.

    Else whoever reaches the port could take all places, and uvicorn would keep them for ever.
    """

    ask_s = ASK_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, and look after it from time to time."""
        super().connection_made(transport)
        self._asked = self.cycle
        self._look = self.loop.call_later(self.ask_s, self._close_unless_asked)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._look.cancel()
        super().connection_lost(exc)

    def _close_unless_asked(self) -> None:
        if self._asked is self.cycle and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
            return
        self._asked = self.cycle
        self._look = self.loop.call_later(self.ask_s, self._close_unless_asked)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Leave the signals to `_served`: it ends the streams, too."""
        yield


def _server(app: Guard, context: ssl.SSLContext | None) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        http=BrowserConnection,
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=END_S,  # type: ignore[arg-type]  # seconds; it takes a fraction, too
    )
    config.load()
    config.ssl = context
    return _Server(config)


class _Feeding:
    """The thread that fills the board."""

    def __init__(self, feed: Feed) -> None:
        self._feed, self.stop = feed, threading.Event()
        self.failed: Exception | None = None

    def start(self, on_end: Callable[[], object]) -> None:
        def work() -> None:
            try:
                self._feed(self.stop)
            except Exception as error:  # noqa: BLE001  (it is raised again by the main thread)
                self.failed = error
                with contextlib.suppress(RuntimeError):  # the loop has ended already
                    on_end()

        threading.Thread(target=work, name="feed", daemon=True).start()


def _port(listener: socket.socket) -> int:
    name = listener.getsockname()
    return int(name[1]) if isinstance(name, tuple) else 0


def _sessions(door: Door, port: int) -> Sessions | None:
    if not door.needs_token:
        return None

    def announce(token: str) -> None:
        say(f"a browser was let in; the address for another one: {_loopback(port, token)}")

    return Sessions(new_secret, announce)


def _loopback(port: int, token: str) -> str:
    return f"http://127.0.0.1:{port}{ENTRANCE}?token={token}"


def _address(door: Door, port: int, sessions: Sessions | None) -> str:
    if sessions is not None:
        how = "this address works once, on this machine; Ctrl-C ends the page"
        return f"the page: {_loopback(port, sessions.token)}\n{how}"
    if door.unix is not None:
        return f"the page listens at {door.unix}, for a proxy that serves it as https://{door.name}/; Ctrl-C ends it"
    name = door.name if ":" in door.name else f"{door.name}:{port}"
    return f"the page: https://{name}/ (with a client certificate); Ctrl-C ends it"
