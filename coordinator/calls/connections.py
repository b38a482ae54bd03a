"""Which connections of the network stay open. The library that serves calls neither counts them nor closes one.

Rules
1. A connection is authenticated by its first call with a certificate that is in force. Until then anybody may have made
   it: it has FIRST_CALL_S for its handshake and its call, and the number of such connections is bounded, for each
   address and in all.
2. Where there are too many, the address that has most loses its oldest. One address cannot take the place of another.
3. Authenticated connections are bounded for each certificate; the one that called longest ago is closed first. An
   honest site stays far below the bound, so these rules never close a connection on which it has called.
4. The connection of a refused caller is closed, but only after the refusal can have arrived.
5. What arrives and is of no use is bounded, for each certificate and for each connection without a call
   (coordinator.limits.overhead). Where there is more, they are closed.
6. When a certificate is revoked, the connections without a call of the addresses from which it called end with its own:
   their first call may be on its way. An honest site dials again.
7. An address is slowed (coordinator.limits.throttle) while it has too many connections without a call, and where it
   keeps making some: each costs a handshake, and those of others wait meanwhile.

`to_close` and `crowded` decide. `Connections` looks at the process's sockets ten times a second and closes what is
decided; it never waits for a peer.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from coordinator.calls.sockets import Peer, accepted, listeners, parse_peer, shut_down, throw_away, traffic
from coordinator.limits.descriptor_shares import Bounds
from coordinator.limits.overhead import NO_TRAFFIC, STRANGER_BYTES, Overhead, Traffic, useless
from coordinator.limits.throttle import Throttle, slow
from fedcervix.runtime.log import logger

FIRST_CALL_S = 15.0
"""time for the handshake (at most 10 s of it, see fedcervix.transport.rpc) and the first call"""
GRACE_S = 1.0
"""time that an unauthenticated connection has even if its address has too many"""
REFUSAL_S = 0.5
"""time from a refusal to the end of its connection"""
SWEEP_S, BUSY_SWEEP_S = 0.1, 0.05
"""from one look at the connections to the next; and while there are too many, or some have come since the last one"""
REST = 4
"""times the processor time of a look the next one waits: looks keep the interpreter's lock from those who answer"""
LOG_S = 60.0
"""time between two log lines about closed connections"""
NAMED_MAX = 10
"""addresses in it"""
NETWORK_BITS = 64
"""of an IPv6 address: who has one such address has all of its network, so they count as one"""


@dataclass(slots=True)
class Connection:
    """What is known of one. Times are seconds of one clock."""

    since_s: float
    heard_s: float
    """when a call on it was last admitted or refused"""
    who: str = ""
    serial: str = ""
    """of its certificate; empty until a call was admitted"""
    close_at_s: float | None = None
    closed: bool = False
    traffic: Traffic = NO_TRAFFIC
    """by the last look"""
    taken: int = 0
    """bytes of messages since the last look"""
    useless: bool = False
    """too many useless bytes on it, or on all connections of its certificate; or it continues after a refusal"""


@dataclass(frozen=True, slots=True)
class Counts:
    """Number of open connections."""

    unauthenticated: int
    of: dict[str, int]
    """authenticated ones, by who called"""


Known = Mapping[Peer, Connection]


# --- decisions ----------------------------------------------------------------------------------------------------


def to_close(known: Known, bounds: Bounds, now_s: float) -> dict[Peer, str]:
    """Return which connections are to be closed now, each with the rule that says so."""
    found: dict[Peer, str] = {}
    for name, rule in RULES.items():
        left = {peer: connection for peer, connection in known.items() if peer not in found}
        found |= dict.fromkeys(rule(left, bounds, now_s), name)
    return found


def _due(known: Known, _bounds: Bounds, now_s: float) -> Iterator[Peer]:
    return (peer for peer, found in known.items() if found.close_at_s is not None and found.close_at_s <= now_s)


def _useless(known: Known, _bounds: Bounds, _now_s: float) -> Iterator[Peer]:
    return (peer for peer, found in known.items() if found.useless)


def _silent(known: Known, _bounds: Bounds, now_s: float) -> Iterator[Peer]:
    return (peer for peer, found in _unauthenticated(known) if now_s - found.since_s >= FIRST_CALL_S)


def _of_one_address(known: Known, bounds: Bounds, now_s: float) -> Iterator[Peer]:
    ranked = _ranked((network(peer.host), found.since_s, peer) for peer, found in _unauthenticated(known))
    return (peer for rank, since_s, peer in ranked if rank >= bounds.per_address and now_s - since_s >= GRACE_S)


def _of_all_addresses(known: Known, bounds: Bounds, _now_s: float) -> list[Peer]:
    """Close connections of the address that has most, so that all keep the same number; there is no grace period."""
    ranked = _ranked((network(peer.host), found.since_s, peer) for peer, found in _unauthenticated(known))
    by_turn = sorted(ranked, key=lambda found: (-found[0], found[1]))
    return [peer for _, _, peer in by_turn[: max(0, len(by_turn) - bounds.unauthenticated)]]


def _of_one_certificate(known: Known, bounds: Bounds, _now_s: float) -> Iterator[Peer]:
    ranked = _ranked((found.serial, found.heard_s, peer) for peer, found in known.items() if found.serial)
    return (peer for rank, _, peer in ranked if rank >= bounds.per_certificate)


RULES: dict[str, Callable[[Known, Bounds, float], Iterable[Peer]]] = {
    "refused": _due,
    "too_much_of_no_use": _useless,
    "without_a_call": _silent,
    "too_many_of_one_address": _of_one_address,
    "too_many": _of_all_addresses,
    "too_many_of_one_certificate": _of_one_certificate,
}
"""in this order: a connection that one rule closes is not seen by the next rules"""
CROWDED = frozenset({"too_much_of_no_use", "too_many_of_one_address", "too_many", "too_many_of_one_certificate"})
FLOODS = frozenset({"too_much_of_no_use"})
"""whose address is slowed where they come again and again, and of which nothing more is read"""
OF_STRANGERS = frozenset({"without_a_call", "too_many_of_one_address", "too_many"})


def _unauthenticated(known: Known) -> Iterator[tuple[Peer, Connection]]:
    return ((peer, found) for peer, found in known.items() if not found.serial)


def crowded(known: Known, bounds: Bounds) -> frozenset[str]:
    """Return the addresses of which no more connections are wanted now."""
    counts = Counter(network(peer.host) for peer, _ in _unauthenticated(known))
    return frozenset(place for place, count in counts.items() if count > bounds.per_address)


def _ranked(owned: Iterable[tuple[str, float, Peer]]) -> Iterator[tuple[int, float, Peer]]:
    """Yield (rank, time, peer) of (owner, time, peer): the newest of each owner has rank 0."""
    by_owner: dict[str, list[tuple[float, Peer]]] = defaultdict(list)
    for owner, at_s, peer in owned:
        by_owner[owner].append((at_s, peer))
    for found in by_owner.values():
        yield from ((rank, at_s, peer) for rank, (at_s, peer) in enumerate(sorted(found, reverse=True)))


@lru_cache(maxsize=8192)
def network(host: str) -> str:
    """Return what counts as one address: an IPv4 address, or the network of an IPv6 address."""
    return host if ":" not in host else str(ipaddress.ip_network((host, NETWORK_BITS), strict=False))


# --- the loop around them -----------------------------------------------------------------------------------------


class Connections:
    """The connections of this process's public port. Thread-safe; no method but `stop` waits for anything."""

    def __init__(
        self,
        bounds: Bounds,
        *,
        accepted: Callable[[int], dict[Peer, int]] = accepted,
        shut_down: Callable[[int, Peer], bool] = shut_down,
        throw_away: Callable[[int, Peer], bool] = throw_away,
        traffic: Callable[[int], Traffic | None] = traffic,
        slow: Callable[[int, frozenset[str]], bool] = lambda port, networks: slow(listeners(port), networks),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`slow` is given the port; the others but `clock` are those of coordinator.calls.sockets."""
        self._bounds, self._clock = bounds, clock
        self._accepted, self._shut_down, self._slow = accepted, shut_down, slow
        self._throw_away = throw_away
        self._traffic, self._overhead = traffic, Overhead()
        self._throttle, self._slowed = Throttle(), frozenset[str]()
        self._port = 0
        self._known: dict[Peer, Connection] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connections", daemon=True)
        self._tally = _Tally()

    def start(self, port: int) -> None:
        """Begin to look at the connections that are accepted on a port."""
        self._port = port
        self._thread.start()

    def stop(self) -> None:
        """End the looking; connections stay as they are."""
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._tally.end(self._clock())

    def authenticated(self, peer: str, who: str, serial: str) -> None:
        """Note that a call was admitted. `peer` is gRPC's text; `serial` that of the caller's certificate."""
        with self._lock:
            if found := self._heard(peer):
                found.who, found.serial = who, serial

    def took(self, peer: str, size_bytes: int) -> None:
        """Note useful bytes: those of a message, or CALL_BYTES for a call within its limits."""
        with self._lock:
            if (there := parse_peer(peer)) and (found := self._known.get(there)):
                found.taken += size_bytes

    def refused(self, peer: str) -> None:
        """Close a connection soon, after its caller has received the refusal."""
        with self._lock:
            if (found := self._heard(peer)) and found.close_at_s is None:
                found.close_at_s = found.heard_s + REFUSAL_S

    def cut_serial(self, serial: str) -> int:
        """Close all connections of a certificate now, and those without a call beside them; return how many."""
        with self._lock:
            places = {network(peer.host) for peer, found in self._known.items() if found.serial == serial}
            beside = [found for peer, found in _unauthenticated(self._known) if network(peer.host) in places]
            return self._condemn(beside + [found for found in self._known.values() if found.serial == serial])

    def cut_flood(self, peer: str, serial: str) -> None:
        """Close a connection on which a call came, and all others of its certificate, now and unread."""
        with self._lock:
            of = [found for found in self._known.values() if found.serial == serial]
            for found in [*of, self._heard(peer)]:
                if found is not None:
                    found.useless = True
            self._wake.set()

    def cut_peer(self, peer: str) -> bool:
        """Close one connection now, unread; say whether it is one of the network."""
        with self._lock:
            found = self._heard(peer)
            if found is not None:
                found.useless = True
                self._wake.set()
            return found is not None

    def counts(self) -> Counts:
        """Return how many connections are open, by the last look."""
        with self._lock:
            of = Counter(found.who for found in self._known.values() if found.serial)
            return Counts(len(self._known) - of.total(), dict(of))

    def trouble(self) -> str:
        """Return the warning to the operator while addresses are slowed; empty while none is."""
        slowed = sorted(self._slowed)
        if not slowed:
            return ""
        named = ", ".join(slowed[:NAMED_MAX]) + (", ..." if len(slowed) > NAMED_MAX else "")
        calls = f"without a call ({self.counts().unauthenticated} are open)"
        return f"new connections from {named} are mostly refused: too many of them come {calls}"

    def sweep(self) -> bool:
        """Look once, and close what is to be closed; say whether there were too many. Raises OSError."""
        began_s = self._clock()
        open_now = self._accepted(self._port)
        gone_over = {peer: self._traffic(descriptor) for peer, descriptor in open_now.items()}
        with self._lock:
            came = self._meet(open_now, began_s)
            self._weigh(gone_over)
            found = to_close(self._known, self._bounds, self._clock())
            full = crowded(self._known, self._bounds)
        closed = {peer: rule for peer, rule in found.items() if self._close(open_now, peer, rule)}
        floods = Counter(network(peer.host) for peer in closed if found[peer] in FLOODS)
        self._throttle.flooded(floods, began_s)
        self._slow_down(full)
        self._tally.add(closed, self._clock())
        return came or not CROWDED.isdisjoint(found.values())

    def _slow_down(self, full: frozenset[str]) -> None:
        slowed = self._throttle.slowed(self._clock()) | full
        if slowed != self._slowed and self._slow(self._port, slowed):
            self._tally.slowed.update(slowed - self._slowed)
        self._slowed = slowed

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopped.is_set():
            self._wake.wait(wait_s)
            self._wake.clear()
            used_s = time.thread_time()
            try:
                wait_s = BUSY_SWEEP_S if self.sweep() else SWEEP_S
            except OSError as error:
                self._tally.failed(error, self._clock())
                wait_s = SWEEP_S
            self._stopped.wait(REST * (time.thread_time() - used_s))

    def _heard(self, peer: str) -> Connection | None:
        """Return a connection on which a call came just now; None: it is none of the network."""
        found, now_s = parse_peer(peer), self._clock()
        if found is None:
            return None
        connection = self._known.setdefault(found, Connection(now_s, now_s))
        connection.heard_s = now_s
        return connection

    def _condemn(self, found: list[Connection]) -> int:
        for connection in found:
            connection.close_at_s = self._clock()
        self._wake.set()
        return len(found)

    def _meet(self, open_now: Mapping[Peer, int], began_s: float) -> bool:
        """Take in which connections there are; say whether some are new.

        One that was heard of since the look began may be newer than it.
        """
        ended = {peer for peer, one in self._known.items() if peer not in open_now and one.heard_s < began_s}
        failed = Counter(network(peer.host) for peer in ended if not self._known[peer].serial)
        self._throttle.failed(failed, began_s)
        for peer in ended:
            del self._known[peer]
        new = open_now.keys() - self._known.keys()
        for peer in new:
            self._known[peer] = Connection(began_s, began_s)
        return bool(new)

    def _weigh(self, gone_over: Mapping[Peer, Traffic | None]) -> None:
        """Find connections with too many useless bytes."""
        found: dict[str, float] = defaultdict(float)
        for peer, now in gone_over.items():
            if now is not None and (one := self._known.get(peer)) and now.received >= one.traffic.received:
                found[one.serial] += useless(one.traffic, now, one.taken)
                one.traffic, one.taken = now, 0
        found.pop("", None)
        over = self._overhead.over(found, self._clock())
        for one in self._known.values():
            one.useless |= one.serial in over if one.serial else one.traffic.received > STRANGER_BYTES

    def _close(self, open_now: Mapping[Peer, int], peer: Peer, rule: str) -> bool:
        """Close one connection; say whether it is closed for the first time: the library frees it a little later."""
        with self._lock:  # a call may have been admitted since it was decided
            found = self._known.get(peer)
            if found is None or peer not in open_now or (rule in OF_STRANGERS and found.serial):
                return False
            again, found.closed = found.closed, True
        end = self._throw_away if rule in FLOODS else self._shut_down
        return end(open_now[peer], peer) and not again


class _Tally:
    """Log closed connections: the first immediately, then one line a minute."""

    def __init__(self) -> None:
        self.slowed: set[str] = set()
        self._closed: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._said_s = self._failed_s = -LOG_S

    def add(self, closed: Mapping[Peer, str], now_s: float) -> None:
        self._closed.update(closed.values())
        self._addresses.update(network(peer.host) for peer in closed)
        if now_s - self._said_s >= LOG_S:
            self.end(now_s)

    def end(self, now_s: float) -> None:
        if self._closed or self.slowed:
            self._say(now_s)

    def failed(self, error: OSError, now_s: float) -> None:
        if now_s - self._failed_s >= LOG_S:
            self._failed_s = now_s
            logger().error("the open connections cannot be listed", reason=str(error))

    def _say(self, now_s: float) -> None:
        said: dict[str, object] = dict(self._closed)
        for address, count in self._addresses.most_common(1):
            said |= {"most_from": address, "of_these": count}
        if self.slowed:
            said["slowed"] = sorted(self.slowed)[:NAMED_MAX]
        logger().warning("connections closed", **said)
        self._said_s = now_s
        for counted in (self._closed, self._addresses, self.slowed):
            counted.clear()
