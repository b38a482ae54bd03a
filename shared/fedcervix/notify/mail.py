"""A message by mail (SMTP), through a server that the institution has.

Rules
1. Name and password are sent only after TLS, or to this machine.
2. What the server says is read within a deadline and a number of bytes, over the whole conversation.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path

from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError, FedcervixError, LinkError, RemoteError
from fedcervix.notify.line import AGAIN, WITHIN_S, Deadline, connected, tls, translated
from fedcervix.notify.notice import Notice
from fedcervix.notify.settings import MailSection
from fedcervix.transport.address import Address

LOGIN_FILE = "mail.login"
LOGIN_CHARS_MAX = 1000
ANSWER_BYTES_MAX = 65_536
"""of all that a server says"""


def read_login(file: Path) -> tuple[str, str] | None:
    """Return name and password: two lines; None where there is no file. Raises ConfigError, which quotes nothing."""
    with disk(file, "read"):
        if not file.exists():
            return None
        lines = file.read_text("utf-8", errors="replace").splitlines()
    if len(lines) != 2 or not all(
        0 < len(line) <= LOGIN_CHARS_MAX and line.isascii() and line.isprintable() for line in lines
    ):
        raise ConfigError(
            f"{file} does not hold two lines in ASCII: name and password for the mail server",
            cause="a line is missing, there is one more, or a letter such as an umlaut is in it",
            next_step=f"edit {file}; a server that asks for no password needs no such file",
        )
    return lines[0], lines[1]


def composed(notice: Notice, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """Return the mail. Its headers hold only our words: `EmailMessage` refuses a line break in one."""
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = notice.subject
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Date"] = format_datetime(datetime.fromtimestamp(notice.at, UTC))
    mail["Message-ID"] = f"<{notice.id}.{notice.federation}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(notice.words)
    return mail


class Mail:
    """A mail server, and those who get the message."""

    name = "mail"

    def __init__(self, settings: MailSection, login_file: Path, *, within_s: float = WITHIN_S) -> None:
        self._settings, self._login_file, self._within_s = settings, login_file, within_s
        self._server = Address.parse(settings.server)

    @property
    def host(self) -> str:
        """The server."""
        return self._server.host

    def check(self) -> None:
        """Read what it needs: name and password, and the authority's file. Raises ConfigError, StorageError."""
        read_login(self._login_file)
        self._tls()

    def _tls(self) -> ssl.SSLContext | None:
        settings = self._settings
        return None if settings.security == "none" else tls(Path(settings.authority) if settings.authority else None)

    def send(self, notice: Notice) -> str:
        """Send a message; return what the server said. Raises ConfigError, StorageError, LinkError, RemoteError."""
        settings, login = self._settings, read_login(self._login_file)
        mail = composed(notice, settings.sender, settings.to)
        context = self._tls()
        try:
            with translated(self.host):
                at_once = context if settings.security == "tls" else None
                with contextlib.closing(
                    _Conversation(self._server, Deadline(self._within_s), at_once, settings)
                ) as smtp:
                    if settings.security == "starttls":
                        self._insist(smtp, "starttls")
                        smtp.starttls(context=context)
                    if login is not None:
                        self._insist(smtp, "auth")
                        smtp.login(*login)
                    refused = smtp.send_message(mail, settings.sender, settings.to)
                    with contextlib.suppress(OSError):
                        smtp.quit()
        except LinkError as error:
            raise self._named(error) from error.__cause__
        except ValueError as error:  # smtplib decodes what a server says, and lets through what comes of it
            raise RemoteError(
                f"{self.host} answered what is no SMTP",
                cause="another program answers there, or the server has a fault",
                next_step=AGAIN,
            ) from error
        left = f"; it refused {len(refused)} of {len(settings.to)} addresses" if refused else ""
        return f"{self.host} took the mail{left}"

    def _insist(self, smtp: smtplib.SMTP, what: str) -> None:
        """Raise RemoteError where a server does not offer what is needed: it gets neither password nor mail."""
        smtp.ehlo_or_helo_if_needed()
        if not smtp.has_extn(what):
            raise RemoteError(
                f"{self.host} offers no {what.upper()}",
                cause="the wrong port, a server that encrypts from the start (port 465), or one that takes no password",
                next_step="correct server and security in [notify.mail]; then: coordinator notify test",
            )

    def _named(self, error: LinkError) -> FedcervixError:
        """Say what a mail server's error means: those of smtplib are errors of the network, too."""
        cause = error.__cause__
        if isinstance(cause, smtplib.SMTPAuthenticationError):
            return RemoteError(
                f"{self.host} did not accept name and password (it answered {cause.smtp_code})",
                cause=f"they are wrong in {self._login_file.name}, or the account may not send by this way",
                next_step="correct the file, then: coordinator notify test",
            )
        if isinstance(cause, smtplib.SMTPRecipientsRefused):
            codes = sorted({int(code) for code, _ in cause.recipients.values()})
            return RemoteError(
                f"{self.host} refused every address (it answered {', '.join(map(str, codes))})",
                cause="it does not know them, or lets this machine send nothing",
                next_step="correct `to` in [notify.mail], then: coordinator notify test",
            )
        if isinstance(cause, smtplib.SMTPResponseException):
            return RemoteError(
                f"{self.host} did not take the mail (it answered {cause.smtp_code})",
                cause="it refuses the sender, or has a fault",
                next_step="look at the server's log, then: coordinator notify test",
            )
        if isinstance(cause, smtplib.SMTPException):
            return LinkError(
                f"{self.host} ended the conversation",
                cause="it speaks no SMTP, is too slow, or says too much",
                next_step=AGAIN,
            )
        return error


class _Conversation(smtplib.SMTP):
    """SMTP within a deadline and a number of bytes."""

    def __init__(
        self, server: Address, deadline: Deadline, at_once: ssl.SSLContext | None, settings: MailSection
    ) -> None:
        self._deadline, self._at_once, self._only_here = deadline, at_once, settings.security == "none"
        self._bytes_left = ANSWER_BYTES_MAX
        super().__init__(server.host, server.port, local_hostname=settings.sender.rpartition("@")[2])

    def _get_socket(self, host: str, port: int, _timeout: float) -> socket.socket:  # as smtplib.SMTP_SSL does
        sock = connected(host, port, self._deadline, only_here=self._only_here)
        sock.settimeout(self._deadline.left_s())
        return sock if self._at_once is None else self._at_once.wrap_socket(sock, server_hostname=host)

    def getreply(self) -> tuple[int, bytes]:
        """Read an answer. Raises SMTPServerDisconnected."""
        if self.file is None:  # it is, too, once TLS begins: what came before that is forgotten
            self.file = _Heard(self.heard)
        return super().getreply()

    def heard(self) -> bytes:
        """Return what the server says next. Raises OSError."""
        assert self.sock is not None
        self.sock.settimeout(self._deadline.left_s())
        more = self.sock.recv(4096)
        self.sock.settimeout(self._deadline.left_s())
        self._bytes_left -= len(more)
        if self._bytes_left < 0:
            raise OSError(f"more than {ANSWER_BYTES_MAX} bytes")
        return more


class _Heard:
    """What smtplib reads lines from."""

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more, self._held = more, b""

    def readline(self, most: int) -> bytes:
        """Return a line, or its first bytes, or what there is at the end. Raises OSError."""
        while b"\n" not in self._held and len(self._held) < most and (more := self._more()):
            self._held += more
        line = (self._held.partition(b"\n")[0] + b"\n") if b"\n" in self._held else self._held
        line = line[:most]
        self._held = self._held[len(line) :]
        return line

    def close(self) -> None:
        """Nothing is open here."""
