"""A plain look at what answers at the coordinator's address, because gRPC does not say why a handshake failed.

An antivirus or proxy that opens TLS connections shows its own issuer here, and another federation's coordinator its.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from cryptography import x509

from fedcervix.errors import IdentityError, LinkError

CONNECT_S = 10.0


def look(address: str, authority: Path, certificate: Path, key: Path) -> str:
    """Return the TLS version with which the coordinator at HOST:PORT accepts this certificate.

    Raises IdentityError where one side does not accept the other's certificate, LinkError where nothing answers.
    """
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, int(port)), timeout=CONNECT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as line,
        ):
            line.recv(1)  # under TLS 1.3 a server refuses a client's certificate only after the handshake
            return line.version() or "TLS"
    except ssl.SSLCertVerificationError as error:
        raise IdentityError(
            f"what answers at {address} is not this federation's coordinator ({error.verify_message})",
            cause=f"its certificate was issued by {_issuer(host, int(port))}: another federation's coordinator, or an "
            "antivirus or proxy that opens TLS connections, or this site joined another federation",
            next_step="ask IT to let this address through unopened, or the operator for a new invitation",
        ) from error
    except ssl.SSLError as error:
        raise _refused(address, error) from error
    except OSError as error:
        raise LinkError(
            f"{address} cannot be reached ({error.strerror or error})",
            cause="the coordinator is not running, the address is wrong, or a firewall is in the way",
            next_step=f"ask IT to allow this machine to dial out to {address} (TCP)",
        ) from error


def _refused(address: str, error: ssl.SSLError) -> IdentityError | LinkError:
    if "alert" in str(error.reason).lower():
        return IdentityError(
            f"the coordinator at {address} does not accept this site's certificate ({error.reason})",
            cause="it is of another federation, or has expired",
            next_step="ask the coordinator's operator for a new invitation",
        )
    return LinkError(
        f"{address} answers, but not as a coordinator ({error.reason})",
        cause="another program listens there",
        next_step="compare the address in site.toml with the operator's",
    )


def _issuer(host: str, port: int) -> str:
    try:
        pem = ssl.get_server_certificate((host, port), timeout=CONNECT_S)
        return x509.load_pem_x509_certificate(pem.encode()).issuer.rfc4514_string()
    except (OSError, ValueError):
        return "an unknown issuer"
