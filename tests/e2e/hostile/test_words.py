"""What one hospital writes reaches the other's terminal and the operator's as plain text, over the real line."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable

import grpc
import pytest

from fedcervix.transport import rpc
from fedcervix.transport.versions import HERE
from fedcervix.wire import federation_pb2 as wire
from tests.e2e.loopback import Federation, call

pytestmark = pytest.mark.timeout(120)

HOSTILE = "\x1b[2J\x1b]52;c;aGVsbG8=\x07\r\nOK everything is well \u202e\x9b2J\x7f\u2028OK"
INSTANCE = "a" * 32


def raw(text: str) -> set[str]:
    """Return the control characters of a text but line feeds."""
    return {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp")} - {"\n"}


def refuse(federation: Federation, site: str) -> None:
    """Join the run as an agent of another make does, and refuse it in words of one's own."""
    home = federation.site(site)
    files = {"authority_pem": "authority.crt", "certificate_pem": "site.crt", "key_pem": "site.key"}
    pems = {part: home.pem(file) for part, file in files.items()}
    with rpc.channel(f"localhost:{federation.port}", **pems) as channel:
        hello = wire.AttachRequest(wire_version=HERE.wire_max, software_version=HOSTILE, instance=INSTANCE)
        stream = rpc.stub(channel, rpc.ATTACH)(hello, timeout=30, wait_for_ready=True)
        run = next(stream).welcome.run
        who = ((rpc.INSTANCE_KEY, INSTANCE),)
        with pytest.raises(grpc.RpcError):  # its words stand in the coordinator's log
            rpc.stub(channel, rpc.REPORT)(wire.FromSite(ready=wire.Ready(run=HOSTILE)), timeout=30, metadata=who)
        refusal = wire.FromSite(refusal=wire.Refusal(run=run, reason=HOSTILE))
        assert (
            rpc.stub(channel, rpc.REPORT)(refusal, timeout=30, metadata=who).answer == wire.ReportReply.ANSWER_ACCEPTED
        )
        stream.cancel()


def test_the_words_of_a_hostile_site_are_shown_and_not_obeyed(federate: Callable[..., Federation]) -> None:
    federation = federate(terms={"give_up_s": 5.0})
    coordinator = federation.coordinate("--mode", "csfssl")
    for site in federation.sites:
        federation.enrol(site)
    nhs = federation.light("nhs")
    refuse(federation, "alts")
    screens = {}
    for when in ("while it runs", "by the journal"):
        for words in (["status"], ["status", "--json"], ["runs"]):
            code, text = call("coordinator", "--home", federation.home.folder, *words, cwd=federation.folder)
            assert code == 0, text
            screens[f"{words}, {when}"] = text
        federation.finish(coordinator, nhs, code=21)  # there is no quorum without the site that refused
    screens.update({"the coordinator's log": coordinator.text, "the other hospital": nhs.text})
    for name, text in screens.items():
        assert not raw(text), name
        assert not [line for line in text.splitlines() if line.lstrip().startswith("OK")], name
    for name in ("['status', '--json'], by the journal", "the coordinator's log", "the other hospital"):
        assert "everything is well" in screens[name], name
    for name, text in screens.items():
        if "--json" in name:
            assert not raw(str(json.loads(text))), name
