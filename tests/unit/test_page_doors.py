"""Where the page may listen: what is refused, and who may open a socket."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from coordinator.commands.page import page
from fedcervix.errors import ConfigError, RunError
from fedcervix.page.doors import Door, TlsFiles, door_of, listening
from fedcervix.transport.address import Address
from tests.unit.coordinator_homes import made

NO_TLS = (None, None, None)


def told(**options: object) -> Door:
    values = {"port": None, "unix": None, "bind": "", "name": "", "tls": NO_TLS, **options}
    return door_of(**values)  # type: ignore[arg-type]


def test_without_options_it_listens_on_loopback_and_lets_in_by_token(tmp_path: Path) -> None:
    door = told()
    assert (door, door.needs_token) == (Door(port=0), True)
    assert door.hosts(4711) == {"127.0.0.1:4711", "localhost:4711", "[::1]:4711"}
    with listening(door) as found:
        assert found.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "options",
    [
        {"bind": "0.0.0.0:8444", "name": "page.example"},
        {"bind": "0.0.0.0:8444", "name": "page.example", "tls": (Path("a"), Path("b"), None)},
        {"bind": "0.0.0.0", "name": "page.example"},
        {"bind": "0.0.0.0:8444"},
        {"unix": Path("page.sock")},
        {"unix": Path("page.sock"), "name": "no host!"},
        {"unix": Path("page.sock"), "port": 0, "name": "page.example"},
        {"name": "page.example"},
        {"port": 1, "tls": (Path("a"), Path("b"), Path("c"))},
    ],
    ids=range(9),
)
def test_a_door_that_would_let_in_too_many_or_nobody_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as raised:
        told(**options)
    assert raised.value.next_step


def test_behind_a_proxy_the_name_is_the_host(tmp_path: Path) -> None:
    door = told(unix=tmp_path / "page.sock", name="Page.Example")
    assert not door.needs_token
    assert "page.example" in door.hosts(0)
    assert told(unix=tmp_path / "page.sock", name="page.example:8443").hosts(0) == {"page.example:8443"}


def test_only_owner_and_group_open_the_socket_and_it_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    before = os.umask(0)
    try:
        with listening(Door(unix=path, name="page.example")):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            with pytest.raises(RunError, match="exists already"), listening(Door(unix=path, name="page.example")):
                pass
    finally:
        os.umask(before)
    assert not path.exists()


def test_what_a_killed_page_left_is_replaced_and_any_other_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with listening(Door(unix=path, name="page.example")):
        pass
    path.write_text("mine")
    with pytest.raises(RunError, match="exists already"), listening(Door(unix=path, name="page.example")):
        pass
    assert path.read_text() == "mine"


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with listening(Door(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(RunError, match=f"cannot listen at 127.0.0.1:{port}"), listening(Door(port=port)):
            pass


def test_the_federations_own_authority_lets_nobody_in(tmp_path: Path) -> None:
    """Every site has a certificate of it."""
    home = made(tmp_path / "home")
    mixed = tmp_path / "people.crt"
    mixed.write_bytes(b"# people\n" + home.pem("authority.crt").replace(b"\n", b"\r\n"))
    tls = TlsFiles(home.key_file("server.crt"), home.key_file("server.key"), mixed)
    door = Door(bind=Address("127.0.0.1", 0), name="page.example", tls=tls)
    with pytest.raises(ConfigError, match="authority of this federation"):
        page(home, lambda: door)
