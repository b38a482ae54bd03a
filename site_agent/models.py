"""The models a site keeps: the cervix models it adopted or made itself, each with a record of where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcervix import __version__
from fedcervix.blobs import BlobStore
from fedcervix.errors import ModelError
from fedcervix.events import Task
from fedcervix.files import write_whole
from fedcervix.plan import Plan, Recipe, parse_recipe
from fedcervix.storage import disk
from site_agent.home import SiteHome

WEIGHTS = "cervix-model.safetensors"
RECORD = "record.json"
WOMEN = "women.json"
"""SHA-256 of every woman whose images trained or stopped a model: she must never be in its test part"""


@dataclass(frozen=True, slots=True)
class CervixModel:
    """One cervix model: a folder below models/."""

    folder: Path
    start: str
    """how the classifier's start is called in the tables: SSL, CSSL, CSFSSL, PPFSSL_NHS ..."""
    recipe: Recipe
    seed: int
    record: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.folder / WEIGHTS


def adopt(home: SiteHome, task: Task, plan: Plan, blobs: BlobStore) -> None:
    """Keep the result of a run. Done twice, it does the same. Raises StorageError."""
    start = "CSFSSL" if plan.mode == "csfssl" else f"PPFSSL_{plan.sites[0].upper()}"
    more = {"run": task.run, "round": task.round, "plan_digest": plan.digest, "mode": plan.mode, "digest": task.base}
    keep(home, task.run, start, plan.recipe, plan.terms.seed, blobs.path(task.base), more)


def keep(
    home: SiteHome, name: str, start: str, recipe: Recipe, seed: int, weights: Path, more: dict[str, Any]
) -> CervixModel:
    """Copy a weights file into models/NAME with its record."""
    folder = home.models / name
    if folder.exists() and read(folder).record.get("run") != more.get("run"):
        raise ModelError(f"{folder} holds another model", cause="a run of that name", next_step=f"move {folder} away")
    record = {
        "start": start,
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "software": f"fedcervix {__version__}",
        **more,
    }
    with disk(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
        making = folder / f".{WEIGHTS}"
        shutil.copyfile(weights, making)
        making.replace(folder / WEIGHTS)
    write_whole(folder / RECORD, json.dumps(record, indent=2).encode())
    return CervixModel(folder, start, recipe, seed, record)


def remember_women(folder: Path, women: Iterable[str]) -> None:
    """Add women to those whose images a model was made with."""
    file = folder / WOMEN
    known = set(json.loads(file.read_text())) if file.exists() else set()
    named = {hashlib.sha256(woman.encode()).hexdigest() for woman in women}
    if not named <= known:
        write_whole(file, json.dumps(sorted(known | named)).encode())


def check_unseen(folder: Path, test_women: Iterable[str], *, what: str) -> None:
    """Raise ModelError where a woman who is now in the test part took part in making the model."""
    file = folder / WOMEN
    known = set(json.loads(file.read_text())) if file.exists() else set()
    seen = [woman for woman in test_women if hashlib.sha256(woman.encode()).hexdigest() in known]
    if seen:
        raise ModelError(
            f"{len(set(seen))} women who are now in the test part took part in making {what}",
            cause="splits have changed since: a new picture linked them with test women, or splits.csv was lost",
            next_step="make the model again (site-agent pretrain, or another run), then finetune",
        )


def read(folder: Path) -> CervixModel:
    """Return the cervix model in a folder. Raises ModelError."""
    try:
        record = json.loads((folder / RECORD).read_text())
        return CervixModel(folder, record["start"], parse_recipe(record["recipe"]), record["seed"], record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} holds no cervix model ({error})",
            cause="not a model's folder, or written by another version",
            next_step=f"ls {folder.parent}",
        ) from error


def all_models(home: SiteHome) -> list[CervixModel]:
    """Return the site's cervix models, oldest first."""
    folders = sorted(home.models.glob(f"*/{RECORD}"), key=lambda record: record.stat().st_mtime)
    return [read(record.parent) for record in folders]
