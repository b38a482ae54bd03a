"""Export: the ONNX file answers as the network does, the card tells what is known and names nobody."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cervix_study import records
from cervix_study.analysis.analysis import judge
from cervix_study.analysis.result_rows import Finished
from cervix_study.export import card
from cervix_study.export.model_source import Released, find
from cervix_study.export.writing import CARD_FILE, CARD_JSON_FILE, export, network
from cervix_study.records import CELL_FILE, MODEL_FILE, CellRecord
from fedcervix.core.plan import Recipe, parse_recipe
from fedcervix.errors import ModelError
from site_agent.classifier.finetune import build_classifier, predict
from site_agent.classifier.intervals import TOO_FEW_WOMEN, Estimate
from site_agent.classifier.onnx_export import TOLERANCE, _Answers, fixed_pixels, parity, to_onnx
from site_agent.images.decode import decode, square
from site_agent.network.encoder import apply_weights, build_encoder, load_weights, save_weights, snapshot
from tests.unit.synthetic_study import Synthetic, write

pytest.importorskip("onnxscript", reason="the extra `export` is not installed")

SMALL = Synthetic(starts=("random", "csfssl"), batch_images=(8,), seeds=(1,), case_women=4, control_women=6)
RECIPE = dataclasses.replace(Recipe(), architecture="resnet18", image_px=32)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic study in which one federated encoder and its classifier at nhs have weights."""
    return with_weights(write(tmp_path_factory.mktemp("study"), SMALL))


def with_weights(folder: Path) -> Path:
    for record in (of(folder, "encoder"), of(folder, "classifier")):
        place = records.cell_folder(folder, record.key)
        built = (
            build_encoder(record.cell.recipe, 3) if record.encoder else build_classifier(record.cell.recipe, 3, None)[0]
        )
        digest = save_weights(place / MODEL_FILE, snapshot(built))
        results = dataclasses.replace(record.encoder or record.classifier, model=digest)
        part = {"encoder": results} if record.encoder else {"classifier": results}
        records.write(place / CELL_FILE, dataclasses.replace(record, **part))
    started_from(folder, of(folder, "encoder"))
    return folder


def started_from(folder: Path, encoder: CellRecord) -> None:
    """Let the records of an encoder's classifiers say that they started from its weights."""
    assert encoder.encoder is not None
    details = {"start_sha256": encoder.encoder.model}
    for record in Finished.read(folder).cells.values():
        if encoder.key in record.cell.inputs:
            provenance = dataclasses.replace(record.provenance, details=details)
            records.write(
                records.cell_folder(folder, record.key) / CELL_FILE, dataclasses.replace(record, provenance=provenance)
            )


def of(folder: Path, kind: str) -> CellRecord:
    cells = Finished.read(folder).cells.values()
    return next(r for r in cells if r.cell.kind == kind and r.cell.start == "csfssl" and "nhs" in r.cell.sites)


@pytest.fixture(scope="module")
def classifier(study: Path) -> Released:
    return find(records.cell_folder(study, of(study, "classifier").key))


def test_a_model_was_made_with_what_its_cell_was_made_with(classifier: Released) -> None:
    """Not with what the cell is named after: of all versions that compute alike, that is the first."""
    assert classifier.software == "fedcervix 0.2.0, torch 2.14.1"


@pytest.fixture(scope="module")
def exported(classifier: Released, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    _, found = export(classifier, folder)
    assert found.holds
    return folder


def test_the_files_answer_as_the_network_does(exported: Path):
    """By onnxruntime, on another batch size than it was made with, against torch."""
    onnxruntime = pytest.importorskip("onnxruntime")
    told = json.loads((exported / CARD_JSON_FILE).read_text())
    recipe = parse_recipe(told["recipe"])
    built, _ = build_classifier(recipe, 0, None)
    apply_weights(built, load_weights(exported / "classifier.safetensors"), what="the exported classifier")
    session = onnxruntime.InferenceSession(exported / "classifier.onnx", providers=["CPUExecutionProvider"])
    pixels = fixed_pixels(recipe.image_px)[:3]
    (probability,) = session.run(None, {"pixels": pixels})
    assert probability.shape == (3,)

    np.testing.assert_allclose(probability, predict(built, pixels, device=torch.device("cpu")), atol=TOLERANCE)


@pytest.mark.parametrize(
    "module", ["site_agent.classifier.onnx_export", "site_agent.cli", "cervix_study.export.writing"]
)
def test_onnxruntime_is_told_to_report_to_nobody_before_it_can_be_loaded(module: str):
    """A process of its own: in this one somebody may have loaded it."""
    told = f"import os, sys, {module}; print(os.environ.get('ORT_DISABLE_TELEMETRY'), 'onnxruntime' in sys.modules)"
    silent = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", told], env=silent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def test_whoever_follows_the_card_reports_to_nobody(exported: Path):
    text = (exported / CARD_FILE).read_text()
    assert text.index('os.environ["ORT_DISABLE_TELEMETRY"] = "1"') < text.index("import numpy as np, onnxruntime")


def test_the_cards_example_gives_the_networks_own_answer(exported: Path, monkeypatch: pytest.MonkeyPatch):
    """A photograph that lies on its side by EXIF, larger than the network's input: the example is run as it stands."""
    pytest.importorskip("onnxruntime")
    rough = np.random.default_rng(3).integers(0, 256, (9, 12, 3), np.uint8)
    photograph = Image.fromarray(rough).resize((640, 480), Image.Resampling.NEAREST)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture = exported / "picture.jpg"
    photograph.save(picture, exif=turned, quality=95)
    example = next(part for part in (exported / CARD_FILE).read_text().split("```") if "InferenceSession" in part)
    monkeypatch.chdir(exported)
    told: dict[str, object] = {}
    exec(example.partition("\n")[2], told)
    recipe = parse_recipe(json.loads((exported / CARD_JSON_FILE).read_text())["recipe"])
    built, _ = build_classifier(recipe, 0, None)
    apply_weights(built, load_weights(exported / "classifier.safetensors"), what="the exported classifier")
    pixels = square(decode(picture), recipe.image_px, recipe.fit)[None]
    expected = predict(built, pixels, device=torch.device("cpu"))
    np.testing.assert_allclose(told["probability"], expected, atol=TOLERANCE)
    picture.unlink()


def test_the_onnx_file_says_nothing_of_the_machine_that_made_it(exported: Path):
    content = (exported / "classifier.onnx").read_bytes()
    for trace in (b"site_agent", b"portable.py", b".venv", str(Path.home()).encode() + b"/"):
        assert trace not in content, trace
    assert b"not a medical device" in content


def test_an_encoder_gives_features_and_representation():
    encoder = build_encoder(RECIPE, 1)
    content, found = to_onnx(encoder, 32, {})
    assert found.holds
    assert set(found.differences) == {"features", "representation"}
    other = parity(_whole(build_encoder(RECIPE, 2)), content, 32, ("features", "representation"))
    assert not other.holds, "another network's file does not pass"


def _whole(encoder):
    return _Answers(encoder, None).eval()


def test_the_card_says_what_is_known(classifier: Released, exported: Path):
    text = (exported / CARD_FILE).read_text()
    for heading in (
        "Model details",
        "Intended use",
        "Factors",
        "Metrics",
        "Evaluation data",
        "Training data",
        "Quantitative analyses",
        "Ethical considerations",
        "Caveats and recommendations",
        "How to load it",
    ):
        assert f"\n## {heading}\n" in text, heading
    assert "Not a medical device" in text
    assert "nhs: 20 test images of 10 women, 8 of them images of cases" in text
    assert classifier.digest in text
    assert "Apache-2.0" in text
    assert "images/" not in text
    assert "nhs-test-" not in text


def test_card_and_report_print_the_same_intervals(tmp_path: Path):
    """One classifier, one training: the same numbers to the last digit, by whatever road."""
    folder = with_weights(write(tmp_path, dataclasses.replace(SMALL, case_women=24, control_women=30)))
    (judged,) = find(records.cell_folder(folder, of(folder, "classifier").key)).judged
    findings = judge(Finished.read(folder))
    site = next(found for found in findings.sites if found.site == judged.site)
    row = next(scores for scores in site.scores if scores.start == "csfssl")
    assert judged.evaluation.auc.interval is not None
    assert judged.evaluation.auc == row.measures["auc"]
    for name in ("accuracy", "recall", "precision", "f1"):
        assert getattr(judged.evaluation.fixed, name) == row.measures[name]
        assert getattr(judged.evaluation.chosen, name) == row.at_validation[name]


def test_a_card_of_few_test_women_has_no_interval(classifier: Released, exported: Path):
    """Four women are cases, six are not."""
    text = (exported / CARD_FILE).read_text()
    told = json.loads((exported / CARD_JSON_FILE).read_text())
    assert told["tests"][0]["auc"] == dataclasses.asdict(
        Estimate.alone(classifier.judged[0].evaluation.auc.value, TOO_FEW_WOMEN)
    )
    analyses = text[text.index("## Quantitative analyses") : text.index("## Ethical considerations")]
    assert "no interval" in analyses
    assert " to " not in analyses
    assert "10 women: fewer than 20 test women of a class, so there is no interval and no conclusion." in text


def test_the_card_for_programs_holds_the_same(classifier: Released, exported: Path):
    told = json.loads((exported / CARD_JSON_FILE).read_text())
    assert told["format"] == card.FORMAT
    assert told["medical_device"] is False
    assert told["training"]["sites"] == ["nhs", "alts"], "those of the encoder as well"
    assert told["files"]["weights_sha256"] == classifier.digest
    assert told["tests"][0]["site"] == "nhs"
    assert told["tests"][0]["auc"]["value"] == classifier.judged[0].evaluation.auc.value
    assert told["training"]["pictures_under_several_patients"] == {"nhs": 1, "alts": 0}


def test_a_cervix_models_card_shows_the_classifiers_that_start_from_it(study: Path):
    model = find(records.cell_folder(study, of(study, "encoder").key))
    assert (model.kind, model.start) == ("cervix model", "CSFSSL")
    assert sorted(test.site for test in model.judged) == ["alts", "nhs"]
    assert model.origin["plan_digest"] == "ab" * 32
    assert [line.round for line in model.rounds] == list(range(1, 13))


def test_a_cervix_model_that_was_trained_again_has_no_tests(study: Path, tmp_path: Path):
    """Its classifiers started from the weights before."""
    again = tmp_path / "study"
    shutil.copytree(study, again)
    record = of(again, "encoder")
    assert record.encoder is not None
    trained = dataclasses.replace(record, encoder=dataclasses.replace(record.encoder, model="0" * 64))
    records.write(records.cell_folder(again, record.key) / CELL_FILE, trained)
    assert find(records.cell_folder(again, record.key)).judged == ()


def test_a_key_may_be_shortened(study: Path):
    key = of(study, "classifier").key
    assert find(study / "cells" / key[:12]).digest == find(study / "cells" / key).digest


def test_weights_that_are_not_what_the_record_names_are_refused(classifier: Released, tmp_path: Path):
    damaged = tmp_path / "damaged.safetensors"
    save_weights(damaged, snapshot(build_classifier(classifier.recipe, 4, None)[0]))
    with pytest.raises(ModelError, match="not the file that its record names"):
        export(dataclasses.replace(classifier, weights=damaged), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_holds_no_model_says_so(study: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="holds no model"):
        find(tmp_path)
    other = next(r for r in Finished.read(study).cells.values() if r.cell.start == "random")
    with pytest.raises(ModelError, match="has no weights"):
        find(records.cell_folder(study, other.key))


def test_a_control_is_no_model_to_use(classifier: Released):
    control = dataclasses.replace(classifier, origin={**classifier.origin, "control": "shuffled-labels"})
    assert any("It is a control of a study" in line for line in card.limitations(control))


def test_the_network_is_the_weights(classifier: Released):
    state, own = network(classifier).state_dict(), load_weights(classifier.weights)
    assert all((state[name] == own[name]).all() for name in own)
