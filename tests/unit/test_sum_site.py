"""A site's part in secure sums: real homes, keys and files, and no wire."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedcervix.errors import ModelError, PolicyError, RemoteError, StorageError
from fedcervix.models.aggregate import Momentum, aggregate
from fedcervix.models.weights import read_layout, read_tensors, write_tensors
from fedcervix.trust.ledger_run import KnownRound
from fedcervix.trust.sum_lists import parts_of
from fedcervix.trust.sum_memory import BaseVouched, HomeRestored
from fedcervix.trust.sum_papers import AttemptShown
from site_agent.federation.sum_site import VECTOR, TrainedUpdate
from site_agent.home import SiteHome
from site_agent.store.run_secrets import SecretsFile
from site_agent.store.sum_journal import SumJournal
from tests.unit.sum_sites import HEADS, IMAGES, NAMES, Federation, Kills, plan


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    made = Federation(tmp_path)
    made.open()
    return made


def test_a_round_gives_each_site_the_average_of_the_updates(federation: Federation) -> None:
    known = federation.first()
    (model,) = federation.round(known)
    updates = [
        (federation.blobs(name).path(federation.trained(name, known).model), float(IMAGES[name])) for name in NAMES
    ]
    aggregate(updates, read_layout(federation.folder / "base"), federation.folder / "plain", "mean")
    ours = read_tensors(federation.blobs("d").path(model))
    for name, value in read_tensors(federation.folder / "plain").items():
        np.testing.assert_allclose(ours[name], value, atol=1e-6)


def test_the_next_round_begins_from_the_sum_and_adds_its_step(tmp_path: Path) -> None:
    federation = Federation(tmp_path, plan=plan(server_momentum=0.5))
    federation.open()
    first = federation.first()
    (model,) = federation.round(first)
    second = KnownRound(2, model, HEADS[1], last_step=(model, first.base))
    (later,) = federation.round(second)
    blobs = federation.blobs("b")
    updates = [
        (federation.blobs(name).path(federation.trained(name, second).model), float(IMAGES[name])) for name in NAMES
    ]
    step = Momentum(0.5, blobs.path(model), blobs.path(first.base))
    aggregate(updates, read_layout(tmp_path / "base"), tmp_path / "plain", "mean", step)
    ours = read_tensors(blobs.path(later))
    for name, value in read_tensors(tmp_path / "plain").items():
        np.testing.assert_allclose(ours[name], value, atol=1e-6)


def test_a_site_that_is_missing_in_the_list_still_derives_the_model(federation: Federation) -> None:
    assert len(federation.round(federation.first(), who=("a", "b", "c"))) == 1


def test_killed_at_every_write_a_round_gives_the_same_model(tmp_path: Path) -> None:
    undisturbed = Federation(tmp_path / "undisturbed")
    undisturbed.open()
    expected, writes = undisturbed.round(undisturbed.first()), undisturbed.kills.writes
    assert writes >= 3 * len(NAMES)
    times = [number + half for number in range(writes) for half in (0.0, 0.5)]
    for turn, at in enumerate((set(times[::3]), set(times[1::3]), set(times[2::3]))):
        killed = Federation(tmp_path / str(turn), kills=Kills(at))
        killed.open()
        assert killed.round(killed.first()) == expected, sorted(at)
        assert killed.kills.writes > writes


def test_asked_again_by_a_new_process_a_site_gives_the_same_bytes(federation: Federation) -> None:
    known = federation.first()
    reports = federation.uploads(known)
    for name in NAMES:
        (federation.blobs(name).path(reports[name].upload)).unlink()
        federation.begin(name)
    assert federation.uploads(known) == reports
    listed = federation.listed(known, reports, ())
    releases = federation.released(known, listed, ())
    for name in ("a", "b"):
        federation.begin(name)
    assert federation.released(known, listed, ()) == releases


def test_nothing_that_is_not_masked_stays(federation: Federation) -> None:
    federation.uploads(federation.first())
    assert not list(federation.home("a").blobs.rglob(".sum-*"))


def test_a_lost_holder_is_closed_out_and_the_round_is_done_again(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.open()
    known = federation.first()
    federation.uploads(known)
    site = federation.sites["b"]
    closes = ((site.close(known, site.proposal(known, AttemptShown(1)), ("b",)),),)
    who = ("b", "c", "d")
    assert len(federation.round(known, closes, who)) == 1


def test_nobody_goes_on_in_an_attempt_that_was_not_closed_by_its_holders(federation: Federation) -> None:
    known, site = federation.first(), federation.sites["b"]
    close = site.close(known, site.proposal(known, AttemptShown(1)), ("b",))
    with pytest.raises(RemoteError, match="was not closed by c \\+ 1 of its holders"):
        federation.uploads(known, ((replace(close, signature=close.signature[:-1]),),), who=("c",))
    with pytest.raises(RemoteError, match="there is no such attempt at round 1"):
        federation.uploads(known, ((),), who=("c",))


def test_a_base_is_free_for_another_run_once_its_attempts_are_closed(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    federation.open()
    known = federation.first()
    federation.uploads(known, who=("c",))
    holders = [federation.sites[name] for name in "ab"]
    closing = tuple(holder.close(known, holder.proposal(known, AttemptShown(1)), ("a", "b")) for holder in holders)
    site = federation.sites["c"]
    site.free(known, site.proposal(known, AttemptShown(1, (closing,))))
    assert not SumJournal(federation.home("c")).memory.uses[federation.base]


def test_a_second_list_is_refused(federation: Federation) -> None:
    known = federation.first()
    reports = federation.uploads(known)
    federation.released(known, federation.listed(known, reports, ()), ())
    fewer = federation.listed(known, {name: reports[name] for name in "abc"}, ())
    with pytest.raises(RemoteError, match=r"rule H1.*for another list") as caught:
        federation.released(known, fewer, ())
    assert "telephone" in caught.value.next_step


def test_a_report_names_the_sum_over_the_same_base_that_the_site_knows_of(federation: Federation) -> None:
    assert federation.uploads(federation.first())["c"].before == ""
    federation.round(federation.first())
    federation.run = "20260202-000000-csfssl-0123abcd"
    for name in NAMES:
        federation.begin(name)
    federation.open()
    assert federation.uploads(federation.first(), who=("c",))["c"].before == parts_of(IMAGES)


def test_another_model_for_the_same_attempt_is_refused(federation: Federation) -> None:
    known, site = federation.first(), federation.sites["a"]
    federation.uploads(known, who=("a",))
    other = federation.trained("a", known, attempt=2)
    with pytest.raises(RemoteError, match="has signed another vector"):
        site.upload(known, site.proposal(known, AttemptShown(1)), other)


def test_a_changed_sum_is_refused_before_a_model_is_made_of_it(federation: Federation) -> None:
    known = federation.first()
    listed = federation.listed(known, federation.uploads(known), ())
    releases = federation.released(known, listed, ())
    total = federation.opened(listed, releases)
    content = bytearray(total.read_bytes())
    content[-30] ^= 1
    total.write_bytes(content)
    before = set(federation.home("a").blobs.glob("*.safetensors"))
    with pytest.raises(RemoteError, match=r"not that of the sites|do not cancel|no vector"):
        federation.learn(known, listed, releases, total)
    digest = hashlib.sha256(content).hexdigest()
    assert set(federation.home("a").blobs.glob("*.safetensors")) - before == {federation.blobs("a").path(digest)}


def test_the_tensor_that_is_out_of_range_stays_at_home(federation: Federation) -> None:
    known, site, blobs = federation.first(), federation.sites["a"], federation.blobs("a")
    far = {name: value + 1e6 for name, value in read_tensors(blobs.path(known.base)).items()}
    digest = write_tensors(blobs.scratch("far"), far)
    blobs.adopt(blobs.scratch("far"), digest)
    with pytest.raises(ModelError) as caught:
        site.upload(known, site.proposal(known, AttemptShown(1)), TrainedUpdate(digest, 1, 1.0))
    leaves = f"{caught.value.what} {caught.value.cause}"
    assert "out of range" in leaves
    assert not any(name in leaves for name in ("w holds", "running_mean"))
    assert not SumJournal(federation.home("a")).memory.rounds


# --- the disk ---------------------------------------------------------------------------------------------------


def test_the_number_of_images_stays_what_it_was(federation: Federation) -> None:
    again = federation.begin("a")
    assert again.opening(IMAGES["a"] + 50).images == IMAGES["a"]


def test_the_secrets_go_when_the_run_ends(federation: Federation) -> None:
    site, left = federation.sites["a"], federation.blobs("a").scratch(VECTOR)
    left.write_bytes(b"of a killed process")
    site.end()
    assert not left.exists()
    assert SecretsFile(federation.home("a"), federation.run).read() is None
    with pytest.raises(PolicyError, match="secrets of run"):
        site.opening(IMAGES["a"])


def restored(federation: Federation, name: str, *, with_secrets: bool) -> None:
    """Put a copy of a home in its place."""
    home = federation.home(name)
    copy = home.folder.with_name("copy")
    shutil.copytree(home.folder, copy)
    shutil.rmtree(home.folder)
    copy.rename(home.folder)
    if not with_secrets:
        shutil.rmtree(home.secrets)


def test_a_copied_home_takes_no_part_in_the_run_that_it_had_begun(federation: Federation) -> None:
    restored(federation, "a", with_secrets=True)
    with pytest.raises(PolicyError, match="restored or copied") as caught:
        federation.begin("a").opening(IMAGES["a"])
    assert "goes on without this site" in caught.value.next_step


def test_a_copied_holder_releases_nothing(federation: Federation) -> None:
    known = federation.first()
    listed = federation.listed(known, federation.uploads(known), ())
    restored(federation, "a", with_secrets=True)
    federation.begin("a")
    with pytest.raises(ModelError, match="restored or copied"):
        federation.released(known, listed, ())


@pytest.mark.parametrize("kept_lines", [0, 1])
def test_a_journal_from_before_the_run_beside_its_secrets_bars_the_run(federation: Federation, kept_lines: int) -> None:
    journal = federation.home("a").sums
    lines = journal.read_text().split()
    journal.rename(journal.with_name("moved"))
    if kept_lines:
        journal.write_text(lines[0])
    with pytest.raises(PolicyError, match="restored or copied"):
        federation.begin("a").opening(IMAGES["a"])


def test_a_restored_home_takes_part_in_a_run_for_which_it_has_drawn_secrets_since(federation: Federation) -> None:
    restored(federation, "a", with_secrets=False)
    federation.run = "20260202-000000-csfssl-0123abcd"
    federation.begin("a").opening(IMAGES["a"])
    assert federation.begin("a").opening(IMAGES["a"])


def test_a_home_from_a_backup_has_no_secrets(federation: Federation) -> None:
    restored(federation, "a", with_secrets=False)
    with pytest.raises(PolicyError, match="secrets of run"):
        federation.begin("a").opening(IMAGES["a"])


def test_a_restored_home_begins_another_run_only_where_its_first_model_is_vouched_for(
    federation: Federation, tmp_path: Path
) -> None:
    restored(federation, "c", with_secrets=False)
    federation.run = "20260202-000000-csfssl-0123abcd"
    for name in NAMES:
        federation.begin(name)
    federation.open()
    known = federation.first()
    with pytest.raises(ModelError, match="does not know whether the first model was in a sum") as caught:
        federation.uploads(known, who=("c",))
    assert "vouch DIGEST" in caught.value.next_step
    federation.sites["c"].vouch(federation.base)
    assert federation.uploads(known, who=("c",))


# --- the journal ------------------------------------------------------------------------------------------------


def home_of(tmp_path: Path) -> SiteHome:
    return SiteHome(tmp_path)


def test_a_moved_home_is_no_copy(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    SumJournal(SiteHome(tmp_path / "home")).remember(BaseVouched("1" * 64))
    (tmp_path / "home").rename(tmp_path / "moved")
    (tmp_path / "moved" / "sums.jsonl").chmod(0o400)
    (tmp_path / "moved" / "sums.jsonl").chmod(0o600)
    found = SumJournal(SiteHome(tmp_path / "moved")).memory
    assert (found.restored, found.vouched) == (False, frozenset({"1" * 64}))


def test_a_copy_is_noticed_once(tmp_path: Path) -> None:
    SumJournal(home_of(tmp_path))
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert SumJournal(SiteHome(tmp_path / "copy")).memory.restored
    SumJournal(SiteHome(tmp_path / "copy")).remember(BaseVouched("1" * 64))
    assert SumJournal(SiteHome(tmp_path / "copy")).memory.vouched, "it was restored once, before that"
    assert not SumJournal(home_of(tmp_path)).memory.restored


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_torn_is_cut_off(tmp_path: Path, cut: int) -> None:
    journal, file = SumJournal(home_of(tmp_path)), home_of(tmp_path).sums
    journal.remember(BaseVouched("1" * 64))
    whole = file.read_bytes()
    journal.remember(BaseVouched("2" * 64))
    with file.open("r+b") as out:
        out.truncate(file.stat().st_size - cut)
    again = SumJournal(home_of(tmp_path))
    assert again.memory.vouched == {"1" * 64}
    assert file.read_bytes().rstrip(b"\n") == whole
    again.remember(BaseVouched("3" * 64))
    assert SumJournal(home_of(tmp_path)).memory.vouched == {"1" * 64, "3" * 64}


@pytest.mark.parametrize(
    "line",
    [
        *(b"{", b"[]", b'{"kind": "Other", "entry": {}}', b'{"kind": "BaseVouched", "entry": {"base": 3}}'),
        *(b'{"kind": "BaseVouched", "entry": {}}', b'{"kind": "HomeRestored", "entry": {"base": "1"}}'),
    ],
)
def test_a_damaged_line_is_never_passed_over(tmp_path: Path, line: bytes) -> None:
    SumJournal(home_of(tmp_path)).remember(HomeRestored())
    file = home_of(tmp_path).sums
    first, *rest = file.read_bytes().strip().split(b"\n")
    with file.open("r+b") as out:
        out.write(b"\n".join([first, line, *rest]))
    with pytest.raises(StorageError, match=r"sums\.jsonl is damaged"):
        SumJournal(home_of(tmp_path))


def test_the_secrets_are_in_a_folder_that_backups_leave_out(federation: Federation) -> None:
    secrets = federation.home("a").secrets
    assert (secrets / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert all(file.stat().st_mode & 0o077 == 0 for file in secrets.iterdir())
    held = SecretsFile(federation.home("a"), federation.run).read()
    assert held is not None
    assert not {held.key, held.rho, held.nonces} & set(repr(held).split("'")), "no secret in a log"
    assert replace(held, images=held.images) == held
