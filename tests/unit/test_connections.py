"""Which connections are closed, decided without a socket; and the loop around it, with sockets of the test's own."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from coordinator.calls.connections import (
    FIRST_CALL_S,
    GRACE_S,
    REFUSAL_S,
    Connection,
    Connections,
    Counts,
    network,
    to_close,
)
from coordinator.calls.sockets import Peer, parse_peer
from coordinator.limits.descriptor_shares import OWN, OWN_PER_SITE, PER_CERTIFICATE_MAX, Bounds, bounds
from coordinator.limits.overhead import BURST_BYTES, BYTES_PER_S, STRANGER_BYTES, Traffic
from coordinator.limits.throttle import BURST
from fedcervix.errors import RunError
from fedcervix.transport import rpc
from fedcervix.transport.address import Address

BOUNDS = Bounds(in_all=100, unauthenticated=20, per_address=6, per_certificate=3)
ROOMY = dataclasses.replace(BOUNDS, unauthenticated=1000)


def strangers(count: int, *, host: str = "10.0.0.1", since_s: float = 0.0) -> dict[Peer, Connection]:
    """Return unauthenticated connections, the first of which is the oldest."""
    return {Peer(host, 1000 + n): Connection(since_s + n / 1000, 0.0) for n in range(count)}


def of_site(site: str, count: int, *, host: str = "10.0.0.2") -> dict[Peer, Connection]:
    """Return authenticated connections, the first of which called longest ago."""
    return {Peer(host, 2000 + n): Connection(0.0, float(n), site, f"serial of {site}") for n in range(count)}


# --- which are closed ---------------------------------------------------------------------------------------------


def test_without_a_call_it_is_closed_after_a_while_and_not_before() -> None:
    assert to_close(strangers(1), BOUNDS, FIRST_CALL_S - 0.1) == {}
    assert to_close(strangers(1), BOUNDS, FIRST_CALL_S) == {Peer("10.0.0.1", 1000): "without_a_call"}


def test_with_a_call_it_stays_however_long_it_is_silent() -> None:
    assert to_close(of_site("nhs", 3), BOUNDS, 1e9) == {}


def test_one_address_keeps_its_newest_connections_and_each_has_a_moment() -> None:
    known = strangers(10)
    assert to_close(known, ROOMY, GRACE_S - 0.1) == {}
    found = to_close(known, ROOMY, GRACE_S + 1)
    assert found == dict.fromkeys([Peer("10.0.0.1", 1000 + n) for n in range(4)], "too_many_of_one_address")


def test_where_all_are_too_many_the_address_that_has_most_loses_its_oldest_at_once() -> None:
    known = strangers(50) | strangers(5, host="10.0.0.7", since_s=-0.5) | of_site("nhs", 3)
    found = to_close(known, BOUNDS, 0.2)
    assert found == dict.fromkeys([Peer("10.0.0.1", 1000 + n) for n in range(35)], "too_many")


def test_many_addresses_with_few_connections_each_lose_the_oldest() -> None:
    known: dict[Peer, Connection] = {}
    for n in range(30):
        known |= strangers(1, host=f"10.0.1.{n}", since_s=n / 100)
    assert list(to_close(known, BOUNDS, 0.5)) == [Peer(f"10.0.1.{n}", 1000) for n in range(10)]


def test_one_certificate_keeps_the_connections_that_called_last() -> None:
    known = of_site("nhs", 5) | of_site("alts", 3, host="10.0.0.3")
    found = to_close(known, BOUNDS, 9.0)
    assert found == dict.fromkeys([Peer("10.0.0.2", 2000 + n) for n in range(2)], "too_many_of_one_certificate")


def test_authenticated_connections_are_not_counted_with_the_others() -> None:
    known = {peer: dataclasses.replace(one, serial=f"{peer.port}") for peer, one in strangers(90).items()}
    assert to_close(known, BOUNDS, 100.0) == {}


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    known: dict[Peer, Connection] = {}
    for n in range(10):
        known |= strangers(1, host=f"2001:db8::{n + 1:x}", since_s=n / 100)
    assert len(to_close(known, ROOMY, 5.0)) == 4
    assert network("2001:db8::1") == network("2001:db8::ffff:1") != network("2001:db8:0:1::1")
    assert network("10.0.0.1") != network("10.0.0.2")


# --- peers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("ipv4:127.0.0.1:5678", Peer("127.0.0.1", 5678)),
        ("ipv6:%5B::1%5D:5678", Peer("::1", 5678)),
        ("ipv6:[::1]:5678", Peer("::1", 5678)),
        ("ipv6:%5B2001:db8:0:0::7%5D:1", Peer("2001:db8::7", 1)),
        ("ipv6:%5Bfe80::1%25eth0%5D:99", Peer("fe80::1", 99)),
        ("ipv6:%5B::ffff:10.0.0.9%5D:99", Peer("10.0.0.9", 99)),
        ("unix:/run/operator.sock", None),
        ("unix:", None),
        ("ipv4:localhost:5678", None),
        ("ipv4:127.0.0.1", None),
        ("", None),
    ],
)
def test_peers_are_read_as_grpc_writes_them(text: str, peer: Peer | None) -> None:
    assert parse_peer(text) == peer


# --- the loop -----------------------------------------------------------------------------------------------------


class Port:
    """Connections that the test makes up, and a clock that it sets."""

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.open: dict[Peer, int] = {}
        self.now_s = 0.0
        self.slowed = frozenset[str]()
        self.thrown_away = 0
        self.gone_over: Counter[int] = Counter()
        """bytes that arrived, by descriptor"""
        self.connections = Connections(
            bounds,
            accepted=self._accepted,
            shut_down=self._shut_down,
            throw_away=self._throw_away,
            traffic=lambda descriptor: Traffic(self.gone_over[descriptor], 0),
            slow=self._slow,
            clock=self.clock,
        )

    @staticmethod
    def during() -> None:
        """Happen while it is looked at."""

    def clock(self) -> float:
        return self.now_s

    def _accepted(self, _port: int) -> dict[Peer, int]:
        found = dict(self.open)
        self.during()
        return found

    def _shut_down(self, descriptor: int, peer: Peer) -> bool:
        return self.open.get(peer) == descriptor and bool(self.open.pop(peer))

    def _throw_away(self, descriptor: int, peer: Peer) -> bool:
        self.thrown_away += 1
        return self._shut_down(descriptor, peer)

    def _slow(self, _port: int, networks: frozenset[str]) -> bool:
        self.slowed = networks
        return True

    def connects(self, port: int, host: str = "10.0.0.1") -> str:
        self.open[Peer(host, port)] = len(self.open) + 10
        return f"ipv4:{host}:{port}"

    def brings(self, port: int, size_bytes: int, host: str = "10.0.0.1") -> None:
        """Let bytes arrive."""
        self.gone_over[self.open[Peer(host, port)]] += size_bytes

    def sweeps(self, now_s: float) -> bool:
        self.now_s = now_s
        return self.connections.sweep()


def test_who_calls_stays_and_who_does_not_goes() -> None:
    port = Port()
    caller = port.connects(1)
    port.connects(2)
    port.sweeps(0.0)
    port.connections.authenticated(caller, "nhs", "7")
    assert not port.sweeps(FIRST_CALL_S)
    assert port.open.keys() == {Peer("10.0.0.1", 1)}
    port.sweeps(1e6)
    counts = port.connections.counts()
    assert (counts.unauthenticated, counts.of) == (0, {"nhs": 1})


def test_a_call_before_the_first_look_counts() -> None:
    port = Port()
    port.connections.authenticated(port.connects(1), "nhs", "7")
    port.sweeps(1.0)
    port.sweeps(100.0)
    assert port.open


def test_a_call_during_a_look_counts_though_the_look_did_not_see_its_connection() -> None:
    port = Port()
    port.during = lambda: port.connections.authenticated(port.connects(1), "nhs", "7")  # type: ignore[method-assign]
    port.sweeps(1.0)
    del port.during
    port.sweeps(2.0)
    port.sweeps(100.0)
    assert port.open


def test_a_connection_that_ended_is_forgotten_and_its_port_may_come_again() -> None:
    port = Port()
    port.connections.authenticated(port.connects(1), "nhs", "7")
    port.sweeps(1.0)
    port.open.clear()
    port.sweeps(2.0)
    assert port.connections.counts() == Counts(0, {})
    port.connects(1)
    port.sweeps(3.0)
    assert port.connections.counts().unauthenticated == 1


def test_a_refused_caller_learns_it_before_the_connection_ends() -> None:
    port = Port()
    peer = port.connects(1)
    port.sweeps(0.0)
    port.connections.refused(peer)
    port.sweeps(REFUSAL_S - 0.1)
    port.connections.refused(peer)  # calling again and again gains nothing
    assert port.open
    port.sweeps(REFUSAL_S)
    assert not port.open


def test_the_connections_of_a_certificate_are_closed_at_the_next_look() -> None:
    port = Port()
    for number, serial in enumerate("7789"):
        port.connections.authenticated(port.connects(number), "nhs", serial)
    port.sweeps(0.0)
    assert port.connections.cut_serial("7") == 2
    assert port.connections.cut_serial("unknown") == 0
    assert port.connections.cut_peer("ipv4:10.0.0.1:2")
    assert not port.connections.cut_peer("unix:")
    port.sweeps(0.0)
    assert port.open.keys() == {Peer("10.0.0.1", 3)}


def test_all_connections_of_a_flood_are_closed_unread_and_it_counts_as_one() -> None:
    port = Port()
    for number, serial in enumerate("7789"):
        port.connections.authenticated(port.connects(number), "nhs", serial)
    port.connects(4)
    port.sweeps(0.0)
    port.connections.cut_flood("ipv4:10.0.0.1:4", "7")
    port.sweeps(0.0)
    assert port.open.keys() == {Peer("10.0.0.1", 2), Peer("10.0.0.1", 3)}
    assert port.thrown_away == 3


def test_the_connections_without_a_call_from_where_a_revoked_one_called_end_with_its_own() -> None:
    """Their first call may be on its way, or all their calls are cancelled before anybody sees them."""
    port = Port()
    port.connections.authenticated(port.connects(1), "nhs", "7")
    port.connects(2)
    port.connects(3, host="10.0.0.9")
    port.connections.authenticated(port.connects(4), "alts", "8")
    port.sweeps(0.0)
    assert port.connections.cut_serial("7") == 2
    port.sweeps(0.0)
    assert port.open.keys() == {Peer("10.0.0.9", 3), Peer("10.0.0.1", 4)}


def test_who_sends_much_that_is_no_message_loses_all_connections_and_nobody_else_does() -> None:
    port = Port()
    for number, serial in enumerate("778", 1):
        port.connections.authenticated(port.connects(number), "nhs", serial)
    port.sweeps(0.0)
    port.brings(1, BURST_BYTES // 2)
    port.brings(3, BURST_BYTES // 2)
    port.sweeps(0.1)
    assert len(port.open) == 3
    port.brings(2, BURST_BYTES)
    assert port.sweeps(0.2), "it is looked at more often"
    assert port.open.keys() == {Peer("10.0.0.1", 3)}


def test_a_connection_that_is_cut_is_not_read_any_more() -> None:
    port = Port()
    port.connections.authenticated(port.connects(1), "nhs", "7")
    port.sweeps(0.0)
    assert port.connections.cut_peer("ipv4:10.0.0.1:1")
    assert not port.connections.cut_peer("unix:")
    port.sweeps(0.1)
    assert (port.open, port.thrown_away) == ({}, 1)


def test_whoever_floods_again_and_again_is_slowed() -> None:
    port, looks = Port(), 0
    while not port.slowed and looks < 100:
        looks += 1
        port.connections.authenticated(port.connects(looks), "nhs", "7")
        port.brings(looks, 2 * BURST_BYTES)
        port.sweeps(looks / 10)
        port.sweeps(looks / 10 + 0.05)
    assert port.slowed == {"10.0.0.1"}
    assert looks > 10


def test_models_are_of_use_however_many_come() -> None:
    port = Port()
    peer = port.connects(1)
    port.connections.authenticated(peer, "nhs", "7")
    for second in range(100):
        port.connections.took(peer, 100 << 20)
        port.brings(1, 105 << 20)
        port.sweeps(second)
    assert port.open
    port.connections.took("unix:", 1)


def test_of_a_model_as_much_may_wait_as_is_sent_ahead_also_before_its_call_is_known() -> None:
    """Before: on a busy machine a site that began to send a model could lose its connection."""
    port = Port()
    peer = port.connects(1)
    port.connections.authenticated(peer, "nhs", "7")
    port.sweeps(0.0)
    port.brings(1, rpc.WINDOW_BYTES_MAX)
    port.sweeps(0.1)
    assert port.open
    port.connections.took(peer, rpc.WINDOW_BYTES_MAX)
    port.brings(1, rpc.WINDOW_BYTES_MAX)
    port.sweeps(0.2)
    assert port.open


def test_after_too_much_the_next_connection_may_begin_a_model() -> None:
    """Before: what was left of the bound stayed, so an honest model was cut off at each new attempt."""
    port = Port()
    port.connections.authenticated(port.connects(1), "nhs", "7")
    port.sweeps(0.0)
    port.brings(1, 2 * BURST_BYTES)
    port.sweeps(0.1)
    assert not port.open
    port.gone_over.clear()
    port.connections.authenticated(port.connects(2), "nhs", "7")
    port.sweeps(0.3)
    port.brings(2, rpc.WINDOW_BYTES_MAX + 2 * rpc.CHUNK_BYTES_MAX)
    port.sweeps(0.4)
    assert port.open.keys() == {Peer("10.0.0.1", 2)}


def test_what_is_of_no_use_may_come_slowly() -> None:
    port = Port()
    port.connections.authenticated(port.connects(1), "nhs", "7")
    for second in range(1000):
        port.brings(1, BYTES_PER_S)
        port.sweeps(second)
    assert port.open


def test_without_a_call_little_may_come() -> None:
    port = Port()
    port.connects(1)
    port.connects(2)
    port.sweeps(0.0)
    port.brings(1, STRANGER_BYTES)
    port.brings(2, STRANGER_BYTES + 1)
    port.sweeps(0.1)
    assert port.open.keys() == {Peer("10.0.0.1", 1)}


def test_a_crowd_is_looked_at_more_often() -> None:
    port = Port()
    for number in range(50):
        port.connects(number)
    assert port.sweeps(0.0)
    assert len(port.open) == BOUNDS.unauthenticated
    assert not port.sweeps(0.5)


def test_whoever_is_seen_at_every_look_and_never_calls_is_slowed_for_a_while() -> None:
    port = Port()
    for number in range(int(BURST) + 10):
        port.open.clear()
        port.connects(number, host="10.0.0.9")
        caller = port.connects(number, host="10.0.0.2")
        assert port.sweeps(number / 10_000)  # there is more to come
        port.connections.authenticated(caller, "nhs", "7")
    assert port.slowed == {"10.0.0.9"}
    assert "from 10.0.0.9 are mostly refused" in port.connections.trouble()
    port.sweeps(1000.0)
    assert port.slowed == frozenset()
    assert port.connections.trouble() == ""


def test_an_address_is_slowed_while_it_has_too_many_connections_without_a_call_and_others_are_not() -> None:
    port = Port()
    for number in range(BOUNDS.per_address):
        port.connects(number, host="10.0.0.2")
    for number in range(BOUNDS.per_address + 1):
        port.connects(number, host="10.0.0.1")
    port.sweeps(0.0)
    assert port.slowed == {"10.0.0.1"}
    port.sweeps(GRACE_S)
    port.sweeps(GRACE_S + 0.1)
    assert port.slowed == frozenset()


def test_one_flood_slows_nobody_once_it_is_over() -> None:
    port = Port()
    for number in range(2000):
        port.connects(number)
    for look in range(100):
        port.sweeps(look / 2)
    assert port.connections.counts() == Counts(0, {})
    assert port.slowed == frozenset()


# --- how descriptors are shared out -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "sites"), [(256, 2), (256, 8), (1024, 2), (1024, 64), (20_000, 64), (65_536, 256), (1 << 20, 2)]
)
def test_all_connections_together_leave_descriptors_for_the_coordinator(limit: int, sites: int) -> None:
    found = bounds(limit, sites)
    assert found.in_all + OWN + OWN_PER_SITE * sites <= limit
    assert found.in_all > found.unauthenticated + sites * found.per_certificate
    assert found.in_all < 5000  # each costs memory
    assert 2 <= found.per_certificate <= PER_CERTIFICATE_MAX
    assert found.unauthenticated >= 16


def test_a_name_may_have_two_addresses_and_both_together_have_no_more_connections() -> None:
    found = bounds(1024, 2)
    for host, listeners in (("127.0.0.1", 1), ("::", 1), ("localhost", 2)):
        assert found.at_one_listener(Address(host, 8443)) * listeners <= found.in_all
    assert found.at_one_listener(Address("localhost", 8443)) > found.unauthenticated + 2 * found.per_certificate


@pytest.mark.parametrize(("limit", "sites"), [(256, 64), (1024, 256)])
def test_too_few_descriptors_are_told_with_the_number_that_would_do(limit: int, sites: int) -> None:
    with pytest.raises(RunError, match="needs at least") as caught:
        bounds(limit, sites)
    least = int(caught.value.what.rsplit(" ", 1)[1].replace(",", ""))
    assert "LimitNOFILE" in caught.value.next_step
    assert bounds(least, sites).per_certificate == 2
    with pytest.raises(RunError):
        bounds(least - 1, sites)
