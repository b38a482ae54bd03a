"""Messages by mail: to a server that tests run, honest or not."""

from __future__ import annotations

import email
import socket
import ssl
import time
from email.policy import default
from pathlib import Path

import pytest

from fedcervix.errors import ConfigError, FedcervixError, RemoteError
from fedcervix.notify.mail import LOGIN_FILE, Mail, read_login
from fedcervix.notify.settings import MailSection
from tests.unit.receivers import Listener, certified, listening
from tests.unit.test_notify_webhook import notice

pytestmark = pytest.mark.timeout(60)


class Server:
    """As much of SMTP as a client needs; `heard` gets each line, and each mail as a whole."""

    def __init__(self, tls: ssl.SSLContext | None = None, *, offers: str = "", refuses: str = "") -> None:
        self.tls, self.offers, self.refuses = tls, offers, refuses

    def __call__(self, sock: socket.socket, found: Listener) -> None:
        sock.sendall(b"220 here\r\n")
        file = sock.makefile("rb")
        while line := file.readline():
            found.heard.append(line)
            word = line.split()[0].upper()
            if word == b"EHLO":
                sock.sendall(f"250-here\r\n250 {self.offers or 'HELP'}\r\n".encode())
            elif word == b"STARTTLS" and self.tls:
                sock.sendall(b"220 go\r\n")
                sock = self.tls.wrap_socket(sock, server_side=True)
                file, self.offers = sock.makefile("rb"), "AUTH PLAIN"
            elif word == b"AUTH" and self.refuses == "form":
                sock.sendall(b"334 a\r\n")
            elif word == b"AUTH":
                sock.sendall(b"235 yes\r\n" if self.refuses != "login" else b"535 no \x1b[2J\r\n")
            elif word == b"RCPT" and self.refuses == "to":
                sock.sendall(b"550 nobody\r\n")
            elif word == b"DATA":
                sock.sendall(b"354 go\r\n")
                mail = b""
                while not mail.endswith(b"\r\n.\r\n"):
                    mail += file.readline()
                found.heard.append(mail)
                sock.sendall(b"250 taken\r\n")
            else:
                sock.sendall(b"250 ok\r\n")


def mail_to(found: Listener, folder: Path, *, within_s: float = 5.0, **other: object) -> Mail:
    values = {
        "server": f"localhost:{found.port}",
        "security": "none",
        "sender": "fed@example.org",
        "to": ("ops@example.org", "pi@example.org"),
    }
    return Mail(MailSection(**{**values, **other}), folder / LOGIN_FILE, within_s=within_s)  # type: ignore[arg-type]


def test_a_mail_says_what_happened_to_all_who_are_named(tmp_path: Path) -> None:
    with listening(Server()) as found:
        assert mail_to(found, tmp_path).send(notice()) == "localhost took the mail"
    [whole] = [one for one in found.heard if b"Subject" in one]
    mail = email.message_from_bytes(whole.removesuffix(b".\r\n"), policy=default)
    assert mail["Subject"] == "[cervix] site nhs is silent"
    assert mail["To"] == "ops@example.org, pi@example.org"
    assert mail["Message-ID"] == "<run.7.silent.cervix@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "next: coordinator status" in mail.get_content()
    assert sum(one.startswith(b"rcpt") for one in found.heard) == 2


def test_name_and_password_go_only_after_tls(tmp_path: Path) -> None:
    (tmp_path / LOGIN_FILE).write_text("fed\nsecret\n")
    authority, context = certified(tmp_path)
    with listening(Server(context, offers="STARTTLS")) as found:
        mail_to(found, tmp_path, security="starttls", authority=str(authority)).send(notice())
    words = [one.split()[0].upper() for one in found.heard[:4]]
    assert words == [b"EHLO", b"STARTTLS", b"EHLO", b"AUTH"]


def test_a_server_whose_words_cannot_be_decoded_is_an_error_of_the_server(tmp_path: Path) -> None:
    (tmp_path / LOGIN_FILE).write_text("fed\nsecret\n")
    with (
        listening(Server(offers="AUTH CRAM-MD5", refuses="form")) as found,
        pytest.raises(RemoteError, match="answered what is no SMTP") as raised,
    ):
        mail_to(found, tmp_path).send(notice())
    assert "secret" not in raised.value.explain()


def test_a_server_that_encrypts_from_the_start(tmp_path: Path) -> None:
    authority, context = certified(tmp_path)
    with listening(Server(), context) as found:
        assert "took" in mail_to(found, tmp_path, security="tls", authority=str(authority)).send(notice())


def test_a_server_without_starttls_gets_neither_password_nor_mail(tmp_path: Path) -> None:
    """As it looks when somebody in between takes the offer away."""
    (tmp_path / LOGIN_FILE).write_text("fed\nsecret\n")
    with listening(Server(offers="AUTH PLAIN")) as found, pytest.raises(RemoteError, match="offers no STARTTLS"):
        mail_to(found, tmp_path, security="starttls").send(notice())
    assert not [one for one in found.heard if one.split()[0].upper() in (b"AUTH", b"MAIL", b"DATA")]


def test_a_server_that_takes_no_password_is_named(tmp_path: Path) -> None:
    (tmp_path / LOGIN_FILE).write_text("fed\nsecret\n")
    with listening(Server()) as found, pytest.raises(RemoteError, match="offers no AUTH"):
        mail_to(found, tmp_path).send(notice())


@pytest.mark.parametrize(
    ("refuses", "words"), [("login", "did not accept name and password"), ("to", "refused every address")]
)
def test_a_refusal_is_told_by_its_number_and_quotes_nothing(refuses: str, words: str, tmp_path: Path) -> None:
    (tmp_path / LOGIN_FILE).write_text("fed\nsecret\n")
    server = Server(offers="AUTH PLAIN", refuses=refuses)
    with listening(server) as found, pytest.raises(RemoteError, match=words) as caught:
        mail_to(found, tmp_path).send(notice())
    text = caught.value.explain()
    assert "secret" not in text
    assert "\x1b" not in text


def endless_lines(sock: socket.socket, found: Listener) -> None:
    while True:
        sock.sendall(b"220-more\r\n" * 1000)
        found.heard.append(b"")


def endless_line(sock: socket.socket, found: Listener) -> None:
    while True:
        sock.sendall(b"2" * 10_000)
        found.heard.append(b"")


def drips(sock: socket.socket, found: Listener) -> None:
    while True:
        sock.sendall(b"2")
        time.sleep(0.02)


def says_nothing(sock: socket.socket, found: Listener) -> None:
    sock.recv(1)


@pytest.mark.parametrize("answer", [endless_lines, endless_line, drips, says_nothing])
def test_a_hostile_server_ends_the_try_within_its_bound(answer: object, tmp_path: Path) -> None:
    with listening(answer) as found:  # type: ignore[arg-type]
        began_s = time.monotonic()
        with pytest.raises(FedcervixError) as caught:
            mail_to(found, tmp_path, within_s=1.0).send(notice())
        assert time.monotonic() - began_s < 8
    assert len(found.heard) < 2000
    assert "2222" not in caught.value.explain()


@pytest.mark.parametrize("text", ["fed\npässword\n", "one", "a\nb\nc", "\n\n", "a\n\x00b"])
def test_a_login_file_that_holds_something_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / LOGIN_FILE).write_text(text)
    with pytest.raises(ConfigError):
        read_login(tmp_path / LOGIN_FILE)
