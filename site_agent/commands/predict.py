"""The command `predict`: the probability of case of new images, as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path

import click
import numpy as np

from fedcervix.errors import DataError
from fedcervix.plan import Recipe
from fedcervix.weights import disk
from site_agent import classifiers
from site_agent.devices import ready
from site_agent.finetune import predict as score
from site_agent.home import SiteHome
from site_agent.images import UnreadableError, decode, square

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}
BATCH_FILES = 64


def predict(home: SiteHome, classifier: str, images: tuple[Path, ...], out: Path) -> None:
    """Write the probability of case of new images (files or folders) to a CSV file.

    CLASSIFIER is the name of a folder below classifiers/ (random, ssl, csfssl, ...), or a path to one.
    """
    folder = home.folder / "classifiers" / classifier
    stored = classifiers.read(folder if folder.is_dir() else Path(classifier))
    files = _files(images)
    device, network = ready(home.config().hardware).device, stored.build()
    unreadable = 0
    with disk(out, "write"), out.open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["image", "probability_of_case", "case_at_0.5", "case_at_validation_threshold", "problem"])
        for start in range(0, len(files), BATCH_FILES):
            batch = [(file, _read(file, stored.recipe)) for file in files[start : start + BATCH_FILES]]
            good = [pixels for _, pixels in batch if isinstance(pixels, np.ndarray)]
            found = iter(score(network, np.stack(good), device=device).tolist() if good else [])
            for file, pixels in batch:
                if isinstance(pixels, np.ndarray):
                    p = float(next(found))
                    rows.writerow([file, f"{p:.6f}", int(p >= 0.5), int(p >= stored.threshold), ""])
                else:
                    unreadable += 1
                    rows.writerow([file, "", "", "", pixels])
    click.echo(f"wrote {out}: {len(files) - unreadable} images scored, {unreadable} unreadable, by {stored.start}")
    click.echo("research use only: these probabilities are no diagnosis")


def _files(named: tuple[Path, ...]) -> list[Path]:
    files: list[Path] = []
    for path in named:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path} does not exist", cause="a misspelt path", next_step="ls " + str(path.parent))
    if not files:
        raise DataError("no images there", cause=f"looked for {', '.join(sorted(SUFFIXES))}", next_step="name a folder")
    return files


def _read(file: Path, recipe: Recipe) -> np.ndarray | str:
    try:
        return square(decode(file), recipe.image_px, recipe.fit)
    except UnreadableError as error:
        return error.reason
