"""Where the page may listen: what is refused, and who may open a socket."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from coordinator.commands.page import page
from coordinator.home.home import Home
from fedcervix.errors import ConfigError, IdentityError, RunError
from fedcervix.page.doors import Door, TlsFiles, door_of, listening, tls_context
from fedcervix.transport import identity
from fedcervix.transport.address import Address
from site_agent.commands.page import page as site_page
from site_agent.home import SiteHome, create
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
    assert {"127.0.0.1", "localhost"} <= door.hosts(80)  # a browser leaves this port out


@pytest.mark.parametrize(
    "options",
    [
        {"bind": "0.0.0.0:8444", "name": "page.example"},
        {"bind": "0.0.0.0:8444", "name": "page.example", "tls": (Path("a"), Path("b"), None)},
        {"bind": "0.0.0.0", "name": "page.example"},
        {"bind": "0.0.0.0:8444"},
        {"unix": Path("page.sock")},
        {"unix": Path("page.sock"), "name": "no host!"},
        {"unix": Path("page.sock"), "name": "page.example:https"},
        {"unix": Path("page.sock"), "name": "page.example:"},
        {"unix": Path("page.sock"), "port": 0, "name": "page.example"},
        {"name": "page.example"},
        {"port": 1, "tls": (Path("a"), Path("b"), Path("c"))},
    ],
    ids=range(11),
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


def test_a_socket_of_which_nobody_knows_whether_it_is_used_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "page.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(RunError, match="exists already"), listening(Door(unix=path, name="page.example")):
            pass
        assert path.exists()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return made(tmp_path_factory.mktemp("coordinator") / "home")


def tls_of(home: Home, client_authority: Path) -> TlsFiles:
    return TlsFiles(home.key_file("server.crt"), home.key_file("server.key"), client_authority)


@pytest.mark.parametrize("how", ["as it is", "beside another", "issued anew with its key"])
def test_the_federations_own_authority_lets_nobody_in(home: Home, tmp_path: Path, how: str) -> None:
    """Each site has a certificate of it."""
    own, key, now = home.pem("authority.crt"), home.pem("authority.key"), datetime.now(UTC)
    other = identity.new_authority("people", identity.new_key(), now)
    mixed = tmp_path / "people.crt"
    mixed.write_bytes(
        {
            "as it is": own.replace(b"\n", b"\r\n"),
            "beside another": b"# people\n" + other + own,
            "issued anew with its key": identity.new_authority("cervix", key, now),
        }[how]
    )
    with pytest.raises(ConfigError, match="authority of this federation"):
        tls_context(tls_of(home, mixed), own)
    mixed.write_bytes(other)
    assert tls_context(tls_of(home, mixed), own).verify_mode is ssl.CERT_REQUIRED


def test_each_role_names_its_federations_authority(home: Home, tmp_path: Path) -> None:
    door = Door(bind=Address("127.0.0.1", 0), name="page.example", tls=tls_of(home, home.key_file("authority.crt")))
    site = SiteHome(tmp_path / "ada")
    create(site, coordinator="localhost:50051")
    for name, content in (
        ("authority.crt", home.pem("authority.crt")),
        ("site.crt", home.pem("server.crt")),
    ):
        site.key_file(name).parent.mkdir(exist_ok=True)
        site.key_file(name).write_bytes(content)
    for open_page in (lambda: page(home, lambda: door), lambda: site_page(site, lambda: door)):
        with pytest.raises(ConfigError, match="authority of this federation"):
            open_page()


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(home: Home, tmp_path: Path) -> None:
    key = load_pem_private_key(home.pem("server.key"), None)
    closed = tmp_path / "closed.key"
    closed.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    files = replace(tls_of(home, home.key_file("server.crt")), key=closed)
    with pytest.raises(IdentityError, match="cannot be used") as raised:
        tls_context(files, b"")
    assert "password" in raised.value.cause
