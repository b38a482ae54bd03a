"""Reads a site's home beside its agent, again and again, as values (`seen`).

Rules
1. Nothing is written, nothing is locked, and no image is opened: the agent cannot notice. Who holds the agent's lock is
   read in the system's table of locks; to try the lock could make an agent fail that starts at that moment.
2. A file is read again when it has changed, and no sooner than its last reading is worth (`PAUSE_TIMES`): a long ledger
   costs a small part of one core.
3. What cannot be read is a fault on the page. It hides nothing else.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar

from fedcervix import __version__
from fedcervix.disk.locks import holder
from fedcervix.disk.storage import disk
from fedcervix.errors import FedcervixError, LedgerError
from fedcervix.transport import identity, renewal
from fedcervix.transport.identity import Certificate
from site_agent.classifier.classifier_store import RECORD as CLASSIFIER_RECORD
from site_agent.classifier.classifier_store import folder_of
from site_agent.federation import incidents
from site_agent.federation.activity import (
    ACTIVITY_FILE,
    BEAT_S,
    EXAMINED_FILE,
    Doing,
    here,
    notes,
    read_doing,
    read_examined,
)
from site_agent.home import SiteConfig, SiteHome
from site_agent.page.gpus import Watched
from site_agent.page.seen import (
    LeftFor,
    SeenCertificate,
    SeenDisk,
    SeenEgress,
    SeenPart,
    SeenRun,
    SeenSite,
)
from site_agent.page.wording import Clean, cleaner
from site_agent.store import archive, egress
from site_agent.store.egress_account import Departure, egressed
from site_agent.store.model_store import RECORD as MODEL_RECORD
from site_agent.store.report_store import RESULTS_FILE, all_reports
from site_agent.store.run_store import StoredRun, federation_of, last_federation

T = TypeVar("T")

PAUSE_TIMES = 20.0
"""A reading that took so long is repeated after this many times as long, at the earliest."""
SILENT_S = 3 * BEAT_S
"""An agent of another container, or machine, that has written nothing for so long does not run."""
PARTS_MAX = 20
"""models, classifiers and reports each: the newest ones"""
INCIDENT_FILES = "INC-*.txt"

Stamp = tuple[tuple[int, int, int], ...]
"""inode, time and size of files: another one means that something has changed"""


class Reread(Generic[T]):
    """What was made of some files, until one of them changes."""

    def __init__(self, clock_s: Callable[[], float] = monotonic) -> None:
        self._clock_s = clock_s
        self._known: tuple[object, T | FedcervixError] | None = None
        self._again_s = 0.0

    def of(self, files: Sequence[Path], make: Callable[[], T], *, also: object = None) -> T:
        """Return what `make` gives; made again where a file, or `also`, is another one.

        Raises the FedcervixError that `make` raises, again and again: a long file that is damaged is read once, too.
        """
        stamp = (stamps(files), also)
        began_s = self._clock_s()
        if self._known is None or (self._known[0] != stamp and began_s >= self._again_s):
            made: T | FedcervixError
            try:
                made = make()
            except FedcervixError as error:
                made = error
            self._known, self._again_s = (stamp, made), began_s + PAUSE_TIMES * (self._clock_s() - began_s)
        if isinstance(self._known[1], FedcervixError):
            raise self._known[1]
        return self._known[1]


def stamps(files: Sequence[Path]) -> Stamp:
    """Return the stamp of files; a missing one has a stamp, too. Raises StorageError."""
    found = []
    for file in files:
        with disk(file, "read"):
            try:
                state = file.stat()
            except (FileNotFoundError, NotADirectoryError):
                found.append((0, 0, -1))
                continue
        found.append((state.st_ino, state.st_mtime_ns, state.st_size))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Papers:
    """What a home says of who its site is."""

    name: str
    federation: str
    certificates: tuple[tuple[str, Certificate], ...]


class HomeReader:
    """Reads one home; keeps what has not changed. Used by one thread."""

    def __init__(self, home: SiteHome, gpus: Watched) -> None:
        self._home, self._gpus = home, gpus
        self._place = here()
        self._config: Reread[SiteConfig] = Reread()
        self._papers: Reread[_Papers] = Reread()
        self._doing: Reread[Doing | None] = Reread()
        self._run: Reread[SeenRun | None] = Reread()
        self._stored: Reread[StoredRun | None] = Reread()
        self._egress: Reread[SeenEgress] = Reread()
        self._parts: Reread[tuple[SeenPart, ...]] = Reread()
        self._clean: Reread[Clean] = Reread()
        self._pins: Reread[frozenset[str]] = Reread()
        self._faults: list[FedcervixError] = []

    def clean(self) -> Clean:
        """Return what makes words of errors fit for the page.

        A manifest that cannot be looked at, as on a network disk that is away, is no reason to end the page.
        """
        files = [self._home.config_file]
        with contextlib.suppress(FedcervixError):
            manifest = self._home.manifest()
            stamps([manifest])
            files.append(manifest)
        return self._clean.of(files, lambda: cleaner(self._home.folder, lambda: incidents.secrets(self._home)))

    def read(self, at: float) -> SeenSite:
        """Return everything as it is at a time (Unix seconds). Raises nothing of this program's errors."""
        self._faults = []
        home = self._home
        seen = SeenSite(at=at, version=__version__, command=home.command(), gpus=self._gpus.now())
        config = self._try(lambda: self._config.of([home.config_file], home.config), None)
        papers = self._try(lambda: self._papers.of(self._paper_files(), self._read_papers), None)
        doing = self._try(lambda: self._doing.of([home.doing], lambda: read_doing(home.doing)), None)
        stored = self._try(lambda: self._stored_run(doing.run if doing else ""), None)
        run = self._try(lambda: self._seen_run(stored), None)
        pid = holder(home.lock)
        seen = replace(
            seen,
            coordinator=config.link.coordinator if config else "",
            pid=pid,
            alive=pid is not None or (doing is not None and self._works_elsewhere(doing, at)),
            doing=doing,
            run=run,
            disk=self._try(self._room, None),
            gpus_silent_s=self._gpus.silent_s(),
            egress=self._try(lambda: self._left(run.name if run else ""), None),
            parts=self._try(self._made, ()),
        )
        if papers is not None:
            warned = tuple(_certificate(title, one, at) for title, one in papers.certificates)
            seen = replace(seen, name=papers.name, federation=papers.federation, certificates=warned)
        if config is not None:
            seen = replace(seen, pins=self._try(lambda: frozenset(config.fingerprints()), frozenset()))
        number, when = self._try(self._incident, ("", 0.0))
        return replace(seen, incident=number, incident_at=when, faults=tuple(self._faults))

    def _try(self, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except FedcervixError as error:
            self._faults.append(error)
        return otherwise

    def _works_elsewhere(self, doing: Doing, at: float) -> bool:
        """Say whether an agent works that this process cannot see: in another container, or on another machine."""
        is_elsewhere = not self._place or doing.place != self._place
        return is_elsewhere and not doing.ended and at - doing.written_at < SILENT_S

    # --- who ---

    def _paper_files(self) -> list[Path]:
        return [self._home.key_file(name) for name in ("site.crt", "site.crt.new", "site.crt.before", "authority.crt")]

    def _read_papers(self) -> _Papers:
        own = self._home.certificate()
        authority = identity.identify(self._home.pem("authority.crt"))
        found = (("this site", own), ("the federation's authority", authority))
        return _Papers(own.identity.name, own.identity.federation, found)

    # --- the run ---

    def _stored_run(self, named: str) -> StoredRun | None:
        """Return the run that the agent names, or the last one. Raises StorageError."""
        runs = self._home.folder / "runs"
        files = [runs, self._home.run_folder(named) / "plan.json"] if named else [runs]

        def find() -> StoredRun | None:
            found = federation_of(self._home, named) if named else None
            return found or last_federation(self._home, any_readable=True)

        return self._stored.of(files, find, also=named)

    def _seen_run(self, stored: StoredRun | None) -> SeenRun | None:
        if stored is None:
            return None
        folder = stored.run_store.folder
        names = (ACTIVITY_FILE, EXAMINED_FILE, "history.jsonl", "outcome.txt", "model-bytes.txt")

        def read() -> SeenRun:
            return SeenRun(
                name=stored.run,
                plan=stored.plan,
                outcome=stored.run_store.outcome() if stored.run_store.ended() else "",
                notes=notes(folder),
                history=stored.run_store.history(),
                examined=read_examined(folder),
                model_bytes=stored.run_store.model_bytes(),
            )

        return self._run.of([folder / name for name in names], read, also=stored.run)

    # --- what left ---

    def _left(self, run: str) -> SeenEgress:
        """Sum up the egress ledger. Raises LedgerError where it does not hold, StorageError."""
        file = self._home.egress

        def read() -> SeenEgress:
            try:
                departures = egressed(egress.entries(file)).departures
            except ValueError as error:
                raise LedgerError(
                    f"the ledger of what has left this site does not hold: {error}",
                    cause="the file was changed or is of a backup, or the disk is failing",
                    next_step=self._home.command("egress"),
                ) from error
            return summed(departures, run)

        return self._egress.of([file], read, also=run)

    # --- what lies here ---

    def _room(self) -> SeenDisk:
        with disk(self._home.folder, "read"):
            found = shutil.disk_usage(self._home.folder)
        return SeenDisk(free_bytes=found.free, total_bytes=found.total)

    def _made(self) -> tuple[SeenPart, ...]:
        home = self._home
        folders = [home.models, folder_of(home), home.reports]

        def find() -> tuple[SeenPart, ...]:
            with disk(home.folder, "read"):
                models = _parts("model", archive.entries(home.models, MODEL_RECORD), MODEL_RECORD)
                classifiers = _parts("classifier", archive.entries(folders[1], CLASSIFIER_RECORD), CLASSIFIER_RECORD)
                return (*models, *classifiers, *_parts("report", all_reports(home.reports), RESULTS_FILE))

        return self._parts.of(folders, find)

    def _incident(self) -> tuple[str, float]:
        """Return the number of the newest failure, and when it was; empty where there was none. Raises StorageError."""
        with disk(self._home.incidents, "read"):
            found = [(file.stat().st_mtime, file.stem) for file in self._home.incidents.glob(INCIDENT_FILES)]
        at, number = max(found, default=(0.0, ""))
        return number, at


def summed(departures: Sequence[Departure], run: str) -> SeenEgress:
    """Return what left, in sums: in all, for a run, and for each of its rounds."""
    of_run = [one for one in departures if run and one.run == run]
    rounds: dict[int, list[Departure]] = {}
    for one in of_run:
        if (number := one.task.rpartition(" ")[2]).isdigit():
            rounds.setdefault(int(number), []).append(one)
    return SeenEgress(
        all=_left_for(departures),
        run=_left_for(of_run),
        rounds={number: _left_for(found) for number, found in sorted(rounds.items())},
    )


def _left_for(departures: Sequence[Departure]) -> LeftFor:
    return LeftFor(
        bytes=sum(one.bytes for one in departures),
        is_exact=all(one.is_exact for one in departures),
        models=len({one.digest for one in departures if one.kind == "model"}),
        reports=sum(one.kind == "report" for one in departures),
    )


def _parts(kind: Any, places: Sequence[Path], record: str) -> Iterator[SeenPart]:
    """Yield the newest parts of a kind."""
    found = []
    for place in places:
        with contextlib.suppress(OSError):  # it is being replaced
            found.append(SeenPart(kind=kind, name=place.name, made_at=(place / record).stat().st_mtime))
    yield from sorted(found, key=lambda part: part.made_at)[-PARTS_MAX:]


def _certificate(title: str, found: Certificate, at: float) -> SeenCertificate:
    now = datetime.fromtimestamp(at, UTC)
    if title == "this site":
        words = renewal.warning(title, found.not_before, found.not_after, now)
    else:
        words = renewal.authority_warning(found, now)
    since, until = found.not_before.timestamp(), found.not_after.timestamp()
    return SeenCertificate(title=title, not_before=since, not_after=until, warning=words)
