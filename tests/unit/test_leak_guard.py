"""No woman of the test part is among those who made a model: by identifier, by picture, under a key of the site."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
import torch

from fedcervix.errors import ModelError, StorageError
from site_agent.classifier import classifier_store
from site_agent.classifier.comparable import comparable
from site_agent.commands.pretrain import seen_by
from site_agent.data import dataset
from site_agent.data.collection import Image
from site_agent.home import SiteHome
from site_agent.store import leak_guard, model_store
from site_agent.store.leak_guard import Seen, SiteKey, check_unseen, read, remember, site_key, write
from tests.unit.sites import Site, plan_of, site

torch.set_num_threads(1)
KEY = SiteKey(b"k" * 32)


def image(woman: str, picture: str, patient: str = "") -> Image:
    return Image(path="x.png", patient=patient or woman, woman=woman, label=1, split="train", digest=picture)


ANNA, BERTA = image("anna", "p1"), image("berta", "p2")
BOTH = KEY.seen([ANNA, BERTA])


def refuse(seen: Seen, *test: Image) -> str:
    with pytest.raises(ModelError) as refused:
        check_unseen(seen, KEY, test, what="model ssl", next_step="pretrain")
    return refused.value.what


def test_a_woman_is_known_by_her_identifier_or_by_her_picture() -> None:
    assert refuse(BOTH, image("anna", "new")) == "1 woman of the test part was used to train model ssl"
    assert refuse(BOTH, image("renamed", "p1"), image("other", "p2")).startswith("2 women of the test part were used")
    check_unseen(BOTH, KEY, [image("clara", "p3")], what="model ssl", next_step="")


def test_a_linked_woman_is_known_by_each_of_her_identifiers() -> None:
    """Linked later with another one, a woman is called after the first of them."""
    assert refuse(BOTH, image("aaa", "new", patient="berta"))
    assert refuse(KEY.seen([image("aaa", "p9", patient="berta")]), image("berta", "new"))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("001", "1"),
        ("1", "001"),
        ("P-001", "p001"),
        ("1-11", "1/11"),
        ("1-11", "111"),
        ("111", "1-11"),
        ("1E5", "100000"),
    ],
)
def test_a_woman_whose_identifier_is_written_in_another_way_is_known_without_a_picture(before: str, now: str) -> None:
    """Trained with the identifier as it was; a spreadsheet saved the manifest, and the pictures were exported anew."""
    refuse(KEY.seen([image(before, "p8")]), image(now, "p9"))


def test_identifiers_that_are_two_womens_are_told_apart() -> None:
    seen = KEY.seen([image("1-11", "p8"), image("10", "p7")])
    check_unseen(seen, KEY, [image("11-1", "p9"), image("100", "p6")], what="model ssl", next_step="")


def test_an_identifier_that_is_a_pictures_digest_is_no_picture() -> None:
    check_unseen(KEY.seen([image("p7", "p8")]), KEY, [image("new", "p7")], what="model ssl", next_step="")


def test_the_file_tells_nobody_who_they_are(tmp_path: Path) -> None:
    write(tmp_path, KEY, BOTH)
    file = tmp_path / leak_guard.WOMEN
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    for name in ("anna", "berta", "p1"):
        assert name not in text
        assert hashlib.sha256(name.encode()).hexdigest()[:32] not in text
    assert KEY.seen([ANNA]).women.isdisjoint(SiteKey(b"o" * 32).seen([ANNA]).women)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    seen = dataclasses.replace(BOTH, images="1" * 64, run="2" * 64)
    write(tmp_path, KEY, seen)
    assert read(tmp_path, KEY, next_step="") == seen


OLD = json.dumps([hashlib.sha256(b"anna").hexdigest()])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("\xff", "is damaged"),
        (OLD, "was written by another version"),
        ("{}", "was written by another version"),
        (json.dumps({"format": leak_guard.FORMAT}), "is damaged"),
        (json.dumps({"format": leak_guard.FORMAT, "key": KEY.name, "mark": 7}), "is damaged"),
        (json.dumps({"format": leak_guard.FORMAT, "key": KEY.name, "mark": "0"}), "was changed"),
    ],
)
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / leak_guard.WOMEN).write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=why) as refused:
        read(tmp_path, KEY, next_step="site-agent pretrain")
    assert refused.value.next_step == "site-agent pretrain"


def test_a_woman_who_is_taken_out_of_the_file_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, KEY, BOTH)
    file = tmp_path / leak_guard.WOMEN
    raw = json.loads(file.read_text())
    file.write_text(json.dumps({**raw, "women": raw["women"][1:]}))
    with pytest.raises(ModelError, match="was changed after it was written"):
        read(tmp_path, KEY, next_step="")


def test_a_missing_file_and_another_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is missing"):
        read(tmp_path, KEY, next_step="")
    write(tmp_path, SiteKey(b"o" * 32), BOTH)
    with pytest.raises(ModelError, match=r"another women\.key"):
        read(tmp_path, KEY, next_step="")


def test_a_run_remembers_the_women_of_all_its_rounds(tmp_path: Path) -> None:
    first, second = KEY.seen([ANNA], run="r"), KEY.seen([BERTA], run="r")
    remember(tmp_path, KEY, first)
    before = (tmp_path / leak_guard.WOMEN).stat().st_ino
    remember(tmp_path, KEY, first)
    assert (tmp_path / leak_guard.WOMEN).stat().st_ino == before, "not written again for nothing"
    remember(tmp_path, KEY, second)
    assert read(tmp_path, KEY, next_step="") == first | second


def test_another_plan_of_the_same_run_begins_anew(tmp_path: Path) -> None:
    remember(tmp_path, KEY, KEY.seen([ANNA], run="r"))
    remember(tmp_path, KEY, KEY.seen([BERTA], run="s"))
    assert read(tmp_path, KEY, next_step="") == KEY.seen([BERTA], run="s")


def test_a_file_damaged_in_mid_run_stops_no_round_and_is_told_afterwards(tmp_path: Path) -> None:
    (tmp_path / leak_guard.WOMEN).write_text("{")
    remember(tmp_path, KEY, KEY.seen([ANNA], run="r"))
    remember(tmp_path, KEY, KEY.seen([BERTA], run="r"))
    with pytest.raises(ModelError, match="lost the women of some rounds"):
        read(tmp_path, KEY, next_step="")


def test_the_sites_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "home")
    before = os.umask(0)
    try:
        key = site_key(home)
    finally:
        os.umask(before)
    file = home.key_file(leak_guard.KEY)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_bytes()) == leak_guard.KEY_BYTES
    assert site_key(home) == key
    assert site_key(SiteHome(tmp_path / "other")) != key


def test_a_link_in_the_keys_place_is_not_followed(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "home")
    home.key_file("").mkdir(parents=True)
    home.key_file(leak_guard.KEY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        site_key(home)
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_cut_short_is_no_key(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "home")
    site_key(home)
    home.key_file(leak_guard.KEY).write_bytes(b"")
    with pytest.raises(StorageError, match="is damaged: it holds 0 bytes") as refused:
        site_key(home)
    assert f"rm {home.key_file(leak_guard.KEY)}" in refused.value.next_step
    home.key_file(leak_guard.KEY).unlink()
    site_key(home)


# --- at a site ----------------------------------------------------------------------------------------------------


@pytest.fixture
def clinic(tmp_path: Path) -> Site:
    return site(tmp_path)


def rotated(clinic: Site) -> None:
    """Give test women and training women each other's split: what happens when splits.csv is lost."""
    swap = {"train": "test", "test": "train", "valid": "valid"}
    clinic.write_manifest([(i, p, label, swap[s]) for i, p, label, s in clinic.rows()])


def test_when_splits_change_the_advice_works(alone: Site) -> None:
    rotated(alone)
    with pytest.raises(ModelError, match="10 women of the test part") as refused:
        alone.train("finetune", "--start", "random", "--start", "ssl", "--name", "set")
    assert not (alone.home.folder / "classifiers" / "set").exists(), "nothing is trained before it is refused"
    words = refused.value.next_step.rpartition("site-agent ")[2].split()
    alone.train(*words[2:])
    alone.train("finetune", "--start", "ssl")
    rotated(alone)
    with pytest.raises(ModelError, match="4 women of the test part"):
        alone.train("finetune", "--start", "ssl")  # anew with each model: it knows those of its own training alone


def test_renamed_women_are_known_by_their_pictures(alone: Site) -> None:
    """Case ids-renamed-after-training."""
    rotated(alone)
    alone.write_manifest([(i, p.removeprefix("woman-"), label, s) for i, p, label, s in alone.rows()])
    with pytest.raises(ModelError, match="10 women of the test part were used to train model ssl"):
        alone.train("finetune", "--start", "ssl")


def test_a_start_that_is_refused_costs_no_classifier_of_another_start(alone: Site) -> None:
    before = classifier_store.read(alone.home.folder / "classifiers" / "random").provenance
    rotated(alone)
    with pytest.raises(ModelError, match="used to train model ssl"):
        alone.train("finetune")
    assert classifier_store.read(alone.home.folder / "classifiers" / "random").provenance == before


def test_a_federations_model_is_guarded_as_well(clinic: Site) -> None:
    clinic.federate("run-one", 1)
    rotated(clinic)
    with pytest.raises(ModelError, match="used to train model run-one") as refused:
        clinic.train("finetune")
    words = refused.value.next_step.rpartition("site-agent ")[2].split()
    clinic.train(*words[2:])
    clinic.federate("run-two", 2)
    clinic.train("finetune")


def check(clinic: Site, name: str) -> None:
    model_store.check_unseen_by_model(
        clinic.home, model_store.read(clinic.home.models / name), dataset.open_collection(clinic.home).images
    )


def test_a_site_that_trained_in_a_run_and_lost_the_file_is_not_believed(clinic: Site) -> None:
    plan = plan_of(1)
    clinic.take_part("run-one", plan)
    (clinic.home.run_folder("run-one") / leak_guard.WOMEN).unlink()
    clinic.adopt("run-one", plan)
    with pytest.raises(ModelError, match="lost the women of some rounds") as refused:
        check(clinic, "run-one")
    assert "take part in another run" in refused.value.next_step


def test_a_site_that_took_part_in_no_round_has_given_nobody(clinic: Site) -> None:
    clinic.adopt("run-one", plan_of(1))
    check(clinic, "run-one")


def test_a_classifier_remembers_its_own_women_and_those_of_its_start(alone: Site) -> None:
    key = site_key(alone.home)
    ssl, random = (read(alone.home.folder / "classifiers" / name, key, next_step="") for name in ("ssl", "random"))
    assert ssl.women == random.women == read(alone.home.models / "ssl", key, next_step="").women
    (alone.home.folder / "classifiers" / "ssl" / leak_guard.WOMEN).write_text("{")
    with pytest.raises(ModelError, match="is damaged") as refused:
        comparable(alone.home, dataset.open_collection(alone.home))
    alone.train(*refused.value.next_step.split()[3:])
    comparable(alone.home, dataset.open_collection(alone.home))


def test_of_pooled_manifests_the_pictures_are_remembered_and_not_the_identifiers(clinic: Site, tmp_path: Path) -> None:
    """woman-00 of another hospital is another woman; a picture of hers that comes here is known."""
    other = site(tmp_path / "other", seed=8)
    mine, theirs = (dataset.open_collection(place.home) for place in (clinic, other))
    key = site_key(clinic.home)
    own, pooled = seen_by(key, [mine]), seen_by(key, [mine, theirs])
    assert pooled.women == own.women
    assert pooled.pictures > own.pictures
    assert len(pooled.pictures) == 2 * len(own.pictures)
