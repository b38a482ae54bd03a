"""The result of a run under seal for the operator: given by several sites together, or not at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from coordinator.commands.receiving import receive
from coordinator.home.founding import Founding
from coordinator.home.founding import create as create_coordinator
from coordinator.home.home import Home
from coordinator.run.results import RECORD_FILE, record
from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.state import Round, begin
from fedcervix.disk.files import digest_file
from fedcervix.errors import ConfigError, PolicyError, RemoteError, RunError
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.typed_json import to_text
from fedcervix.trust.boxes import OwnKey
from fedcervix.trust.key_texts import private_key
from fedcervix.trust.result_releases import RECIPIENT, ResultRelease, release_faults, released
from site_agent.commands.release import release
from site_agent.home import SiteHome
from site_agent.home import create as create_site
from site_agent.store.egress import entries
from site_agent.store.egress_account import egressed
from site_agent.store.model_store import adopt
from site_agent.store.run_store import RunStore
from tests.unit.identities import Identity, make_authority, make_party

SITES = A, B, C = ("ada", "bob", "cleo")
PLAN = Plan(mode="ppfssl", sites=SITES, profile="paper", terms=Terms(rounds=1, sealed=True), recipe=Recipe())
RUN = "20300101-000000-ppfssl-00000000"
AUTHORITY = make_authority()
PARTIES = {site: make_party(AUTHORITY, Identity("demo", "site", site)) for site in SITES}
KEYS = {site: private_key(party.key) for site, party in PARTIES.items()}
PUBLIC = {site: key.public_key() for site, key in KEYS.items()}
RECIPIENT_KEY = OwnKey(RECIPIENT, bytes([7]) * 32).public.key.hex()


@dataclass
class Ended:
    """A run that has ended: a coordinator that has its record, and sites that have its model."""

    home: Home
    sites: dict[str, SiteHome]
    model: str


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ended:
    monkeypatch.chdir(tmp_path)
    save_file({"w": np.random.default_rng(1).normal(size=9000).astype(np.float32)}, tmp_path / "model")
    digest = digest_file(tmp_path / "model")
    sites = {site: site_home(tmp_path / site, site, tmp_path / "model", digest) for site in SITES}
    home = Home(tmp_path / "coordinator")
    options = {"name": "demo", "bind": "127.0.0.1:0", "advertise": "localhost:0"}
    create_coordinator(home, Founding(**options, sites=SITES, profile="demo"), datetime.now(UTC))
    run = replace(begin(RUN, PLAN, base="", at=0.0), rounds=(Round(1, digest, 0.0, candidate=digest),), best_round=1)
    folder = home.results / RUN
    folder.mkdir(parents=True)
    (folder / RECORD_FILE).write_text(to_text(record(run)))
    return Ended(home, sites, digest)


def site_home(folder: Path, site: str, model: Path, digest: str) -> SiteHome:
    """Return the home of a site that has adopted a model."""
    home = SiteHome(folder)
    create_site(home)
    home.key_file("").mkdir(exist_ok=True)
    home.key_file("site.key").write_bytes(PARTIES[site].key)
    home.key_file("site.crt").write_bytes(PARTIES[site].certificate)
    store, blobs = RunStore(home.run_folder(RUN)), BlobStore(home.blobs)
    store.open(PLAN)
    store.keep_keys(PUBLIC)
    scratch = blobs.scratch("made")
    scratch.write_bytes(model.read_bytes())
    blobs.adopt(scratch, digest)
    adopt(home, Task(RUN, TaskKind.ADOPT, 1, digest), PLAN, blobs)
    return home


def operators_key(ended: Ended, capsys: pytest.CaptureFixture[str]) -> str:
    receive(ended.home, None)
    return capsys.readouterr().out.splitlines()[0].rpartition(" ")[2]


def agreed(ended: Ended, to: str, *names: str) -> list[Path]:
    for name in names:
        release(ended.sites[name], RUN, to, 30, None, ())
    return [Path(f"release-{RUN}-{name}.json") for name in names]


def test_the_operator_gets_the_result_when_all_sites_agree(
    ended: Ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = operators_key(ended, capsys)
    assert to == operators_key(ended, capsys), "it stays the same"
    release(ended.sites[A], RUN, to, 30, tmp_path / "folder", agreed(ended, to, B, C))
    sealed = (tmp_path / "folder" / "cervix-model.sealed").read_bytes()
    assert (tmp_path / "model").read_bytes()[-64:] not in sealed
    receive(ended.home, tmp_path / "folder")
    got = ended.home.results / RUN / "cervix-model.safetensors"
    assert digest_file(got) == ended.model


def test_what_is_handed_over_stands_in_the_ledger_of_what_has_left(
    ended: Ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to, home = operators_key(ended, capsys), ended.sites[A]
    files = agreed(ended, to, B, C)
    with pytest.raises(PolicyError):
        release(home, RUN, to, 30, tmp_path / "early", files[:1])
    assert entries(home.egress) == [], "nothing has left yet"
    release(home, RUN, to, 30, tmp_path / "folder", files)
    [account] = egressed(entries(home.egress)).runs()
    [left] = account.of("model")
    size_bytes = (tmp_path / "model").stat().st_size
    assert (account.run, left.to, left.digest, left.bytes) == (RUN, f"key {to}", ended.model, size_bytes)
    assert left.is_exact


def test_a_run_that_was_not_sealed_has_nothing_to_release(ended: Ended, tmp_path: Path) -> None:
    home = ended.sites[A]
    (home.run_folder(RUN) / "plan.json").unlink()
    RunStore(home.run_folder(RUN)).open(replace(PLAN, terms=Terms(rounds=1)))
    with pytest.raises(ConfigError, match="was not under seal") as refused:
        release(home, RUN, RECIPIENT_KEY, 30, None, ())
    assert refused.value.next_step == f"tell the coordinator: coordinator export {RUN}"


def test_too_few_sites_hand_nothing_over(ended: Ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = operators_key(ended, capsys)
    files = agreed(ended, to, B)
    with pytest.raises(PolicyError, match="3 sites must agree"):
        release(ended.sites[A], RUN, to, 30, tmp_path / "folder", files)
    assert not (tmp_path / "folder").exists()
    config = ended.sites[A].config_file
    config.write_text(config.read_text().replace("# releases = 0", "releases = 2"))
    release(ended.sites[A], RUN, to, 30, tmp_path / "folder", files)
    assert (tmp_path / "folder").exists()


def test_the_folder_opens_for_the_recipient_alone(
    ended: Ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operators_key(ended, capsys)
    release(ended.sites[A], RUN, RECIPIENT_KEY, 30, tmp_path / "folder", agreed(ended, RECIPIENT_KEY, B, C))
    with pytest.raises(RemoteError, match="does not open"):
        receive(ended.home, tmp_path / "folder")


def test_a_model_that_is_no_result_here_is_refused(
    ended: Ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = operators_key(ended, capsys)
    release(ended.sites[A], RUN, to, 30, tmp_path / "folder", agreed(ended, to, B, C))
    (ended.home.results / RUN / RECORD_FILE).unlink()
    with pytest.raises(RunError, match="not the result of a run here"):
        receive(ended.home, tmp_path / "folder")


def test_a_file_that_is_no_release_says_so(ended: Ended, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no release"):
        release(ended.sites[A], RUN, RECIPIENT_KEY, 30, tmp_path / "folder", [tmp_path / "other.json"])
    with pytest.raises(ConfigError, match="no release can be made"):
        release(ended.sites[A], RUN, "not a key", 30, None, ())


def signed(site: str, by: str = "", **changes: object) -> ResultRelease:
    bare = replace(ResultRelease(RUN, "a" * 64, RECIPIENT_KEY, 1000, site), **changes)  # type: ignore[arg-type]
    return released(KEYS[by or site], bare)


def test_a_release_is_read_back_and_counts_for_what_it_says_alone() -> None:
    own, other = signed(A), signed(B)
    assert ResultRelease.parse(other.text) == other
    assert release_faults(own, [other, signed(C)], PUBLIC, 999.0) == []
    for wrong, words in (
        (signed(B, by=C), "not signed"),
        (replace(other, until=2000), "not signed"),
        (signed(B, model="b" * 64), "another model"),
        (signed(B, run="other"), "another model"),
        (signed(B, recipient=OwnKey(RECIPIENT, bytes([8]) * 32).public.key.hex()), "another model"),
        (signed("mallory", by=B), "not signed"),
        (signed(A), "named twice"),
    ):
        assert any(words in fault for fault in release_faults(own, [wrong], PUBLIC, 999.0)), words
    assert "expired" in release_faults(own, [other], PUBLIC, 1001.0)[0]
    assert "named twice" in release_faults(own, [other, other], PUBLIC, 999.0)[0]
