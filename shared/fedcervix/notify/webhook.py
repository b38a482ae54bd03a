"""A message to a webhook, signed as Standard Webhooks 1.0 has it (standardwebhooks.com).

    webhook-id         the message's id: the same when it is sent again
    webhook-timestamp  when this try was made, Unix seconds
    webhook-signature  v1,BASE64 of HMAC-SHA256 over "ID.TIMESTAMP.BODY"; one for each key, separated by a space

Rules
1. One request is written, and one line is read: the status. Redirects are not followed. Whatever else the receiver
   sends is not read.
2. The key and the address's path are secrets: they stand in no error and no log.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fedcervix import __version__
from fedcervix.disk.files import write_secret
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError, RemoteError
from fedcervix.notify.line import AGAIN, WITHIN_S, Deadline, connected, tls, translated
from fedcervix.notify.notice import Notice
from fedcervix.notify.settings import WebhookSection

KEY_FILE = "webhook.key"
PREFIX = "whsec_"
KEY_BYTES = 32
KEY_BYTES_LEAST, KEY_BYTES_MOST = 24, 64
"""as the standard has it"""
KEYS_MAX = 2
"""while one takes the place of another"""
STATUS_BYTES_MAX = 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")


def make_key(file: Path) -> None:
    """Write a new key. Raises StorageError."""
    write_secret(file, f"{PREFIX}{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n".encode())


def read_keys(file: Path) -> list[bytes]:
    """Return the keys in a file: one a line, at most two. Raises ConfigError, which quotes nothing."""
    wrong = ConfigError(
        f"{file} holds no key for the webhook",
        cause="one line whsec_... is needed, or two while the key is changed: 24 to 64 bytes in base64",
        next_step=f"mv {file} {file}.old, then: coordinator notify key",
    )
    with disk(file, "read"):
        if not file.exists():
            raise ConfigError(
                f"{file} is missing: the webhook's messages cannot be signed",
                cause="it was not made yet, or the home was restored without it",
                next_step="coordinator notify key",
            )
        words = file.read_text("ascii", errors="replace").split()
    try:
        keys = [base64.b64decode(word.removeprefix(PREFIX), validate=True) for word in words]
    except ValueError as error:
        raise wrong from error
    marked = all(word.startswith(PREFIX) for word in words)
    if not (marked and 1 <= len(keys) <= KEYS_MAX) or not all(
        KEY_BYTES_LEAST <= len(key) <= KEY_BYTES_MOST for key in keys
    ):
        raise wrong
    return keys


def signature(key: bytes, message: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message. `message` is its id."""
    signed = f"{message}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Webhook:
    """A receiver. `send` may be called again and again, from one thread."""

    name = "webhook"

    def __init__(
        self,
        settings: WebhookSection,
        key_file: Path,
        *,
        clock_s: Callable[[], float] = time.time,
        within_s: float = WITHIN_S,
    ) -> None:
        self._parts, self._key_file = settings.parts, key_file
        self._authority = Path(settings.authority) if settings.authority else None
        self._clock_s, self._within_s = clock_s, within_s

    @property
    def host(self) -> str:
        """Who is told: the host alone."""
        return self._parts.hostname or ""

    def check(self) -> None:
        """Read what it needs: the key, and the authority's file. Raises ConfigError, StorageError."""
        read_keys(self._key_file)
        tls(self._authority)

    def send(self, notice: Notice) -> str:
        """Send a message; return what the receiver said. Raises ConfigError, StorageError, LinkError, RemoteError."""
        request = _request(self._parts.netloc, self._target(), notice, read_keys(self._key_file), int(self._clock_s()))
        with translated(self.host):
            status = self._exchanged(request, Deadline(self._within_s))
        if status is None:
            raise RemoteError(
                f"{self.host} answered, but not in HTTP",
                cause="the address in [notify.webhook] is wrong",
                next_step=AGAIN,
            )
        if 300 <= status < 400:
            raise RemoteError(
                f"{self.host} answered {status}: it sends elsewhere, and a redirect is not followed",
                cause="the address in [notify.webhook] is an old one, or lacks a part",
                next_step="write the address itself into url, then: coordinator notify test",
            )
        if not 200 <= status < 300:
            raise RemoteError(
                f"{self.host} answered {status}: it did not take the message",
                cause=_CAUSES.get(status, "it has a fault, or does not know this address"),
                next_step="look at the receiver's log, then: coordinator notify test",
            )
        return f"{self.host} answered {status}"

    def _target(self) -> str:
        path = self._parts.path or "/"
        return f"{path}?{self._parts.query}" if self._parts.query else path

    def _exchanged(self, request: bytes, deadline: Deadline) -> int | None:
        """Write the request, read the status; None where there is none in the answer. Raises OSError."""
        secure = self._parts.scheme == "https"
        port = self._parts.port or (443 if secure else 80)
        with contextlib.ExitStack() as held:
            sock = held.enter_context(connected(self.host, port, deadline, only_here=not secure))
            sock.settimeout(deadline.left_s())
            if secure:
                sock = held.enter_context(tls(self._authority).wrap_socket(sock, server_hostname=self.host))
                sock.settimeout(deadline.left_s())
            sock.sendall(request)
            answer = b""
            while b"\n" not in answer and len(answer) < STATUS_BYTES_MAX:
                sock.settimeout(deadline.left_s())
                more = sock.recv(STATUS_BYTES_MAX)
                if not more:
                    break
                answer += more
        found = _STATUS.match(answer)
        return int(found[1]) if found else None


_CAUSES = {
    401: "it does not accept the signature: it has another key, or its clock differs",
    403: "it does not accept the signature: it has another key, or its clock differs",
    404: "it does not know this address",
    410: "it wants no messages any more",
    429: "it takes no more messages for now",
}


def _request(host: str, target: str, notice: Notice, keys: Sequence[bytes], now_s: int) -> bytes:
    """Return the bytes of a request. Every value in a header is ours, or was checked (`settings`, `notice`)."""
    body = notice.body()
    headers = {
        "Host": host,
        "User-Agent": f"fedcervix/{__version__}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "webhook-id": notice.id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": " ".join(signature(key, notice.id, now_s, body) for key in keys),
    }
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("ascii") + body
