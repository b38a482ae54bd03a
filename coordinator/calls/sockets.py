"""The accepted TCP connections of this process, as the operating system lists them, and how one is closed.

The library that serves calls has no function for either. It sees the end of a connection that is shut down here, and
frees what belonged to it.

These calls do not let go of the interpreter's lock, as those of the `socket` module do: none of them waits, and to get
the lock back after each of 20,000 calls takes 13 s while another thread is busy (measured; here 0.4 s).
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from coordinator.limits.overhead import Traffic

_C = ctypes.PyDLL(None, use_errno=True)
_NAME_BYTES_MAX = 128
"""sizeof(struct sockaddr_storage)"""
_ADDRESS_AT = {16: slice(4, 8), 28: slice(8, 24)}
"""where the address stands in a sockaddr_in and a sockaddr_in6, by their sizes; the port is bytes 2 and 3 of both"""
_NOWHERE = struct.pack("=H14x", socket.AF_UNSPEC)
_TCP_INFO = 11
_TRAFFIC = struct.Struct("=120xQQ")
"""linux/tcp.h, struct tcp_info, as far as tcpi_bytes_acked, tcpi_bytes_received"""
_LISTS = (Path("/proc/self/fd"), Path("/dev/fd"))


class Peer(NamedTuple):
    """The other end of a TCP connection. `host` is an IP address in its shortest form, without a zone."""

    host: str
    port: int


@lru_cache(maxsize=8192)
def parse_peer(text: str) -> Peer | None:
    """Read a peer as gRPC writes it, such as "ipv4:127.0.0.1:5678" or "ipv6:%5B::1%5D:5678"; None: not a TCP one."""
    kind, _, rest = unquote(text).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not (port.isascii() and port.isdigit()):
        return None
    try:
        return Peer(_shortest(host.strip("[]").partition("%")[0]), int(port))
    except ValueError:
        return None


@lru_cache(maxsize=8192)
def _shortest(address: str | bytes) -> str:
    """Return an IP address as text. IPv4 that came through an IPv6 socket is IPv4. Raises ValueError."""
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def accepted(port: int) -> dict[Peer, int]:
    """Return the connections that were accepted on a local port: {other end: descriptor}. Raises OSError."""
    far, near = _End(_C.getpeername), _End(_C.getsockname)
    names = ((descriptor, far.name(descriptor)) for descriptor in _descriptors())
    return {
        _peer(name): descriptor
        for descriptor, name in names
        if name is not None and _port(near.name(descriptor)) == port
    }


def listeners(port: int) -> list[int]:
    """Return the descriptors that listen on a local port. Raises OSError."""
    far, near = _End(_C.getpeername), _End(_C.getsockname)
    return [
        descriptor
        for descriptor in _descriptors()
        if _port(near.name(descriptor)) == port and far.name(descriptor) is None
    ]


def shut_down(descriptor: int, peer: Peer) -> bool:
    """Shut down a connection, if the descriptor still is the one to `peer`. Raises OSError without a free descriptor.

    The descriptor belongs to another library, which may close it at any moment, and its number is used again at once:
    what is checked and shut down is a duplicate.
    """
    return _end(descriptor, peer, lambda mine: _C.shutdown(mine, socket.SHUT_RDWR))


def throw_away(descriptor: int, peer: Peer) -> bool:
    """The same, and nothing of what has arrived is read any more: the system holds megabytes of it. Linux.

    To connect a TCP socket to no address takes it apart, with its queues, and tells the other side (`man 2 connect`).
    """
    return _end(descriptor, peer, lambda mine: _C.connect(mine, _NOWHERE, len(_NOWHERE)))


def _end(descriptor: int, peer: Peer, end: Callable[[int], int]) -> bool:
    mine: int = _C.dup(descriptor)
    if mine < 0:
        number = ctypes.get_errno()
        if number == errno.EBADF:
            return False
        raise OSError(number, os.strerror(number))
    try:
        name = _End(_C.getpeername).name(mine)
        return name is not None and _peer(name) == peer and end(mine) == 0
    finally:
        _C.close(mine)


def traffic(descriptor: int) -> Traffic | None:
    """Return what has gone over a connection; None where the system does not say (Linux does)."""
    found, size = ctypes.create_string_buffer(_TRAFFIC.size), ctypes.c_uint32(_TRAFFIC.size)
    asked = sys.platform == "linux" and _C.getsockopt(
        descriptor, socket.IPPROTO_TCP, _TCP_INFO, found, ctypes.byref(size)
    )
    if asked != 0 or size.value < _TRAFFIC.size:
        return None
    acknowledged, received = _TRAFFIC.unpack(found)
    return Traffic(received, acknowledged)


def _descriptors() -> list[int]:
    folder = next((place for place in _LISTS if place.is_dir()), _LISTS[0])
    return [int(name) for name in os.listdir(folder)]  # noqa: PTH208  (5,000 paths, ten times a second)


class _End:
    """Asks for one end of TCP connections, as the system writes it. Its memory is made once, for thousands of them."""

    def __init__(self, ask: Callable[..., int]) -> None:
        self._ask = ask
        self._name, self._size = ctypes.create_string_buffer(_NAME_BYTES_MAX), ctypes.c_uint32()
        self._to = ctypes.byref(self._size)

    def name(self, descriptor: int) -> bytes | None:
        """Return it; None where the descriptor is none."""
        self._size.value = _NAME_BYTES_MAX
        if self._ask(descriptor, self._name, self._to) != 0 or self._size.value not in _ADDRESS_AT:
            return None
        return self._name.raw[: self._size.value]


def _port(name: bytes | None) -> int:
    return name[2] << 8 | name[3] if name else 0


def _peer(name: bytes) -> Peer:
    return Peer(_shortest(name[_ADDRESS_AT[len(name)]]), _port(name))
