"""A plain look at what answers at the coordinator's address, because gRPC does not say why a handshake failed.

An antivirus or proxy that opens TLS connections shows its own issuer here, and another federation's coordinator its.
The look goes the way of the agent's line: through an HTTP proxy, where one is set (see
`site_agent.federation.proxies`).
"""

from __future__ import annotations

import os
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from fedcervix.disk.descriptors import check_used_up
from fedcervix.errors import IdentityError, LinkError
from fedcervix.transport.address import Address
from fedcervix.transport.identity import moment
from site_agent.federation.proxies import Proxy, proxy_for, remark

CONNECT_S = 10.0
OUT_OF_TIME = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED"""


def _dial(to: Address, proxy: Proxy | None) -> socket.socket:
    """Return a connection. Raises OSError."""
    if proxy is None:
        return socket.create_connection((to.host, to.port), timeout=CONNECT_S)
    return proxy.connect(to.host, to.port, CONNECT_S)


def _through(proxy: Proxy | None) -> str:
    return f" through the proxy {proxy}" if proxy else ""


def look(address: str, authority_pem: bytes, own: tuple[Path, Path] | None = None) -> str:
    """Return the TLS version with which the coordinator at HOST:PORT answers, and the way there.

    `own`: the files of this site's certificate and key; with them, the coordinator has to accept them. Raises
    IdentityError where one side does not accept the other's certificate, LinkError where nothing answers.
    """
    to = Address.parse(address)
    proxy = proxy_for(to.host, os.environ)
    context = _context(authority_pem, own)
    try:
        with (
            _dial(to, proxy) as plain,
            context.wrap_socket(plain, server_hostname=to.host) as line,
        ):
            # Under TLS 1.3 a server refuses a client's certificate only after the handshake.
            if own is not None and not line.recv(1):
                raise _closed(address)
            return f"{line.version() or 'TLS'}{_through(proxy)}"
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in OUT_OF_TIME:
            raise _out_of_time(address, error) from error
        raise IdentityError(
            f"the program that answers at {address} is not this federation's coordinator ({error.verify_message})",
            cause=f"its certificate was issued by {_issuer(to, proxy)}: another federation's coordinator, or an "
            "antivirus or proxy that opens TLS connections, or this site joined another federation",
            next_step="ask IT not to inspect TLS connections to this address, or the operator for a new invitation",
        ) from error
    except ssl.SSLError as error:
        raise _refused(address, error) from error
    except OSError as error:
        check_used_up(f"{address} cannot be reached", error)
        raise _unreachable(address, to, proxy, error) from error


def _context(authority_pem: bytes, own: tuple[Path, Path] | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=authority_pem.decode("ascii"))
        if own is not None:
            context.load_cert_chain(*own)
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError(
            f"the files of this site's keys folder cannot be used: {error}",
            cause="authority.crt, site.crt or site.key is damaged, or they do not belong together",
            next_step="restore the three files from one backup, or ask the coordinator's operator for a new invitation",
        ) from error
    context.set_alpn_protocols(["h2"])
    return context


def _clock() -> str:
    return f"this machine's clock says {moment(datetime.now(UTC))}"


def _out_of_time(address: str, error: ssl.SSLCertVerificationError) -> IdentityError:
    return IdentityError(
        f"the certificate of the coordinator at {address} is not valid now ({error.verify_message})",
        cause=f"a clock is wrong: {_clock()}",
        next_step="compare it with the coordinator's, and set the wrong one (`timedatectl set-ntp true`)",
    )


def _closed(address: str) -> LinkError:
    """Return the error for a line that ends with the handshake; time may mend it."""
    return LinkError(
        f"the coordinator at {address} closed the connection: it does not accept this site's certificate",
        cause=f"by the coordinator's clock it has expired or is not valid yet ({_clock()}); or the coordinator is "
        "stopping, or has too many connections",
        next_step="compare the clocks of both machines (`timedatectl`); where the certificate has expired, ask the "
        "coordinator's operator for a renewal (`coordinator renew SITE`)",
    )


def _refused(address: str, error: ssl.SSLError) -> IdentityError | LinkError:
    if "alert" in str(error.reason).lower():
        return IdentityError(
            f"the coordinator at {address} does not accept this site's certificate ({error.reason})",
            cause=f"it has expired by the coordinator's clock ({_clock()}), or is of another federation",
            next_step="compare the clocks; then ask the coordinator's operator for a renewal: `coordinator renew SITE`",
        )
    return LinkError(
        f"{address} answers, but not as a coordinator ({error.reason})",
        cause="another program listens there",
        next_step="compare the address in site.toml with the operator's",
    )


def _unreachable(address: str, to: Address, proxy: Proxy | None, error: OSError) -> LinkError:
    what = f"{address} cannot be reached{_through(proxy)} ({error.strerror or error})"
    if proxy is None:
        return LinkError(
            what,
            cause=remark(os.environ)
            or "the coordinator is not running, the address is wrong, or a firewall blocks the connection",
            next_step="compare [link] coordinator in site.toml with the invitation; if it is right, ask IT "
            f"to allow TCP connections from this machine to {address}, or for its proxy (https_proxy)",
        )
    return LinkError(
        what,
        cause="the proxy is not running, requires a password or blocks this address; or the coordinator is not running",
        next_step=f"ask IT to let this machine CONNECT to {address}, or set no_proxy={to.host} to connect without it",
    )


def _issuer(to: Address, proxy: Proxy | None) -> str:
    """Return who issued the certificate that is shown, whoever that is."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _dial(to, proxy) as plain, context.wrap_socket(plain, server_hostname=to.host) as line:
            shown = line.getpeercert(binary_form=True) or b""
        return x509.load_der_x509_certificate(shown).issuer.rfc4514_string()
    except (OSError, ValueError):
        return "an unknown issuer"
