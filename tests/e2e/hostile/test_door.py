"""Whoever reaches the port: connections without a certificate, handshakes that never end, and many of one certificate.

The coordinator has 256 descriptors here, so 600 connections are a flood. Each test says what the attack did before.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from coordinator.calls.connections import Connections
from coordinator.limits.descriptor_shares import Bounds, bounds
from fedcervix.errors import LinkError
from fedcervix.transport import identity, rpc
from site_agent.federation.link import GrpcLink
from tests.e2e.loopback import BIN, FEDERATION, Federation, federation, until

pytestmark = pytest.mark.timeout(120)

DESCRIPTORS = 256
FLOOD = 600
SITES = ("nhs", "alts")
LIMITED: list[str | Path] = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$0" "$@"', BIN / "coordinator"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Return a federation that waits for its sites; nothing here moves it on."""
    with federation(tmp_path_factory.mktemp("door"), sites=SITES) as made:
        made.coordinate("--mode", "csfssl", program=LIMITED)
        for site in made.sites:
            made.enrol(site)
        yield made


@pytest.fixture
def line(running: Federation) -> Iterator[GrpcLink]:
    """Return an honest site's line, which is up before the attack begins."""
    link = running.link("alts")
    link.welcome()
    with contextlib.closing(link):
        yield link


HERE = "127.0.0.1"
NUMBERS = itertools.count(2)


def elsewhere() -> str:
    """Return an address of this machine that nobody has used, where it has more than one: an attacker's."""
    return f"127.0.0.{next(NUMBERS)}" if sys.platform == "linux" else HERE


def dial(port: int, says: bytes = b"", *, by: str = HERE, patience_s: float = 60.0) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=patience_s, source_address=(by, 0))
    with contextlib.suppress(OSError):  # it was closed already
        made.sendall(says)
    return made


@contextlib.contextmanager
def flood(port: int, says: bytes = b"", *, by: str) -> Iterator[list[socket.socket]]:
    """Open many connections, say the same on each, and keep them; no more once the system takes none for a second."""
    with contextlib.ExitStack() as stack:
        made: list[socket.socket] = []
        with contextlib.suppress(TimeoutError):
            while len(made) < FLOOD:
                made.append(stack.enter_context(dial(port, says, by=by, patience_s=1.0)))
        yield made


def is_closed(made: socket.socket) -> bool:
    """Say whether the other end has closed a connection; what it sent before is thrown away."""
    made.setblocking(False)
    try:
        while made.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def open_of(connections: list[socket.socket]) -> int:
    return sum(not is_closed(made) for made in connections)


def client_hello() -> bytes:
    """Return the first message of a TLS handshake."""
    arrives, leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(arrives, leaves, server_hostname="localhost").do_handshake()
    return leaves.read()


HELLO = client_hello()
SAYINGS = {"nothing": b"", "a ClientHello": HELLO, "half a TLS record": HELLO[: len(HELLO) // 2]}


def gets_through(running: Federation) -> bool:
    """Say whether a new line of an honest site comes up."""
    link = running.link("nhs")
    with contextlib.closing(link):
        try:
            link.welcome()
        except LinkError:
            return False
    return True


def status(running: Federation) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "coordinator"), "--home", str(running.home.folder), "status"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def descriptors(running: Federation) -> int:
    return len(list(Path(f"/proc/{running.processes[0].pid}/fd").iterdir()))


# --- without a certificate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("says", SAYINGS.values(), ids=SAYINGS)
def test_a_flood_of_connections_that_do_not_call_keeps_nobody_out(
    running: Federation, line: GrpcLink, says: bytes
) -> None:
    """Before: 2,000 at 1,024 descriptors: no honest call came through, and `status` ended with code 7 after 10 s.

    Here the first attacker has the address of the sites.
    """
    with flood(running.port, says, by=elsewhere() if says else HERE) as connections:
        line.welcome()
        told = status(running)
        assert told.returncode == 0, told.stderr
        until("a new line comes up", lambda: gets_through(running))
        most = bounds(DESCRIPTORS, len(SITES)).unauthenticated
        until("the others are closed", lambda: open_of(connections) <= most)
        line.welcome()
        if sys.platform == "linux":
            assert descriptors(running) < DESCRIPTORS
    assert "cannot be used" not in running.processes[0].text


def test_the_log_says_it_once(running: Federation, line: GrpcLink) -> None:
    """Before: a line a second from the library, and the advice to look at the home folder."""
    with flood(running.port, by=elsewhere()) as connections:
        until("some are closed", lambda: open_of(connections) < len(connections))
        line.welcome()
    with flood(running.port, by=elsewhere()) as connections:
        until("some are closed", lambda: open_of(connections) < len(connections))
        line.welcome()
    log = running.processes[0].text
    assert log.count("connections closed") == 1
    assert '"most_from": "127.0.0.' in log


def test_handshakes_that_fail_write_nothing_to_the_log(running: Federation) -> None:
    """Before: 200 bytes each, 1.2 MB a second."""
    before, address = len(running.processes[0].text), elsewhere()
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(dial(running.port, b"GET / HTTP/1.1\r\n\r\n", by=address)) for _ in range(100)]
        until("they are closed", lambda: open_of(made) == 0)
    assert len(running.processes[0].text) - before < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="the system's filter is Linux's")
def test_whoever_comes_again_and_again_is_slowed_and_nobody_else(running: Federation, line: GrpcLink) -> None:
    """Before: 1,800 handshakes a second, which never ended; an honest call took 2 s in place of 6 ms."""
    stop, address = threading.Event(), elsewhere()
    attacker = threading.Thread(target=come_again, args=(running.port, address, stop))
    attacker.start()
    try:
        until(
            "the attacker's address is slowed",
            lambda: not (comes_in(running.port, address) or comes_in(running.port, address)),
        )
        for _ in range(20):
            line.welcome()
        until("a new line comes up", lambda: gets_through(running))
        told = status(running)
        assert told.returncode == 0, told.stderr
        assert address in told.stdout
    finally:
        stop.set()
        attacker.join(60)


def come_again(port: int, by: str, stop: threading.Event) -> None:
    """Open connections, as fast as possible; keep the last ones."""
    made: deque[socket.socket] = deque()
    while not stop.is_set():
        made.append(socket.socket())
        made[-1].bind((by, 0))
        made[-1].setblocking(False)
        made[-1].connect_ex((HERE, port))
        if len(made) > FLOOD // 2:
            made.popleft().close()
    for one in made:
        one.close()


def comes_in(port: int, by: str) -> bool:
    """Say whether a connection of the attacker's address is made within half a second."""
    with socket.socket() as made:
        made.bind((by, 0))
        made.settimeout(0.5)
        return made.connect_ex((HERE, port)) == 0


def test_a_start_with_too_few_descriptors_says_so(tmp_path: Path) -> None:
    """Before: it started, and failed when the last one was used."""
    with federation(tmp_path / "small", sites=SITES) as made:
        few: list[str | Path] = ["sh", "-c", 'ulimit -n 150; exec "$0" "$@"', BIN / "coordinator"]
        process = made.coordinate("--mode", "csfssl", program=few, listening=False)
        assert process.ended() == 11, process.text
        assert "a run of 2 sites needs at least 188" in process.text
        assert "ulimit -n" in process.text
        assert not made.home.journal.exists()  # no run was begun


# --- with one -----------------------------------------------------------------------------------------------------


def certified(running: Federation, site: str) -> ssl.SSLContext:
    """Return what opens TLS connections as a site."""
    home = running.site(site)
    context = ssl.create_default_context(cafile=str(home.key_file("authority.crt")))
    context.load_cert_chain(home.key_file("site.crt"), home.key_file("site.key"))
    context.set_alpn_protocols(["h2"])
    return context


def test_a_certificate_that_does_not_call_is_anybody(running: Federation, line: GrpcLink) -> None:
    """Before: a certificate could hold all descriptors, without a call that could be counted."""
    context, address = certified(running, "nhs"), elsewhere()
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(FLOOD // 6):
            with contextlib.suppress(OSError):  # there were too many already
                plain = dial(running.port, by=address)
                made.append(stack.enter_context(context.wrap_socket(plain, server_hostname="localhost")))
        for one in made:
            one.setblocking(False)
        most = bounds(DESCRIPTORS, len(SITES)).unauthenticated
        until("most are closed", lambda: sum(not _has_ended(one) for one in made) <= most)
        line.welcome()


def _has_ended(made: ssl.SSLSocket) -> bool:
    try:
        while made.recv(65_536):
            pass
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True
    return True


def test_one_certificate_has_eight_connections(running: Federation, line: GrpcLink) -> None:
    """Before: as many as there were descriptors."""
    most = bounds(DESCRIPTORS, len(SITES)).per_certificate
    with contextlib.ExitStack() as stack:
        ended: set[int] = set()
        for number in range(most + 4):
            link = stack.enter_context(contextlib.closing(running.link("nhs")))
            link.welcome()
            link._channel.subscribe(_note_end(ended, number))
        until("the oldest are closed", lambda: ended >= set(range(4)))
        line.welcome()
        assert ended == set(range(4))


def _note_end(ended: set[int], number: int) -> Callable[[grpc.ChannelConnectivity], None]:
    def note(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.IDLE:
            ended.add(number)

    return note


# --- in time ------------------------------------------------------------------------------------------------------

FASTER = 30.0
COORDINATOR, SITE = identity.Identity(FEDERATION, "coordinator"), identity.Identity(FEDERATION, "site", "nhs")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[int, Connections]]:
    """Return the port of a server for which time passes 30 times as fast, and its connections."""
    key, now = identity.new_key(), datetime.now(UTC)
    authority = identity.Authority(identity.new_authority(FEDERATION, key, now), key)
    for name, who, hosts in (("server", COORDINATOR, ("localhost",)), ("site", SITE, ())):
        made = identity.new_key()
        issued = identity.issue(authority, identity.public_key(made), who, now, identity.SITE_LIFETIME, hosts)
        (tmp_path / name).write_bytes(issued + made)
    (tmp_path / "authority").write_bytes(authority.certificate_pem)
    room = Bounds(in_all=50, unauthenticated=50, per_address=50, per_certificate=8)
    connections = Connections(room, clock=lambda: time.monotonic() * FASTER)
    quick = {**dict(rpc.server_options(2)), "grpc.server_handshake_timeout_ms": int(rpc.HANDSHAKE_S * 1000 / FASTER)}
    server = grpc.server(ThreadPoolExecutor(2), options=[*quick.items(), (rpc.CONNECTIONS_MAX, room.in_all)])
    pem = (tmp_path / "server").read_bytes()
    port = server.add_secure_port(
        "localhost:0",
        rpc.server_credentials(authority_pem=authority.certificate_pem, certificate_pem=pem, key_pem=pem),
    )
    server.start()
    connections.start(port)
    yield port, connections
    connections.stop()
    server.stop(None).wait()


@pytest.mark.parametrize("says", SAYINGS.values(), ids=SAYINGS)
def test_a_handshake_ends_in_time(served: tuple[int, Connections], says: bytes) -> None:
    """Before: the library's 120 s."""
    with dial(served[0], says) as made:
        until("it is closed", lambda: is_closed(made))
    assert dict(rpc.server_options(2))["grpc.server_handshake_timeout_ms"] == 10_000


def test_a_handshake_that_drips_ends_in_time(served: tuple[int, Connections]) -> None:
    """Before: as long as a byte came now and then."""
    with dial(served[0]) as made:
        with contextlib.suppress(OSError):
            for byte in HELLO[:-1]:
                made.sendall(bytes([byte]))
                time.sleep(0.005)  # the drip itself
        until("it is closed", lambda: is_closed(made))


def test_a_certificate_has_as_long_for_its_first_call(served: tuple[int, Connections], tmp_path: Path) -> None:
    """Before: for ever."""
    context = ssl.create_default_context(cafile=str(tmp_path / "authority"))
    context.load_cert_chain(tmp_path / "site")
    context.set_alpn_protocols(["h2"])
    with context.wrap_socket(dial(served[0]), server_hostname="localhost") as made:
        made.setblocking(False)
        until("it is closed", lambda: _has_ended(made))


def test_no_more_connections_are_accepted_than_there_may_be(served: tuple[int, Connections]) -> None:
    """The library obeys its option: what is beyond is closed at once, and counts no more."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(dial(served[0])) for _ in range(60)]
        until("ten are closed", lambda: open_of(made) <= 50)
        until("all are closed", lambda: open_of(made) == 0)
        again = [stack.enter_context(dial(served[0])) for _ in range(50)]
        assert open_of(again) == 50
