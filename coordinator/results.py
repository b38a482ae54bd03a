"""What a finished run leaves behind: the cervix model, and the record of how it came about."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from coordinator.overview import ledger_line
from fedcervix import __version__
from fedcervix.blobs import BlobStore
from fedcervix.files import write_whole
from fedcervix.rounds import Run
from fedcervix.storage import disk

MODEL_FILE = "cervix-model.safetensors"
RECORD_FILE = "record.json"


def record(run: Run) -> dict[str, Any]:
    """Return the run's record: plan, outcome, and the roster ledger of every round."""
    return {
        "run": run.run,
        "software": f"fedcervix {__version__}",
        "plan_digest": run.plan.digest,
        "plan": dataclasses.asdict(run.plan),
        "outcome": run.outcome.value if run.outcome else None,
        "reason": run.reason,
        "best_round": run.best_round,
        "model": run.best.candidate if run.best_round else None,
        "adopted": list(run.adopted),
        "ledger": [ledger_line(run, round_) for round_ in run.rounds],
    }


def store(run: Run, blobs: BlobStore, results: Path) -> Path:
    """Write model and record of an ended run to its folder; done twice, it does the same. Raises StorageError."""
    folder = results / run.run
    with disk(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
        if run.best_round:
            making = folder / f".{MODEL_FILE}"
            shutil.copyfile(blobs.path(run.best.candidate), making)
            making.replace(folder / MODEL_FILE)
    write_whole(folder / RECORD_FILE, json.dumps(record(run), indent=2).encode())
    return folder
