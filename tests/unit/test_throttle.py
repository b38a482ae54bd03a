"""Addresses that connect again and again without a call: which are slowed, and that the system then does it."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.calls.sockets import listeners
from coordinator.limits.throttle import BURST, NETWORKS_MAX, PER_S, SLOWED_S, Throttle, program, slow

# --- which are slowed ---------------------------------------------------------------------------------------------


def flooded(throttle: Throttle, network: str, *, now_s: float = 0.0) -> None:
    for _ in range(int(BURST) + 1):
        throttle.failed({network: 1}, now_s)


def test_only_who_makes_more_than_a_burst_is_slowed_and_only_for_a_while() -> None:
    throttle = Throttle()
    for _ in range(int(BURST)):
        throttle.failed({"10.0.0.1": 1}, 0.0)
    assert throttle.slowed(0.0) == frozenset()
    throttle.failed({"10.0.0.1": 1}, 0.0)
    throttle.failed({"10.0.0.2": 1}, 0.0)
    assert throttle.slowed(SLOWED_S - 0.1) == {"10.0.0.1"}
    assert throttle.slowed(SLOWED_S) == frozenset()


def test_who_goes_on_stays_slowed() -> None:
    throttle = Throttle()
    flooded(throttle, "10.0.0.1")
    for second in range(1, 60):
        for _ in range(int(PER_S) + 1):
            throttle.failed({"10.0.0.1": 1}, float(second))
    assert throttle.slowed(59.0 + SLOWED_S - 0.1)


def test_a_few_failures_now_and_then_slow_nobody() -> None:
    throttle = Throttle()
    for second in range(3600):
        for _ in range(int(PER_S)):
            throttle.failed({"10.0.0.1": 1}, float(second))
    assert throttle.slowed(3600.0) == frozenset()


def test_one_flood_slows_nobody_however_large_it_is() -> None:
    throttle = Throttle()
    for look in range(10):
        throttle.failed({"10.0.0.1": 1000}, look / 20)
    assert throttle.slowed(0.5) == frozenset()


def test_one_flood_of_what_is_of_no_use_slows_who_goes_on() -> None:
    throttle = Throttle()
    for look in range(4):
        assert throttle.slowed(look / 20) == frozenset()
        throttle.flooded({"10.0.0.1": 8}, look / 20)
    assert throttle.slowed(0.2) == {"10.0.0.1"}


def test_its_memory_is_bounded_and_the_worst_stay_in_it() -> None:
    throttle = Throttle()
    flooded(throttle, "10.9.9.9")
    for number in range(10 * NETWORKS_MAX):
        throttle.failed({f"10.0.{number // 256}.{number % 256}": 1}, 0.0)
    assert len(throttle._budgets) == NETWORKS_MAX
    assert throttle.slowed(1.0) == {"10.9.9.9"}


def test_the_longest_program_is_one_that_the_system_takes() -> None:
    networks = {f"2001:db8:0:{number:x}::/64" for number in range(NETWORKS_MAX)}
    assert len(program(networks)) < 4096  # BPF_MAXINSNS


# --- that the system does it --------------------------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")


@pytest.fixture(params=[("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "::1")], ids=str)
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Return where a socket listens: IPv4, IPv4 through IPv6, IPv6."""
    bind, to = request.param
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.create_server((bind, 0), family=family, dualstack_ipv6=bind == "::", backlog=512) as listener:
        yield to, listener.getsockname()[1]


def coming_in(to: tuple[str, int], count: int = 128, by: str = "") -> int:
    """Try so many connections; return how many come in."""
    with contextlib.ExitStack() as stack:
        waiting = []
        for _ in range(count):
            made = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET))
            made.bind((by or to[0], 0))
            made.setblocking(False)
            made.connect_ex(to)
            waiting.append(made)
        poll = select.poll()
        for made in waiting:
            poll.register(made, select.POLLOUT)
        return len(poll.poll(200))  # loopback answers while a connection is asked for; what was dropped, in a second


SLOWED: dict[str, frozenset[str]] = {
    "127.0.0.1": frozenset({"127.0.0.1", "10.0.0.1", "2001:db8::/64"}),
    "::1": frozenset({"::/64", "10.0.0.1", "2001:db8::/64"}),
}


@linux
def test_the_system_takes_few_connections_of_a_slowed_network(listening: tuple[str, int]) -> None:
    found = listeners(listening[1])
    assert len(found) == 1
    assert coming_in(listening) == 128
    assert slow(found, SLOWED[listening[0]])
    assert coming_in(listening) < 64  # 8 of 128 are to be expected
    assert slow(found, frozenset())
    assert coming_in(listening) == 128


@linux
def test_it_takes_all_of_others(listening: tuple[str, int]) -> None:
    others = SLOWED[listening[0]] - {"127.0.0.1", "::/64"}
    assert slow(listeners(listening[1]), others | {"127.0.0.2"})
    assert coming_in(listening) == 128
    if ":" not in listening[0]:
        assert coming_in(listening, by="127.0.0.2") < 64


@linux
def test_what_is_said_on_an_open_connection_passes() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as old,
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert slow([listener.fileno()], frozenset({"127.0.0.1"}))
            for _ in range(200):
                old.sendall(b"x")
                assert accepted.recv(10) == b"x"


def test_where_there_is_no_such_filter_nobody_is_slowed(tmp_path: Path) -> None:
    with (tmp_path / "no socket").open("w") as file:
        assert not slow([file.fileno()], frozenset({"10.0.0.1"}))
