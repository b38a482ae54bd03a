"""The command `evaluate`: every classifier on the test images; the report, its numbers and the predictions."""

from __future__ import annotations

from datetime import UTC, datetime

import click
from rich.table import Table

from fedcervix.process import stdout_console
from site_agent import dataset, report
from site_agent.assemble import site_report
from site_agent.commands.naming import set_name
from site_agent.commands.setting import site_name
from site_agent.comparable import comparable
from site_agent.devices import ready
from site_agent.evaluate import Estimate, Evaluation
from site_agent.home import SiteHome
from site_agent.report.results import dump
from site_agent.report_store import PAGE_FILE, RESULTS_FILE, publish


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
    files = {PAGE_FILE: report.render(content).encode("utf-8"), RESULTS_FILE: dump(content).encode()}
    folder = publish(home.reports, found.run or name or "report", now, files)
    console = stdout_console()
    console.print(table(content.evaluations, f"site {content.site}: {len(test.labels)} test images"))
    for comparison in content.comparisons:
        difference = comparison.difference
        told = f"{difference.value:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})"
        console.print(f"AUC of {comparison.name} minus {comparison.versus}: {told}: {comparison.verdict}")
    for said in found.differences:
        console.print(said)
    click.echo(f"report: {folder / PAGE_FILE}\nnumbers: {folder / RESULTS_FILE}")


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
