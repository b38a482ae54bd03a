"""What does each choice of profile `recommended` bring? Every choice by itself, against profile `paper`.

    python benchmarks/recipes.py --collection NAME=FOLDER ... [--phantoms WOMEN] [--seeds 2] [--quick] [--json FILE]

One encoder is trained per choice and seed on the pooled training women of all collections. Features are then scored on
the *labelled training and validation women* of each collection, in five folds by woman: a linear probe and nearest
neighbours (AUC). Test women take no part, so choosing by this table spends nothing. Beside each stands the encoder
that was not trained at all. Cells are kept in the JSON file: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedcervix.metrics import auc
from fedcervix.plan import Augment, Recipe
from site_agent import cache
from site_agent.collection import Collection, Image, index
from site_agent.devices import choose, place, prepare
from site_agent.epochs import Images, train_epochs
from site_agent.model import Encoder, build_encoder
from site_agent.neighbours import embed, neighbour_scores
from site_agent.optimise import make_optimiser

Pixels = Any
FOLDS = 5

CHOICES: dict[str, dict[str, Any]] = {
    "paper": {},
    "head linear": {"head": "linear"},
    "spare the colours": {"augment": {"gamma_min": 1.0, "gamma_max": 1.0, "brightness": 0.0}},
    "wide geometry": {"augment": {"rotation_deg": 180.0, "zoom_min": 0.7, "zoom_max": 1.3}},
    "both views": {"views": "both-augmented"},
    "crop": {"fit": "crop"},
    "head mlp": {"head": "mlp"},
    "no same woman": {"avoid_same_patient": True},
    "spare norms": {"decay_norms_and_biases": False},
    "dcl": {"loss": "dcl"},
    "N 32": {"batch_images": 32},
    "lr .03": {"lr": 0.03},
    "tau .3": {"temperature": 0.3},
    "strong colours": {"augment": {"gamma_min": 0.5, "gamma_max": 2.0, "brightness": 0.4}},
}


@dataclasses.dataclass(frozen=True)
class Site:
    name: str
    collection: Collection


def main() -> None:
    asked = _arguments()
    device = choose("auto")
    prepare(device, asked.threads)
    torch.use_deterministic_algorithms(False)
    file = Path(asked.json)
    cells: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        sites = list(_sites(asked, Path(folder)))
        for seed in range(asked.seeds):
            for name in ["untrained", *(asked.only or CHOICES)]:
                key = f"{name} / seed {seed}"
                if key in cells:
                    continue
                started = time.monotonic()
                recipe = _recipe(asked, CHOICES.get(name, {}))
                scores = _cell(
                    sites, recipe, seed, device, Path(folder), epochs=0 if name == "untrained" else asked.epochs
                )
                cells[key] = {"choice": name, "seed": seed, "seconds": round(time.monotonic() - started, 1), **scores}
                file.write_text(json.dumps(cells, indent=1))
                print(key, json.dumps(cells[key]), flush=True)
    _table(cells)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", action="append", default=[], help="NAME=FOLDER with manifest.csv")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--only", action="append")
    parser.add_argument("--json", default="recipes.json")
    return parser.parse_args()


def _sites(asked: argparse.Namespace, folder: Path) -> Iterator[Site]:
    for given in asked.collection:
        name, _, path = given.partition("=")
        yield Site(
            name,
            index(
                Path(path) / "manifest.csv",
                splits_file=folder / f"{name}.csv",
                seed=0,
                unreadable_max=0.05,
                cache_folder=folder,
            ),
        )


def _recipe(asked: argparse.Namespace, changed: dict[str, Any]) -> Recipe:
    changed = dict(changed)
    if "augment" in changed:
        changed["augment"] = Augment(**changed["augment"])
    return Recipe(architecture="resnet18", image_px=asked.px, precision=asked.precision, **changed)


def _cell(
    sites: list[Site], recipe: Recipe, seed: int, device: torch.device, folder: Path, *, epochs: int
) -> dict[str, Any]:
    encoder = build_encoder(recipe, seed)
    losses: list[float] = []
    if epochs:
        place(encoder, device)
        records = train_epochs(
            encoder,
            make_optimiser(encoder, recipe),
            _pooled(sites, recipe, folder),
            recipe,
            seed=seed,
            stream="pooled",
            first_epoch=1,
            epochs=epochs,
            device=device,
            on_step=lambda step: None,
        )
        losses = [record.loss for record in records]
    return {
        "losses": [round(x, 4) for x in losses],
        **{s.name: _scores(s, encoder, recipe, device, folder) for s in sites},
    }


def _pooled(sites: list[Site], recipe: Recipe, folder: Path) -> Images:
    pixels, women = [], []
    for site in sites:
        chosen = site.collection.contrastive("train")
        pixels.append(_pixels(site, chosen, recipe, folder))
        women += [f"{site.name}:{image.woman}" for image in chosen]
    return Images(np.concatenate(pixels), tuple(women))


def _pixels(site: Site, chosen: tuple[Image, ...], recipe: Recipe, folder: Path) -> Pixels:
    return cache.load(site.collection.folder, chosen, recipe.image_px, recipe.fit, folder)


def _scores(site: Site, encoder: Encoder, recipe: Recipe, device: torch.device, folder: Path) -> dict[str, float]:
    chosen = site.collection.labelled("train") + site.collection.labelled("valid")
    features = embed(encoder, _pixels(site, chosen, recipe, folder), device)
    labels = np.array([image.label for image in chosen])
    women = [image.woman for image in chosen]
    return {
        "linear": _probe(features, labels, women, _linear),
        "knn": _probe(features, labels, women, neighbour_scores),
    }


def _linear(known: Pixels, labels: Pixels, asked: Pixels) -> Pixels:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000))
    return model.fit(known, labels).predict_proba(asked)[:, 1]


def _probe(features: Pixels, labels: Pixels, women: list[str], scorer: Callable[..., Pixels]) -> float:
    """Mean over four ways to fold: one way alone moves an AUC of 100 images by .03."""
    found = []
    for turn in range(4):
        scores = np.zeros(len(labels))
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=turn)
        for known, asked in folds.split(features, labels, women):
            scores[asked] = scorer(features[known], labels[known], features[asked])
        found.append(auc(labels, scores))
    return round(statistics.mean(found), 4)


def _table(cells: dict[str, Any]) -> None:
    names = list(dict.fromkeys(cell["choice"] for cell in cells.values()))
    sites = [k for k in next(iter(cells.values())) if k not in ("choice", "seed", "seconds", "losses")]
    for probe in ("linear", "knn"):
        print(
            f"\n{probe}: AUC, mean over seeds; then the mean difference to paper over sites and seeds (standard error)"
        )
        for name in names:
            mine = {c["seed"]: c for c in cells.values() if c["choice"] == name}
            paper = {c["seed"]: c for c in cells.values() if c["choice"] == "paper"}
            means = [statistics.mean(c[s][probe] for c in mine.values()) for s in sites]
            gains = [mine[k][s][probe] - paper[k][s][probe] for k in mine.keys() & paper.keys() for s in sites]
            error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
            gain = statistics.mean(gains) if gains else math.nan
            print(f"  {name:20}", *(f"{s} {m:.3f} " for s, m in zip(sites, means)), f"{gain:+.3f} ({error:.3f})")


if __name__ == "__main__":
    main()
