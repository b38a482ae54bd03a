"""A whole study in miniature, by its command line: real processes over TLS, stopped and killed on the way."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cervix_study.records import read_cells, read_data, read_predictions, read_selection, read_study
from site_agent.store.run_store import RunStore
from tests.e2e.loopback import Process, processes_of, start, until

PROGRAM = [sys.executable, "-m", "cervix_study.cli"]
STUDY = """\
name = "mini"
[[sites]]
name = "nhs"
manifest = "nhs/manifest.csv"
[[sites]]
name = "alts"
manifest = "alts/manifest.csv"
[axes]
starts = ["random", "ssl", "csfssl"]
[recipe]
architecture = "resnet18"
image_px = 32
batch_images = 4
epochs_max = 2
[recipe.classifier]
epochs_max = 2
batch_images = 8
"""
CELLS = 2 + 4 + 3
"""random and SSL classifiers with their encoders; the federated encoder and its two classifiers"""


@pytest.fixture
def study(tmp_path: Path, collections: dict[str, Path]) -> Iterator[Callable[..., Process]]:
    """Return what starts the study's program; nothing of it outlives the test."""
    (tmp_path / "study.toml").write_text(STUDY)
    for site, folder in collections.items():
        (tmp_path / site).symlink_to(folder)
    with ExitStack() as stack:

        def run(*options: str) -> Process:
            command = [*PROGRAM, "run", tmp_path / "study.toml", "--out", tmp_path / "out", *options]
            process = start("cervix-study", command, tmp_path / "logs")
            stack.callback(process.end)
            return process

        yield run
    until("no process is left", lambda: not processes_of(tmp_path / "out"), timeout_s=30)
    shutil.rmtree(tmp_path / "out")


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """Return the finished cells: key -> what tells a file from one that was written anew."""
    found = {file.parent.name: file.stat() for file in out.glob("cells/[!.]*/cell.json")}
    return {key: (stat.st_ino, stat.st_mtime_ns) for key, stat in found.items()}


def federation_of(out: Path) -> str:
    """Return the name of the federated run in progress, once its first round was scored; else nothing."""
    runs = [file.parent for file in out.glob("workshop/scratch/*/site-nhs/runs/*/history.jsonl")]
    return runs[0].name if any(RunStore(run).history().score for run in runs) else ""


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_study_that_is_stopped_and_killed_repeats_no_finished_cell(
    tmp_path: Path, study: Callable[..., Process]
) -> None:
    out = tmp_path / "out"

    first = study()
    until("two cells are there", lambda: len(finished(out)) >= 2, seen=lambda: first.text)
    first.signal(signal.SIGINT)  # Ctrl-C
    assert first.ended() == 130
    assert "continue with: cervix-study run" in first.text
    assert read_study(out).state == "stopped"
    after_stop = finished(out)

    second = study()
    run = until("the federation has a round", lambda: federation_of(out), seen=lambda: second.text)
    second.kill()
    until("all that it started has ended", lambda: not processes_of(out), timeout_s=60, seen=lambda: processes_of(out))
    after_kill = finished(out)
    assert after_stop.items() <= after_kill.items()
    assert len(after_kill) == CELLS - 3

    third = study()
    assert third.ended(timeout_s=150) == 0, third.text
    assert after_kill.items() <= finished(out).items()
    assert len(finished(out)) == CELLS
    check_records(out, run)

    everything = {file: file.stat().st_mtime_ns for file in out.glob("cells/*/*")}
    fourth = study()
    assert fourth.ended() == 0, fourth.text
    assert {file: file.stat().st_mtime_ns for file in out.glob("cells/*/*")} == everything


def check_records(out: Path, run: str) -> None:
    """The federation went on where it was killed; test parts are open where the selection says so, and only there."""
    study, cells, selection = read_study(out), read_cells(out), read_selection(out)
    assert (study.state, len(study.cells), study.failed) == ("finished", CELLS, {})
    [federated] = [record for record in cells.values() if record.cell.terms]
    assert federated.encoder is not None
    assert federated.provenance.details["run"] == run
    assert federated.encoder.outcome == "OK"
    assert [turn.number for turn in federated.encoder.curve] == [1, 2]
    assert set(federated.costs.wire_bytes_by_site) == {"nhs", "alts"}
    assert min(federated.costs.wire_bytes_by_site.values()) > 40_000_000  # one ResNet-18 at least
    assert not list(out.glob("workshop/scratch/*"))
    opened = {one.key for one in selection.opened}
    classifiers = {key for key, record in cells.items() if record.classifier}
    assert opened == classifiers
    for key in classifiers:
        splits = {row.split for row in read_predictions(out, key)}
        assert splits == {"valid", "test"}
    rows = {(row.site, row.split) for row in read_data(out).rows}
    assert rows >= {(site, split) for site in ("nhs", "alts") for split in ("train", "valid", "test")}


def test_a_cluster_s_jobs_make_a_study(tmp_path: Path, study: Callable[..., Process]) -> None:
    """The local cluster of submitit: the jobs are what they are on SLURM, only here."""
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    file = tmp_path / "study.toml"
    machine = '[machine]\nexecutor = "slurm"\n[slurm]\ncluster = "local"\ntimeout_min = 5\n'
    file.write_text(STUDY.replace('"random", "ssl", "csfssl"', '"random"') + machine)
    process = study()
    assert process.ended() == 0, process.text
    assert read_study(tmp_path / "out").state == "finished"
    for key in read_cells(tmp_path / "out"):
        assert {row.split for row in read_predictions(tmp_path / "out", key)} == {"valid", "test"}


def test_a_mistake_is_told_in_three_lines(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(STUDY.replace("starts", "startz"))
    done = subprocess.run(
        [*PROGRAM, "run", file], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert done.returncode == 3
    assert "unknown key `axes.startz` (did you mean `starts`?)" in done.stderr
    assert "docs/study.md" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]
