"""Which HTTP proxy stands between this site and its coordinator.

gRPC dials for the agent, so the rules are gRPC's; whoever else dials (`site_agent.federation.tls`) has to obey them,
too:
1. The first of `grpc_proxy`, `https_proxy` and `http_proxy` that is set counts; set to nothing, there is no proxy.
   In lower case: gRPC does not know `HTTPS_PROXY`.
2. It is reached over plain HTTP and asked to CONNECT; what passes is TLS between site and coordinator.
3. `no_grpc_proxy`, or else `no_proxy`, lists whom to dial past it: ends of names, addresses, and ranges of them.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

NAMES = ("grpc_proxy", "https_proxy", "http_proxy")
PORT = 443
"""where a proxy's URL names none"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `credentials`: USER:PASSWORD, never shown."""

    host: str
    port: int
    credentials: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """Return a connection through it. Raises OSError."""
        line = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        line.set_tunnel(f"[{host}]" if ":" in host else host, port, self._headers())
        try:
            line.connect()
        except http.client.HTTPException as error:
            line.close()
            raise OSError(f"the program that answers there does not speak HTTP: {type(error).__name__}") from error
        return line.sock

    def _headers(self) -> dict[str, str]:
        if not self.credentials:
            return {}
        return {"Proxy-Authorization": f"Basic {base64.b64encode(self.credentials.encode()).decode()}"}


def proxy_for(host: str, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy through which gRPC reaches a host; None where it dials by itself."""
    url = next((environment[name] for name in NAMES if name in environment), "")
    proxy = _parsed(url)
    return None if proxy is None or _past(host, environment) else proxy


def _parsed(url: str) -> Proxy | None:
    """Return the proxy of a URL; None for nothing, and for what gRPC cannot use either."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            return None
        credentials, _, _ = parts.netloc.rpartition("@")
        return Proxy(parts.hostname, parts.port or PORT, unquote(credentials))
    except ValueError:
        return None


def _past(host: str, environment: Mapping[str, str]) -> bool:
    entries = environment.get("no_grpc_proxy", environment.get("no_proxy", "")).split(",")
    return any(_names(entry.strip(), host) for entry in entries if entry)


def _names(entry: str, host: str) -> bool:
    """Say whether an entry means a host: by the end of its name, or by its address."""
    if host.lower().endswith(entry.lower()):
        return True
    try:
        return "/" in entry and ipaddress.ip_address(host.strip("[]")) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def remark(environment: Mapping[str, str]) -> str:
    """Say what somebody has set who wanted a proxy, but not in a way that works; empty where nothing is wrong."""
    lower = [name for name in NAMES if environment.get(name)]
    if lower and _parsed(environment[lower[0]]) is None:
        return f"{lower[0]} is set, but not to http://HOST:PORT: it is ignored"
    upper = [name.upper() for name in NAMES if environment.get(name.upper())]
    if upper and not lower:
        return f"{upper[0]} is set, but only {upper[0].lower()}, in lower case, is used"
    return ""
