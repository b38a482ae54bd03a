"""What do an encoder's features know of a phantom woman? Random weights, then every encoder that is given.

    python benchmarks/phantom_features.py [--women 400] [--px 64] [--encoder NAME=MODEL.safetensors ...]

Phantoms have what no collection has: the disease behind the label. Women whom no study of `studies/` has drawn (another
seed) are embedded, two images of each, and ridge regression in four folds by woman asks the features for the disease's
extent and density, for anatomy that is no disease, and for the label (AUC). Correlations are those of held-out women.
So a study that shows nothing can be told apart: features that know nothing of disease, or too few labels to use them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.sides import table
from fedcervix.metrics import auc
from fedcervix.plan import Recipe
from fedcervix.weights import read_tensors
from site_agent import cache
from site_agent.collection import index
from site_agent.devices import choose, place, prepare
from site_agent.model import Encoder, apply_weights, build_encoder
from site_agent.neighbours import embed
from site_agent.phantom import INSTITUTIONS, write_institution
from site_agent.phantom.anatomy import Woman
from site_agent.phantom.collection import woman_of
from site_agent.pixels import Pixels

Numbers = npt.NDArray[np.float64]

SEED, FOLDS = 1_000_003, 4
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
    """One institution's labelled images, and the woman behind each."""

    pixels: Pixels
    labels: npt.NDArray[np.int64]
    women: tuple[Woman, ...]
    numbers: npt.NDArray[np.int64]


def main() -> None:
    asked = _arguments()
    device = choose("auto")
    prepare(device, asked.threads, "off")
    recipe = Recipe(architecture=asked.architecture, image_px=asked.px)
    with tempfile.TemporaryDirectory() as folder:
        drawn = {name: _draw(name, asked.women, recipe, Path(folder)) for name in INSTITUTIONS}
        lines = []
        for name, encoder in _encoders(asked, recipe):
            place(encoder, device)
            for institution, images in drawn.items():
                found = _known(embed(encoder, images.pixels, device), images)
                lines.append([name, institution, *(f"{value:.2f}" for value in found)])
    print(table(HEAD, lines))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--encoder", action="append", default=[], help="NAME=FILE; a study's cells/KEY/model.safetensors"
    )
    parser.add_argument("--women", type=int, default=400, help="of each institution")
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
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
    found = index(manifest, splits_file=splits, seed=0, unreadable_max=0, cache_folder=folder)
    images = [image for image in found.images if image.label is not None]
    numbers = [int(image.patient.removeprefix(f"{name}-")) for image in images]
    return Drawn(
        cache.load(found.folder, images, recipe.image_px, recipe.fit, folder),
        np.array([image.label for image in images]),
        tuple(woman_of(institution, number, SEED) for number in numbers),
        np.array(numbers),
    )


def _known(features: Any, images: Drawn) -> list[float]:
    """Return the correlations of what is asked for, then the AUC of the label."""
    found = []
    for value in ASKED.values():
        truth = np.array([value(woman) for woman in images.women])
        found.append(float(np.corrcoef(_guessed(features, truth, images.numbers), truth)[0, 1]))
    return [*found, auc(images.labels, _guessed(features, images.labels.astype(float), images.numbers))]


def _guessed(features: Any, truth: Numbers, women: npt.NDArray[np.int64]) -> Numbers:
    guessed = np.zeros(len(truth))
    for known, asked in GroupKFold(FOLDS).split(features, truth, women):
        model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(features[known], truth[known])
        guessed[asked] = model.predict(features[asked])
    return guessed


if __name__ == "__main__":
    main()
