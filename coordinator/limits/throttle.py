"""Addresses that make connections but no calls: for a while the system accepts few of their connections.

Each such connection costs a TLS handshake. A few thousand a second from one address leave no processor time for others,
and the library accepts them all. The system can refuse them earlier: a program of its classic packet filter, attached
to the listening socket, looks at each connection request (SYN) and drops those of the addresses it is given, all but
one in PASSES. So an honest site behind the same address still gets in, later. Nothing else is dropped: open connections
go on. It needs no privileges. Where there is no such filter (other systems than Linux), nobody is slowed.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fedcervix.runtime.budgets import Budget

BURST, PER_S, LOOK_MAX = 600.0, 5.0, 40
"""connections of an address that ended without a call: at once, then in a second; and how many count at one look

One flood is not slowed: its connections end at few looks. An address that makes connections all the time is seen at
many, and while some come, there are twenty a second (coordinator.calls.connections). They cannot be counted better:
most are there for milliseconds, between two looks.
"""
FLOOD = 20
"""connections without a call that one counts for on which too much came that is of no use: it costs as much"""
SLOWED_S = 10.0
"""time since the last connection above that"""
PASSES = 16
"""one in this many connection requests of a slowed address is accepted; a power of 2"""
NETWORKS_MAX = 256
"""number of networks that are remembered, and slowed at the same time"""


@dataclass(slots=True)
class Throttle:
    """The networks that are slowed. Not thread-safe."""

    _budgets: dict[str, Budget] = field(default_factory=dict)
    _until_s: dict[str, float] = field(default_factory=dict)

    def failed(self, networks: Mapping[str, int], now_s: float) -> None:
        """Note how many connections of these networks had ended without a call at a look."""
        for network, count in networks.items():
            self._failed(network, min(count, LOOK_MAX), now_s)

    def flooded(self, networks: Mapping[str, int], now_s: float) -> None:
        """Note how many connections of these networks were closed because of useless bytes."""
        for network, count in networks.items():
            self._failed(network, FLOOD * count, now_s)

    def _failed(self, network: str, count: int, now_s: float) -> None:
        budget = self._budgets.pop(network, None) or Budget(PER_S, BURST)
        self._budgets[network] = budget  # the last one in the table is the last one heard of
        if len(self._budgets) > NETWORKS_MAX:
            del self._budgets[next(iter(self._budgets))]
        if not budget.take(now_s, count):
            self._until_s[network] = now_s + SLOWED_S

    def slowed(self, now_s: float) -> frozenset[str]:
        """Return the networks that are slowed now."""
        self._until_s = {network: until_s for network, until_s in self._until_s.items() if now_s < until_s}
        return frozenset(sorted(self._until_s, key=self._until_s.__getitem__)[-NETWORKS_MAX:])


# --- the system's filter ------------------------------------------------------------------------------------------

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_BYTE, _WORD, _AND, _SHIFT, _EQUAL, _GO, _RETURN = 0x30, 0x20, 0x54, 0x74, 0x15, 0x05, 0x06
"""linux/bpf_common.h: load a byte or a word, `and`, shift right, jump if equal, jump, return"""
_IP_HEADER, _RANDOM = 0xFFF00000, 0xFFFFF000 + 56
"""linux/filter.h: SKF_NET_OFF, SKF_AD_OFF + SKF_AD_RANDOM; offset 0 is the TCP header"""
_FLAGS, _SYN_ACK, _SYN = 13, 0x12, 0x02
_IPV4_SOURCE, _IPV6_SOURCE = _IP_HEADER + 12, _IP_HEADER + 8
_DROP, _TAKE = (_RETURN, 0, 0, 0), (_RETURN, 0, 0, 0xFFFFFFFF)

Instruction = tuple[int, int, int, int]
"""operation, how many to skip if true, if false, operand"""


def program(networks: Iterable[str]) -> list[Instruction]:
    """Return what drops connection requests of these networks: IPv4 addresses, and IPv6 networks of 64 bits."""
    found = [ipaddress.ip_network(network) for network in sorted(networks)]
    ipv4 = [int(network.network_address) for network in found if network.version == 4]
    ipv6 = [int(network.network_address) >> 64 for network in found if network.version == 6]
    of_ipv4 = [instruction for address in ipv4 for instruction in ((_EQUAL, 0, 1, address), _DROP)]
    return [
        (_BYTE, 0, 0, _FLAGS),
        (_AND, 0, 0, _SYN_ACK),
        (_EQUAL, 1, 0, _SYN),
        _TAKE,
        (_WORD, 0, 0, _RANDOM),
        (_AND, 0, 0, PASSES - 1),
        (_EQUAL, 0, 1, 0),
        _TAKE,
        (_BYTE, 0, 0, _IP_HEADER),
        (_SHIFT, 0, 0, 4),
        (_EQUAL, 1, 0, 4),
        (_GO, 0, 0, len(of_ipv4) + 2),
        (_WORD, 0, 0, _IPV4_SOURCE),
        *of_ipv4,
        _TAKE,
        *(instruction for prefix in ipv6 for instruction in _of_ipv6(prefix)),
        _TAKE,
    ]


def _of_ipv6(prefix: int) -> list[Instruction]:
    return [
        (_WORD, 0, 0, _IPV6_SOURCE),
        (_EQUAL, 0, 3, prefix >> 32),
        (_WORD, 0, 0, _IPV6_SOURCE + 4),
        (_EQUAL, 0, 1, prefix & 0xFFFFFFFF),
        _DROP,
    ]


def slow(listeners: Iterable[int], networks: frozenset[str]) -> bool:
    """Make listening sockets drop connection requests of these networks; say whether the system can do that."""
    made = b"".join(struct.pack("HBBI", *instruction) for instruction in program(networks))
    held = ctypes.create_string_buffer(made)
    size = struct.calcsize("HBBI")
    filter_ = struct.pack("HL", len(made) // size, ctypes.addressof(held))
    done = []
    for descriptor in listeners:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as listener:
            if networks:
                listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
            else:
                listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            done.append(descriptor)
    return bool(done)
