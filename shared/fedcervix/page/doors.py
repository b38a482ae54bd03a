"""Where the page listens, and who may connect there: three doors, each with its own way to keep others out.

| door | who is let in |
|---|---|
| loopback (default) | whoever has the address that was printed; it works once |
| a Unix socket | whoever may open the socket: the hospital's proxy, which knows its users |
| TLS at a network address | whoever has a certificate of an authority that is named |

A network address without client certificates is not offered.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import socket
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedcervix.disk.storage import disk, known
from fedcervix.errors import ConfigError, IdentityError, RunError
from fedcervix.transport import identity
from fedcervix.transport.address import HOST_NAME, Address

SOCKET_MODE = 0o660
"""of the Unix socket: its owner and its group"""
NAME_BYTES_MAX = 107
"""bytes of a Unix socket's path, as the system limits it"""
LOOPBACK = "127.0.0.1"
PROBE_S = 2.0
HTTP_PORT = 80
"""which browsers leave out of `Host`"""
BACKLOG = 128
PORT = re.compile(r"[1-9][0-9]{0,4}")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a door with client certificates."""

    certificate: Path
    """of the server, with the certificates between it and its authority"""
    key: Path
    client_authority: Path
    """whoever has a certificate of this authority is let in"""


@dataclass(frozen=True, slots=True)
class Door:
    """Where the page listens. Exactly one of `port`, `unix` and `bind` is set."""

    port: int | None = None
    """on loopback; 0 lets the system choose"""
    unix: Path | None = None
    bind: Address | None = None
    tls: TlsFiles | None = None
    name: str = ""
    """HOST or HOST:PORT as browsers have it in their address; empty on loopback"""

    @property
    def needs_token(self) -> bool:
        """Say whether an address that works once is what keeps others out."""
        return self.port is not None

    def hosts(self, port: int) -> frozenset[str]:
        """Return the values of `Host` that mean this page, which listens at `port`."""
        if self.needs_token:
            names = (LOOPBACK, "localhost", "[::1]")
            left_out = names if port == HTTP_PORT else ()
            return frozenset([*(f"{name}:{port}" for name in names), *left_out])
        name = self.name.lower()
        return frozenset({name} if ":" in name else {name, f"{name}:{port}", f"{name}:443"})


def door_of(*, port: int | None, unix: Path | None, bind: str, name: str, tls: tuple[Path | None, ...]) -> Door:
    """Return the door that the options of a command describe; `tls`: certificate, key, client authority.

    Raises ConfigError.
    """
    given = [
        option for option, is_given in (("--unix", unix), ("--bind", bind), ("--port", port is not None)) if is_given
    ]
    if len(given) > 1:
        raise ConfigError(
            f"{' and '.join(given)} exclude each other",
            cause="a page listens at one place: on loopback (--port), at a Unix socket or at a network address",
            next_step="give one of them; without any, the page listens on loopback",
        )
    if not (unix or bind):
        if name or any(tls):
            raise ConfigError(
                "--name and the TLS options belong to --unix or --bind",
                cause="on loopback the page is known as localhost, and the address that it prints lets a browser in",
                next_step="leave them out, or give --unix or --bind, too",
            )
        return Door(port=port or 0)
    host, colon, port_text = name.partition(":")
    if HOST_NAME.fullmatch(host) is None or (colon and PORT.fullmatch(port_text) is None):
        raise ConfigError(
            "the page must be told the name by which browsers reach it" if not name else f"--name {name!r} is no host",
            cause="a request under another name is refused, as an attack by DNS rebinding would be one",
            next_step="give it as it stands in the browser's address: --name page.hospital.example",
        )
    if unix:
        return Door(unix=unix.absolute(), name=name)
    return _tls_door(bind, name, tls)


def _tls_door(bind: str, name: str, tls: tuple[Path | None, ...]) -> Door:
    try:
        address = Address.parse(bind, port_min=0)
    except ValueError as error:
        raise ConfigError(f"--bind {error}", next_step="for example --bind 0.0.0.0:8444") from error
    certificate, key, client_authority = tls
    if certificate is None or key is None or client_authority is None:
        raise ConfigError(
            "a page at a network address needs TLS with client certificates",
            cause="--tls-certificate, --tls-key or --client-authority is missing; without them, everybody in the "
            "network would see the federation",
            next_step="give all three; or listen at a socket behind your own proxy: --unix FILE --name HOST",
        )
    return Door(bind=address, tls=TlsFiles(certificate, key, client_authority), name=name)


def tls_context(files: TlsFiles, members: bytes) -> ssl.SSLContext:
    """Return what the server shows and demands.

    `members`: the authority (PEM) that certifies each site of the federation, whose certificates let nobody in; empty
    where there is none yet. Raises ConfigError where it is the clients' authority, IdentityError, StorageError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    for file in (files.certificate, files.key, files.client_authority):
        with disk(file, "read"):
            file.read_bytes()
    try:
        # OpenSSL asks the terminal for a password where it is given none, and a service would wait for ever.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
        context.load_verify_locations(files.client_authority)
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError(
            f"the page's certificate, its key or the clients' authority cannot be used: {error}",
            cause="a file is not PEM, the key is encrypted with a password, or it belongs to another certificate",
            next_step=f"openssl x509 -noout -subject -dates -in {shlex.quote(str(files.certificate))}",
        ) from error
    if members and any(_is_key_of(found, members) for found in context.get_ca_certs(binary_form=True)):
        raise ConfigError(
            f"{files.client_authority} holds the authority of this federation",
            cause="each site has a certificate of it, so each site could look at the page",
            next_step="name an authority that certifies only the people who may see the page: --client-authority FILE",
        )
    return context


def _is_key_of(certificate: bytes, authority: bytes) -> bool:
    """Say whether a certificate (DER) has the key of an authority (PEM), also where it was issued anew."""
    try:
        found = identity.certified_key(ssl.DER_cert_to_PEM_cert(certificate).encode())
    except IdentityError:
        return False  # a key of another kind
    return found == identity.certified_key(authority)


@contextlib.contextmanager
def listening(door: Door) -> Iterator[socket.socket]:
    """Yield the socket of a door; a Unix socket's file is removed afterwards. Raises RunError, StorageError."""
    if door.unix is not None:
        with _unix_socket(door.unix) as found:
            yield found
        return
    address = door.bind or Address(LOOPBACK, door.port or 0)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address.host, address.port))
        except OSError as error:
            raise RunError(
                f"the page cannot listen at {address}: {error.strerror or error}",
                cause="the port is in use, or the address is not one of this machine",
                next_step="give another one, or --port 0: then the system chooses",
            ) from error
        listener.listen(BACKLOG)
        yield listener


@contextlib.contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    if len(os.fsencode(path)) > NAME_BYTES_MAX:
        raise ConfigError(
            f"the path of the socket is longer than {NAME_BYTES_MAX} bytes, which the system does not allow: {path}",
            next_step="choose a shorter one, for example below /run",
        )
    _remove_left_over(path)
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            before = os.umask(0o777)  # until its permissions are set, nobody opens it
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            path.chmod(SOCKET_MODE)
        except OSError as error:
            raise known(error, path, "write") from error
        listener.listen(BACKLOG)
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                path.unlink()


def _remove_left_over(path: Path) -> None:
    """Remove the socket of a page that was killed. Raises RunError where one listens, or the file is something else."""
    with disk(path, "read"):
        try:
            is_socket = stat.S_ISSOCK(path.lstat().st_mode)
        except FileNotFoundError:
            return
    if is_socket:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PROBE_S)
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
                return
            except OSError:  # somebody listens: it is not ours to open, or it does not answer
                pass
    raise RunError(
        f"{path} exists already",
        cause="another page listens there" if is_socket else "it is a file and no socket",
        next_step="end that page, or give another path",
    )


def new_secret() -> str:
    """Return 256 random bits as text that fits into an address."""
    return secrets.token_urlsafe(32)
