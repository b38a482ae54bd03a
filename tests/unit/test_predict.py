"""The command `predict`: a row for every file, and a result that is whole."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image as Pillow

from fedcervix.disk.files import digest_file
from fedcervix.errors import ModelError
from site_agent.classifier import classifier_store
from site_agent.classifier.classifier_store import Decisions
from site_agent.classifier.finetune import Finetuned, build_classifier
from site_agent.classifier.finetune import predict as score
from site_agent.classifier.trainings import TrainedClassifier
from site_agent.cli import cli
from site_agent.data import dataset
from site_agent.home import SiteHome
from site_agent.network.encoder import snapshot
from site_agent.store import leak_guard
from site_agent.store.checksummed_records import read_record, write_record
from site_agent.store.provenance import Start
from tests.unit.provenances import provenance
from tests.unit.test_report_data import SMALL, site

torch.set_num_threads(1)

CPU = torch.device("cpu")
THRESHOLD = 0.25


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    """A home with a classifier of random weights that was made with the images of its training women."""
    home, collection = site(tmp_path_factory.mktemp("site"))
    network, _ = build_classifier(SMALL, 3, None)
    made = TrainedClassifier(network, (Finetuned(snapshot(network), (), 1, "epochs"),), None, 0.5)
    used = provenance("Random", Start(name="random"), recipe=SMALL)
    seen = leak_guard.site_key(home).seen(collection.labelled("train"))
    classifier_store.keep(home, "", made, used, decided=Decisions(THRESHOLD), seen=seen)
    return home


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)


def save(path: Path, kind: str = "PNG", seed: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(pixels(seed)).save(path, kind)
    return path


def run(home: SiteHome, *arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["--home", str(home.folder), "predict", "random", *map(str, arguments)])


def code(done: Result) -> int:
    """The exit code of the program: that of the error, where it ended with one."""
    return int(getattr(done.exception, "exit_code", done.exit_code))


def rows(out: Path) -> list[dict[str, str]]:
    with out.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_file_has_a_row_whatever_its_name(home: SiteHome, tmp_path: Path) -> None:
    """The case predict-folder."""
    folder, out = tmp_path / "images", tmp_path / "p.csv"
    for name, kind in {"a.png": "PNG", "b.jfif": "JPEG", "c.jpe": "JPEG", "d.dib": "BMP", "f": "JPEG"}.items():
        save(folder / name, kind)
    save(folder / "e.webp", "WEBP")
    (folder / "g.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "h.dcm").write_bytes(bytes(128) + b"DICM")
    save(folder / "really.txt", "PNG")
    for passed in ("notes.txt", "Thumbs.db", "desktop.ini", ".hidden.png", "table.csv"):
        (folder / passed).write_text("nothing")
    done = run(home, folder, "--out", out)
    found = {Path(row["image"]).name: row for row in rows(out)}
    assert list(found) == ["a.png", "b.jfif", "c.jpe", "d.dib", "e.webp", "f", "g.HEIC", "h.dcm", "really.txt"]
    assert {name for name, row in found.items() if row["probability_of_case"]} == {
        *("a.png", "b.jfif", "c.jpe", "d.dib", "f", "really.txt")
    }
    assert found["e.webp"]["problem"] == "a WebP picture: save it as PNG"
    assert found["g.HEIC"]["problem"] == "a HEIC picture: save it as PNG"
    assert found["h.dcm"]["problem"] == "a DICOM file: export it as PNG or TIFF"
    assert "9 files: 6 scored by Random, 3 not" in done.stdout
    assert "skipped: 1 .csv, 1 .db, 1 .ini, 1 .txt, 1 hidden" in done.stdout
    assert "not a medical device" in done.stdout
    assert done.exit_code == 0


def test_a_classifier_of_one_stage_says_which_pictures_it_is_for(home: SiteHome, tmp_path: Path) -> None:
    save(tmp_path / "new" / "a.png")
    stored = classifier_store.named(home, "random")
    used = dataclasses.replace(stored.provenance, recipe=dataclasses.replace(SMALL, stages=("acetic", "native")))
    folder = tmp_path / "random"
    shutil.copytree(stored.folder, folder)
    record = read_record(folder / classifier_store.RECORD, what="classifier", next_step="")
    write_record(folder / classifier_store.RECORD, record | {"provenance": used.to_json()})
    words = ["predict", str(folder), str(tmp_path / "new"), "--out", str(tmp_path / "p.csv")]
    done = CliRunner().invoke(cli, ["--home", str(home.folder), *words])
    assert "pictures of stage acetic or native alone made and tested this" in done.stdout


def test_linked_folders_are_followed_and_a_circle_ends(home: SiteHome, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "p.csv"
    save(folder / "a.png")
    save(tmp_path / "elsewhere" / "deep" / "b.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(folder)
    (folder / "broken.png").symlink_to(tmp_path / "absent")
    done = run(home, folder, "--out", out)
    names = [str(Path(row["image"]).relative_to(folder)) for row in rows(out)]
    assert names == ["a.png", "broken.png", "linked/deep/b.png"]
    assert rows(out)[1]["problem"] == "no such file"
    assert "1 folders that were listed already" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_a_folder_that_may_not_be_listed_has_a_row(home: SiteHome, tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png")
    closed = tmp_path / "images" / "closed"
    closed.mkdir(mode=0)
    run(home, tmp_path / "images", "--out", tmp_path / "p.csv")
    assert {row["problem"] for row in rows(tmp_path / "p.csv")} == {
        "",
        "this folder cannot be listed (Permission denied)",
    }


def named_by(cell: str) -> str:
    """Return the path that stands in a cell, as a reader of the file would."""
    raw = re.sub(
        rb"\\(?:\\|x([0-9a-f]{2}))",
        lambda found: bytes.fromhex(found[1].decode()) if found[1] else b"\\",
        cell.encode(),
    )
    return os.fsdecode(raw)


def test_any_name_can_be_read_back_and_none_is_a_formula(
    home: SiteHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The case predict-name-not-utf8, and names that a spreadsheet would calculate or break."""
    monkeypatch.chdir(tmp_path)
    named = [os.fsdecode(b"b_\xe9.png"), "=cmd|' A0.png", "@x.png", "-1.png", "a\nb.png", "back\\x41.png", 'é,".png']
    for name in named:
        save(Path(name))
    done = CliRunner().invoke(cli, ["--home", str(home.folder), "predict", "random", "--", *named])
    assert done.exit_code == 0, done.output
    cells = [row["image"] for row in rows(Path("predictions.csv"))]
    assert [os.path.normpath(named_by(cell)) for cell in cells] == named
    assert cells[0] == r"b_\xe9.png"
    assert not [cell for cell in cells if cell[0] in "=+-@" or not cell.isprintable()]
    assert all(row["probability_of_case"] for row in rows(Path("predictions.csv")))


def test_an_earlier_result_is_kept_unless_asked(home: SiteHome, tmp_path: Path) -> None:
    image, out = save(tmp_path / "a.png"), tmp_path / "p.csv"
    out.write_text("earlier")
    refused = run(home, image, "--out", out)
    assert (code(refused), out.read_text()) == (8, "earlier")
    assert run(home, image, "--out", out, "--force").exit_code == 0
    assert len(rows(out)) == 1
    assert out.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "p.csv"]


def test_no_picture_and_no_device_is_replaced_even_when_asked(home: SiteHome, tmp_path: Path) -> None:
    picture = save(tmp_path / "in" / "a.png")
    before = picture.read_bytes()
    assert code(run(home, tmp_path / "in", "--out", picture, "--force")) == 8
    assert code(run(home, picture, "--out", os.devnull, "--force")) == 8
    assert (picture.read_bytes(), Path(os.devnull).is_char_device()) == (before, True)


def test_a_classifier_that_is_not_there_is_said_so_with_those_that_are(home: SiteHome, tmp_path: Path) -> None:
    words = ["--home", str(home.folder), "predict", "rendom", str(save(tmp_path / "a.png"))]
    error = CliRunner().invoke(cli, words).exception
    assert isinstance(error, ModelError)
    assert (error.what, error.cause) == ("there is no classifier rendom", "the classifiers here: random")


def test_labels_and_splits_of_a_manifest_of_new_images_are_not_looked_at(home: SiteHome, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text("image,patient,label,splits\na.png,P1,unknown,test\n")
    out = tmp_path / "p.csv"
    assert code(run(home, tmp_path / "a.png", "--out", out, "--manifest", tmp_path / "m.csv")) == 0
    assert [row["patient"] for row in csv.DictReader(out.open())] == ["P1"]


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_scored(home: SiteHome, tmp_path: Path) -> None:
    done = run(home, save(tmp_path / "a.png"), "--out", tmp_path / "absent" / "p.csv")
    assert code(done) == 8
    assert "scoring images" not in done.stderr


def test_where_nothing_can_be_scored_the_file_says_why(home: SiteHome, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    assert code(run(home, tmp_path / "a.dcm", "--out", tmp_path / "p.csv")) == 4
    assert [row["problem"] for row in rows(tmp_path / "p.csv")] == ["a DICOM file: export it as PNG or TIFF"]
    (tmp_path / "empty").mkdir()
    assert code(run(home, tmp_path / "empty", "--out", tmp_path / "q.csv")) == 4
    assert not (tmp_path / "q.csv").exists()


def test_the_probabilities_are_those_of_evaluate(home: SiteHome, tmp_path: Path) -> None:
    """And each row says by which classifier and threshold, whose picture it is, and whether it was trained on."""
    out, collection = tmp_path / "p.csv", dataset.open_collection(home)
    test = dataset.labelled(home, collection, SMALL, "test")
    [stored] = classifier_store.found(home)[0]
    evaluated = score(stored.build(), test.pixels, device=CPU)
    done = run(home, collection.folder, "--out", out)
    found = {Path(row["image"]).name: row for row in rows(out)}
    for image, p in zip(collection.labelled("test"), evaluated, strict=True):
        row = found[image.path]
        assert float(row["probability_of_case"]) == pytest.approx(float(p), abs=2e-6)
        assert (row["patient"], row["seen_in_training"]) == (image.patient, "no")
        assert float(row["validation_threshold"]) == THRESHOLD
        assert row["case_at_validation_threshold"] == str(int(p >= THRESHOLD))
        assert row["classifier_sha256"] == digest_file(stored.weights)
    trained = collection.labelled("train")
    assert {found[image.path]["seen_in_training"] for image in trained} == {"picture"}
    assert (
        f"warning: {len(trained)} pictures were used in training; 0 more show women whose other pictures were used."
        in done.stdout
    )


def test_another_manifest_names_the_patients_and_their_women_are_known(home: SiteHome, tmp_path: Path) -> None:
    save(tmp_path / "new.png")
    (tmp_path / "m.csv").write_text("image,patient\nnew.png,woman-0\n")
    done = run(home, tmp_path / "new.png", "--out", tmp_path / "p.csv", "--manifest", tmp_path / "m.csv")
    assert done.exit_code == 0
    [row] = rows(tmp_path / "p.csv")
    assert (row["patient"], row["seen_in_training"]) == ("woman-0", "woman")
    assert "patients" not in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "image,patient,hpv\nnew.png,woman-0,1\nother.png,P2,0\n",
        "image,patient,label,split\nnew.png,woman-0,yes,\nother.png,P2,,holdout\n",
        "image,patient,cohort\nnew.png,woman-0,train\nother.png,P2,test\n",
    ],
)
def test_of_a_manifest_only_the_patients_are_read(home: SiteHome, tmp_path: Path, text: str) -> None:
    """New pictures have no labels: another column is no reason to stop."""
    save(tmp_path / "new.png")
    (tmp_path / "m.csv").write_text(text)
    done = run(home, tmp_path / "new.png", "--out", tmp_path / "p.csv", "--manifest", tmp_path / "m.csv")
    assert done.exit_code == 0, done.output
    assert [row["patient"] for row in rows(tmp_path / "p.csv")] == ["woman-0"]


def test_of_a_patient_who_is_not_known_it_is_not_said_that_she_was_not_trained_on(
    home: SiteHome, tmp_path: Path
) -> None:
    """The file said `no` of a woman whose other pictures had made the classifier."""
    done = run(home, save(tmp_path / "new.png"), "--out", tmp_path / "p.csv")
    [row] = rows(tmp_path / "p.csv")
    assert (row["patient"], row["seen_in_training"]) == ("", "unknown")
    assert "1 of 1 files have no patient in the manifest" in done.stdout


def test_a_patient_is_known_whose_file_has_the_other_unicode_form(home: SiteHome, tmp_path: Path) -> None:
    file = save(tmp_path / "mu\u0308ller.png")
    (tmp_path / "m.csv").write_text("image,patient\nm\u00fcller.png,WOMAN-00\n", encoding="utf-8")
    run(home, file, "--out", tmp_path / "p.csv", "--manifest", tmp_path / "m.csv")
    [row] = rows(tmp_path / "p.csv")
    assert (row["patient"], row["seen_in_training"]) == ("WOMAN-00", "woman")


def test_a_misspelt_classifier_is_told_from_a_damaged_one(home: SiteHome, tmp_path: Path) -> None:
    image = save(tmp_path / "a.png")
    (home.folder / "classifiers" / "emptied").mkdir(exist_ok=True)
    for name, next_step in (("randon", "random"), ("csfssl", "finetune"), ("emptied", "finetune")):
        done = CliRunner().invoke(cli, ["--home", str(home.folder), "predict", name, str(image)])
        error = done.exception
        assert isinstance(error, ModelError)
        assert error.exit_code == 10
        assert error.what == f"there is no classifier {name}"
        assert error.cause == "the classifiers here: random"
        assert next_step in error.next_step
