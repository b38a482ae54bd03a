"""The connection to a receiver: everything about it has a bound, because nothing is known of who answers.

A deadline stands over the whole conversation, not over each of its steps: a byte every few seconds gains nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from fedcervix.errors import ConfigError, LinkError

WITHIN_S = 20.0
"""from the first packet to the answer"""
ADDRESSES_MAX = 4
"""of a name, that are tried"""
AGAIN = "mend that, then: coordinator notify test"


class Deadline:
    """When a conversation must be over."""

    def __init__(self, within_s: float) -> None:
        self._ends_s = time.monotonic() + within_s

    def left_s(self) -> float:
        """Return the seconds left. Raises TimeoutError where there are none."""
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the time is over")
        return left_s


def connected(host: str, port: int, deadline: Deadline, *, only_here: bool = False) -> socket.socket:
    """Return a socket to a receiver. Raises OSError. `only_here`: to no address of another machine, whatever its name.

    The lookup of the name has the bound of the system's resolver, not ours.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:ADDRESSES_MAX]
    failed: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in found:
        if only_here and not ipaddress.ip_address(address[0]).is_loopback:
            continue
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left_s())
            sock.connect(address)
        except OSError as error:
            sock.close()
            failed = error
        else:
            return sock
    raise failed


def tls(authority: Path | None) -> ssl.SSLContext:
    """Return how a receiver must prove who it is. Raises ConfigError where the authority's file cannot be read."""
    try:
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {authority}, the authority of a receiver in [notify]",
            cause="the file is missing, or it is not a certificate in PEM form",
            next_step=f"openssl x509 -in {authority} -noout -subject",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextlib.contextmanager
def translated(host: str) -> Iterator[None]:
    """Raises LinkError in place of an error of the network; nothing that the other side said is in it."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise LinkError(
            f"{host} does not prove that it is {host}: its certificate is not accepted ({error.verify_message})",
            cause="its certificate is from an authority of your institution, has expired, or another machine answers",
            next_step="name the authority's file: authority = in [notify] (docs/notifications.md)",
        ) from error
    except ssl.SSLError as error:
        raise LinkError(
            f"{host} and this machine agree on no TLS",
            cause="the port speaks no TLS, or only an old version of it",
            next_step=AGAIN,
        ) from error
    except TimeoutError as error:
        raise LinkError(
            f"{host} did not answer within {WITHIN_S:.0f} s",
            cause="it is down, or a firewall is in between",
            next_step=AGAIN,
        ) from error
    except (socket.gaierror, UnicodeError) as error:
        raise LinkError(
            f"the name {host} has no address", cause="it is misspelt, or the name server is away", next_step=AGAIN
        ) from error
    except OSError as error:
        raise LinkError(
            f"{host} cannot be reached: {error.strerror or type(error).__name__}",
            cause="it is down, or a firewall is in between",
            next_step=AGAIN,
        ) from error
