"""The sockets of this process: which are connections on a port, and that no other one is ever closed."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Iterator

import pytest

from coordinator.calls.sockets import Peer, accepted, listeners, shut_down, throw_away, traffic

Pair = tuple[socket.socket, socket.socket, int]


@pytest.fixture(params=[("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")], ids=str)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Return both ends of a connection, and the port: IPv4, IPv4 through IPv6, IPv6."""
    bind, to = request.param
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.create_server((bind, 0), family=family, dualstack_ipv6=bind == "::") as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((to, port)) as near, listener.accept()[0] as far:
            yield near, far, port


def peer_of(near: socket.socket) -> Peer:
    host, port = near.getsockname()[:2]
    return Peer(host, port)


def test_accepted_connections_are_found_by_their_port(pair: Pair) -> None:
    near, far, port = pair
    assert accepted(port) == {peer_of(near): far.fileno()}
    assert far.fileno() not in listeners(port)
    assert len(listeners(port)) == 1
    assert near.fileno() not in accepted(near.getpeername()[1]).values()  # it was not accepted, it was made


def test_one_is_closed_for_both_ends_and_stays_its_owners(pair: Pair) -> None:
    near, far, _ = pair
    assert shut_down(far.fileno(), peer_of(near))
    near.settimeout(60)
    assert near.recv(1) == b""
    assert far.recv(1) == b""
    os.fstat(far.fileno())  # its descriptor is still there: whoever opened it closes it


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says what has gone over a connection")
def test_what_has_arrived_is_counted_and_thrown_away(pair: Pair) -> None:
    near, far, _ = pair
    near.sendall(b"x" * 100_000)
    far.recv(1, socket.MSG_WAITALL)
    near.settimeout(60)
    far.sendall(b"y")
    assert near.recv(1) == b"y"
    found = traffic(far.fileno())
    assert found is not None
    assert found.received > 1
    assert traffic(os.dup(0)) is None
    assert throw_away(far.fileno(), peer_of(near))
    with pytest.raises(ConnectionError):
        far.recv(1)
    with pytest.raises(ConnectionError):
        near.recv(1)


def test_a_number_that_was_given_to_another_connection_is_let_alone(pair: Pair) -> None:
    near, far, _ = pair
    host, port = peer_of(near)
    assert not shut_down(far.fileno(), Peer(host, port % 65_535 + 1))
    near.sendall(b"x")
    assert far.recv(1) == b"x"


def test_a_number_that_is_nobody_s_or_no_connection_is_let_alone(pair: Pair) -> None:
    near, far, port = pair
    gone = os.dup(far.fileno())
    os.close(gone)
    assert not shut_down(gone, peer_of(near))
    (listener,) = listeners(port)
    assert not shut_down(listener, peer_of(near))
    reading, writing = os.pipe()
    try:
        assert not shut_down(reading, peer_of(near))
    finally:
        os.close(reading)
        os.close(writing)


def test_without_a_free_descriptor_that_is_said(pair: Pair) -> None:
    near, far, _ = pair
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            shut_down(far.fileno(), peer_of(near))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
