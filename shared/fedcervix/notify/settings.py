"""Table [notify] of a configuration file: who is told, of what. Off as long as it names no receiver."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from fedcervix.core.bounds import Within, check_values
from fedcervix.core.plan import check
from fedcervix.transport.address import Address, check_address

Kind = Literal["began", "ended", "silent", "refused", "failed", "alarm", "certificate", "trouble"]
KINDS: tuple[Kind, ...] = get_args(Kind)
URL_CHARS_MAX = 2000
TO_MAX = 20
_URL = re.compile(r"[!-~]+")
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})")


def is_loopback(host: str) -> bool:
    """Say whether a host's name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class WebhookSection:
    """Table [notify.webhook]."""

    url: str = ""
    """https, or http to this machine; empty: no webhook"""
    authority: str = ""
    """file of the authority that signed the receiver's certificate; empty: those that this machine trusts"""

    def __post_init__(self) -> None:
        if self.url:
            _check_url(self.url)

    @property
    def parts(self) -> SplitResult:
        """The address in parts. Its path may be a secret: only the host is ever shown."""
        return urlsplit(self.url)


@dataclass(frozen=True, slots=True)
class MailSection:
    """Table [notify.mail]."""

    server: str = ""
    """HOST:PORT; empty: no mail"""
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: str = ""
    to: tuple[str, ...] = ()
    authority: str = ""
    """as of the webhook"""

    def __post_init__(self) -> None:
        check_values(self)
        if not self.server:
            return
        check_address("server", self.server)
        host = Address.parse(self.server).host
        check(self.security != "none" or is_loopback(host), 'security = "none" is only for a server on this machine')
        check(1 <= len(self.to) <= TO_MAX, f"to names 1 to {TO_MAX} addresses")
        for mailbox in (self.sender, *self.to):
            check(_MAILBOX.fullmatch(mailbox) is not None, "sender and to are plain addresses, such as ops@example.org")


@dataclass(frozen=True, slots=True)
class NotifySection:
    """Table [notify]."""

    on: tuple[Kind, ...] = KINDS
    give_up_h: Annotated[float, Within(above=0, most=168)] = 24.0
    """for so long a message is tried again"""
    webhook: WebhookSection = field(default_factory=WebhookSection)
    mail: MailSection = field(default_factory=MailSection)

    def __post_init__(self) -> None:
        check_values(self)


def _check_url(url: str) -> None:
    """Raise ValueError, which does not quote the address: it may hold a secret."""
    check(len(url) <= URL_CHARS_MAX and _URL.fullmatch(url) is not None, "url is longer, or holds other characters")
    parts = urlsplit(url)
    host = parts.hostname or ""
    check(bool(host), "url names no host: https://HOST/PATH")
    check(parts.scheme in ("https", "http"), "url must begin with https://")
    check(parts.scheme == "https" or is_loopback(host), "url must begin with https:// (http only to this machine)")
    check("@" not in parts.netloc, "url must not hold a name and a password")
    check("#" not in url, "url must not hold #")
    check(parts.port != 0, "url names port 0")
    check_address("the host of url", f"[{host}]:443" if ":" in host else f"{host}:443")
