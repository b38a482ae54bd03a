"""The commands that use classifiers: evaluate (report and results.json) and predict."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
from rich.table import Table

from fedcervix.errors import DataError
from fedcervix.plan import Recipe
from fedcervix.process import stdout_console
from fedcervix.weights import disk
from site_agent import classifiers, dataset, report
from site_agent.assemble import site_report
from site_agent.commands.naming import set_name
from site_agent.commands.setting import site_name
from site_agent.comparable import comparable
from site_agent.devices import ready
from site_agent.evaluate import Estimate, Evaluation
from site_agent.finetune import predict as score
from site_agent.home import SiteHome
from site_agent.images import UnreadableError, decode, square

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}
BATCH_FILES = 64


@click.command("evaluate")
@click.option("--set", "name", callback=set_name, help="Of `finetune --name`. Default: the set without a name.")
@click.option("--run", default="", help="About this run of the federation. Default: the newest one.")
@click.pass_obj
def evaluate(home: SiteHome, name: str, run: str) -> None:
    """Score every classifier on the test women's images; write the report and results.json."""
    device, collection = ready(home.config().hardware).device, dataset.open_collection(home)
    found = comparable(home, collection, name=name, run=run)
    test = dataset.labelled(home, collection, found.stored[0].recipe, "test")
    now = datetime.now(UTC)
    content = site_report(home, site_name(home), collection, found, test, device, now)
    page, results = report.write_results(content, home.reports)
    console = stdout_console()
    console.print(table(content.evaluations, f"site {content.site}: {len(test.labels)} test images"))
    for comparison in content.comparisons:
        difference = comparison.difference
        told = f"{difference.value:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})"
        console.print(f"AUC of {comparison.name} minus {comparison.versus}: {told}: {comparison.verdict}")
    for said in found.differences:
        console.print(said)
    click.echo(f"report: {page}\nnumbers: {results}")


def table(evaluations: tuple[Evaluation, ...], title: str) -> Table:
    """Return the table of initialisations, in the shape of the paper's Table II with 95 % intervals."""
    columns = ("start", "AUC", "accuracy", "recall", "precision", "F1", "F1, chosen threshold")
    drawn = Table(*columns, title=title, title_justify="left")
    for e in evaluations:
        fixed = (_interval(value) for value in (e.fixed.accuracy, e.fixed.recall, e.fixed.precision, e.fixed.f1))
        drawn.add_row(e.name, _interval(e.auc), *fixed, _interval(e.chosen.f1))
    return drawn


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f}–{estimate.high:.2f})"


@click.command("predict")
@click.argument("classifier")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("predictions.csv"), show_default=True)
@click.pass_obj
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
