"""`site-agent evaluate`, from classifiers to a folder with page, numbers and predictions."""

from __future__ import annotations

import csv
import json
import shutil
import stat
from pathlib import Path

import pytest
import torch
from click.testing import Result

from site_agent.report.results import parse
from site_agent.store.report_store import all_reports, newest
from tests.unit.sites import Site, site

torch.set_num_threads(1)

TEST_IMAGES, TEST_WOMEN, STARTS = 8, 4, 2


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a federation's model, and classifiers from it and from random weights."""
    made = site(tmp_path_factory.mktemp("site"))
    made.federate("run-1", 0)
    made.train("finetune")
    return made


@pytest.fixture(scope="module")
def evaluated(tuned: Site) -> tuple[Site, Result]:
    return tuned, tuned.run("evaluate")


def folder(made: Site) -> Path:
    found = newest(made.home.reports)
    assert found is not None
    return found


def test_a_report_has_page_numbers_and_predictions_for_their_owner_alone(evaluated: tuple[Site, Result]) -> None:
    made, _ = evaluated
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder(made).iterdir()}
    names = ("report.html", "clinical.html", "results.json", "predictions.csv", "women.csv")
    assert files == dict.fromkeys(names, 0o600)
    assert folder(made).name.endswith("-run-1")


def test_every_test_image_and_woman_has_a_row_for_each_start(evaluated: tuple[Site, Result]) -> None:
    made, _ = evaluated
    rows = {
        name: list(csv.DictReader((folder(made) / name).open(newline=""))) for name in ("predictions.csv", "women.csv")
    }
    assert len(rows["predictions.csv"]) == TEST_IMAGES * STARTS
    assert len(rows["women.csv"]) == TEST_WOMEN * STARTS
    by_start = {row["start"]: row["classifier_sha256"] for row in rows["predictions.csv"]}
    results = parse((folder(made) / "results.json").read_text("utf-8"))
    assert by_start == {one.label: one.weights for one in results.provenance}


def test_the_steps_are_told_while_one_waits(evaluated: tuple[Site, Result]) -> None:
    _, done = evaluated
    for step in ("looking at the images", "scoring test images by Random: classifier 1/2", "drawing the page"):
        assert f"evaluate: {step}" in done.stderr
        assert step not in done.stdout


def test_what_is_printed_says_the_answer_what_is_missed_and_what_it_is_not(evaluated: tuple[Site, Result]) -> None:
    _, done = evaluated
    words = " ".join(done.stdout.split())
    assert words.startswith("No conclusion: fewer than 20 test women of a class.")
    assert "no model was trained on our own images alone" in words.lower()
    assert "of 4 case images and" in words
    assert "Not a medical device." in words
    assert "probabilities are not calibrated" in words


def test_a_second_report_leaves_the_first_alone(evaluated: tuple[Site, Result]) -> None:
    made, _ = evaluated
    before = {file: file.read_bytes() for file in folder(made).iterdir()}
    made.run("evaluate", "--name", "second")
    assert len(all_reports(made.home.reports)) == 2
    assert folder(made).name.endswith("-second")
    assert all(file.read_bytes() == content for file, content in before.items())


NOT_A_NUMBER = '{"ledger": [{"round": 1, "loss": NaN, "contributions": [], "missing": []}]}'


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        ({"record.json": "{ torn"}, ["The ledger of run run-1 (record.json) cannot be read"]),
        ({"record.json": "[" * 100_000}, ["The ledger of run run-1 (record.json) cannot be read"]),
        (
            {"record.json": NOT_A_NUMBER.replace("NaN", "1").replace('"round": 1', f'"round": {10**400}')},
            ["The ledger of run run-1 (record.json) cannot be read"],
        ),
        ({"plan.json": "{ torn"}, ["The plan of the federation's run cannot be read"]),
        (
            {"record.json": NOT_A_NUMBER, "history.jsonl": '{"part": "score", "round": 1, "values": {}}'},
            [
                "The ledger of run",
                "The history of the last run cannot",
                "The gauges of the federation's run cannot",
                "The audits of the updates cannot",
            ],
        ),
    ],
    ids=["ledger", "deep ledger", "huge round", "plan", "ledger and history"],
)
def test_a_damaged_record_costs_its_section_and_not_the_report(
    tuned: Site, tmp_path: Path, damaged: dict[str, str], said: list[str]
) -> None:
    copy = tmp_path / "home"
    shutil.copytree(tuned.home.folder, copy)
    made = Site(type(tuned.home)(copy), tuned.manifest, tuned.recipe)
    for file, content in damaged.items():
        (copy / "runs" / "run-1" / file).write_text(content)
    words = " ".join(made.run("evaluate").stdout.split())
    assert json.loads((folder(made) / "results.json").read_text())["unread_sections"] == len(said)
    page = (folder(made) / "report.html").read_text("utf-8").replace("&#39;", "'")
    for sentence in said:
        assert f"Missing: {sentence}" in words
        assert sentence in page
