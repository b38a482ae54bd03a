"""What an ended run leaves behind: the cervix model where there is one, and the record of how it came about."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from coordinator.run.prediction import prediction
from coordinator.run.status import ledger_line
from fedcervix import __version__
from fedcervix.core.pace import SitePace
from fedcervix.core.rounds.state import Run
from fedcervix.disk.files import copy_file, digest_file, in_place_of, make_folder, write_whole
from fedcervix.disk.reserve import Reserve
from fedcervix.disk.storage import damaged, disk, read_file
from fedcervix.errors import RunError
from fedcervix.json_text import parsed
from fedcervix.runtime.record import LedgerLine, RecordedRun, RoundTraffic, SoftwareLine, stored_record
from fedcervix.runtime.typed_json import to_text

if TYPE_CHECKING:
    from fedcervix.models.blobs import BlobStore

MODEL_FILE = "cervix-model.safetensors"
RECORD_FILE = "record.json"


def ledger(run: Run) -> tuple[LedgerLine, ...]:
    """Return the roster ledger of every round."""
    return tuple(ledger_line(run, round_) for round_ in run.rounds)


def record(
    run: Run,
    lines: tuple[LedgerLine, ...] | None = None,
    paces: Mapping[str, SitePace] = MappingProxyType({}),
    traffic: tuple[RoundTraffic, ...] = (),
) -> RecordedRun:
    """Return the run's record; `lines` is its ledger, which is made here where it is not given.

    `paces`: what the sites had measured; `traffic`: what moved.
    """
    return RecordedRun(
        run=run.run,
        software=f"fedcervix {__version__}",
        sites=tuple(SoftwareLine(site=site.name, software=site.software) for site in run.sites),
        plan_digest=run.plan.digest,
        plan=parsed(run.plan.canonical()),
        outcome=run.outcome,
        reason=run.reason,
        best_round=run.best_round,
        model=run.best.candidate if run.best_round else None,
        adopted=tuple(run.adopted),
        prediction=prediction(run, paces),
        traffic=traffic,
        ledger=ledger(run) if lines is None else lines,
    )


def store(
    run: Run,
    blobs: BlobStore,
    results: Path,
    paces: Mapping[str, SitePace] = MappingProxyType({}),
    traffic: tuple[RoundTraffic, ...] = (),
) -> Path:
    """Write model and record of an ended run to its folder; done twice, it does the same. Raises StorageError.

    On a full disk, too: the model becomes a second name of the file in the blob store, the record takes of the reserve.
    """
    reserve = Reserve.beside(results)
    folder = reserve.spend(lambda: make_folder(results / run.run))
    if run.best_round and not run.plan.terms.sealed:  # which the sites alone have
        _link(blobs.path(run.best.candidate), folder / MODEL_FILE)
    text = to_text(record(run, paces=paces, traffic=traffic), indent=2).encode()
    reserve.spend(lambda: write_whole(folder / RECORD_FILE, text))
    return folder


def is_stored(results: Path, run: str) -> bool:
    """Say whether a run has ended and left its record. Raises StorageError."""
    with disk(results, "read"):
        return (results / run / RECORD_FILE).is_file()


def read(results: Path, run: str) -> RecordedRun:
    """Return the record of an ended run. Raises StorageError."""
    file = results / run / RECORD_FILE
    text = read_file(file)
    try:
        return stored_record(text)
    except ValueError as error:
        next_step = f"delete it; the next `coordinator start` writes it again from the journal: rm {file}"
        raise damaged(file, error, next_step=next_step) from error


def names(results: Path) -> list[str]:
    """Return the runs that have left a record, oldest first. Raises StorageError."""
    with disk(results, "read"):
        return sorted(file.parent.name for file in results.glob(f"*/{RECORD_FILE}"))


def model_of(results: Path, run: str) -> Path:
    """Return where a run's model lies (or would lie: an aborted run may have none)."""
    return results / run / MODEL_FILE


def export(results: Path, run: str, folder: Path) -> list[Path]:
    """Copy an ended run's model, where it has one, and its record to a folder; return the files written.

    Raises RunError where other files of these names lie there, StorageError.
    """
    copies = {
        file: folder / file.name for file in (results / run / MODEL_FILE, results / run / RECORD_FILE) if file.exists()
    }
    with disk(folder, "read"):
        other = [to for file, to in copies.items() if to.exists() and not _same(file, to)]
    if other:
        raise RunError(
            f"{other[0]} exists already and is a different file: nothing was written",
            cause="the folder holds the export of another run, or files of your own",
            next_step="name another folder, or move that file away",
        )
    make_folder(folder)
    model, said = results / run / MODEL_FILE, read(results, run).model
    if model in copies and digest_file(model) != said:
        raise damaged(
            model,
            f"its digest is not that of the record, {said}",
            next_step="take the model from a site that has it (models/RUN in its home), or from a backup",
        )
    for file, to in copies.items():
        copy_file(file, to)
    return [*copies.values()]


def _link(file: Path, to: Path) -> None:
    """Give a file a second name; copy it where the file system cannot. Raises StorageError."""
    with disk(to, "write"), in_place_of(to, sole_writer=True) as new:
        try:
            new.hardlink_to(file)
        except OSError:
            shutil.copyfile(file, new)


def _same(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(1 << 20):
            if chunk != second.read(len(chunk)):
                return False
        return not second.read(1)
