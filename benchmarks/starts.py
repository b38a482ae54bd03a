"""What do ImageNet's weights bring, against random ones of the same network? For features, for SSL and for classifiers.

    python benchmarks/starts.py --collection NAME=FOLDER ... [--phantoms WOMEN] [--seeds 3] [--quick] [--json FILE]

frozen        the features of either start, untrained
SSL           the features after contrastive training from either start, on the pooled training women (profile `paper`)
fine-tuned    a classifier from either start (its recipe: learning rate .001 with momentum .9, batches of 16)

Features are scored by a linear probe and classifiers by themselves, as `recipes.py` and `classifiers.py` do: labelled
training and validation women, five folds by woman. Test women take no part. Differences and intervals are those of
`recipes.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from benchmarks.classifiers import scores_from
from benchmarks.recipes import Site, options, parsed, pretrain, print_table, scores, sites_of, who
from fedcervix.core.plan import Architecture, ClassifierRecipe, Recipe
from fedcervix.core.seeds import derive
from site_agent.network.devices import choose, prepare
from site_agent.network.first_weights import imagenet_backbone, start_encoder
from site_agent.network.precision import resolve_precision

STARTS = ("random", "imagenet")
CLASSIFIER = ClassifierRecipe(lr=0.001, momentum=0.9, batch_images=16)


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
            for part in asked.only or PARTS:
                for start in STARTS:
                    name = f"{part} {start}"
                    if f"{name} / seed {seed}" not in kept["cells"]:
                        kept["cells"][f"{name} / seed {seed}"] = _cell(asked, sites, name, seed, device)
                        file.write_text(json.dumps(kept))
    for part in asked.only or PARTS:
        cells = {key: cell for key, cell in kept["cells"].items() if cell["choice"].startswith(part)}
        probe = next(iter(next(iter(next(iter(cells.values()))["scores"].values()))))
        print_table(cells, kept["sites"], [probe], others=[f"{part} random"])


def _arguments() -> argparse.Namespace:
    parser = options(__doc__, PARTS, seeds=3, px=128, epochs=10)
    parser.add_argument("--architecture", choices=get_args(Architecture), default="efficientnet_lite0")
    parser.add_argument("--imagenet-weights", type=Path, help="a file; needed for the ResNets")
    parser.add_argument("--classifier-epochs", type=int, default=30)
    parser.add_argument("--json", default="starts.json")
    return parsed(parser, classifier_epochs=2, px=64)


def _cell(
    asked: argparse.Namespace, sites: Sequence[Site], name: str, seed: int, device: torch.device
) -> dict[str, Any]:
    began_s = time.monotonic()
    part, start = name.split()
    terms = replace(CLASSIFIER, epochs_max=asked.classifier_epochs)
    recipe = Recipe(architecture=asked.architecture, image_px=asked.px, epochs_max=asked.epochs, precision="auto")
    recipe = resolve_precision(replace(recipe, start=start, classifier=terms), device)
    found = PARTS[part](asked, sites, recipe, seed, device)
    seconds = round(time.monotonic() - began_s, 1)
    print(f"{name}, seed {seed}: {seconds:.0f} s", flush=True)
    return {"choice": name, "seed": seed, "precision": recipe.precision, "scores": found, "seconds": seconds}


def _frozen(
    asked: argparse.Namespace, sites: Sequence[Site], recipe: Recipe, seed: int, device: torch.device
) -> dict[str, Any]:
    encoder = start_encoder(recipe, derive(seed, "first-model"), asked.imagenet_weights)
    return {site.name: scores(site, encoder, recipe, device) for site in sites}


def _ssl(
    asked: argparse.Namespace, sites: Sequence[Site], recipe: Recipe, seed: int, device: torch.device
) -> dict[str, Any]:
    encoder = start_encoder(recipe, derive(seed, "first-model"), asked.imagenet_weights)
    pretrain(encoder, sites, recipe, seed, device)
    return {site.name: scores(site, encoder, recipe, device) for site in sites}


def _finetuned(
    asked: argparse.Namespace, sites: Sequence[Site], recipe: Recipe, seed: int, device: torch.device
) -> dict[str, Any]:
    start = imagenet_backbone(recipe, asked.imagenet_weights) if recipe.start == "imagenet" else None
    return {site.name: {"fine-tuned": [scores_from(site, recipe, seed, device, start)]} for site in sites}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {"frozen": _frozen, "SSL": _ssl, "fine-tuned": _finetuned}


if __name__ == "__main__":
    main()
