"""What does each choice of the classifier's recipe bring? Every choice by itself, against profile `paper`.

    python benchmarks/classifiers.py --collection NAME=FOLDER ... [--phantoms WOMEN] [--seeds 2] [--quick] [--json FILE]

The labelled training and validation women of a collection are cut into five folds by woman. Four folds train a
classifier from random weights, a fifth of them (by woman) stopping it; the fold left out is scored. So every image is
scored once by a classifier that knew neither it nor its woman, and test women take no part. Differences and intervals
are those of `recipes.py`.
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

from benchmarks.recipes import FOLDS, Site, add_collections, print_table, sites_of, who
from fedcervix.core.plan import ClassifierRecipe, Recipe
from fedcervix.core.seeds import derive
from site_agent.classifier.finetune import build_classifier, finetune, predict
from site_agent.data.collection import Image
from site_agent.data.image_sets import Labelled
from site_agent.network.devices import Machine, choose, prepare
from site_agent.network.precision import resolve_precision
from site_agent.training.context import TrainingContext

CHOICES: dict[str, dict[str, Any]] = {
    "paper": {},
    "momentum .9": {"momentum": 0.9},
    "light augmentation": {"augment": "light"},
    "both": {"momentum": 0.9, "augment": "light"},
    "lr .003, momentum .9": {"lr": 0.003, "momentum": 0.9},
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
    print_table(kept["cells"], kept["sites"], ["fine-tuned"], others=["paper"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_collections(parser)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", choices=CHOICES)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs, phantoms of 20 women")
    parser.add_argument("--json", default="classifiers.json")
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.epochs = 1, 2
        asked.phantoms = asked.phantoms or (0 if asked.collection else 20)
    return asked


def _cell(
    asked: argparse.Namespace, sites: Sequence[Site], name: str, seed: int, device: torch.device
) -> dict[str, Any]:
    started = time.monotonic()
    terms = ClassifierRecipe(**{"epochs_max": asked.epochs, **CHOICES[name]})
    recipe = resolve_precision(
        Recipe(architecture="resnet18", image_px=asked.px, precision="auto", classifier=terms), device
    )
    scores = {site.name: {"fine-tuned": [_scores(site, recipe, seed, device)]} for site in sites}
    seconds = round(time.monotonic() - started, 1)
    print(f"{name}, seed {seed}: {seconds:.0f} s", flush=True)
    return {"choice": name, "seed": seed, "precision": recipe.precision, "scores": scores, "seconds": seconds}


def _scores(site: Site, recipe: Recipe, seed: int, device: torch.device) -> list[float]:
    """Return the score of every image, by the classifier that did not know her woman."""
    labels = np.array([image.label for image in site.scored])
    women = np.array([image.woman for image in site.scored])
    scores = np.zeros(len(labels))
    for known, asked in _folds(labels, women, seed):
        fit, stop = next(_folds(labels[known], women[known], seed))
        classifier, _ = build_classifier(recipe, derive(seed, "classifier"), None)
        finetune(
            classifier,
            _labelled(site, recipe, known[fit]),
            _labelled(site, recipe, known[stop]),
            TrainingContext(recipe=recipe, seed=seed, stream=site.name, machine=Machine(device)),
            on_epoch=lambda _epoch: None,
        )
        scores[asked] = predict(classifier, _labelled(site, recipe, asked).pixels, device=device)
    return [round(score, 5) for score in scores.tolist()]


def _folds(labels: Any, women: Any, seed: int) -> Any:
    return StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels, women)


def _labelled(site: Site, recipe: Recipe, rows: npt.NDArray[np.int64]) -> Labelled:
    chosen: list[Image] = [site.scored[row] for row in rows]
    labels = np.array([image.label for image in chosen], np.int64)
    return Labelled(site.pixels(chosen, recipe), labels, tuple(image.woman for image in chosen))


if __name__ == "__main__":
    main()
