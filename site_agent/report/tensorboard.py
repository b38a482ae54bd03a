"""TensorBoard event files of a training; written only on request.

Rules
1. The files are for watching: a disk that fills up ends them with a warning, and never the training.
2. The loss of single steps is written every `STEPS_BETWEEN` steps: reading it from a GPU makes the GPU wait.
3. The augmentation sheet shows this hospital's images: the folder stays at the site, like its reports.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fedcervix.core.collapse import collapse_loss
from fedcervix.core.plan import Recipe
from fedcervix.disk.storage import disk
from fedcervix.extras import missing
from fedcervix.runtime.log import logger
from site_agent.report.content import Augmented
from site_agent.report.figures import contact_canvas
from site_agent.training.loop import Epoch, StepReport
from site_agent.training.monitor import images_per_s

STEPS_BETWEEN = 20


class Events:
    """Writes one training into a folder; a context manager, so that the last events reach the disk."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        """Begin an event file. Raises ConfigError where tensorboard is not installed, StorageError."""
        make = _summary_writer()
        with disk(folder, "write"):
            folder.mkdir(parents=True, exist_ok=True)
            self._writer: Any = make(log_dir=str(folder))
        self._collapse = collapse_loss(recipe.batch_images, recipe.loss)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(lambda writer: writer.close())

    def sheet(self, rows: Sequence[Augmented]) -> None:
        """Show training images and what the trainer makes of them."""
        if rows:
            picture = np.asarray(contact_canvas(rows))  # (H, W, 3)
            self._write(lambda writer: writer.add_image("augmentation", picture, 0, dataformats="HWC"))

    def step(self, report: StepReport) -> None:
        """Note the loss of one step, if it is its turn; steps are counted over the whole training."""
        number = (report.epoch - 1) * report.steps + report.step
        if number % STEPS_BETWEEN == 0:
            self._write(lambda writer: writer.add_scalar("loss/step", report.loss, number))

    def epoch(self, epoch: Epoch) -> None:
        """Note what was measured after an epoch."""
        values = scalars(epoch, self._collapse)
        self._write(lambda writer: [writer.add_scalar(tag, value, epoch.train.epoch) for tag, value in values.items()])

    def _write(self, write: Callable[[Any], object]) -> None:
        if self._writer is None:
            return
        try:
            write(self._writer)
        except OSError as error:
            self._writer = None
            logger().warning("tensorboard_events_ended", reason=error.strerror or str(error))


def scalars(epoch: Epoch, collapse: float) -> dict[str, float]:
    """Return the numbers of an epoch by their tag; the gauges are those of the validation images."""
    gauges = {f"gauges/{name}": value for name, value in dataclasses.asdict(epoch.valid.gauges).items()}
    return {
        "loss/train": epoch.train.loss,
        "loss/valid": epoch.valid.loss,
        "loss/collapse": collapse,
        **gauges,
        **({} if epoch.knn_auc is None else {"knn/auc": epoch.knn_auc}),
        "speed/images_per_s": images_per_s(epoch),
    }


def require_tensorboard(folder: Path | None) -> None:
    """Raise ConfigError where event files are asked for and tensorboard is not installed."""
    if folder is not None:
        _summary_writer()


def _summary_writer() -> Any:
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise missing("tensorboard") from error
