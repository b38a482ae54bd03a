"""What the agent saves about a run across restarts: its journal, and the results of each round.

The journal is one small value, `session.PersistentState`, written whole whenever it changes: what the site was asked to
do and has not settled, and the finished result that is not acknowledged. The rest that it needs to continue: the plan
here, models in the blob store, the checkpoint of a round in progress (see `site_agent.training.checkpoints`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from fedcervix.core.events import UpdateStored, event_from_json, event_to_json, task_from_dict
from fedcervix.core.formats import UnknownFormat, contents
from fedcervix.core.numerics import NUMERICS, SINCE
from fedcervix.core.plan import Plan
from fedcervix.core.session import PersistentState, Result
from fedcervix.disk.files import append_line, write_whole
from fedcervix.disk.paths import Below
from fedcervix.disk.storage import damaged, disk, later, read_back, read_file, read_kept
from fedcervix.errors import FormatError, StorageError
from fedcervix.json_text import parsed
from fedcervix.runtime.record import LedgerLine, RecordedRun
from fedcervix.runtime.typed_json import from_json
from fedcervix.trust.fingerprints import SiteKeys, key_bytes, read_key
from site_agent.home import SiteHome
from site_agent.store import ledger
from site_agent.store.task_results import History, ScoreResult, TrainResult

NO_RECORD = "{}"
"""what stands in a record's place where a run ended and the coordinator sent none that could be read"""
PARTS: dict[str, type[TrainResult] | type[ScoreResult]] = {"train": TrainResult, "score": ScoreResult}
"""of a round, in the history"""


@dataclasses.dataclass(frozen=True, slots=True)
class RunStore:
    """The folder of one run at the site."""

    folder: Path
    _journal = Below("journal.json")
    _model = Below("model-bytes.txt")
    _history = Below("history.jsonl")
    _record = Below("record.json")
    _keys = Below("keys.json")

    def open(self, plan: Plan) -> None:
        """Make the folder and write down the plan, unless it is there or the run has ended. Raises StorageError."""
        if self.ended():
            return
        file, text = self.folder / "plan.json", plan.canonical().encode()
        with disk(self.folder, "write"):
            self.folder.mkdir(parents=True, exist_ok=True)
        with disk(file, "read"):
            known = file.read_bytes() if file.exists() else None
        if known != text:
            write_whole(file, text)

    def plan(self) -> Plan:
        """Return the run's plan. Raises StorageError."""
        file = self.folder / "plan.json"
        content = read_file(file)
        try:
            return Plan.parse(content.decode())
        except UnknownFormat as error:
            raise later(file, error) from error
        except ValueError as error:
            raise FormatError(
                f"{file} is not a plan of this version: {error}",
                cause="the run was done with another version of fedcervix, or the file is damaged",
                next_step=f"use the version the run was done with, or move {self.folder} away",
            ) from error

    def known_plan(self) -> Plan | None:
        """Return the run's plan; None where it is not here, or cannot be read."""
        with contextlib.suppress(StorageError):
            return self.plan()
        return None

    def keep(self, kept: PersistentState) -> None:
        """Write the journal. Raises StorageError.

        A trained model may be the work of hours, and that it is finished is synced to the disk. What was asked is not,
        nor scores and adoptions: a power cut soon after costs that time, or scoring and adopting once more, when the
        coordinator asks again.
        """
        task = dataclasses.asdict(kept.task) if kept.task else None
        result = event_to_json(kept.result) if kept.result else None
        text = json.dumps({"task": task, "result": result, "numerics": NUMERICS}, indent=1, allow_nan=False)
        write_whole(self._journal, text.encode(), sync=isinstance(kept.result, UpdateStored))

    def kept(self) -> PersistentState:
        """Return what the journal says. Raises StorageError."""
        if not self._journal.exists():
            return PersistentState()
        return read_back(self._journal, _kept, next_step=f"delete it: rm {self._journal}; the work is then done again")

    def keep_keys(self, keys: SiteKeys) -> None:
        """Write down which key each site of the run has. Raises StorageError."""
        written = {site: key_bytes(key).hex() for site, key in keys.items()}
        write_whole(self._keys, json.dumps({"keys": written}, indent=1, allow_nan=False).encode())

    def keys(self) -> SiteKeys:
        """Return the keys that were written down; none before the first welcome. Raises StorageError."""
        next_step = (
            f"move it away: mv {self._keys} /tmp; the run's keys are then taken as the coordinator tells them, "
            "so compare them with your partners first: site-agent pins"
        )
        return read_kept(self._keys, _keys, missing={}, next_step=next_step)

    def numerics(self) -> int:
        """Return in which numerics the work in the journal was begun. Raises StorageError."""
        next_step = f"delete it: rm {self._journal}; the work is then done again"
        return read_back(self._journal, _numerics, next_step=next_step)

    def note_model(self, size_bytes: int) -> None:
        """Write down how long this run's models are; the first one counts."""
        if not self._model.exists():
            write_whole(self._model, str(size_bytes).encode())

    def model_bytes(self) -> int:
        """Return how long this run's models are; 0 before the first one was here. Raises StorageError."""
        if not self._model.exists():
            return 0
        content = read_file(self._model)
        if not content.isdigit():
            next_step = f"delete it: rm {self._model}; the next model writes it again"
            raise damaged(self._model, "it holds no number of bytes", next_step=next_step)
        return int(content)

    def note(self, round_: int, result: TrainResult | ScoreResult) -> None:
        """Write down what a round gave at this site; written twice, it says the same. Raises StorageError.

        It is not waited for until the disk has it: a power cut costs the last half minute's points of a curve.
        """
        part = next(name for name, kind in PARTS.items() if isinstance(result, kind))
        values = dataclasses.asdict(result)
        line = json.dumps({"part": part, "round": round_, "values": values}, allow_nan=False)
        append_line(self._history, line, sync=False)

    def history(self) -> History:
        """Return what was noted. Raises StorageError where a line holds something else."""
        found: dict[str, dict[int, Any]] = {part: {} for part in PARTS}
        for line in self._lines():
            try:
                noted = parsed(line)
            except ValueError:
                continue  # torn by a power cut or a full disk
            try:
                if (part := contents("the line", noted)["part"]) in PARTS:  # else a part that a later version noted
                    found[part][int(noted["round"])] = from_json(PARTS[part], noted["values"], extra="ignore")
            except (ValueError, KeyError, TypeError) as error:
                next_step = f"move it away; reports then lack the curves of this run: mv {self._history} /tmp"
                raise damaged(self._history, error, next_step=next_step) from error
        return History(**found)

    def has_worked(self) -> bool:
        """Say whether this site has done work for the run, whatever is left of it. Raises StorageError."""
        return bool(self._lines())

    def _lines(self) -> list[bytes]:
        with disk(self._history, "read"):
            return self._history.read_bytes().splitlines() if self._history.exists() else []

    def end(self, outcome: str, record: str) -> None:
        """Save how the run ended, as the coordinator reported it. Raises StorageError.

        The outcome comes last: with it the run is over for the next process, which asks for no record any more. What
        is known of a run that has ended stays as it is; only a record that was missing is added.
        """
        if not self._has_record():
            write_whole(self._record, (record or NO_RECORD).encode())
        if not self.ended():
            write_whole(self.folder / "outcome.txt", outcome.encode())

    def _has_record(self) -> bool:
        if not (self.ended() and self._record.exists()):
            return False
        with disk(self._record, "read"):
            return self._record.stat().st_size > len(NO_RECORD)

    def ended(self) -> bool:
        """Say whether the coordinator has told how the run ended."""
        return (self.folder / "outcome.txt").exists()

    def outcome(self) -> str:
        """Return how the run ended, or that this site has heard of no end."""
        return (self.folder / "outcome.txt").read_text(errors="replace") if self.ended() else "no end is known here"

    def record(self) -> RecordedRun | None:
        """Return the run's record as the coordinator sent it; None where it sent none, or the run has not ended.

        Raises ValueError where what is stored is no record of this run, StorageError.
        """
        with disk(self._record, "read"):
            text = self._record.read_bytes() if self._record.exists() else b""
        none = text.strip() in (b"", NO_RECORD.encode())
        return None if none else ledger.read(text, self.plan(), self.folder.name)

    def ledger(self) -> tuple[LedgerLine, ...]:
        """Return the coordinator's ledger: who counted in each round, and who not; empty until the run has ended.

        Raises what `record` raises.
        """
        found = self.record()
        return found.ledger if found else ()


def _kept(content: bytes) -> PersistentState:
    if not (text := content.strip(b"\0")):  # the power was cut, see `write_whole`
        return PersistentState()
    raw = contents("the journal", parsed(text))
    return PersistentState(
        task_from_dict(raw["task"]) if raw["task"] else None, _result(str(raw["result"])) if raw["result"] else None
    )


def _keys(content: bytes) -> SiteKeys:
    found = from_json(dict[str, str], contents("the keys", parsed(content))["keys"])
    return {site: read_key(bytes.fromhex(key)) for site, key in found.items()}


def _numerics(content: bytes) -> int:
    return from_json(int, contents("the journal", parsed(content)).get("numerics", min(SINCE)))


def _result(text: str) -> Result:
    found = event_from_json(text)
    if not isinstance(found, Result):
        raise TypeError(f"{type(found).__name__} is no result")
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class StoredRun:
    """A run this site took part in."""

    run: str
    plan: Plan
    run_store: RunStore


def last_federation(home: SiteHome, *, any_readable: bool = False) -> StoredRun | None:
    """Return the last run this site took part in; ended ones that this version cannot read are passed over.

    `any_readable`: so are others. Raises StorageError; FormatError where this version cannot read a run in progress.
    """
    for file in sorted((home.folder / "runs").glob("*/plan.json"), key=lambda file: file.stat().st_mtime, reverse=True):
        run_store = RunStore(file.parent)
        try:
            return StoredRun(run_store.folder.name, run_store.plan(), run_store)
        except FormatError:
            if not (any_readable or run_store.ended()):
                raise
    return None


def federation_of(home: SiteHome, run: str) -> StoredRun | None:
    """Return a run by its name; None where this site has no record of it. Raises StorageError."""
    run_store = RunStore(home.run_folder(run))
    return StoredRun(run, run_store.plan(), run_store) if (run_store.folder / "plan.json").exists() else None
