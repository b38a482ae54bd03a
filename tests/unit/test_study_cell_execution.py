"""Cells are made whole or not at all, by the trainer's own functions; controls do what they say."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.every_epoch import train
from cervix_study.data.preparation import Ground, prepare
from cervix_study.execution.cell_execution import make
from cervix_study.execution.classifiers import open_test
from cervix_study.execution.encoders import bounded
from cervix_study.execution.worker_context import WorkerContext
from cervix_study.planning.grid import followers, grid
from cervix_study.planning.selection import choose
from cervix_study.records import Cell, CellRecord, read_predictions
from cervix_study.settings import StudyConfig, read
from cervix_study.study_paths import Places
from fedcervix.core.plan import Recipe
from fedcervix.disk.files import digest_file
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.classifier.finetune import build_classifier
from site_agent.network.encoder import load_weights
from site_agent.training.checkpoints import Checkpoints
from tests.unit.test_study_preparation import SILENT, SITES, collect

STUDY = """\
name = "small"
[[sites]]
name = "nhs"
manifest = "nhs/manifest.csv"
[[sites]]
name = "alts"
manifest = "alts/manifest.csv"
[axes]
starts = ["random", "ssl", "cssl"]
label_fractions = [0.1]
controls = ["shuffled-labels", "equal-updates", "one-site-batches", "site-predictability"]
[recipe]
architecture = "resnet18"
image_px = 32
batch_images = 4
width = 8
epochs_max = 2
[recipe.classifier]
epochs_max = 2
batch_images = 8
"""


@dataclasses.dataclass
class Small:
    """A small study, its cells, and the bench they are made on."""

    asked: StudyConfig
    ground: Ground
    bench: WorkerContext
    told: list[dict[str, Any]]

    @property
    def places(self) -> Places:
        return self.bench.places

    def cells(self) -> dict[str, Cell]:
        return {cell.key: cell for cell in grid(self.asked, self.ground)}

    def make(self, cell: Cell) -> CellRecord:
        self.places.put_plan(cell)
        return make(self.bench, cell.key, keeping)


@contextlib.contextmanager
def keeping(folder: Path, contract: str) -> Iterator[Checkpoints]:
    yield Checkpoints(folder, contract)


@pytest.fixture(autouse=True, scope="module")
def threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites")
    for site in SITES:
        collect(folder / site)
    return folder


@pytest.fixture(scope="module")
def small(collections: Path) -> Small:
    (collections / "study.toml").write_text(STUDY)
    asked, places = read(collections / "study.toml"), Places(collections / "out")
    told: list[dict[str, Any]] = []
    return Small(asked, prepare(asked, places, SILENT), WorkerContext(places, told.append), told)


@pytest.fixture(scope="module")
def records(small: Small) -> dict[str, CellRecord]:
    """All cells, one after the other, as a study makes them: encoders, classifiers, then what follows a choice."""
    cells = small.cells()
    made = {key: small.make(cell) for key, cell in cells.items()}
    later = followers(small.asked, small.ground, choose(cells.values(), made), cells)
    return made | {cell.key: small.make(cell) for cell in later}


def test_the_equal_updates_control_takes_no_more_steps_than_its_rival(records: dict[str, CellRecord]) -> None:
    controls = [r for r in records.values() if r.encoder and r.cell.control == "equal-updates"]
    assert len(controls) == 2
    for record in controls:
        rival = records[record.cell.inputs[0]]
        pooled = next(r for r in records.values() if r.encoder and r.cell.start == "cssl" and r.cell.control == "none")
        assert record.encoder is not None
        assert rival.encoder is not None
        assert pooled.encoder is not None
        assert record.encoder.updates <= rival.encoder.updates < pooled.encoder.updates
        assert record.encoder.images == pooled.encoder.images


def test_the_one_site_control_has_an_encoder_and_classifiers_of_its_own(records: dict[str, CellRecord]) -> None:
    """The same images, in mini-batches of one site each: another encoder, and classifiers that begin from it."""
    pooled = {r.cell.control: r.encoder for r in records.values() if r.encoder and r.cell.start == "cssl"}
    mixed, own = pooled["none"], pooled["one-site-batches"]
    assert own.images == mixed.images
    assert own.model != mixed.model
    assert 0 <= mixed.updates - own.updates <= 2  # a site's last partial batch is its own
    [encoder] = [key for key, r in records.items() if r.encoder and r.cell.control == "one-site-batches"]
    learners = [r.cell for r in records.values() if r.classifier and r.cell.control == "one-site-batches"]
    assert [(cell.site, cell.inputs) for cell in learners] == [("nhs", (encoder,)), ("alts", (encoder,))]
    assert [r.cell.inputs for r in records.values() if r.site_probe and r.cell.control != "none"] == [(encoder,)]


@pytest.mark.long
def test_an_encoder_trained_epoch_by_epoch_is_the_study_s_own(
    small: Small, records: dict[str, CellRecord], tmp_path: Path
) -> None:
    """The benchmark that keeps an encoder after every epoch trains the study's own one again, to the same bits."""
    for key, record in records.items():
        if record.encoder and record.cell.start == "cssl" and record.cell.control != "equal-updates":
            train(small.bench, record.cell, None, tmp_path / key)
            assert digest_file(tmp_path / key / f"epoch{record.encoder.best}.safetensors") == record.encoder.model
            train(small.bench, record.cell, 0.1, tmp_path / "faster")
            assert digest_file(tmp_path / "faster" / "epoch1.safetensors") != digest_file(
                tmp_path / key / "epoch1.safetensors"
            )


def test_shuffled_labels_train_and_true_ones_are_stored(small: Small, records: dict[str, CellRecord]) -> None:
    """The labels that are kept beside the predictions are the true ones."""
    plain = {r.cell.site: key for key, r in records.items() if r.classifier and r.cell.start == "random"}
    found = {key: r.cell.site for key, r in records.items() if r.cell.control == "shuffled-labels"}
    assert found
    for key, site in found.items():
        labels = [[row.label for row in read_predictions(small.places.folder, one)] for one in (key, plain[site])]
        assert labels[0] == labels[1]


def test_a_share_of_the_labels_is_of_women_of_both_classes(records: dict[str, CellRecord]) -> None:
    for record in records.values():
        if record.classifier and record.cell.label_fraction < 1:
            assert (record.classifier.train_women, record.classifier.train_images) == (2, 4)
            assert record.classifier.train_cases == 2


def test_each_encoder_has_one_site_probe(records: dict[str, CellRecord]) -> None:
    probes = [r.site_probe for r in records.values() if r.site_probe]
    assert len(probes) == 1 + 2 + 1 + 1  # random weights, SSL of either site, pooled, pooled in unmixed mini-batches
    for probe in probes:
        assert probe.chance == 0.5
        assert probe.balanced_accuracy == pytest.approx(sum(probe.recall.values()) / 2)


def test_a_test_part_is_opened_once_and_beside_the_validation_part(
    small: Small, records: dict[str, CellRecord]
) -> None:
    key, record = next((k, r) for k, r in records.items() if r.classifier)
    before = read_predictions(small.places.folder, key)
    assert {row.split for row in before} == {"valid"}
    for _ in range(2):  # done twice, it does the same
        open_test(small.bench, record.cell, small.places.cell(key), keep_weights=True)
    after = read_predictions(small.places.folder, key)
    assert after[: len(before)] == before
    assert {row.split for row in after[len(before) :]} == {"test"}
    assert not {row.patient for row in before} & {row.patient for row in after[len(before) :]}
    open_test(small.bench, record.cell, small.places.cell(key), keep_weights=False)
    assert sorted(file.name for file in small.places.cell(key).iterdir()) == ["cell.json", "predictions.csv"]


def test_a_finished_cell_is_not_made_again(small: Small, records: dict[str, CellRecord]) -> None:
    files = {key: (small.places.cell(key) / "cell.json").stat().st_ino for key in records}
    for record in records.values():
        assert small.make(record.cell) == record
    assert files == {key: (small.places.cell(key) / "cell.json").stat().st_ino for key in records}


def test_an_interrupted_cell_leaves_nothing_half_written_and_remembers_what_it_cost(small: Small) -> None:
    cell = dataclasses.replace(next(iter(small.cells().values())), seed=7)

    def interrupt(_at: WorkProgress) -> None:
        raise KeyboardInterrupt

    small.bench.on_progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        small.make(cell)
    small.bench.on_progress = small.told.append
    assert not small.places.cell(cell.key).exists()
    assert not list((small.places.folder / "cells").glob(".*"))
    record = small.make(cell)
    assert record.costs.interruptions == 1
    assert not small.places.scratch(cell.key).exists()


def test_a_random_start_is_what_site_agent_finetune_begins_from(small: Small) -> None:
    """So a study's Random is a hospital's Random; with one epoch at rate zero the weights are still there."""
    cell = next(iter(small.cells().values()))
    still = dataclasses.replace(cell.recipe.classifier, lr=1e-30, epochs_max=1)
    record = small.make(dataclasses.replace(cell, recipe=dataclasses.replace(cell.recipe, classifier=still)))
    assert record.classifier is not None
    kept = load_weights(small.places.cell(record.key) / "model.safetensors")
    classifier, _ = build_classifier(cell.recipe, cell.seed, None)
    for name, tensor in classifier.state_dict().items():
        if name.endswith("weight"):
            # One of the eleven million is drawn as zero: a step of 1e-30 shows there and nowhere else.
            assert torch.allclose(tensor, kept[name], rtol=0, atol=1e-29), (name, (tensor - kept[name]).abs().max())


@pytest.mark.parametrize(
    ("images", "updates_max", "epochs"),
    [(100, None, 50), (100, 1000, 50), (100, 99, 8), (100, 96, 8), (100, 12, 1), (100, 5, 1)],
)
def test_the_equal_updates_control_trains_whole_epochs(images: int, updates_max: int | None, epochs: int) -> None:
    """100 images at N = 8: twelve steps an epoch."""
    assert bounded(Recipe(), images, updates_max).epochs_max == epochs
