"""The event files say what the trainer said, and never stop it."""

from __future__ import annotations

import dataclasses
import errno
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from fedcervix.core.plan import Recipe
from fedcervix.errors import ConfigError, StorageError
from site_agent.report.content import Augmented
from site_agent.report.tensorboard import Events
from site_agent.training.collapse_metrics import Gauges
from site_agent.training.loop import Epoch, Score, StepReport, TrainedEpoch

GAUGES = Gauges(zero_rows=0.0, dead_units=0.25, unit_std=0.9, effective_rank=14.0, alignment=0.5, uniformity=-2.5)


def epoch(number: int, knn_auc: float | None) -> Epoch:
    train = TrainedEpoch(epoch=number, loss=1.5, steps=25, images=200, seconds=4.0, gauges=GAUGES)
    return Epoch(train, Score(loss_sum=175.0, count=100, gauges=GAUGES), knn_auc)


def step(epoch_number: int, number: int) -> StepReport:
    return StepReport(epoch_number, number, 25, 8, loss=float(number), loss_sum=0.0)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The events of two epochs of 25 steps, read back."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path_factory.mktemp("events") / "new" / "folder"
    grey = np.full((8, 8, 3), 128, np.uint8)
    with Events(folder, Recipe()) as events:
        events.sheet([Augmented(grey, (grey, grey))])
        for number in (1, 2):
            for k in range(1, 26):
                events.step(step(number, k))
            events.epoch(epoch(number, knn_auc=0.75 if number == 2 else None))
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return found


def curve(read: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 4)) for event in read.Scalars(tag)]


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("loss/train", 1.5),
        ("loss/valid", 1.75),
        ("loss/collapse", 2.7081),
        ("gauges/effective_rank", 14.0),
        ("gauges/uniformity", -2.5),
        ("speed/images_per_s", 50.0),
    ],
)
def test_every_epoch_is_a_point_of_every_curve(read: Any, tag: str, value: float) -> None:
    assert curve(read, tag) == [(1, value), (2, value)]


def test_all_gauges_are_written(read: Any) -> None:
    gauges = {tag.removeprefix("gauges/") for tag in read.Tags()["scalars"] if tag.startswith("gauges/")}
    assert gauges == {field.name for field in dataclasses.fields(Gauges)}


def test_neighbours_have_a_point_where_they_were_asked(read: Any) -> None:
    assert curve(read, "knn/auc") == [(2, 0.75)]


def test_of_the_steps_every_twentieth_is_written(read: Any) -> None:
    """Counted over the training: steps 20 and 40, the latter being step 15 of the second epoch."""
    assert curve(read, "loss/step") == [(20, 20.0), (40, 15.0)]


def test_the_augmentation_sheet_is_one_picture(read: Any) -> None:
    [picture] = read.Images("augmentation")
    assert Pillow.open(io.BytesIO(picture.encoded_image_string)).size == (picture.width, picture.height)
    assert picture.width > 2 * picture.height  # an original and two versions in one row


def test_without_the_package_one_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"tensorboard is not installed; next: .*\[tensorboard\]"):
        Events(tmp_path / "events", Recipe())
    assert not (tmp_path / "events").exists()


def test_a_folder_that_cannot_be_made_is_said_before_training_begins(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        Events(tmp_path / "file" / "events", Recipe())


class FullDisk:
    """A writer on a disk that has filled up."""

    def __init__(self) -> None:
        self.asked = 0

    def add_scalar(self, *_: object) -> None:
        self.asked += 1
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_ends_the_events_and_not_the_training(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    full = FullDisk()
    with Events(tmp_path, Recipe()) as events:
        events._writer.close()
        events._writer = full
        events.epoch(epoch(1, None))
        events.step(step(1, 20))
        events.epoch(epoch(2, None))
    assert full.asked == 1
