"""The history of a site: what it lists, what it compares, what a damaged entry costs."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedcervix.core.plan import Recipe
from fedcervix.errors import ModelError
from site_agent.classifier import classifier_store
from site_agent.report.history import Told, compare, entries
from site_agent.store.provenance import Start
from site_agent.store.report_store import RESULTS_FILE, all_reports, publish
from tests.unit.provenances import DATA, NOW, SMALL, provenance
from tests.unit.sites import Site, site

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that has made everything twice; the second report has the scores of the first one."""
    made = site(tmp_path_factory.mktemp("site"))
    made.federate("run-one", 1)
    made.train("pretrain")
    made.train("finetune")
    made.run("evaluate")
    made.train("pretrain", "--seed", "3")
    made.train("finetune", "--seed", "3")
    [first] = all_reports(made.home.reports)
    told = json.loads((first / RESULTS_FILE).read_text())
    told["provenance"] = [stored.provenance.to_json() for stored in classifier_store.found(made.home)[0]]
    publish(made.home.reports, "second", NOW, {RESULTS_FILE: json.dumps(told).encode()})
    return made


def test_it_lists_what_there_is_and_what_was_before(clinic: Site) -> None:
    found = entries(clinic.home)
    assert not [entry for entry in found if entry.trouble]
    places = sorted(entry.place.partition("-20")[0] for entry in found if entry.kind != "report")
    assert places == sorted(
        [
            *("models/run-one", "models/ssl", "history/models/ssl"),
            *(f"{where}/{name}" for where in EVERYWHERE for name in ("random", "ssl", "csfssl")),
        ]
    )
    assert [entry.kind for entry in found[-2:]] == ["report", "report"]
    [federated] = [entry for entry in found if entry.place == "models/run-one"]
    assert federated.what == "CSFSSL, run run-one, OK"
    assert len({entry.digest for entry in found if entry.kind == "classifier"}) == 6


EVERYWHERE = ("classifiers", "history/classifiers")


def test_the_command_shows_them(clinic: Site) -> None:
    shown = clinic.run("history").output
    for entry in entries(clinic.home):
        assert entry.digest[:8] in shown


def test_two_reports_are_laid_side_by_side(clinic: Site) -> None:
    one, other = (entry.place.removeprefix("reports/") for entry in entries(clinic.home) if entry.kind == "report")
    shown = clinic.run("history", "compare", one, other).output
    assert "Images, labels and splits are the same in both reports." in shown
    assert "another seed" in " ".join(shown.split())
    assert not re.search(r"\d\.\d{3}", shown)  # a handful of women carry no third digit
    with pytest.raises(ModelError, match="there is no report nowhere") as refused:
        clinic.run("history", "compare", one, "nowhere")
    clinic.run(*refused.value.next_step.split()[3:])


@pytest.mark.parametrize("file", ["record.json", "results.json"])
def test_a_damaged_entry_costs_itself_alone(clinic: Site, file: str) -> None:
    before = len(entries(clinic.home))
    part = clinic.home.folder / ("models" if file == "record.json" else "reports")
    damaged = next(place for place in sorted(part.rglob(file)) if not place.parent.is_symlink())
    text = damaged.read_text()
    try:
        for damage in ("", "{", "[]", "{}"):
            damaged.write_text(damage)
            found = entries(clinic.home)
            assert len(found) == before
            [broken] = [entry for entry in found if entry.trouble]
            assert str(damaged) in broken.trouble
            assert broken.trouble in clinic.run("history").output
    finally:
        damaged.write_text(text)


def test_a_home_without_anything_says_so(tmp_path: Path) -> None:
    told = site(tmp_path).run("history").output
    assert "there are no models, classifiers or reports yet" in told
    assert "digest" not in told, "a table without rows"


def test_listing_loads_no_torch(clinic: Site) -> None:
    told = (
        "import sys; from pathlib import Path; from site_agent.home import SiteHome; "
        "import site_agent.commands.history; from site_agent.report.history import entries; "
        f"print(len(entries(SiteHome(Path({str(clinic.home.folder)!r})))), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(entries(clinic.home))), "False"]


# --- comparing: values --------------------------------------------------------------------------------------------

RANDOM = provenance("Random", Start(name="random"))


def told(name: str, *found, score: str = "0.50") -> Told:
    return Told(name=name, scores={one.label: score for one in found}, provenance=tuple(found))


def test_other_test_images_make_scores_incomparable() -> None:
    other = dataclasses.replace(RANDOM, data=dataclasses.replace(DATA, test_images="8" * 64))
    assert compare(told("a", RANDOM), told("b", other))[0] == [
        "The test images are not the same: the scores of the two reports cannot be compared."
    ]


@pytest.mark.parametrize(
    ("other", "remark"),
    [
        (RANDOM, "the same classifier"),
        (provenance("Random", Start(name="random"), weights="v" * 64, seed=2), "another seed"),
        (
            provenance(
                "Random",
                Start(name="x", weights="s" * 64),
                weights="v" * 64,
                recipe=dataclasses.replace(SMALL, image_px=64),
            ),
            "another start, another recipe",
        ),
        (
            provenance("Random", Start(name="random"), weights="v" * 64),
            "the same start, recipe, seed and images; other weights",
        ),
    ],
)
def test_what_differs_between_two_classifiers_of_one_name_is_said(other, remark: str) -> None:
    _, [row] = compare(told("a", RANDOM), told("b", other))
    assert row.remark == remark


def test_a_start_of_one_report_alone_is_shown() -> None:
    ssl = provenance("SSL", Start(name="ssl", weights="s" * 64, recipe=Recipe()))
    _, rows = compare(told("a", RANDOM), told("b", RANDOM, ssl))
    assert [(row.label, row.one, row.other, row.remark) for row in rows] == [
        ("Random", "0.50", "0.50", "the same classifier"),
        ("SSL", "", "0.50", "in one report only"),
    ]
