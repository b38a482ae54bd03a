"""The display of a running study: a bar with the running cells on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich import progress as bars

from cervix_study.execution.estimate import duration
from cervix_study.execution.tasks import CellTask
from cervix_study.planning.cell_names import named
from cervix_study.records import CellRecord
from fedcervix.runtime.printing import console
from fedcervix.runtime.worker_protocol import WorkProgress

PLAIN_S = 60.0
"""in a log file, at most one line of progress within a cell in this time"""


class Screen:
    """Draws what happens. Close it before anything else is printed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console(file=sys.stderr, highlight=False)
        self._clock = clock
        self._bar: bars.Progress | None = None
        self._rows: dict[str, bars.TaskID] = {}
        self._plain_s = clock()
        self._count = ""

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(f"{time.strftime('%H:%M:%S')}  {text}", soft_wrap=True)

    def reading(self, what: str, done: int, of: int) -> None:
        """Show how far images are read or drawn."""
        if self._console.is_terminal:
            self._draw("images", what, done, of, "images")
            if done == of:
                self._drop("images")
        elif done == of and of >= 100:
            self.say(f"{what}: {of:,} images")

    def stand(self, done: int, of: int, left_s: float | None) -> None:
        """Note how many cells of how many are there, and how long the others will take."""
        left = f", at most {duration(left_s)} left" if left_s and done < of else ""
        self._count = f"[{done}/{of}]{left}"
        if self._console.is_terminal:
            self._draw("study", f"cells{left}", done, of, "cells")

    def begun(self, task: CellTask) -> None:
        """Show that a cell is being made."""
        if not self._console.is_terminal and task.processes > 1:
            self.say(f"{self._count} begins: {named(task.cell)}, {task.processes} sites and a coordinator over TLS")

    def progress(self, task: CellTask, at: WorkProgress) -> None:
        """Show how far a cell is."""
        what = f"{named(task.cell)}: {at.stage}"
        if self._console.is_terminal:
            self._draw(task.key, what, at.done, at.of, at.unit)
        elif self._clock() - self._plain_s >= PLAIN_S:
            self._plain_s = self._clock()
            self.say(f"{self._count} {what}, {at.done:,}/{at.of:,} {at.unit}")

    def made(self, task: CellTask, record: CellRecord) -> None:
        """Say that a cell is finished, and what came of it."""
        self._drop(task.key)
        self.say(f"{self._count} {named(task.cell)}: {outcome(record)} ({duration(record.costs.seconds)})")

    def ended(self, task: CellTask) -> None:
        """Take a task off the screen."""
        self._drop(task.key)

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._rows.clear()

    def _draw(self, row: str, what: str, done: int, of: int, unit: str) -> None:
        if self._bar is None:
            text = bars.TextColumn("{task.description}", markup=False)
            columns = (text, bars.BarColumn(), bars.TextColumn("{task.fields[count]}"))
            self._bar = bars.Progress(*columns, console=self._console, transient=True)
            self._bar.start()
        count = f"{done:,}/{of:,} {unit}"
        if row not in self._rows:
            self._rows[row] = self._bar.add_task(what, total=of or None, completed=done, count=count)
        self._bar.update(self._rows[row], description=what, total=of or None, completed=done, count=count)

    def _drop(self, row: str) -> None:
        if self._bar is not None and row in self._rows:
            self._bar.remove_task(self._rows.pop(row))


def outcome(record: CellRecord) -> str:
    """Return what came of a cell, in a few words."""
    if record.encoder:
        loss = record.encoder.validation_loss
        return f"validation loss {loss:.4f}, {record.encoder.updates} updates" if loss is not None else "drawn"
    if record.classifier:
        found = record.classifier
        return f"validation loss {found.validation_loss:.4f}, AUC {found.validation_auc:.3f}, epoch {found.best}"
    assert record.site_probe is not None
    probe = record.site_probe
    return f"balanced accuracy {probe.balanced_accuracy:.3f} (chance {probe.chance:.3f})"
