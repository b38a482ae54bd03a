"""What an operator sees and does: begin, start, watch, a stopped site, runs, export."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.commands.operator import ask
from coordinator.run.liveness import STOPPED
from coordinator.run.status_document import StatusDocument
from fedcervix.errors import RunError
from fedcervix.runtime.typed_json import from_text
from fedcervix.transport import rpc
from fedcervix.wire import federation_pb2 as wire
from tests.e2e.loopback import Federation, call

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)


def test_a_run_from_begin_to_export(federate: Federate, tmp_path: Path) -> None:
    federation = federate(terms={"rounds": 1})
    home = federation.home.folder
    code, text = call("coordinator", "begin", "--mode", "csfssl", "--home", home, cwd=tmp_path)
    assert (code, "created: run " in text) == (0, True), text

    coordinator = federation.coordinate()  # no mode: it goes on with what was begun
    for site in federation.sites:
        federation.enrol(site)
    watch = federation.watch()
    watch.says('"gathering"')
    with pytest.raises(RunError, match=r"reports what this version cannot read: StatusDocument\.run"):
        ask(federation.home, rpc.OVERVIEW, wire.OverviewRequest(), lambda _: from_text(StatusDocument, "{}"))
    first = federation.light("nhs")
    first.says("attached to run")
    federation.until("nhs is there", lambda seen: seen["sites"][0]["presence"] == "present")
    first.signal(signal.SIGTERM)
    assert first.ended() == 130
    federation.until("it is said to be stopped", lambda seen: seen["sites"][0]["line"] == STOPPED)

    federation.finish(coordinator, *map(federation.light, federation.sites))
    assert watch.ended() == 0
    documents = [json.loads(line) for line in watch.text.splitlines() if line.startswith("{")]
    assert documents[-1]["outcome"] == "OK"
    assert [line["round"] for line in documents[-1]["ledger"]] == [1]

    code, text = call("coordinator", "--home", home, "runs", "--json", cwd=tmp_path)
    [entry] = json.loads(text)
    assert (entry["outcome"], entry["mode"], entry["rounds"], entry["model"]) == ("OK", "csfssl", 1, True)
    assert call("coordinator", "--home", home, "status", entry["run"], cwd=tmp_path)[0] == 0
    code, text = call("coordinator", "--home", home, "export", entry["run"], "out", cwd=tmp_path)
    assert (code, sorted(path.name for path in (tmp_path / "out").iterdir())) == (
        0,
        ["cervix-model.safetensors", "record.json"],
    )


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_everything_at_an_ipv6_address(federate: Federate, tmp_path: Path) -> None:
    """Listened on, certified, asked by the operator, written into the invitation, dialled by site and by `check`."""
    federation = federate(sites=("nhs",))
    home = federation.home
    home.config_file.write_text(
        home.config_file.read_text().replace("127.0.0.1:0", "[::1]:0").replace("localhost:0", "[0:0::1]:0")
    )
    federation.coordinate("--mode", "csfssl")
    address = f"[::1]:{federation.port}"
    code, text = call("coordinator", "--home", home.folder, "invite", "nhs", cwd=tmp_path)
    assert code == 0, text
    assert f'address = "{address}"' in (tmp_path / "nhs.invitation.toml").read_text()
    code, text = call("site-agent", "--home", tmp_path / "site", "join", "nhs.invitation.toml", cwd=tmp_path)
    assert code == 0, text
    _, text = call("site-agent", "--home", tmp_path / "site", "check", cwd=tmp_path)
    assert f"{address} answers, TLS" in text
    assert "accepts this site" in text
    code, text = call("coordinator", "--home", home.folder, "status", "--json", cwd=tmp_path)
    assert json.loads(text)["phase"] == "gathering"
