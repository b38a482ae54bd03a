"""HOST:PORT in one place: how an address is read, written, certified and connected to.

Rules
1. An IPv6 address before a port has brackets: [2001:db8::7]:8443. Without brackets the end of the address is ambiguous,
   so it is refused, with the right spelling.
2. `host` never has brackets, as certificates, sockets and TLS need it. `str` adds them, as gRPC, URLs and files need
   it.
3. An IP address is kept in its shortest form, because gRPC compares it with the certificate's as text.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
PORT_MAX = 65_535
EXAMPLES = "`federation.example.org:8443` or `[2001:db8::7]:8443`"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port. `host` is a name or an IP address without brackets; `port` 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, port_min: int = 1) -> Address:
        """Read HOST:PORT. Raises ValueError that completes a sentence: "advertise must be HOST:PORT ...; found ...".

        `port_min` is 0 where the system may choose the port.
        """
        host, colon, port = text.rpartition(":")
        if text and not colon:
            raise ValueError(
                f"must be HOST:PORT, and the port is missing: write it like {EXAMPLES}; found {text[:100]!r}"
            )
        if not (colon and host and port.isascii() and port.isdigit()):
            raise _wrong(text)
        if len(port) > 5 or not port_min <= int(port) <= PORT_MAX:
            raise ValueError(f"must be HOST:PORT with a port from {port_min} to {PORT_MAX}; found {text[:100]!r}")
        return cls(_host(host, text), int(port))

    @property
    def is_ip(self) -> bool:
        """Say whether the host is an IP address, and no name."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def is_everywhere(self) -> bool:
        """Say whether the host means every interface of this machine: to listen on, not to dial."""
        return self.is_ip and ipaddress.ip_address(self.host).is_unspecified

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_address(key: str, text: str, *, port_min: int = 1) -> None:
    """Raise ValueError, beginning with `key`, unless `text` is HOST:PORT."""
    try:
        Address.parse(text, port_min=port_min)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from error


def _host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return _ipv6(host[1:-1], text)
    if ":" in host:
        raise ValueError(f"must be HOST:PORT, and {_hint(host, text)}; found {text[:100]!r}")
    numeric = host.rpartition(".")[2].isdigit()  # no host name ends in a number: it was meant as an IPv4 address
    try:
        return str(ipaddress.IPv4Address(host)) if numeric else _name(host, text)
    except ValueError as error:
        raise _wrong(text) from error


def _name(host: str, text: str) -> str:
    if HOST_NAME.fullmatch(host) is None:
        raise _wrong(text)
    return host


def _ipv6(inside: str, text: str) -> str:
    if "%" in inside:
        raise ValueError(
            f"must be HOST:PORT without a zone (%...), which only this machine understands; found {text!r}"
        )
    try:
        return socket.inet_ntop(socket.AF_INET6, ipaddress.IPv6Address(inside).packed)  # the form that gRPC compares
    except ValueError as error:
        raise _wrong(text) from error


def _hint(host: str, text: str) -> str:
    """Say how to write an address that holds a colon but no brackets."""
    if "//" in text:
        return "without https://"
    try:
        return f"an IPv6 address needs brackets: write [{ipaddress.IPv6Address(host)}]:{text.rpartition(':')[2]}"
    except ValueError:
        return f"is written like {EXAMPLES}"


def _wrong(text: str) -> ValueError:
    return ValueError(f"must be HOST:PORT, such as {EXAMPLES}; found {text[:100]!r}")
