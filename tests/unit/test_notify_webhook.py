"""Messages to a webhook: signed as Standard Webhooks has it, and what a hostile receiver gets out of it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import time
from pathlib import Path

import pytest

from fedcervix.errors import ConfigError, FedcervixError, LinkError, RemoteError
from fedcervix.notify.notice import Notice, foreign, without_paths
from fedcervix.notify.settings import MailSection, NotifySection, WebhookSection
from fedcervix.notify.webhook import KEY_FILE, Webhook, make_key, read_keys, signature
from tests.unit.receivers import Listener, certified, listening, request, taking

pytestmark = pytest.mark.timeout(60)
PAGE = Path(__file__).parents[2] / "docs" / "notifications.md"
SECRET_PATH = "services-T0KEN"


def notice(**other: object) -> Notice:
    values = {
        "id": "run.7.silent",
        "kind": "silent",
        "at": 1e9,
        "title": "site nhs is silent",
        "text": "Nothing was heard of site nhs.",
        "next_step": "coordinator status",
        "federation": "cervix",
        "run": "run",
        "site": "nhs",
    }
    return Notice(**{**values, **other})  # type: ignore[arg-type]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    make_key(tmp_path / KEY_FILE)
    return tmp_path / KEY_FILE


def to(found: Listener, key_file: Path, *, scheme: str = "http", within_s: float = 2.0, **other: str) -> Webhook:
    section = WebhookSection(f"{scheme}://localhost:{found.port}/{SECRET_PATH}?a=b", **other)
    return Webhook(section, key_file, within_s=within_s)


def parts(raw: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


# --- what is sent ---


def test_the_signature_is_that_of_the_standards_own_example() -> None:
    """The example of the specification's reference libraries."""
    key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    import base64

    found = signature(
        base64.b64decode(key.removeprefix("whsec_")),
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_the_page_shows_accepts_our_messages_and_no_others(key_file: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    known: dict[str, object] = {}
    exec(code, known)
    is_genuine, key = known["is_genuine"], key_file.read_text()
    assert callable(is_genuine)
    with listening(taking()) as found:
        assert to(found, key_file).send(notice()) == "localhost answered 204"
    headers, body = parts(found.heard[0])
    assert is_genuine(key, headers, body)
    assert not is_genuine(key, headers, body + b" ")
    assert not is_genuine(key, {**headers, "webhook-id": "run.8.silent"}, body)
    old = str(int(headers["webhook-timestamp"]) - 301)  # a replay: signed then, sent now
    at_that_time = signature(read_keys(key_file)[0], headers["webhook-id"], int(old), body)
    assert not is_genuine(key, {**headers, "webhook-timestamp": old, "webhook-signature": at_that_time}, body)
    assert len(code.strip().splitlines()) <= 10


def test_a_message_sent_again_has_the_same_id_and_body_and_a_new_time(key_file: Path) -> None:
    times = iter([1000.0, 2000.0])
    with listening(taking()) as found:
        section = WebhookSection(f"http://127.0.0.1:{found.port}/")
        webhook = Webhook(section, key_file, clock_s=lambda: next(times))
        webhook.send(notice())
        webhook.send(notice())
    (one, body), (two, again) = map(parts, found.heard)
    assert (one["webhook-id"], body) == (two["webhook-id"], again)
    assert (one["webhook-timestamp"], two["webhook-timestamp"]) == ("1000", "2000")
    assert json.loads(body)["data"]["next"] == "coordinator status"


def test_two_keys_sign_while_one_takes_the_place_of_another(key_file: Path) -> None:
    second = key_file.with_name("second.key")
    make_key(second)
    key_file.write_text(key_file.read_text() + second.read_text())
    with listening(taking()) as found:
        to(found, key_file).send(notice())
    headers, body = parts(found.heard[0])
    when = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == " ".join(
        signature(key, "run.7.silent", when, body) for key in read_keys(key_file)
    )


def test_it_goes_by_tls_to_whom_the_authority_vouches_for(key_file: Path, tmp_path: Path) -> None:
    authority, context = certified(tmp_path)
    with listening(taking(), context) as found:
        assert "204" in to(found, key_file, scheme="https", authority=str(authority)).send(notice())
        with pytest.raises(LinkError, match="does not prove that it is localhost"):
            to(found, key_file, scheme="https").send(notice())
    assert len(found.heard) == 1


# --- a receiver that means harm ---


def redirects(sock: socket.socket, found: Listener) -> None:
    request(sock)
    sock.sendall(f"HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:{found.port}/admin\r\n\r\n".encode())


def endless_head(sock: socket.socket, found: Listener) -> None:
    request(sock)
    while True:
        sock.sendall(b"x" * 65536)
        found.heard.append(b"x")


def endless_body(sock: socket.socket, found: Listener) -> None:
    request(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        sock.sendall(b"x" * 65536)
        found.heard.append(b"x")


def drips(sock: socket.socket, found: Listener) -> None:
    request(sock)
    while True:
        sock.sendall(b"H")
        time.sleep(0.02)


def says_nothing(sock: socket.socket, found: Listener) -> None:
    sock.recv(1 << 20)
    with contextlib.suppress(OSError):
        sock.recv(1)


def hangs_up(sock: socket.socket, found: Listener) -> None:
    sock.recv(10)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (redirects, RemoteError),
        (endless_head, RemoteError),
        (drips, FedcervixError),
        (says_nothing, LinkError),
        (hangs_up, FedcervixError),
        (taking("500 Oops \x1b[2J"), RemoteError),
        (taking("101 Switching"), RemoteError),
    ],
    ids=["redirects", "endless", "drips", "silent", "hangs-up", "fails", "switches"],
)
def test_a_hostile_receiver_ends_the_try_within_its_bound(
    answer: object, kind: type[FedcervixError], key_file: Path
) -> None:
    with listening(answer) as found:  # type: ignore[arg-type]
        began_s = time.monotonic()
        with pytest.raises(kind) as caught:
            to(found, key_file, within_s=1.0).send(notice())
        assert time.monotonic() - began_s < 8
        assert found.connections == 1, "a redirect was followed"
    assert len(found.heard) < 200, "more was read than a status"
    words = caught.value.explain()
    assert "\x1b" not in words
    assert SECRET_PATH not in words
    assert "whsec_" not in words


def test_a_status_is_enough_whatever_comes_after_it(key_file: Path) -> None:
    with listening(endless_body) as found:
        assert to(found, key_file).send(notice()) == "localhost answered 200"
    assert len(found.heard) < 200


def test_a_port_that_speaks_no_tls_is_a_line_error(key_file: Path) -> None:
    with listening(taking()) as found, pytest.raises(LinkError):
        to(found, key_file, scheme="https", within_s=1.0).send(notice())


def test_http_goes_to_this_machine_alone_whatever_the_name_means(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`localhost` is a name, too: a name server or a hosts file may say something else."""
    elsewhere = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: elsewhere)
    webhook = Webhook(WebhookSection("http://localhost/"), key_file, within_s=5.0)
    began_s = time.monotonic()
    with pytest.raises(LinkError):
        webhook.send(notice())
    assert time.monotonic() - began_s < 2


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://10.0.0.1/",
        "ftp://localhost/",
        "https:///x",
        "https://user:word@example.org/",
        "https://example.org/ x",
        "https://example.org/\r\nX: y",
        "https://example.org/#part",
        "https://example.org/é",
        "http://localhost.example.org/",
        "http://169.254.169.254/latest",
        "https://example.org:0/",
        "https://.example.org/",
        "https://a..b/",
        "https://e/" + "x" * 2000,
    ],
)
def test_an_address_that_could_mean_something_else_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        WebhookSection(url)
    assert url not in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [
        {"sender": "a@b\r\nBcc: x@y"},
        {"to": ("a@b, c@d",)},
        {"to": ()},
        {"to": ("<a@b>",)},
        {"server": "mail.example.org"},
        {"security": "none"},
        {"security": "maybe"},
    ],
    ids=lambda other: ",".join(other),
)
def test_a_mail_address_that_is_more_than_one_is_refused(other: dict[str, object]) -> None:
    values = {"server": "mail.example.org:587", "sender": "a@example.org", "to": ("b@example.org",)}
    MailSection(**values)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        MailSection(**{**values, **other})  # type: ignore[arg-type]


def test_it_is_off_by_default() -> None:
    assert (NotifySection().webhook.url, NotifySection().mail.server) == ("", "")


# --- keys ---


@pytest.mark.parametrize(
    "text", ["", "secret", "whsec_\u00e9", "whsec_!!", "whsec_c2hvcnQ=", "whsec_" + "A" * 400, "a b c"]
)
def test_a_key_file_that_holds_something_else_is_refused_without_being_quoted(text: str, tmp_path: Path) -> None:
    file = tmp_path / KEY_FILE
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_keys(file)
    assert not text or text not in caught.value.explain()


def test_a_missing_key_names_the_command_and_nothing_is_sent(tmp_path: Path) -> None:
    with listening(taking()) as found, pytest.raises(ConfigError) as caught:
        to(found, tmp_path / KEY_FILE).send(notice())
    assert caught.value.next_step == "coordinator notify key"
    assert found.connections == 0


def test_a_new_key_is_the_owners_alone(key_file: Path) -> None:
    assert key_file.stat().st_mode & 0o077 == 0
    assert len(read_keys(key_file)[0]) == 32


# --- words of others ---


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("out of memory", '"out of memory"'),
        ("\x1b[2Jx\r\nBcc: a@b", '"?(2Jx? Bcc: a?b"'),
        ("cannot read /srv/patients/Anna Maria.png", '"cannot read (...)"'),
        ("<!channel> <b>hi</b> [x](y) `z` *w*", '"??channel? (...)"'),
        ("[x](y) `z` *w* @all", '"(x)(y) ?z? ?w? ?all"'),
        ("see https://evil.example/x", '"see (...)"'),
        ("C:\\Users\\anna", '"(...)"'),
        ("épithélium 子宮", '"épithélium 子宮"'),
        ("\u202egnp", '"?gnp"'),
    ],
)
def test_words_of_a_site_are_text_and_no_more(said: str, shown: str) -> None:
    found = foreign(said)
    assert len(found) <= 202
    assert not set(found) & set("<>@`*[]/\\\r\n\x1b\u202e")
    assert found == shown


def test_a_long_text_of_a_site_is_cut_and_so_are_its_lines() -> None:
    assert len(foreign("x\n" * 100_000)) <= 202
    assert without_paths("no room in /srv/fed home/journal.db now") == "no room in (...) (...) now"


def test_a_message_that_could_be_more_than_one_header_cannot_be_built() -> None:
    for other in ({"id": "a\r\nX: y"}, {"title": "a\nb"}, {"id": "A_b"}, {"kind": "other"}, {"text": "x" * 3000}):
        with pytest.raises(ValueError):
            notice(**other)


def test_tls_is_never_older_than_1_2() -> None:
    from fedcervix.notify.line import tls

    assert tls(None).minimum_version == ssl.TLSVersion.TLSv1_2
