"""The command `evaluate`: every classifier on the test images; the report, its numbers and the predictions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from fedcervix.errors import ModelError
from fedcervix.process import stdout_console
from site_agent.display import Display
from site_agent.home import SiteHome
from site_agent.report_store import LATEST, check_name

if TYPE_CHECKING:  # the report stands on torch and matplotlib, which help does not wait for
    from site_agent.classifiers import StoredClassifier
    from site_agent.report import SiteReport


@click.command("evaluate")
@click.option("--name", help="How the report's folder is called behind its date. Default: the federated start.")
@click.pass_obj
def evaluate(home: SiteHome, name: str | None) -> None:
    """Score every classifier on the test women's images, and write a report.

    The report has a new folder below reports/, named by the date: report.html, results.json, predictions.csv and
    women.csv. It holds images and names patients, and stays at this site.
    """
    if name is not None:
        check_name(name)
    click.echo("evaluate: reading the records (the software takes some seconds to load)", err=True)
    from site_agent.report import printed, write_report

    now, display = datetime.now(UTC), Display()
    try:
        content = _made(home, now, display)
    finally:
        display.close()
    folder = write_report(content, home.reports, name or content.federated.lower() or "site", now)
    console = stdout_console()
    for part in printed(content):
        console.print(part, markup=False)
    click.echo(f"report: {folder / 'report.html'}\nfolder: {folder} (also reports/{LATEST}); it stays at this site")


def _made(home: SiteHome, now: datetime, display: Display) -> SiteReport:
    """Return the report. Raises ModelError where there is nothing to compare, DataError, StorageError."""
    from site_agent import classifiers, dataset
    from site_agent.assemble import site_report
    from site_agent.commands.setting import site_name
    from site_agent.devices import ready

    def tell(stage: str, done: int, of: int) -> None:
        display.show("progress", {"task": "evaluate", "stage": stage, "done": done, "of": of, "unit": ""})

    stored = classifiers.all_classifiers(home)
    _check_some(stored)
    device = ready(home.config().hardware).device
    collection = dataset.open_collection(home, lambda done, of: tell("looking at the images", done, of))
    _check_unchanged(home, stored, collection.digest)
    _check_alike(home, stored)
    test = dataset.labelled(
        home, collection, stored[0].recipe, "test", lambda done, of: tell("decoding the test images", done, of)
    )
    return site_report(home, site_name(home), collection, stored, test, device, now, tell)


def _check_some(stored: list[StoredClassifier]) -> None:
    if not stored:
        raise ModelError(
            "there is no classifier to evaluate", cause="none was fine-tuned yet", next_step="site-agent finetune"
        )


def _check_unchanged(home: SiteHome, stored: list[StoredClassifier], digest: str) -> None:
    stale = [c.start for c in stored if c.collection != digest]
    if stale:
        raise ModelError(
            f"the images have changed since {', '.join(stale)} was fine-tuned",
            cause="images, labels or splits were added or changed: a test woman might have been trained on",
            next_step=f"site-agent --home {home.folder} finetune",
        )


def _check_alike(home: SiteHome, stored: list[StoredClassifier]) -> None:
    inputs = {c.start: (c.recipe.image_px, c.recipe.fit) for c in stored}
    if len(set(inputs.values())) > 1:
        named = ", ".join(f"{start} {px} px {fit}" for start, (px, fit) in inputs.items())
        raise ModelError(
            f"the classifiers take different input: {named}",
            cause="they were fine-tuned with different recipes, and cannot be compared",
            next_step=f"site-agent --home {home.folder} finetune (with one recipe for all)",
        )
