"""What an earlier release left behind goes on with today's programs: it starts, ends, shows, exports and fine-tunes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive.homes import HERE, KINDS, LIGHT, Archived, Kind, archived, unpack
from tests.e2e.loopback import Process, call, start
from tests.e2e.test_study import PROGRAM, finished

RELEASES = sorted(folder.name for folder in HERE.iterdir() if (folder / "release.json").exists())
SLICE = {Kind("csfssl", "none"), Kind("ppfssl", "bfloat16"), Kind("csfssl", "int8")}
"""of the kinds of runs: those that `make test` ends"""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def said(federation: Archived, *words: str | Path) -> str:
    """Call a command of the coordinator on an archived home; return what it says."""
    code, output = call("coordinator", "--home", federation.home.folder, *words, cwd=federation.folder)
    assert code == 0, output
    return output


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in SLICE else pytest.mark.long) for kind in KINDS], ids=str
)
def test_homes_that_were_killed_in_mid_run_are_shown_and_end_with_the_right_model(
    release: str, kind: Kind, tmp_path: Path
) -> None:
    with archived(release, str(kind), tmp_path / "homes") as federation:
        assert kind.mode in said(federation, "runs")
        assert kind.mode in said(federation, "status")
        said(federation, "backup", federation.folder / "before.tar")
        coordinator = federation.coordinate()
        assert "run continues" in coordinator.text
        for site in federation.sites:
            federation.reach(site)
        federation.finish(coordinator, *[federation.light(site, *LIGHT) for site in federation.sites])
        assert federation.record()["outcome"] == "OK"
        assert federation.result() == federation.expected["result"]
        assert federation.record()["plan_digest"] == federation.expected["plan"]


@pytest.fixture(params=RELEASES)
def ended(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archived]:
    with archived(request.param, "ended", tmp_path / "homes", sites=("nhs",)) as federation:
        yield federation


def at_site(federation: Archived, *words: str) -> str:
    code, output = call("site-agent", "--home", federation.site("nhs").folder, *words, cwd=federation.folder)
    assert code == 0, output
    return output


def test_an_ended_run_is_shown_exported_fine_tuned_and_evaluated(ended: Archived) -> None:
    run = ended.record()["run"]
    assert run in said(ended, "runs")
    assert "OK" in said(ended, "status", run)
    said(ended, "export", run, ended.folder / "exported")
    assert (ended.folder / "exported" / "cervix-model.safetensors").exists()

    ended.reach("nhs", ended.folder / "collections" / "nhs" / "manifest.csv")
    [old] = ended.site("nhs").reports.glob("*/results.json")
    at_site(ended, "evaluate")
    at_site(ended, "finetune", "--start", run)
    at_site(ended, "evaluate")
    assert len([*ended.site("nhs").reports.glob("[0-9]*/results.json")]) == 3
    assert old.parent.name[:15] in at_site(ended, "history")


def test_the_models_of_old_homes_are_listed_checked_and_retired(ended: Archived) -> None:
    run, digest = ended.record()["run"], ended.record()["model"]
    assert digest[:12] in said(ended, "models", "list")
    assert "0 faults" in said(ended, "models", "verify")
    ended.reach("nhs")
    listed = at_site(ended, "models", "list")
    assert [f"models/{run}" in listed, "classifiers/csfssl" in listed] == [True, True]
    assert "0 faults" in at_site(ended, "models", "verify")
    at_site(ended, "models", "retire", run, "--reason", "wrong labels")
    assert f"made from {digest[:12]}, which is" in " ".join(at_site(ended, "models", "list").split())


def test_a_new_run_begins_in_an_old_home(ended: Archived) -> None:
    coordinator = ended.coordinate("--mode", "csfssl")
    ended.reach("nhs")
    ended.finish(coordinator, ended.light("nhs", *LIGHT))
    assert len(said(ended, "runs").splitlines()) > 2


def study(folder: Path, *options: str) -> Process:
    words = [*PROGRAM, "run", folder / "study.toml", "--out", folder / "out", *options]
    return start("cervix-study", words, folder / "logs")


@pytest.mark.parametrize("release", RELEASES)
def test_the_finished_cells_of_a_study_that_was_killed_are_recognised(release: str, tmp_path: Path) -> None:
    unpack(release, "study", tmp_path)
    process = study(tmp_path, "--dry-run")
    assert process.ended() == 0, process.text
    assert len(finished(tmp_path / "out")) == 6
    assert " cells, 6 finished; " in process.text


@pytest.mark.long
@pytest.mark.parametrize("release", RELEASES)
def test_a_study_that_was_killed_goes_on_and_repeats_no_cell(release: str, tmp_path: Path) -> None:
    unpack(release, "study", tmp_path)
    before = finished(tmp_path / "out")
    process = study(tmp_path)
    assert process.ended(timeout_s=240) == 0, process.text
    after = finished(tmp_path / "out")
    assert len(before) == 6
    assert len(after) == 9
    assert {cell: after[cell] for cell in before} == before
