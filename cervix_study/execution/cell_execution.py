"""How a cell is computed, in any process: from its plan file to a complete folder, or none.

Rules
1. Results are written to a folder of another name, synced, and renamed: `cells/KEY` is a finished cell.
2. What is unfinished lies in `workshop/scratch/KEY`: checkpoints, a federation's homes. Made again, a cell goes on
   there.
3. A cell that is there is not made again, and one that appeared meanwhile is kept.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cervix_study.execution import classifiers, encoders, federations, host, probes
from cervix_study.execution.resource_usage import UsageMeter, added
from cervix_study.execution.worker_context import WorkerContext
from cervix_study.records import (
    CELL_FILE,
    CELLS_FOLDER,
    MODEL_FILE,
    Cell,
    CellProvenance,
    CellRecord,
    ClassifierResults,
    Costs,
    EncoderResults,
    ProbeResults,
    from_json,
    read_cell,
    write,
)
from fedcervix.disk.files import digest_file, sync_path
from fedcervix.disk.storage import disk, read_file
from fedcervix.errors import TrainingError
from site_agent.training.checkpoints import Checkpoints

SPENT_FILE = "spent.json"
"""in a cell's scratch folder: what it cost before it was interrupted"""

CheckpointsFor = Callable[[Path, str], contextlib.AbstractContextManager[Checkpoints]]
"""where a training keeps its checkpoints: (folder, contract)"""


@dataclass(frozen=True, slots=True)
class Made:
    """What making a cell gave."""

    encoder: EncoderResults | None = None
    classifier: ClassifierResults | None = None
    site_probe: ProbeResults | None = None
    details: Mapping[str, object] = field(default_factory=dict)
    """of the cell's record"""


def make(bench: WorkerContext, key: str, keeping: CheckpointsFor) -> CellRecord:
    """Make a cell that is planned; return its record. Raises FedcervixError; what was begun is kept."""
    places, cell = bench.places, bench.places.planned(key)
    there = read_cell(places.folder, key)
    if there is not None:
        return there
    meter, begun_at, scratch = UsageMeter(), host.now(), places.scratch(key)
    with _new_folder(places.folder / CELLS_FOLDER, key) as making:
        try:
            made = _MAKE[_kind(cell)](bench, cell, making, meter, keeping)
        except BaseException:
            _remember(scratch, _in_all(scratch, meter.costs(interruptions=1)))
            raise
        record = CellRecord(
            key=key,
            cell=cell,
            costs=_in_all(scratch, meter.costs()),
            provenance=_provenance(bench, cell, begun_at, made.details),
            encoder=made.encoder,
            classifier=made.classifier,
            site_probe=made.site_probe,
        )
        write(making / CELL_FILE, record)
        _settle(making, places.cell(key))
    shutil.rmtree(scratch, ignore_errors=True)
    return record


def _kind(cell: Cell) -> str:
    return "federated encoder" if cell.kind == "encoder" and cell.terms else cell.kind


def _encoder(bench: WorkerContext, cell: Cell, making: Path, _meter: UsageMeter, keeping: CheckpointsFor) -> Made:
    with keeping(bench.places.scratch(cell.key), cell.key) as checkpoints:
        weights = making / MODEL_FILE
        results = encoders.train(bench, cell, weights, checkpoints=checkpoints, updates_max=_updates_max(bench, cell))
    return Made(encoder=results)


def _updates_max(bench: WorkerContext, cell: Cell) -> int | None:
    """Return how many steps the encoder took that this one is a control of."""
    if cell.control != "equal-updates":
        return None
    [rival] = cell.inputs
    record = read_cell(bench.places.folder, rival)
    if record is None or record.encoder is None:
        raise TrainingError(f"cell {rival}, whose control is {cell.key}, does not exist", next_step="run the study")
    return record.encoder.updates


def _federated(bench: WorkerContext, cell: Cell, making: Path, meter: UsageMeter, _keeping: CheckpointsFor) -> Made:
    homes = {site: bench.places.home(site, cell.fold) for site in cell.sites}
    folder = bench.places.scratch(cell.key)
    found = federations.train(folder, cell, homes, making / MODEL_FILE, meter, bench.on_progress)
    return Made(encoder=found.results, details=found.details)


def _classifier(bench: WorkerContext, cell: Cell, making: Path, _meter: UsageMeter, _keeping: CheckpointsFor) -> Made:
    starts = [digest_file(bench.places.cell(key) / MODEL_FILE) for key in cell.inputs]
    details = {"start_sha256": starts[0]} if starts else {}
    return Made(classifier=classifiers.train(bench, cell, making), details=details)


def _site_probe(bench: WorkerContext, cell: Cell, _making: Path, _meter: UsageMeter, _keeping: CheckpointsFor) -> Made:
    return Made(site_probe=probes.probe(bench, cell))


_MAKE: dict[str, Callable[[WorkerContext, Cell, Path, UsageMeter, CheckpointsFor], Made]] = {
    "encoder": _encoder,
    "federated encoder": _federated,
    "classifier": _classifier,
    "site-probe": _site_probe,
}


def _provenance(bench: WorkerContext, cell: Cell, begun_at: str, details: Mapping[str, object]) -> CellProvenance:
    hardware = bench.places.home(cell.sites[0], cell.fold).config().hardware
    return CellProvenance(
        begun_at=begun_at,
        ended_at=host.now(),
        host=platform.node(),
        machine=bench.machine_name(cell.sites[0], cell.fold),
        threads=hardware.threads,
        versions=host.versions(),
        details=dict(details),
    )


# --- folders ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _new_folder(above: Path, key: str) -> Iterator[Path]:
    """Yield an empty folder for a cell in the making; what is left of it afterwards is removed."""
    folder = above / f".{key}.{os.getpid()}"
    with disk(above, "write"):
        above.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settle(making: Path, cell: Path) -> None:
    """Give a finished cell its name, unless another process was quicker. Raises StorageError."""
    with disk(cell, "write"):
        sync_path(making)
        if not cell.exists():
            making.rename(cell)
            sync_path(cell.parent)


def _remember(scratch: Path, costs: Costs) -> None:
    with disk(scratch, "write"):
        scratch.mkdir(parents=True, exist_ok=True)
    write(scratch / SPENT_FILE, costs)


def _in_all(scratch: Path, costs: Costs) -> Costs:
    """Return the costs with those from before the interruptions."""
    file = scratch / SPENT_FILE
    if not file.exists():
        return costs
    return added(from_json(Costs, read_file(file), file), costs)
