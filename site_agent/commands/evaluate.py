"""The command `evaluate`: every classifier on the test images; the report, its numbers and the predictions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from fedcervix.process import stdout_console
from site_agent.commands.naming import set_name
from site_agent.display import Display
from site_agent.home import SiteHome
from site_agent.report_store import LATEST, PAGE_FILE, check_name

if TYPE_CHECKING:  # the report stands on torch and matplotlib, which help does not wait for
    from site_agent.report import SiteReport


@click.command("evaluate")
@click.option("--set", "name", callback=set_name, help="Of `finetune --name`. Default: the set without a name.")
@click.option("--run", default="", help="About this run of the federation. Default: the newest one.")
@click.option(
    "--name", "title", help="How the report's folder is called behind its date. Default: the run, or the set."
)
@click.pass_obj
def evaluate(home: SiteHome, name: str, run: str, title: str | None) -> None:
    """Score every classifier on the test women's images, and write a report.

    The report has a new folder below reports/, named by the date: report.html, results.json, predictions.csv and
    women.csv. It holds images and names patients, and stays at this site.
    """
    if title is not None:
        check_name(title)
    click.echo("evaluate: loading the software, which takes some seconds", err=True)
    from site_agent.report import printed, write_report

    now, display = datetime.now(UTC), Display()
    try:
        content = _made(home, name, run, now, display)
    finally:
        display.close()
    folder = write_report(content, home.reports, title or content.run or name or "site", now)
    console = stdout_console()
    for part in printed(content):
        console.print(part, markup=False)
    click.echo(f"report: {folder / PAGE_FILE}\nfolder: {folder} (also reports/{LATEST}); it stays at this site")


def _made(home: SiteHome, name: str, run: str, now: datetime, display: Display) -> SiteReport:
    """Return the report. Raises ModelError where there is nothing to compare, DataError, StorageError."""
    from site_agent import dataset
    from site_agent.assemble import site_report
    from site_agent.commands.setting import site_name
    from site_agent.comparable import comparable
    from site_agent.devices import ready

    def tell(stage: str, done: int, of: int, unit: str = "") -> None:
        display.show("progress", {"task": "evaluate", "stage": stage, "done": done, "of": of, "unit": unit})

    device = ready(home.config().hardware).device
    collection = dataset.open_collection(home, lambda done, of: tell("looking at images", done, of, "images"))
    found = comparable(home, collection, name=name, run=run)
    recipe = found.stored[0].recipe
    test = dataset.labelled(
        home, collection, recipe, "test", lambda done, of: tell("decoding test images", done, of, "images")
    )
    return site_report(home, site_name(home), collection, found, test, device, now, tell)
