"""The models that the runs of a home have made, as their records tell it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from coordinator.run import results
from fedcervix.core.modes import title_of
from fedcervix.disk.files import digest_file
from fedcervix.errors import FedcervixError, FormatError, ModelError, StorageError
from fedcervix.lineage.model_facts import ModelFacts, contributors, parents
from fedcervix.runtime.record import RecordedRun


def made_models(folder: Path) -> tuple[list[ModelFacts], list[FedcervixError]]:
    """Return the models of all ended runs, oldest first, and what is wrong with the records that cannot be read.

    Raises StorageError.
    """
    found, unread = [], list[FedcervixError]()
    for run in results.names(folder):
        try:
            record = results.read(folder, run)
            if record.model:
                found.append(_facts(run, record))
        except StorageError as error:
            unread.append(error)
    return found, unread


def _facts(run: str, record: RecordedRun) -> ModelFacts:
    """Return what a record says of its model. Raises FormatError where its plan is none of this version."""
    try:
        plan = record.agreed
    except ValueError as error:
        raise FormatError(
            f"the record of run {run} has a plan that this version does not read: {error}",
            cause="a later version of fedcervix began the run, or the record was edited",
            next_step="use the version that began it",
        ) from error
    made = next((line.ended_at for line in record.ledger if line.round == record.best_round), None)
    return ModelFacts(
        name=run,
        start=title_of(plan.mode, plan.sites),
        digest=record.model or "",
        architecture=plan.recipe.architecture,
        run=run,
        made_at=datetime.fromtimestamp(made, UTC).isoformat(timespec="seconds") if made else "",
        is_classifier=False,
        plan=record.plan_digest,
        software=record.software,
        round=record.best_round,
        rounds=len(record.ledger),
        contributors=contributors(record, plan),
        parents=parents(record, plan),
        is_sealed=plan.terms.sealed,
    )


def check_file(folder: Path, one: ModelFacts) -> None:
    """Raise ModelError where a run's model is missing or is another file than its record names, StorageError."""
    file = results.model_of(folder, one.run)
    if not file.exists():
        if one.is_sealed:
            return
        raise ModelError(
            f"{file} is missing",
            cause="it was deleted or moved",
            next_step="take it from a site that has it (models/RUN in its home), or from a backup",
        )
    if digest_file(file) != one.digest:
        raise ModelError(
            f"{file} is not the file that its record names",
            cause="it was exchanged, changed or damaged after the run",
            next_step="take it from a site that has it (models/RUN in its home), or from a backup",
        )
