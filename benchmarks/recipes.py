"""What does each choice of a recipe bring? Every choice by itself, against profile `paper`.

    python benchmarks/recipes.py --collection NAME=FOLDER ... [--phantoms WOMEN] [--staged WOMEN] [--against CHOICE]
        [--seeds 3] [--quick] [--json FILE]

For every choice and seed one encoder is trained: on the pooled training women of all collections, or (`--each`) one
per collection. Its features are scored on the *labelled training and validation women* of each collection, by a
linear probe and by nearest neighbours, in five folds by woman, four times over. Test women take no part: choosing by
this table spends nothing. `untrained` is the encoder as it was drawn.

A difference is the mean over collections and seeds of the AUC minus that of another choice; its 95 % interval is drawn
by woman (the same women on both sides). Seeds are few: what another seed would give is in the mean, not in the
interval. Cells are kept in the JSON file: a run that was stopped goes on where it was.

Where a manifest says stage, visit and device, features are asked for these too (`truths`), and labels are those of
pictures after acetic acid. `--staged` draws phantoms that have them, with test women who are scored and train nothing.
A choice that trains on some stages alone trains for as many steps as the others, not for as many epochs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import truths
from fedcervix.core.plan import Augment, Recipe
from fedcervix.core.seeds import derive
from site_agent.data import pixel_arrays, pixel_cache
from site_agent.data.collection import Collection, Image, IndexSettings, index
from site_agent.data.image_sets import Images
from site_agent.data.pixels import Pixels
from site_agent.metrics import auc
from site_agent.network.devices import Machine, choose, place, prepare
from site_agent.network.encoder import Encoder
from site_agent.network.first_weights import start_encoder
from site_agent.network.precision import resolve_precision
from site_agent.phantom import INSTITUTIONS, Protocol, write_institution
from site_agent.training.context import TrainingContext
from site_agent.training.knn_probe import embed, neighbour_scores
from site_agent.training.loop import train_epochs
from site_agent.training.steps import make_learner

Scores = npt.NDArray[np.float64]
Cells = dict[str, dict[str, Any]]
Scorer = Callable[[Any, Any, Any], Scores]

FOLDS, TURNS, DRAWS = 5, 4, 400

UNTRAINED = "untrained"
"""how the choices begin whose encoders are not trained"""
WIDE = {"rotation_deg": 180.0, "zoom_min": 0.7, "zoom_max": 1.3}
STAGED = Protocol(stages=("native", "acetic"), devices=2)
STAGED_TESTED = 3
"""test women for each woman who trains"""
STRONG = {"gamma_min": 0.5, "gamma_max": 2.0, "brightness": 0.4}

CHOICES: dict[str, dict[str, Any]] = {
    "paper": {},
    "wide, linear, both": {"head": "linear", "views": "both-augmented", "augment": WIDE},
    "head linear": {"head": "linear"},
    "spare the colours": {"augment": {"gamma_min": 1.0, "gamma_max": 1.0, "brightness": 0.0}},
    "wide geometry": {"augment": WIDE},
    "both views": {"views": "both-augmented"},
    "crop": {"fit": "crop"},
    "head mlp": {"head": "mlp"},
    "no same woman": {"avoid_same_patient": True},
    "spare norms": {"decay_norms_and_biases": False},
    "dcl": {"loss": "dcl"},
    "N 32": {"batch_images": 32},
    "lr .03": {"lr": 0.03},
    "tau .3": {"temperature": 0.3},
    "strong colours": {"augment": STRONG},
    "warm-up, cosine": {"warmup_epochs": 1.0, "schedule": "cosine"},
    "wide and strong": {"augment": WIDE | STRONG},
    "wide, strong, both": {"augment": WIDE | STRONG, "views": "both-augmented"},
    "bfloat16": {"precision": "bfloat16"},
    "untrained lite0": {"architecture": "efficientnet_lite0"},
    "untrained lite0, imagenet": {"architecture": "efficientnet_lite0", "start": "imagenet"},
    "wide, acetic stage": {"augment": WIDE, "stages": ("acetic",)},
    "wide, same visit": {"augment": WIDE, "positives": "same-stage-visit"},
    "wide, no same woman": {"augment": WIDE, "avoid_same_patient": True},
    "wide, acetic-safe": {"augment": WIDE | {"colour": "acetic-safe"}},
    "wide, spare colours": {"augment": WIDE | {"gamma_min": 1.0, "gamma_max": 1.0, "brightness": 0.0}},
    "wide, all three": {
        "augment": WIDE | {"colour": "acetic-safe"},
        "stages": ("acetic",),
        "positives": "same-stage-visit",
    },
}


@dataclass(frozen=True, slots=True)
class Site:
    """A collection, and where its squares are kept."""

    name: str
    collection: Collection
    folder: Path

    def pixels(self, chosen: Sequence[Image], recipe: Recipe) -> Pixels:
        """Return images as the recipe wants them."""
        return pixel_cache.load(self.collection.folder, chosen, recipe.image_px, recipe.fit, self.folder)

    def train(self, recipe: Recipe) -> Images:
        """Return all images of the training women at the recipe's stages."""
        chosen = self.collection.of_stages(recipe.stages).contrastive("train")
        women = tuple(f"{self.name}:{image.woman}" for image in chosen)
        return Images(self.pixels(chosen, recipe), women, details=tuple(image.details for image in chosen))

    @property
    def judged(self) -> tuple[Image, ...]:
        """The images that features are asked about: of test women where phantoms have them, else of all others."""
        test = tuple(image for image in self.collection.images if image.split == "test")
        drawn = test if self.collection.splits_given else ()
        return drawn or tuple(image for image in self.collection.images if image.split != "test")

    @property
    def scored(self) -> tuple[Image, ...]:
        """The labelled ones, after acetic acid where the stage is known."""
        return tuple(i for i in self.judged if i.label is not None and i.stage in ("", "acetic"))


def main() -> None:
    asked = _arguments()
    device = choose("auto")
    prepare(device, asked.threads, "off")
    file = Path(asked.json)
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"cells": {}}
    cells: Cells = kept["cells"]
    with tempfile.TemporaryDirectory() as folder:
        sites = list(sites_of(asked, Path(folder)))
        kept["sites"] = {site.name: who(site) for site in sites}
        kept["truths"] = truths_of(sites)
        for seed in range(asked.seeds):
            for name in (UNTRAINED, *(asked.only or CHOICES)):
                key = f"{name} / seed {seed}"
                if key not in cells:
                    cells[key] = _cell(asked, sites, name, seed, device)
                    file.write_text(json.dumps(kept))
                    print(key, _brief(cells[key], kept["sites"]), flush=True)
    others = [asked.against, UNTRAINED]
    print_table(cells, kept["sites"], list(PROBES), others=others)
    for name, rows in kept["truths"].items():
        print_table(cells, rows, [name], others=others)


def _arguments() -> argparse.Namespace:
    parser = options(__doc__, CHOICES, seeds=3)
    parser.add_argument("--each", action="store_true", help="one encoder per collection instead of a pooled one")
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--against", choices=CHOICES, default="paper", help="the choice that others are compared with")
    parser.add_argument("--json", default="recipes.json")
    return parsed(parser, only=["paper", "wide geometry"])


def options(
    about: str | None, choices: Iterable[str], *, seeds: int, px: int = 64, epochs: int = 20
) -> argparse.ArgumentParser:
    """Return the options of every benchmark of trainings: on which images, how many, how long; with their defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", action="append", default=[], help="NAME=FOLDER with manifest.csv")
    parser.add_argument("--phantoms", type=int, default=0, help="draw both phantom institutions, of so many women")
    parser.add_argument("--staged", type=int, default=0, help="draw one with stages and two devices, of so many women")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--px", type=int, default=px)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", action="append", choices=choices)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs, phantoms of 20 women")
    return parser


def parsed(parser: argparse.ArgumentParser, **quick: object) -> argparse.Namespace:
    """Return what was asked; with --quick little of it, and these values."""
    asked = parser.parse_args()
    if asked.quick:
        phantoms = asked.phantoms or (0 if asked.collection else 20)
        vars(asked).update(seeds=1, epochs=2, phantoms=phantoms, **quick)
    return asked


def sites_of(asked: argparse.Namespace, folder: Path) -> Iterator[Site]:
    """Index the collections that were asked for; phantoms are drawn."""
    given = [entry.partition("=") for entry in asked.collection]
    folders = {name: Path(path) for name, _, path in given}
    for name in INSTITUTIONS if asked.phantoms else ():
        folders[name] = folder / name
        write_institution(folders[name], INSTITUTIONS[name], women=asked.phantoms, seed=derive(0, "phantom", name))
    if asked.staged:
        folders["staged"] = folder / "staged"
        _draw_staged(folders["staged"], asked.staged)
    for name, path in folders.items():
        splits = folder / f"{name}.csv"
        found = index(
            path / "manifest.csv", IndexSettings(splits_file=splits, seed=0, unreadable_max=0.05, cache_folder=folder)
        )
        yield Site(name, found, folder)


def _draw_staged(folder: Path, women: int) -> None:
    write_institution(
        folder,
        INSTITUTIONS["nhs"],
        women=women,
        seed=derive(0, "phantom", "staged"),
        unlabelled_per_labelled=0.5,
        test_women=STAGED_TESTED * women,
        protocol=STAGED,
    )


def who(site: Site) -> dict[str, list[int]]:
    """Return labels and women of the scored images; women as numbers."""
    return _rows([int(image.label or 0) for image in site.scored], [image.woman for image in site.scored])


def truths_of(sites: Sequence[Site]) -> dict[str, dict[str, dict[str, list[int]]]]:
    """Return the rows of every other question at the sites where it can be asked."""
    found = {site.name: truths.questions(site.judged) for site in sites}
    return {
        name: {site: _rows(one[name].labels.tolist(), one[name].women) for site, one in found.items() if name in one}
        for name in truths.NAMES
    }


def _rows(labels: list[int], women: Sequence[str]) -> dict[str, list[int]]:
    numbers: dict[str, int] = {}
    return {"labels": labels, "women": [numbers.setdefault(woman, len(numbers)) for woman in women]}


def _recipe(asked: argparse.Namespace, changed: Mapping[str, Any]) -> Recipe:
    recipe = Recipe(architecture=asked.architecture, image_px=asked.px, epochs_max=asked.epochs)
    augment = Augment(**changed.get("augment", {}))
    return replace(recipe, **{"precision": asked.precision, **changed, "augment": augment})


def _cell(
    asked: argparse.Namespace, sites: Sequence[Site], name: str, seed: int, device: torch.device
) -> dict[str, Any]:
    """Train and score one choice with one seed."""
    started = time.monotonic()
    recipe = resolve_precision(_recipe(asked, CHOICES.get(name, {})), device)
    cell: dict[str, Any] = {"choice": name, "seed": seed, "precision": recipe.precision, "losses": [], "scores": {}}
    for together in [[site] for site in sites] if asked.each else [list(sites)]:
        encoder = start_encoder(recipe, derive(seed, "first-model"), None)
        if not name.startswith(UNTRAINED):
            cell["losses"].append(pretrain(encoder, together, recipe, seed, device))
        for site in together:
            cell["scores"][site.name] = scores(site, encoder, recipe, device) | truth_scores(
                site, encoder, recipe, device
            )
    return {**cell, "seconds": round(time.monotonic() - started, 1)}


def pretrain(encoder: Encoder, sites: Sequence[Site], recipe: Recipe, seed: int, device: torch.device) -> list[float]:
    """Train an encoder on the sites' training images together; return the loss of each epoch.

    A recipe that uses some of the images only takes as many steps as one that uses all.
    """
    parts = [site.train(recipe) for site in sites]
    whole = sum(len(site.collection.contrastive("train")) for site in sites)
    patients = tuple(patient for part in parts for patient in part.patients)
    details = tuple(one for part in parts for one in part.details)
    images = Images(pixel_arrays.joined([part.pixels for part in parts]), patients, details=details)
    context = TrainingContext(recipe=recipe, seed=seed, stream="pooled", machine=Machine(device))
    learner, epochs = make_learner(encoder, context), range(1, 1 + round(recipe.epochs_max * whole / len(images)))
    records = train_epochs(learner, images, context, epochs, on_step=lambda _step: None)
    return [round(record.loss, 4) for record in records]


def scores(site: Site, encoder: Encoder, recipe: Recipe, device: torch.device) -> dict[str, list[list[float]]]:
    """Return, by probe, the scores of all images by every way to fold."""
    place(encoder, device)
    features = embed(encoder, site.pixels(site.scored, recipe), device)
    labels = np.array([image.label for image in site.scored])
    women = [image.woman for image in site.scored]
    return {name: _folded(features, labels, women, scorer) for name, scorer in PROBES.items()}


def truth_scores(site: Site, encoder: Encoder, recipe: Recipe, device: torch.device) -> dict[str, list[list[float]]]:
    """Return the same for the questions of `truths`."""
    features = embed(encoder, site.pixels(site.judged, recipe), device)
    return {
        name: [asked.similarities(features)]
        if asked.second is not None
        else _folded(features[asked.first], asked.labels, asked.women, _linear)
        for name, asked in truths.questions(site.judged).items()
    }


def _linear(known: Any, labels: Any, asked: Any) -> Scores:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000))
    found: Scores = model.fit(known, labels).predict_proba(asked)[:, 1]
    return found


PROBES: dict[str, Scorer] = {"linear": _linear, "k-NN": neighbour_scores}


def _folded(features: Any, labels: Any, women: list[str], scorer: Scorer) -> list[list[float]]:
    found = []
    for turn in range(TURNS):
        scores = np.zeros(len(labels))
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=turn)
        for known, asked in folds.split(features, labels, women):
            scores[asked] = scorer(features[known], labels[known], features[asked])
        found.append([round(score, 5) for score in scores.tolist()])
    return found


# --- the table ----------------------------------------------------------------------------------------------------


def _brief(cell: Mapping[str, Any], sites: Mapping[str, Any]) -> str:
    aucs = [f"{name} {probe_auc(cell, name, who, 'linear'):.3f}" for name, who in sites.items()]
    return f"{', '.join(aucs)} (linear), {cell['seconds']:.0f} s, last loss {[x[-1] for x in cell['losses']]}"


def probe_auc(cell: Mapping[str, Any], site: str, who: Mapping[str, Any], probe: str, rows: Any = slice(None)) -> float:
    """Return the AUC, the mean over the ways to fold."""
    labels = np.array(who["labels"])[rows]
    return statistics.mean(auc(labels, np.array(scores)[rows]) for scores in cell["scores"][site][probe])


def print_table(cells: Cells, sites: Mapping[str, Any], probes: Sequence[str], *, others: Sequence[str]) -> None:
    """Print, by probe, every choice's AUC and its differences to the `others`."""
    names = list(dict.fromkeys(cell["choice"] for cell in cells.values()))
    for probe in probes:
        print(f"\n{probe}: AUC (mean over seeds); difference to {' and to '.join(others)}, 95 % by woman")
        for name in names:
            mine = [cell for cell in cells.values() if cell["choice"] == name]
            aucs = [statistics.mean(probe_auc(c, site, who, probe) for c in mine) for site, who in sites.items()]
            by_site = "  ".join(f"{site} {value:.3f}" for site, value in zip(sites, aucs, strict=True))
            apart = "  ".join(_apart(cells, name, other, sites, probe) for other in others)
            print(f"  {name:20} n={len(mine)}  {by_site}  {apart}")


def _apart(cells: Cells, name: str, other: str, sites: Mapping[str, Any], probe: str) -> str:
    """Return the difference of two choices with its interval, as text."""
    seeds = _seeds(cells, name) & _seeds(cells, other)
    if name == other or not seeds:
        return f"{'':24}"
    pairs = [(cells[f"{name} / seed {seed}"], cells[f"{other} / seed {seed}"]) for seed in sorted(seeds)]
    rng = np.random.default_rng(0)
    drawn = [_difference(pairs, sites, probe, rng) for _ in range(DRAWS)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return f"{_difference(pairs, sites, probe, None):+.3f} ({low:+.3f} to {high:+.3f})"


def _seeds(cells: Cells, name: str) -> set[int]:
    return {cell["seed"] for cell in cells.values() if cell["choice"] == name}


def _difference(
    pairs: Sequence[tuple[Any, Any]], sites: Mapping[str, Any], probe: str, rng: np.random.Generator | None
) -> float:
    """Return the mean difference over sites and seeds, on all women or on women drawn with replacement."""
    found = []
    for site, who in sites.items():
        rows = slice(None) if rng is None else _draw_women(who, rng)
        if len(set(np.array(who["labels"])[rows].tolist())) < 2:
            return float("nan")
        found += [probe_auc(one, site, who, probe, rows) - probe_auc(two, site, who, probe, rows) for one, two in pairs]
    return statistics.mean(found)


def _draw_women(who: Mapping[str, Any], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    women = np.array(who["women"])
    rows = [np.flatnonzero(women == woman) for woman in range(women.max() + 1)]
    return np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])


if __name__ == "__main__":
    main()
