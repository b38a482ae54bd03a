"""A real federation that tells people what happens, with a receiver that means harm and one that takes everything."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable

import pytest

from coordinator.commands.commands import abort
from coordinator.commands.notifications import send
from fedcervix.errors import RunError
from fedcervix.notify.webhook import KEY_FILE, make_key, read_keys, signature
from tests.e2e.loopback import Federation, until
from tests.unit.receivers import Listener, listening, request, taking

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
Federate = Callable[..., Federation]
SECRET_PATH = "T0KEN-of-the-hook"


def endless(sock: socket.socket, found: Listener) -> None:
    """Take the message, and answer with a byte now and then, for as long as somebody listens."""
    found.heard.append(request(sock))
    while True:
        sock.sendall(b"H")
        time.sleep(0.1)


def hooked(federate: Federate, port: int) -> Federation:
    federation = federate(notify={"notify.webhook": {"url": f"http://localhost:{port}/{SECRET_PATH}"}})
    make_key(federation.home.key_file(KEY_FILE))
    return federation


def ids(found: Listener) -> list[str]:
    return [re.findall(rb"webhook-id: (\S+)", one)[0].decode() for one in found.heard]


def test_a_receiver_that_never_ends_its_answer_delays_no_round_and_gets_it_all_later(
    federate: Federate, light_right: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(endless) as hostile:
        federation = hooked(federate, hostile.port)
        coordinator = federation.coordinate("--mode", "csfssl")
        until("the receiver is told", lambda: hostile.heard, seen=federation.texts)
        for site in federation.sites:
            federation.enrol(site)
        began_s = time.monotonic()
        sites = [federation.light(site) for site in federation.sites]
        federation.finish(*sites)
        rounds_s = time.monotonic() - began_s
        federation.finish(coordinator)
    # Both sites were let go while the first message still hung: a try takes 20 s.
    assert ids(hostile)[0].endswith(".0.began")
    record = federation.record()
    assert record["outcome"] == "OK"
    assert federation.result() == light_right("csfssl")
    ended = record["ledger"][-1]["ended_at"] - record["ledger"][0]["begun_at"]
    assert ended < rounds_s + 1
    assert SECRET_PATH not in coordinator.text
    assert "whsec_" not in coordinator.text
    assert "notifications left" in coordinator.text

    with pytest.raises(RunError, match="2 messages were not delivered"):
        send(federation.home)
    with listening(taking()) as good:
        federation.notify["notify.webhook"]["url"] = f"http://localhost:{good.port}/"
        federation.configure()
        send(federation.home)
        send(federation.home)
    assert capsys.readouterr().out.splitlines()[-2:] == ["webhook: 2 delivered, 0 left", "webhook: 0 delivered, 0 left"]
    assert [one.rpartition(".")[2] for one in ids(good)] == ["began", "ended"]
    head, _, body = good.heard[1].partition(b"\r\n\r\n")
    name, when = ids(good)[1], int(re.findall(rb"webhook-timestamp: (\d+)", head)[0])
    [key] = read_keys(federation.home.key_file(KEY_FILE))
    assert signature(key, name, when, body).encode() in head
    assert json.loads(body)["data"]["next"] == f"coordinator export {record['run']}"
    assert str(federation.home.folder) not in body.decode()


def test_what_happened_is_told_under_one_name_although_the_coordinator_is_killed(federate: Federate) -> None:
    with listening(taking()) as found:
        federation = hooked(federate, found.port)
        coordinator = federation.coordinate("--mode", "csfssl")
        until("the beginning is told", lambda: found.heard, seen=federation.texts)
        coordinator.kill()
        coordinator = federation.coordinate()
        with pytest.raises(RunError, match="sends its messages by itself"):
            send(federation.home)
        abort(federation.home, "enough")
        federation.finish(coordinator, code=21)
    kinds = [one.rpartition(".")[2] for one in dict.fromkeys(ids(found))]
    assert kinds == ["began", "ended"]
    assert b"ABORTED" in found.heard[-1]
