"""The runs of a home, by its journal and its results: which there are, how each stands, how one begins and is given up.

A run that has ended left its record in results/RUN; the journal holds the events of all, from which the state of any is
made again.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coordinator.home.home import Home
from coordinator.run import paces, results, traffic
from coordinator.run.changes import BRIEF_ROUNDS
from coordinator.run.status import overview
from coordinator.run.status_document import StatusDocument
from fedcervix import __version__
from fedcervix.core.events import RunAborted
from fedcervix.core.numerics import NUMERICS
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.state import Run, begin
from fedcervix.core.rounds.step import replay, step
from fedcervix.disk.journal import Journal, RunRecord, UnreadRun
from fedcervix.errors import FormatError, RunError, StorageError

if TYPE_CHECKING:
    from fedcervix.models.blobs import BlobStore

UNFINISHED = "unfinished"
UNREAD = "unreadable"
"""by this version: another one reads it"""
ABANDONED = "abandoned by the operator: another run was started instead"


@dataclass(frozen=True, slots=True)
class RunLine:
    """One line of `coordinator runs`."""

    run: str
    mode: str
    profile: str
    begun_at: float
    rounds: int
    """begun so far"""
    best_round: int
    outcome: str
    """OK, DEGRADED, ABORTED, unfinished or unreadable"""
    reason: str
    model: bool
    """a model was stored for it: `coordinator export` copies it out"""


def begin_of(record: RunRecord) -> Run:
    """Return a run as it stood before its first event."""
    return begin(record.run, record.plan, base=record.base, at=record.begun_at)


def replayed(journal: Journal, record: RunRecord | UnreadRun) -> Run:
    """Return a run as it stands by its events. Raises StorageError, FormatError."""
    return replay(begin_of(read(record)), journal.events(record.run))


def new_record(plan: Plan, base: str, at: float, taken: Collection[str] = ()) -> RunRecord:
    """Return how a run begins; it is named after the moment, its mode and its plan.

    `taken`: names of other runs. Of two runs of one plan that begin within one second, one takes the next second's.
    """
    moments = (datetime.fromtimestamp(at + later_s, UTC) for later_s in itertools.count())
    names = (f"{moment:%Y%m%d-%H%M%S}-{plan.mode}-{plan.digest[:8]}" for moment in moments)
    return RunRecord(next(name for name in names if name not in taken), plan, base, at)


def last_of(journal: Journal) -> RunRecord | UnreadRun | None:
    """Return the run that began last. Raises StorageError."""
    return next(reversed(journal.runs()), None)


def unfinished(home: Home, journal: Journal) -> RunRecord | None:
    """Return the last run where it has not ended, or its result was not stored (its process was killed just before).

    Raises StorageError, FormatError where this version cannot read it.
    """
    last = last_of(journal)
    if last is None or results.is_stored(home.results, last.run):
        return None
    if isinstance(last, UnreadRun):
        raise last.error
    return last


def unfinished_record(home: Home) -> RunRecord | None:
    """Return the run that the next start would continue; it only reads. Raises StorageError, FormatError."""
    with _journal(home) as journal:
        return unfinished(home, journal) if journal else None


def check_numerics(home: Home) -> None:
    """Raise RunError where this version would go on with the unfinished run in other numerics, also StorageError.

    It only looks: the version that began the run finds its home as it left it, and goes on.
    """
    with _journal(home) as journal:
        last = journal and unfinished(home, journal)
        if not (journal and last):
            return
        run = begin_of(last)
        for event in journal.events(last.run):
            run, _ = step(run, event)
            if run.numerics == NUMERICS:
                return
    if run.numerics and not run.ended:
        raise RunError(
            f"run {run.run} was begun with numerics {run.numerics}; this fedcervix {__version__} computes with "
            f"numerics {NUMERICS}",
            cause="the coordinator was upgraded during the run, which must not go on with other numbers",
            next_step=f"install the earlier version here again: it continues the run; or give the run up: "
            f"{home.command('abort')}",
        )


def abandon(
    home: Home, journal: Journal, blobs: BlobStore, record: RunRecord, at: float, *, reason: str = ABANDONED
) -> None:
    """End a run for good, and store what it leaves behind. Raises StorageError."""
    from coordinator.run.run_ledger import RunLedger  # it loads what signs: `status` needs nothing of it
    from fedcervix.trust.ledger import NOT_SIGNED

    run, event = replayed(journal, record), RunAborted(reason, at)
    while not run.ended:  # twice where holders would close an attempt first: nobody hears them now
        run, _ = step(run, event)
        RunLedger(journal, record.run).append(run, event, NOT_SIGNED)
    known, moved = paces.known(home.paces, run.run), traffic.stored(home.paces, run.run)
    results.store(run, blobs, home.results, known, moved)


def entries(home: Home) -> list[RunLine]:
    """Return all runs of a home, oldest first. Raises StorageError."""
    with _journal(home) as journal:
        return [] if journal is None else [_entry(home, journal, record) for record in journal.runs()]


def _entry(home: Home, journal: Journal, record: RunRecord | UnreadRun) -> RunLine:
    """Return the line of a run; of one that this version cannot read, what is known without reading it."""
    try:
        return _line(home, journal, read(record))
    except StorageError as error:
        return RunLine(
            run=record.run,
            mode="",
            profile="",
            begun_at=record.begun_at,
            rounds=0,
            best_round=0,
            outcome=UNREAD,
            reason=f"{error.what}; next: {error.next_step}",
            model=results.model_of(home.results, record.run).exists(),
        )


def read(record: RunRecord | UnreadRun) -> RunRecord:
    """Return a run that this version can read. Raises FormatError."""
    if isinstance(record, UnreadRun):
        raise record.error
    return record


def _line(home: Home, journal: Journal, record: RunRecord) -> RunLine:
    stored = results.is_stored(home.results, record.run)
    found = results.read(home.results, record.run) if stored else results.record(replayed(journal, record))
    return RunLine(
        run=record.run,
        mode=record.plan.mode,
        profile=record.plan.profile,
        begun_at=record.begun_at,
        rounds=len(found.ledger),
        best_round=found.best_round,
        outcome=found.outcome or UNFINISHED,
        reason=found.reason,
        model=results.model_of(home.results, record.run).exists(),
    )


def stands(home: Home, name: str = "", *, whole: bool = True) -> StatusDocument:
    """Return how a run stands by the journal: the last one that can be read, or the one of this name.

    `whole`: with all rounds; else with the last ones. Raises RunError, StorageError.
    """
    with _journal(home) as journal:
        records = [] if journal is None else journal.runs()
        if journal is None or not records:
            raise RunError(
                "no run has begun here yet",
                cause="no run has been started yet; the first `start` needs --mode",
                next_step=home.command("start --mode csfssl"),
            )
        run, unread = _newest(journal, [found(records, name, home)] if name else records)
    is_last = run.run == records[-1].run
    trouble = unread if run.ended or not is_last else _not_running(home)
    since = 0 if whole else max(0, len(run.rounds) - BRIEF_ROUNDS)
    known, moved = paces.known(home.paces, run.run), traffic.stored(home.paces, run.run)
    return overview(run, {}, now=time.time(), trouble=trouble, since=since, paces=known, traffic=moved)


def _newest(journal: Journal, records: Sequence[RunRecord | UnreadRun]) -> tuple[Run, str]:
    """Return the newest run that this version can read, and what is to be said of a newer one.

    Raises FormatError where it can read none.
    """
    unread: FormatError | None = None
    for record in reversed(records):
        try:
            return replayed(journal, record), unread.explain() if unread else ""
        except FormatError as error:
            unread = unread or error
    assert unread is not None
    raise unread


def found(records: list[RunRecord | UnreadRun], name: str, home: Home) -> RunRecord | UnreadRun:
    """Return the run of this name. Raises RunError that names the nearest one."""
    by_name = {record.run: record for record in records}
    if name in by_name:
        return by_name[name]
    raise no_such_run(name, [*by_name], home)


def no_such_run(name: str, known: list[str], home: Home) -> RunError:
    """Return what is said of a name that no run has."""
    begun = [run for run in known if name and run.startswith(name)]
    near = begun or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return RunError(
        f"no run is named {name!r}" + (f"; did you mean {near[-1]}?" if near else ""),
        cause=_misnamed(known),
        next_step=home.command("runs"),
    )


def _misnamed(known: list[str]) -> str:
    if not known:
        return "no run has begun here yet"
    count = "1 run" if len(known) == 1 else f"{len(known)} runs"
    return f"the name is misspelt; this home has {count}, the last one is {known[-1]}"


def _not_running(home: Home) -> str:
    if home.is_running():
        known = home.read_running()
        return f"the coordinator (pid {known.pid}) does not answer" if known else "the coordinator is starting"
    return f"the coordinator is not running; continue with: {home.command('start')}"


@contextlib.contextmanager
def _journal(home: Home) -> Iterator[Journal | None]:
    """Open the journal to read; None where there is none yet. Raises StorageError."""
    home.insist()
    if not home.has(home.journal):
        yield None
        return
    with contextlib.closing(Journal(home.journal, read_only=True)) as journal:
        yield journal
