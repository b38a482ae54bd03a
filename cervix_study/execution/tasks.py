"""The work of a study as values: tasks, reports about them, and which task may begin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cervix_study.records import Cell, StudyRecord
from fedcervix.errors import ConfigError, DataError, FedcervixError, ModelError, StorageError, TrainingError
from fedcervix.runtime.worker_protocol import Failure, WorkProgress
from site_agent.starts import is_ring

Work = Literal["make", "open", "open and drop weights", "time"]


@dataclass(frozen=True, slots=True)
class CellTask:
    """A cell to be made, its test part to be opened, or what it is made of to be timed."""

    work: Work
    cell: Cell
    key: str
    processes: int = 1
    """that train at the same time"""


@dataclass(frozen=True, slots=True)
class Order(StudyRecord):
    """What a process is asked: a kind of work, on the cell of this key."""

    work: Work
    key: str


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """How far a task is."""

    task: CellTask
    at: WorkProgress


@dataclass(frozen=True, slots=True)
class TaskDone:
    """A task is done."""

    task: CellTask


@dataclass(frozen=True, slots=True)
class Failed:
    """A cell cannot be made as it is asked for. Others can."""

    task: CellTask
    error: FedcervixError
    trace: str = ""


Told = TaskProgress | TaskDone | Failed


def make(cell: Cell) -> CellTask:
    """Return the task that makes a cell. In a federation every site trains at the same time; in a ring one does."""
    federated = cell.kind == "encoder" and cell.terms is not None and not is_ring(cell.start)
    return CellTask("make", cell, cell.key, len(cell.sites) if federated else 1)


def ready(waiting: Sequence[CellTask], done: Iterable[str]) -> list[CellTask]:
    """Return the tasks all of whose inputs are there; what does not make a cell needs none."""
    there = set(done)
    return [task for task in waiting if task.work != "make" or there.issuperset(task.cell.inputs)]


def blocked(waiting: Sequence[CellTask], failed: Mapping[str, str]) -> dict[str, str]:
    """Return (key -> why) of the tasks that wait for a cell that failed."""
    found: dict[str, str] = {}
    for task in waiting:
        lost = [key for key in task.cell.inputs if key in failed or key in found]
        if lost:
            found[task.key] = f"cell {lost[0]}, from which it starts, could not be made"
    return found


def error_of(failure: Failure) -> FedcervixError:
    """Return the error that another process told of."""
    return failure.trouble.error(_KNOWN.get(failure.kind, FedcervixError))


_KNOWN = {kind.__name__: kind for kind in (TrainingError, ModelError, DataError, StorageError, ConfigError)}


def passed_by(error: FedcervixError) -> bool:
    """Return whether an error is that of one cell, which others do without; a full disk or a bug stops the study."""
    return isinstance(error, TrainingError | ModelError)
