"""What the agent remembers across restarts: the finished result that is not acknowledged yet, and the run's history."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from fedcervix.errors import StorageError
from fedcervix.events import event_from_json, event_to_json
from fedcervix.files import write_whole
from fedcervix.plan import Plan
from fedcervix.session import Result
from fedcervix.weights import disk


@dataclasses.dataclass(frozen=True, slots=True)
class Spool:
    """The folder of one run at the site."""

    folder: Path

    def open(self, plan: Plan) -> None:
        """Make the folder and write down the plan."""
        with disk(self.folder, "write"):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "plan.json", plan.canonical().encode())

    def plan(self) -> Plan:
        """Return the run's plan. Raises StorageError."""
        file = self.folder / "plan.json"
        with disk(file, "read"):
            text = file.read_text()
        try:
            return Plan.parse(text)
        except ValueError as error:
            raise StorageError(
                f"{file} is no plan of this version: {error}",
                cause="the run was done with another version of fedcervix, or the file is damaged",
                next_step=f"use the version the run was done with, or move {self.folder} away",
            ) from error

    def put(self, result: Result) -> None:
        """Keep a finished result until it is acknowledged. Raises StorageError."""
        write_whole(self.folder / "outbox.json", event_to_json(result).encode())

    def waiting(self) -> Result | None:
        """Return the result that is not acknowledged yet."""
        file = self.folder / "outbox.json"
        if not file.exists():
            return None
        try:
            return event_from_json(file.read_text())  # type: ignore[return-value]  # only `put` writes it
        except ValueError as error:
            raise StorageError(f"{file} is damaged: {error}", next_step="delete it: the work is done again") from error

    def clear(self) -> None:
        """The result was acknowledged."""
        (self.folder / "outbox.json").unlink(missing_ok=True)

    def note(self, part: str, round_: int, values: dict[str, Any]) -> None:
        """Write down what a round gave at this site; written twice, it says the same."""
        history = self.history()
        history.setdefault(part, {})[str(round_)] = values
        write_whole(self.folder / "history.json", json.dumps(history, indent=1, sort_keys=True).encode())

    def history(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return {"train" | "score": {round: numbers}}."""
        file = self.folder / "history.json"
        if not file.exists():
            return {}
        try:
            found: dict[str, dict[str, dict[str, Any]]] = json.loads(file.read_text())
        except ValueError as error:
            raise StorageError(f"{file} is damaged: {error}", next_step=f"move {file} away") from error
        return found

    def end(self, outcome: str, record: str) -> None:
        """Write down how the run ended, in the coordinator's words."""
        write_whole(self.folder / "outcome.txt", outcome.encode())
        write_whole(self.folder / "record.json", (record or "{}").encode())

    def outcome(self) -> str:
        """Return how the run ended, or that it has not."""
        file = self.folder / "outcome.txt"
        return file.read_text() if file.exists() else "not ended yet"

    def ledger(self) -> list[dict[str, Any]]:
        """Return the coordinator's ledger: who counted in each round, and who not; empty until the run has ended."""
        file = self.folder / "record.json"
        lines: list[dict[str, Any]] = json.loads(file.read_text()).get("ledger", []) if file.exists() else []
        return lines
