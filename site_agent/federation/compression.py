"""Wire economy at the site: models fetched and made in the packed forms that the plan asks for.

The agent asks for all of it between its worker, which trains and knows of no packed form, and its line, which moves
files and knows of no model. Decisions are in `fedcervix.core.compression`; what a site carries on lies in
`carried.json` of the run's folder, beside the run_store, and the files that it names in the blob store.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedcervix.core import compression
from fedcervix.core.compression import ErrorFeedback
from fedcervix.core.events import Answer, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import read_kept
from fedcervix.models.blobs import BlobStore
from fedcervix.models.rounding import Rounded, rebuild, round_model
from site_agent.federation.link import Link

FILE = "carried.json"


def bring(link: Link, blobs: BlobStore, model: str, plan: Plan, fetch: Callable[[str], None]) -> None:
    """Bring a task's model here: packed, where the coordinator has it packed and this site can unpack it."""
    packing = plan.terms.compression
    form = None if packing == "none" else link.packed(model)
    if packing == "none" or form is None or (form.base and not blobs.has(form.base)):
        fetch(model)
        return
    if not blobs.has(form.digest):
        fetch(form.digest)
    rebuild(blobs, form.digest, model, packing, form.base, name="unpacked")


def rounded(blobs: BlobStore, folder: Path, task: Task, plan: Plan, digest: str) -> Rounded:
    """Round the model that was just made. The first one has no base: int8 leaves it as it is. Raises StorageError."""
    packing = plan.terms.compression
    if packing == "none" or (packing == "int8" and task.kind is TaskKind.SEED):
        return Rounded(digest)
    residual = compression.residual_for(carried(folder), task.round)
    return round_model(blobs, blobs.path(digest), packing, task.base, residual, name=f"{task.kind}-{task.round}")


def keep(folder: Path, update: UpdateStored, residual: str) -> None:
    """Keep what was rounded away from an update, before the update is delivered. Raises StorageError."""
    if residual:
        _write(folder, compression.made(carried(folder), update, residual))


def settle(folder: Path, update: UpdateStored, answer: Answer) -> None:
    """Carry on what was rounded away from an update, if it counted. Raises StorageError."""
    before = carried(folder)
    after = compression.answered(before, update, answer)
    if after != before:
        _write(folder, after)


def settle_earlier(folder: Path, task: Task, report: Callable[[UpdateStored], tuple[Answer, str]]) -> None:
    """Ask whether the last update counted, where its answer was lost: training begins from what that says."""
    update = compression.undecided(carried(folder), task)
    if update is not None:
        answer, _ = report(update)
        settle(folder, update, answer)


def carried(folder: Path) -> ErrorFeedback:
    """Return what this site carries on. Raises StorageError."""
    file = folder / FILE
    next_step = f"delete it: rm {file}; what was rounded away from the last update is then lost"
    return read_kept(file, _parsed, missing=ErrorFeedback(), next_step=next_step)


def _parsed(content: bytes) -> ErrorFeedback:
    return compression.error_feedback_from_json(content.decode())


def _write(folder: Path, value: ErrorFeedback) -> None:
    write_whole(folder / FILE, compression.error_feedback_to_json(value).encode())
