"""A federation without a federation: the same training as one straight line of code, in one process.

    python reference.py FOLDER PLAN.json SITE=MANIFEST... [--local EPOCHS]

Prints one JSON object with the digest of every model on the way. `--local`: the first site trains alone, with one
optimiser, for that many epochs. It knows no coordinator, no agent, no journal, no wire.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from fedcervix.core.plan import Plan
from fedcervix.models.aggregate import aggregate
from fedcervix.models.weights import read_layout
from site_agent.data import dataset
from site_agent.data.image_sets import Images
from site_agent.home import SiteHome, create
from site_agent.network.devices import Machine, prepare
from site_agent.network.encoder import (
    Encoder,
    apply_weights,
    build_encoder,
    load_weights,
    save_weights,
    snapshot,
)
from site_agent.network.first_weights import start_encoder
from site_agent.training.context import TrainingContext
from site_agent.training.loop import train_epochs, validation_loss
from site_agent.training.steps import make_learner
from site_agent.worker.tasks import first_seed

CPU = torch.device("cpu")


def main() -> None:
    folder, plan = Path(sys.argv[1]), Plan.parse(Path(sys.argv[2]).read_text())
    local = int(sys.argv[sys.argv.index("--local") + 1]) if "--local" in sys.argv else 0
    manifests = dict(word.split("=", 1) for word in sys.argv[3:] if "=" in word)
    prepare(CPU, 1)
    images = {site: _images(folder, site, Path(manifests[site]), plan) for site in plan.sites}
    first = folder / "first.safetensors"
    digest = save_weights(first, snapshot(start_encoder(plan.recipe, first_seed(plan.terms.seed))))
    if local:
        found: dict[str, Any] = {"digest": _local(folder, first, plan, images[plan.sites[0]][0], local)}
    else:
        found = _federate(folder, first, plan, images)
    sys.stdout.write(json.dumps({"first": digest, **found}))


def _images(folder: Path, site: str, manifest: Path, plan: Plan) -> tuple[Images, Images]:
    home = SiteHome(folder / site)
    create(home, manifest=manifest)
    collection = dataset.open_collection(home)
    return (
        dataset.contrastive(home, collection, plan.recipe, "train"),
        dataset.contrastive(home, collection, plan.recipe, "valid"),
    )


def _encoder(plan: Plan, weights: Path) -> Encoder:
    encoder = build_encoder(plan.recipe, 0)
    apply_weights(encoder, load_weights(weights), what="the reference")
    return encoder


def _train(plan: Plan, base: Path, images: Images, site: str, round_: int, to: Path) -> str:
    encoder = _encoder(plan, base)
    _epochs(plan, encoder, images, site, (round_ - 1) * plan.terms.epochs_per_round + 1, plan.terms.epochs_per_round)
    return save_weights(to, snapshot(encoder))


def _epochs(plan: Plan, encoder: Encoder, images: Images, site: str, first: int, epochs: int) -> None:
    context = _context(plan, site)
    learner = make_learner(encoder, context)
    train_epochs(learner, images, context, range(first, first + epochs), on_step=lambda _step: None)


def _context(plan: Plan, site: str) -> TrainingContext:
    return TrainingContext(recipe=plan.recipe, seed=plan.terms.seed, stream=site, machine=Machine(CPU))


def _local(folder: Path, first: Path, plan: Plan, images: Images, epochs: int) -> str:
    encoder = _encoder(plan, first)
    _epochs(plan, encoder, images, plan.sites[0], 1, epochs)
    return save_weights(folder / "local.safetensors", snapshot(encoder))


def _federate(folder: Path, first: Path, plan: Plan, images: dict[str, tuple[Images, Images]]) -> dict[str, Any]:
    model, rounds = first, []
    for round_ in range(1, plan.rounds_max + 1):
        digests: dict[str, str] = {}
        files = []
        for site in plan.sites:
            file = folder / f"{round_}-{site}.safetensors"
            digests[site] = _train(plan, model, images[site][0], site, round_, file)
            files.append(file)
            if plan.mode == "ppfssl":
                model = file
        digest = digests[plan.sites[-1]]
        if plan.mode == "csfssl":
            model = folder / f"{round_}.safetensors"
            digest = aggregate([(file, 1.0) for file in files], read_layout(first), model, plan.terms.batch_norm)
        losses = [_score(plan, model, images[site][1], site) for site in plan.sites]
        rounds.append({"updates": digests, "digest": digest, "loss": sum(losses) / len(losses)})
    best = min(rounds, key=lambda found: found["loss"])
    return {"rounds": rounds, "digest": best["digest"]}


def _score(plan: Plan, model: Path, images: Images, site: str) -> float:
    encoder = _encoder(plan, model)
    return validation_loss(encoder, images, _context(plan, site)).loss


if __name__ == "__main__":
    main()
