"""`coordinator backup`: the home as it is at one moment, in one file, also while the coordinator works.

The moment is that of the journal's copy. Then the models that the run needs at that moment are opened: they are named
by their content, and a file that is open can be read to its end, also when the coordinator has deleted it since. If one
was deleted before, a new copy is made. Results are those of runs that have ended in the copy. The registry is copied
after the journal: it may know a certificate more, never one less.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from io import FileIO
from pathlib import Path

from coordinator.backup.archive import Label, Writer
from coordinator.backup.placing import check_outside, give_name, scratch_beside
from coordinator.home.home import Home
from coordinator.run import history, results
from coordinator.run.incoming import needed
from fedcervix import __version__
from fedcervix.core.rounds.state import Run
from fedcervix.disk.databases import copy_database, data_version, reader
from fedcervix.disk.files import opened, replacing
from fedcervix.disk.journal import Journal
from fedcervix.disk.storage import disk
from fedcervix.errors import FormatError, RunError, StorageError
from fedcervix.models.blobs import BlobStore

WHOLE = "whole"
TRIES = 50
"""of a copy of the journal that is still the newest when the models are open"""


@dataclass(slots=True)
class Snapshot:
    """A home at one moment."""

    journal: Path | None = None
    """a copy; None where no run has begun"""
    run: Run | None = None
    """the last one"""
    models: dict[str, FileIO] = field(default_factory=dict)
    """by their paths in the home, the open files that the last run needs to go on"""


def backup(home: Home, to: Path, now: datetime) -> Label:
    """Write the home into the new file `to`, and return what it says of itself. Raises FedcervixError."""
    federation = home.config().federation.name
    home.authority()
    check_outside(home, to)
    with contextlib.ExitStack() as held:
        held.enter_context(disk(to, "write"))
        scratch = held.enter_context(scratch_beside(to))
        taken = _snapshot(home, scratch, held.enter_context(contextlib.ExitStack()))
        label = _label(federation, taken.run, now)
        with replacing(scratch / WHOLE) as out:
            archive = Writer(out, label)
            for name, path in _files(home, taken, scratch):
                with opened(path) as file:
                    archive.add(name, file)
            for name, model in taken.models.items():
                archive.add(name, model)
            archive.close()
        give_name(scratch / WHOLE, to)
    return label


def _label(federation: str, run: Run | None, now: datetime) -> Label:
    software, made_at = f"fedcervix {__version__}", now.isoformat(timespec="seconds")
    if run is None:
        return Label(software=software, made_at=made_at, federation=federation)
    return Label(
        software=software,
        made_at=made_at,
        federation=federation,
        run=run.run,
        round=len(run.rounds),
        outcome=run.outcome.value if run.outcome else "",
    )


def _files(home: Home, taken: Snapshot, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield the other files, each with its path in the home."""
    yield home.config_file.name, home.config_file
    yield from _below(home, home.key_file(""))
    if home.has(home.registry):
        registry = scratch / home.registry.name
        with reader(home.registry, "the registry") as known:
            copy_database(known, registry)
        yield registry.name, registry
    if taken.journal:
        yield home.journal.name, taken.journal
    yield from _below(home, home.decisions)
    yield from _below(home, home.paces)
    for name, path in _below(home, home.results):
        if taken.run is None or taken.run.ended or path.parent.name != taken.run.run:
            yield name, path


def _below(home: Home, folder: Path) -> list[tuple[str, Path]]:
    """Return the finished files below a folder of the home; unfinished ones are hidden."""
    with disk(folder, "read"):
        found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [(path.relative_to(home.folder).as_posix(), path) for path in found]


def _snapshot(home: Home, scratch: Path, files: contextlib.ExitStack) -> Snapshot:
    """Return the home at one moment: a model that was deleted before it was opened is worth another try."""
    if not home.has(home.journal):
        return Snapshot()
    copy = scratch / home.journal.name
    Journal(home.journal, read_only=True).close()  # where it cannot be read, the home's own file is named
    with reader(home.journal, "the journal") as journal:
        for _ in range(TRIES):
            version = data_version(journal)
            copy_database(journal, copy)
            taken, missing = _with_models(home, copy, files)
            if not missing:
                return taken
            if data_version(journal) == version:
                raise lost(missing[0])
            files.close()
            copy.unlink()
    raise RunError(
        "no backup was made: models of the run were deleted each time before they were open",
        cause="a round is just ending, and the disk is slow",
        next_step="try again in a minute",
    )


def lost(model: Path) -> StorageError:
    """Return what is said of a model that the run needs and that nobody has deleted meanwhile."""
    return StorageError(
        f"no backup was made: {model} is missing, and the run cannot go on without it",
        cause="it was deleted by hand, or the home folder was restored in part",
        next_step="restore the home folder from an earlier backup, or begin a new run: coordinator start --new",
    )


def _with_models(home: Home, copy: Path, files: contextlib.ExitStack) -> tuple[Snapshot, list[Path]]:
    """Return what a copy of the journal says, with the models that it needs, open; and those that are not there."""
    with contextlib.closing(Journal(copy, read_only=True)) as journal:
        record = history.last_of(journal)
        if record is None:
            return Snapshot(copy), []
        ended = results.is_stored(home.results, record.run)
        try:
            run = history.replayed(journal, record)
        except FormatError:
            if not ended:
                raise
            return Snapshot(copy), []
    if ended and run.ended:
        return Snapshot(copy, run), []
    models: dict[str, FileIO] = {}
    missing: list[Path] = []
    for path in map(BlobStore(home.blobs).path, sorted(needed(run))):
        with disk(path, "read"):
            try:
                models[path.relative_to(home.folder).as_posix()] = files.enter_context(path.open("rb", buffering=0))
            except FileNotFoundError:
                missing.append(path)
    return Snapshot(copy, run, models), missing
