"""A site of a few women on one machine, with the commands a person would type, and a federation that is pretended."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image as Pillow

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.errors import FedcervixError
from fedcervix.models.blobs import BlobStore
from site_agent.cli import cli
from site_agent.data import dataset
from site_agent.data.collection import digest_of
from site_agent.home import SiteHome, create
from site_agent.network.encoder import build_encoder, save_weights, snapshot
from site_agent.store import leak_guard, model_store
from site_agent.store.run_store import RunStore
from site_agent.store.task_results import ScoreResult, TrainResult
from site_agent.training.collapse_metrics import Gauges

RECIPE: dict[str, Any] = {
    "architecture": "resnet18",
    "image_px": 32,
    "width": 8,
    "batch_images": 4,
    "epochs_max": 1,
    "classifier": {"epochs_max": 1},
}
WOMEN = 18
SPLITS = ["train"] * 10 + ["valid"] * 4 + ["test"] * 4


@dataclasses.dataclass(frozen=True)
class Site:
    """A home, the manifest of its images, and a recipe file beside them."""

    home: SiteHome
    manifest: Path
    recipe: Path

    def run(self, *words: str) -> Result:
        """Type a command. Errors of this project are raised."""
        done = CliRunner().invoke(cli, ["--home", str(self.home.folder), *words], catch_exceptions=True)
        if isinstance(done.exception, FedcervixError):
            raise done.exception
        assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
        return done

    def train(self, command: str, *words: str, **changes: Any) -> Result:
        """Type a command with the site's recipe, changed as said."""
        self.recipe.write_text(toml({**RECIPE, **changes}))
        return self.run(command, "--recipe", str(self.recipe), *words)

    def federate(self, name: str, seed: int, **changes: Any) -> Plan:
        """Pretend a run that ends with a model: this site trains in it, and adopts the result."""
        plan = plan_of(seed, **changes)
        self.take_part(name, plan)
        self.adopt(name, plan)
        return plan

    def take_part(self, name: str, plan: Plan) -> None:
        """Leave behind what the rounds of a run leave at a site."""
        run_store = RunStore(self.home.run_folder(name))
        run_store.open(plan)
        collection, key = dataset.open_collection(self.home), leak_guard.site_key(self.home)
        used = [image for image in collection.images if image.split != "test"]
        seen = key.seen(used, digest=digest_of(collection.images), run=plan.digest)
        leak_guard.remember(run_store.folder, key, seen)
        run_store.note(1, TrainResult(digest="", images=1, steps=1, loss=1.0, seconds=1.0, gauges=GAUGES))
        run_store.note(1, ScoreResult(loss_sum=1.0, count=1, images=1, gauges=GAUGES))
        run_store.end("OK", json.dumps({"ledger": []}))

    def adopt(self, name: str, plan: Plan) -> None:
        """Adopt the model of a run."""
        blobs = BlobStore(self.home.blobs)
        making = blobs.scratch("model")
        digest = save_weights(making, snapshot(build_encoder(plan.recipe, seed=plan.terms.seed)))
        blobs.adopt(making, digest)
        model_store.adopt(self.home, Task(name, TaskKind.ADOPT, 1, digest), plan, blobs)

    def write_manifest(self, rows: Sequence[tuple[str, str, str, str]]) -> None:
        """Write the manifest anew: image, patient, label, split."""
        with self.manifest.open("w", newline="") as file:
            csv.writer(file).writerows([("image", "patient", "label", "split"), *rows])

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return what the manifest says."""
        with self.manifest.open(newline="") as file:
            return [(r["image"], r["patient"], r["label"], r["split"]) for r in csv.DictReader(file)]


GAUGES = dataclasses.asdict(Gauges(0.0, 0.0, 1.0, 4.0, 0.1, -1.0))


def copied(made: Site, folder: Path) -> Site:
    """Copy a site, to be changed."""
    shutil.copytree(made.home.folder.parent, folder, dirs_exist_ok=True)
    copy = Site(SiteHome(folder / "home"), folder / "data" / "manifest.csv", folder / "recipe.toml")
    settings = copy.home.config_file
    settings.write_text(settings.read_text().replace(str(made.manifest), str(copy.manifest)))
    return copy


def plan_of(seed: int, **changes: Any) -> Plan:
    """Return the plan of a small run."""
    recipe = Recipe(**{**{key: value for key, value in RECIPE.items() if key != "classifier"}, **changes})
    short = dataclasses.replace(recipe, classifier=dataclasses.replace(recipe.classifier, epochs_max=1))
    return Plan(mode="csfssl", sites=("nhs", "alts"), profile="demo", terms=Terms(rounds=1, seed=seed), recipe=short)


def toml(recipe: dict[str, Any]) -> str:
    """Return a recipe file."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in recipe.items() if not isinstance(value, dict)]
    tables = [(key, value) for key, value in recipe.items() if isinstance(value, dict)]
    nested = [
        line for key, value in tables for line in (f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in value.items()))
    ]
    return "\n".join([*plain, *nested, ""])


def site(folder: Path, seed: int = 7) -> Site:
    """Make a site of WOMEN women with two pictures each, cases and controls in turn, and splits that are given."""
    data = folder / "data"
    data.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(WOMEN):
        for picture in ("a", "b"):
            name = f"{number:02}{picture}.png"
            Pillow.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(data / name)
            rows.append((name, f"woman-{number:02}", str(number % 2), SPLITS[number]))
    home = SiteHome(folder / "home")
    create(home, manifest=data / "manifest.csv", threads=1)
    made = Site(home, data / "manifest.csv", folder / "recipe.toml")
    made.write_manifest(rows)
    return made
