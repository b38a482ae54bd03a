"""What do an encoder's features know of a phantom woman? Random weights, then every encoder that is given.

    python benchmarks/phantom_features.py [--women 400] [--px 64] [--encoder NAME=MODEL.safetensors ...] [--json FILE]

Phantoms have what no collection has: the disease behind the label. Women whom no study of `studies/` has drawn (another
seed) are embedded, the mean of two images of each, and ridge regression asks the features of held-out women for the
disease's extent and density, for anatomy that is no disease, and for the label. A number is the correlation (of the
label: the AUC) within a fold, the mean over four folds; beside it the range over four ways to fold. Features that know
nothing give 0 (.5). So a study that shows nothing can be told apart: features that know nothing of disease, or too few
labels and test women to see what they know.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.sides import table
from fedcervix.core.plan import Recipe
from fedcervix.models.weights import read_tensors
from site_agent.data import pixel_cache
from site_agent.data.collection import IndexSettings, index
from site_agent.data.pixels import Pixels
from site_agent.metrics import auc
from site_agent.network.devices import choose, place, prepare
from site_agent.network.encoder import Encoder, apply_weights, build_encoder
from site_agent.phantom import INSTITUTIONS, write_institution
from site_agent.phantom.anatomy import Woman
from site_agent.phantom.collection import woman_of
from site_agent.training.knn_probe import embed

Numbers = npt.NDArray[np.float64]
Judge = Callable[[Numbers, Numbers], float]

SEED, FOLDS, TURNS = 1_000_003, 4, 4
IMAGES = 2
"""of a woman"""
PENALTIES = np.logspace(0, 5, 11)
ASKED: dict[str, Callable[[Woman], float]] = {
    "extent": lambda woman: woman.disease.extent,
    "density": lambda woman: woman.disease.density,
    "ectropion": lambda woman: woman.ectropion,
    "inflammation": lambda woman: woman.inflammation,
    "skin": lambda woman: woman.squamous[1],
}
HEAD = ("encoder", "institution", *ASKED, "label (AUC)")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One institution's labelled women, and two images of each, one woman's after another's."""

    pixels: Pixels
    labels: npt.NDArray[np.int64]
    women: tuple[Woman, ...]


def main() -> None:
    asked = _arguments()
    device = choose("auto")
    prepare(device, asked.threads, "off")
    recipe = Recipe(architecture=asked.architecture, image_px=asked.px)
    with tempfile.TemporaryDirectory() as folder:
        drawn = {name: _draw(name, asked.women, recipe, Path(folder)) for name in INSTITUTIONS}
        found: dict[str, dict[str, list[list[float]]]] = {}
        for name, encoder in _encoders(asked, recipe):
            place(encoder, device)
            found[name] = {site: _known(embed(encoder, d.pixels, device), d) for site, d in drawn.items()}
    rows = [(name, site, turns) for name, sites in found.items() for site, turns in sites.items()]
    print(table(HEAD, [[name, site, *map(_cell, turns)] for name, site, turns in rows]))
    if asked.json:
        Path(asked.json).write_text(json.dumps({"women": asked.women, "asked": HEAD[2:], "turns": found}))


def _cell(turns: Sequence[float]) -> str:
    return f"{statistics.mean(turns):.2f} ({min(turns):.2f} to {max(turns):.2f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--encoder", action="append", default=[], help="NAME=FILE; a study's cells/KEY/model.safetensors"
    )
    parser.add_argument("--women", type=int, default=400, help="of each institution")
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write all figures here")
    return parser.parse_args()


def _encoders(asked: argparse.Namespace, recipe: Recipe) -> Iterator[tuple[str, Encoder]]:
    yield "random", build_encoder(recipe, SEED)
    for entry in asked.encoder:
        name, _, file = entry.partition("=")
        encoder = build_encoder(recipe, SEED)
        state = {key: torch.from_numpy(values.copy()) for key, values in read_tensors(Path(file)).items()}
        apply_weights(encoder, state, what=file)
        yield name, encoder


def _draw(name: str, women: int, recipe: Recipe, folder: Path) -> Drawn:
    institution = INSTITUTIONS[name]
    write_institution(folder / name, institution, women=women, seed=SEED, unlabelled_per_labelled=0)
    manifest, splits = folder / name / "manifest.csv", folder / f"{name}.csv"
    found = index(manifest, IndexSettings(splits_file=splits, seed=0, unreadable_max=0, cache_folder=folder))
    images = sorted((image for image in found.images if image.label is not None), key=lambda image: image.patient)
    firsts = images[::IMAGES]
    numbers = [int(image.patient.removeprefix(f"{name}-")) for image in firsts]
    return Drawn(
        pixel_cache.load(found.folder, images, recipe.image_px, recipe.fit, folder),
        np.array([image.label for image in firsts]),
        tuple(woman_of(institution, number, SEED) for number in numbers),
    )


def _known(features: Any, drawn: Drawn) -> list[list[float]]:
    """Return what the features know of each thing that is asked for, once for each way to fold."""
    known = np.asarray(features).reshape(len(drawn.women), IMAGES, -1).mean(axis=1)
    truths = [np.array([value(woman) for woman in drawn.women]) for value in ASKED.values()]
    found = [[_folded(known, truth, drawn.labels, turn, _correlation) for turn in range(TURNS)] for truth in truths]
    label = drawn.labels.astype(float)
    return [*found, [_folded(known, label, drawn.labels, turn, _auc) for turn in range(TURNS)]]


def _folded(known: Numbers, truth: Numbers, labels: Any, turn: int, judged: Judge) -> float:
    """Return how well held-out women are guessed, judged within each fold."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=turn).split(known, labels)
    found = []
    for seen, asked in folds:
        model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(known[seen], truth[seen])
        found.append(judged(truth[asked], model.predict(known[asked])))
    return statistics.mean(found)


def _correlation(truth: Numbers, guessed: Numbers) -> float:
    return float(np.corrcoef(truth, guessed)[0, 1])


def _auc(truth: Numbers, guessed: Numbers) -> float:
    return auc(truth.astype(int), guessed)


if __name__ == "__main__":
    main()
