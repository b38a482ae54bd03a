"""What does each choice of the classifier's recipe bring? Every choice by itself, against profile `paper`.

    python benchmarks/classifiers.py --collection NAME=FOLDER ... [--phantoms WOMEN] [--seeds 2] [--quick] [--json FILE]
        [--architecture efficientnet_lite0 --start imagenet] [--trainings 3] [--folds 3]

The labelled training and validation women of a collection are cut into folds by woman (five of them). All but one
train a classifier from random or ImageNet's weights, a part of them (by woman, as large as a fold) stopping it; the
fold left out is scored. So every image is scored once by a classifier that knew neither it nor its woman, and test
women take no part. Differences and intervals are those of `recipes.py`.

With `--trainings K` each choice is trained K times on the same folds: `fine-tuned` is the mean of the AUCs of one
training, `averaged` the AUC of the mean of their scores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import StratifiedGroupKFold

from benchmarks.recipes import FOLDS, Site, options, parsed, print_table, sites_of, who
from fedcervix.core.plan import ClassifierRecipe, Recipe
from fedcervix.core.seeds import derive
from site_agent.classifier.finetune import predict
from site_agent.classifier.trainings import train
from site_agent.data.collection import Image
from site_agent.data.image_sets import Labelled
from site_agent.metrics import auc
from site_agent.network.devices import Machine, choose, prepare
from site_agent.network.encoder import State
from site_agent.network.first_weights import imagenet_backbone
from site_agent.network.precision import resolve_precision
from site_agent.training.context import TrainingContext

CHOICES: dict[str, dict[str, Any]] = {
    "paper": {},
    "momentum .9": {"momentum": 0.9},
    "light augmentation": {"augment": "light"},
    "both": {"momentum": 0.9, "augment": "light"},
    "lr .003, momentum .9": {"lr": 0.003, "momentum": 0.9},
    "probe": {"method": "probe"},
    "lp-ft": {"method": "lp-ft"},
    "lp-ft, momentum .9": {"method": "lp-ft", "momentum": 0.9},
    "lp-ft, 3 epochs": {"method": "lp-ft", "momentum": 0.9, "averaged_epochs": 3},
    "lp-ft, half tuned": {"method": "lp-ft", "momentum": 0.9, "tuned_share": 0.5},
}


def main() -> None:
    asked = _arguments()
    device = choose("auto")
    prepare(device, asked.threads, "off")
    file = Path(asked.json)
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"cells": {}}
    with tempfile.TemporaryDirectory() as folder:
        sites = list(sites_of(asked, Path(folder)))
        kept["sites"] = {site.name: who(site) for site in sites}
        for seed in range(asked.seeds):
            for name in asked.only or CHOICES:
                if f"{name} / seed {seed}" not in kept["cells"]:
                    kept["cells"][f"{name} / seed {seed}"] = _cell(asked, sites, name, seed, device)
                    file.write_text(json.dumps(kept))
    print_table(kept["cells"], kept["sites"], ["fine-tuned", "averaged"], others=["paper", "probe"])
    _print_scatter(kept["cells"], kept["sites"])


def _arguments() -> argparse.Namespace:
    parser = options(__doc__, CHOICES, seeds=2)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--start", choices=("random", "imagenet"), default="random")
    parser.add_argument("--trainings", type=int, default=1, help="of every choice, on the same folds")
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--json", default="classifiers.json")
    return parsed(parser)


def _cell(
    asked: argparse.Namespace, sites: Sequence[Site], name: str, seed: int, device: torch.device
) -> dict[str, Any]:
    started = time.monotonic()
    terms = ClassifierRecipe(**{"epochs_max": asked.epochs, **CHOICES[name]})
    recipe = resolve_precision(
        Recipe(architecture=asked.architecture, image_px=asked.px, precision="auto", classifier=terms), device
    )
    start = imagenet_backbone(recipe, None) if asked.start == "imagenet" else None
    scores = {}
    for site in sites:
        each = [
            scores_from(site, recipe, seed, device, start, training=training, folds=asked.folds)
            for training in range(_trainings(asked, name))
        ]
        mean = np.mean(each, axis=0)
        scores[site.name] = {"fine-tuned": each, "averaged": [[round(score, 5) for score in mean.tolist()]]}
    seconds = round(time.monotonic() - started, 1)
    print(f"{name}, seed {seed}: {seconds:.0f} s", flush=True)
    return {"choice": name, "seed": seed, "precision": recipe.precision, "scores": scores, "seconds": seconds}


def _trainings(asked: argparse.Namespace, name: str) -> int:
    """Return how often a choice is trained; a probe of a given start is the same each time."""
    return 1 if CHOICES[name].get("method") == "probe" and asked.start == "imagenet" else int(asked.trainings)


def scores_from(
    site: Site,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    start: State | None = None,
    *,
    training: int = 0,
    folds: int = FOLDS,
) -> list[float]:
    """Return the score of every image, by the classifier that did not know her woman; `start`: None is random.

    `seed` folds; `training` says which of several on the same folds.
    """
    labels = np.array([image.label for image in site.scored])
    women = np.array([image.woman for image in site.scored])
    scores = np.zeros(len(labels))
    ways = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    own_seed = derive(seed, "classifiers", training) if training else seed
    for known, asked in ways.split(labels, labels, women):
        fit, stop = next(ways.split(labels[known], labels[known], women[known]))
        context = TrainingContext(recipe=recipe, seed=own_seed, stream=site.name, machine=Machine(device))
        made = train(start, _labelled(site, recipe, known[fit]), _labelled(site, recipe, known[stop]), context)
        scores[asked] = predict(made.network, _labelled(site, recipe, asked).pixels, device=device)
    return [round(score, 5) for score in scores.tolist()]


def _print_scatter(cells: Any, sites: Any) -> None:
    """Print the standard deviation between the trainings of one choice on one set of folds."""
    print("\nstandard deviation of AUC between trainings on the same folds (mean over sites and seeds)")
    for name in dict.fromkeys(cell["choice"] for cell in cells.values()):
        found = [
            np.std([auc(np.array(rows["labels"]), np.array(one)) for one in cell["scores"][site]["fine-tuned"]], ddof=1)
            for cell in cells.values()
            for site, rows in sites.items()
            if cell["choice"] == name and len(cell["scores"][site]["fine-tuned"]) > 1
        ]
        print(f"  {name:22} {np.mean(found):.3f}" if found else f"  {name:22} one training")


def _labelled(site: Site, recipe: Recipe, rows: npt.NDArray[np.int64]) -> Labelled:
    chosen: list[Image] = [site.scored[row] for row in rows]
    labels = np.array([image.label for image in chosen], np.int64)
    return Labelled(site.pixels(chosen, recipe), labels, tuple(image.woman for image in chosen))


if __name__ == "__main__":
    main()
