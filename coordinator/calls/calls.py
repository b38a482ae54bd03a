"""One call: the caller and the headers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedcervix.errors import RemoteError
from fedcervix.transport import codec, identity, rpc


@dataclass(frozen=True, slots=True)
class Call:
    """Of a caller whose certificate was verified and is in force."""

    peer: str
    """the other end of the connection, in gRPC's words"""
    certificate: identity.Certificate
    headers: Mapping[str, str]
    task: asyncio.Task[Any]
    """in which it is answered"""
    insist: Callable[[], None]
    """raises IdentityError once the certificate is no longer in force"""

    @property
    def serial(self) -> str:
        """The certificate's serial."""
        return self.certificate.serial

    @property
    def site(self) -> str:
        """The calling site."""
        return self.certificate.identity.name

    @property
    def instance(self) -> str:
        """Which process of the site's agent calls. Raises RemoteError."""
        return codec.read_claim(self.headers.get(rpc.INSTANCE_KEY, "")).instance


class Headers(dict[str, str]):
    """Headers that go before the first message of an answer."""


def natural(text: str) -> int:
    """Return the number that a header has. Raises RemoteError where it has none."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise RemoteError("offset and size are natural numbers")
    return int(text)
