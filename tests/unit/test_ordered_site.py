"""A site with ordered labels, and a classifier of several trainings with a zone: from manifest to predict and ONNX."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import nn

from fedcervix.errors import ConfigError, DataError, ModelError
from site_agent.classifier import classifier_store
from site_agent.classifier.averaged import AveragedClassifier
from site_agent.classifier.finetune import Classifier, predict
from site_agent.classifier.graded import grade
from site_agent.classifier.onnx_export import to_onnx
from site_agent.classifier.ordered import OrderedThresholds
from site_agent.classifier.scoring import ScoredFile, csv_text, womens_calls
from site_agent.classifier.trainings import class_probabilities
from site_agent.classifier.zone import Zone
from site_agent.data import dataset
from site_agent.manifest.classes import BINARY, Classes, classes_of
from site_agent.manifest.reading import parse
from site_agent.network.devices import ready
from site_agent.report.clinic_data import learned_share
from tests.unit.sites import Site, site

NAMES = ("normal", "low grade", "high grade")
TERMS = {"method": "lp-ft", "trainings": 2, "labels": "ordered", "zone_error": 0.2, "epochs_max": 1}


def with_classes(made: Site, case_from: str = "high grade") -> Site:
    """Have every third woman of each class."""
    rows = made.rows()
    made.write_manifest([(i, w, NAMES[int(w[-2:]) % 3], split) for i, w, _, split in rows])
    settings = made.home.config_file
    lines = f'[data]\nclasses = {json.dumps(NAMES)}\ncase_from = "{case_from}"\n'
    settings.write_text(settings.read_text().replace("[data]\n", lines))
    return made


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = with_classes(site(tmp_path_factory.mktemp("ordered")))
    done = made.train("finetune", "--start", "random", classifier=TERMS)
    assert re.search(r"mean of 2 trainings, kept (the probe|epoch 1 of 1), (the probe|epoch 1 of 1),", done.stdout)
    assert "Nobody is called control or case: with an error of 0.2, each class needs 4 validation women" in done.stdout
    return made


def test_a_classifier_of_several_trainings_is_one(ordered: Site) -> None:
    [stored], broken = classifier_store.found(ordered.home)
    assert not broken
    assert stored.classes == Classes(NAMES, "high grade")
    assert stored.zone is not None
    assert (stored.zone.error, stored.zone.case_women, stored.zone.control_women) == (0.2, 1, 3)
    record = json.loads((stored.folder / "record.json").read_text())
    assert len(record["further_trainings"]) == 1


def test_ordered_results_are_there_for_test_women(ordered: Site) -> None:
    [stored], _ = classifier_store.found(ordered.home)
    assert stored.classes is not None
    collection = dataset.open_collection(ordered.home)
    test = dataset.labelled(ordered.home, collection, stored.recipe, "test")
    chances = class_probabilities(stored.build(), test.pixels, device=ready(ordered.home.config().hardware).device)
    found = grade(stored.classes.names, test.grades, chances, test.patients)
    assert found.women == 4
    assert [sum(row) for row in found.confusion] == [1, 1, 2], "women 15; 16; 14 and 17"


def test_the_share_of_cases_that_is_learned_is_that_of_the_classes(ordered: Site) -> None:
    """Three classes weigh the same, and one of them is a case."""
    [stored], _ = classifier_store.found(ordered.home)
    train = dataset.labelled(ordered.home, dataset.open_collection(ordered.home), stored.recipe, "train")
    network = stored.build()
    assert learned_share(stored, network, train) == pytest.approx(1 / 3)
    unweighted = dataclasses.replace(stored.recipe.classifier, reverse_class_weights=False)
    recipe = dataclasses.replace(stored.recipe, classifier=unweighted)
    plain = dataclasses.replace(stored, provenance=dataclasses.replace(stored.provenance, recipe=recipe))
    assert learned_share(plain, network, train) == pytest.approx(train.labels.mean())
    hers = {w: [y for y, v in zip(train.labels, train.patients, strict=True) if v == w] for w in train.patients}
    private = learned_share(dataclasses.replace(stored, epsilon=1.0), network, train)
    assert private == pytest.approx(np.mean([np.mean(own) for own in hers.values()]))


def test_it_is_evaluated_and_predicts_one_score_for_a_picture(ordered: Site, tmp_path: Path) -> None:
    ordered.run("evaluate")
    picture = tmp_path / "new.png"
    Pillow.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)).save(picture)
    ordered.run("predict", "random", str(picture), "--out", str(tmp_path / "out.csv"))
    [row] = csv.DictReader((tmp_path / "out.csv").open())
    [stored], _ = classifier_store.found(ordered.home)
    assert row["classifier_sha256"] == stored.provenance.weights
    assert 0 < float(row["probability_of_case"]) < 1
    assert stored.zone is not None
    assert row["woman_call"] == stored.zone.call(float(row["probability_of_case"]))


def test_a_woman_is_called_by_the_highest_of_her_pictures(ordered: Site) -> None:
    zone = Zone(error=0.1, clear_below=0.3, case_above=0.6, case_women=20, control_women=20)
    rows = [
        ScoredFile(Path("a"), "P1", 0.1),
        ScoredFile(Path("b"), "P1", 0.7),
        ScoredFile(Path("c"), "P2", 0.1),
        ScoredFile(Path("d"), "", 0.4),
        ScoredFile(Path("e"), "", 0.8),
        ScoredFile(Path("f"), "P3", problem="no such file"),
    ]
    assert womens_calls(zone, rows) == {
        "patient P1": "case",
        "patient P2": "control",
        "file d": "indeterminate",
        "file e": "case",
    }
    [stored], _ = classifier_store.found(ordered.home)
    found = list(csv.DictReader(csv_text(dataclasses.replace(stored, zone=zone), rows).splitlines()))
    assert [row["woman_call"] for row in found] == ["case", "case", "control", "indeterminate", "case", ""]
    assert "woman_call" not in csv_text(dataclasses.replace(stored, zone=None), rows), "as before, without a zone"


def test_an_onnx_file_of_several_trainings_of_ordered_classes_gives_their_score() -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    each = [
        Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)), nn.Linear(4, 1), OrderedThresholds(4, 2))
        for _ in range(2)
    ]
    content, parity = to_onnx(AveragedClassifier(each), 32, {})
    assert parity.holds
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    session = pytest.importorskip("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"pixels": pixels})
    np.testing.assert_allclose(found, predict(AveragedClassifier(each), pixels, device=torch.device("cpu")), atol=1e-5)


def test_damaged_thresholds_are_refused(ordered: Site) -> None:
    from site_agent.classifier import trainings
    from site_agent.network.encoder import load_weights

    [stored], _ = classifier_store.found(ordered.home)
    state = load_weights(stored.weights)
    del state["trainings.1.thresholds.gaps"]
    with pytest.raises(ModelError, match=r"thresholds\.gaps is missing"):
        trainings.restore(stored.recipe, state, what="a classifier")


def test_a_private_head_of_several_trainings_is_refused(ordered: Site) -> None:
    with pytest.raises(ConfigError, match="trainings = 2"):
        ordered.train("finetune", "--start", "random", "--private", "3", classifier=TERMS)


def test_a_private_head_of_colours_that_all_women_have_made_is_refused(ordered: Site) -> None:
    with pytest.raises(ConfigError, match='no promise with harmonise = "site-colour"'):
        ordered.train("finetune", "--start", "random", "--private", "3", harmonise="site-colour")


# --- the manifest ---------------------------------------------------------------------------------------------------

THREE = Classes(NAMES, "low grade")
TEXT = "image,patient,label\na.png,P1,normal\nb.png,P2,low grade\nc.png,P3,high grade\nd.png,P4,\n"


def test_a_label_is_a_class_and_a_case_from_the_named_one_on() -> None:
    rows = parse(TEXT, "manifest.csv", classes=THREE).rows
    assert [(row.label, row.details.grade) for row in rows] == [(0, 0), (1, 1), (1, 2), (None, None)]


def test_a_binary_manifest_is_read_as_before() -> None:
    [row, *_] = parse("image,patient,label\na.png,P1,1\n", "manifest.csv").rows
    assert (row.label, row.details.grade) == (1, None)
    with pytest.raises(DataError, match="expected 0 = control, 1 = case, empty = unlabelled"):
        parse(TEXT, "manifest.csv")


def test_a_cell_that_is_no_class_is_named_with_the_classes() -> None:
    with pytest.raises(DataError, match="line 2, column label: found 'Normal'; expected normal, low grade, high grade"):
        parse(TEXT.replace("normal", "Normal"), "manifest.csv", classes=THREE)
    with pytest.raises(DataError, match=r"classes in site\.toml"):
        parse(TEXT.replace("normal", "0"), "manifest.csv", classes=THREE)


@pytest.mark.parametrize(
    ("names", "case_from", "words"),
    [
        (("a", "b", "c"), "", "belong together"),
        ((), "b", "belong together"),
        (("0", "1"), "1", "leave out classes"),
        (("a", "b", "a"), "b", "twice"),
        (("a", "b", "c"), "a", "one of b, c"),
        (("a", "b", ""), "b", "1 to 40 characters"),
        (("a",), "a", "2 to 20"),
    ],
)
def test_classes_that_make_no_sense_are_refused(names: tuple[str, ...], case_from: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        classes_of(names, case_from)
    assert classes_of((), "") == BINARY


def test_the_digest_of_a_collection_knows_the_classes_and_not_their_absence(tmp_path: Path) -> None:
    """Another grade of an image that is a case in either way is another training."""
    made = with_classes(site(tmp_path), case_from="low grade")
    before = dataset.open_collection(made.home)
    made.write_manifest([(i, w, label.replace("high", "low"), split) for i, w, label, split in made.rows()])
    after = dataset.open_collection(made.home)
    assert [image.label for image in before.images] == [image.label for image in after.images]
    assert before.digest != after.digest
