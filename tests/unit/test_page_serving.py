"""The process of a page: its door with client certificates, connections that ask nothing, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest
import uvicorn

from fedcervix.errors import RunError
from fedcervix.page.app import PageContent
from fedcervix.page.board import Board, Part
from fedcervix.page.doors import Door, TlsFiles
from fedcervix.page.serving import BrowserConnection, serve
from fedcervix.transport import identity
from fedcervix.transport.address import Address
from fedcervix.transport.identity import Authority, Identity

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


class AskedEnoughError(RunError):
    """Ends a page that was asked what a test wanted to know."""


class People:
    """An authority of people, and what it certifies, as files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, key = folder, name, identity.new_key()
        self.authority = Authority(identity.new_authority(name, key, NOW - 9 * DAY), key)
        self.file = folder / f"{name}.crt"
        self.file.write_bytes(self.authority.certificate_pem)

    def certified(self, role: identity.Role, at: datetime = NOW, hosts: tuple[str, ...] = ()) -> tuple[Path, Path]:
        """Return certificate and key."""
        key, who = identity.new_key(), Identity(self.name, role, "ada" if role == "site" else "")
        made = identity.issue(self.authority, identity.public_key(key), who, at, DAY, hosts)
        paths = (self.folder / f"{self.name}-{role}-{at:%d}.crt", self.folder / f"{self.name}-{role}-{at:%d}.key")
        for path, content in zip(paths, (made, key), strict=True):
            path.write_bytes(content)
        return paths


def served(door: Door, asking: Callable[[int], None]) -> None:
    """Serve a page, and ask it at its port from the thread that feeds it, which then ends it."""
    content = PageContent("coordinator", files("coordinator.page") / "static", Board())

    def feed(_stop: threading.Event) -> None:
        assert door.bind is not None
        asking(door.bind.port)
        raise AskedEnoughError("enough")

    with pytest.raises(AskedEnoughError):
        serve(content, door, feed, command="page", members=b"")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def get(port: int, context: ssl.SSLContext, host: str, path: str = "/") -> int:
    """Return the status of an answer. Raises OSError where none comes."""
    line = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    with contextlib.closing(line):
        line.request("GET", path, headers={"Host": host})
        return line.getresponse().status


@pytest.mark.timeout(60)
def test_only_a_certificate_of_the_named_authority_lets_a_browser_in(tmp_path: Path) -> None:
    people, others = People(tmp_path, "people"), People(tmp_path, "others")
    certificate, key = people.certified("coordinator", hosts=("127.0.0.1",))
    door = Door(
        bind=Address("127.0.0.1", free_port()), name="page.example", tls=TlsFiles(certificate, key, people.file)
    )

    def client(*own: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=people.file)
        if own:
            context.load_cert_chain(*own)
        return context

    found: dict[str, int] = {}

    def asking(port: int) -> None:
        known = client(*people.certified("site"))
        found["known"] = get(port, known, f"page.example:{port}")
        found["asset"] = get(port, known, "page.example", "/own/coordinator.js")
        found["rebound"] = get(port, known, "evil.example")
        found["login"] = get(port, known, "page.example", "/enter?token=x")
        strangers = {
            "nobody": client(),
            "of another authority": client(*others.certified("site")),
            "certified as a server": client(certificate, key),
            "whose time is over": client(*people.certified("site", NOW - 3 * DAY)),
        }
        for who, context in strangers.items():
            with pytest.raises(OSError):
                get(port, context, "page.example")
            found[who] = 0
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as plain:
            plain.request("GET", "/", headers={"Host": "page.example"})
            with pytest.raises((OSError, http.client.HTTPException)):
                plain.getresponse()

    served(door, asking)
    assert found.pop("known") == found.pop("asset") == 200
    assert (found.pop("rebound"), found.pop("login")) == (421, 404)
    assert list(found) == ["nobody", "of another authority", "certified as a server", "whose time is over"]


def test_a_page_that_cannot_tell_its_browsers_any_more_ends_with_the_reason() -> None:
    """It would look alive, and show for ever what was true once."""

    class Torn(Board):
        def parts(self) -> Mapping[str, Part]:
            raise ValueError("this cannot be told")

    content = PageContent("coordinator", files("coordinator.page") / "static", Torn())
    with pytest.raises(ValueError, match="this cannot be told"):
        serve(content, Door(port=0), lambda _: None, command="page", members=b"")


def test_a_connection_that_asks_nothing_is_closed_and_a_stream_is_not() -> None:
    class Impatient(BrowserConnection):
        ask_s = 0.05

    async def app(scope: object, receive: object, send: Callable[..., object]) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]
        for _ in range(5):
            await send({"type": "http.response.body", "body": b"beat", "more_body": True})  # type: ignore[misc]
            await asyncio.sleep(0.06)
        await send({"type": "http.response.body", "body": b"end"})  # type: ignore[misc]

    async def work() -> None:
        config = uvicorn.Config(app, http=Impatient, lifespan="off", log_config=None, ws="none")
        config.load()
        server = uvicorn.Server(config)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: Impatient(config, server.server_state, {}), "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        idle, _ = await asyncio.open_connection("127.0.0.1", port)
        slow, to_slow = await asyncio.open_connection("127.0.0.1", port)
        to_slow.write(b"GET / HT")
        stream, to_stream = await asyncio.open_connection("127.0.0.1", port)
        to_stream.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            assert await idle.read() == b""
            assert await slow.read() == b""
            assert (await stream.read()).count(b"beat") == 5
        listener.close()

    asyncio.run(work())
