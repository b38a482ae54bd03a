"""The command `evaluate`: every classifier on the test images; the report, its numbers and the predictions."""

from __future__ import annotations

from datetime import UTC, datetime

import click
from rich.table import Table

from fedcervix.errors import ModelError
from fedcervix.process import stdout_console
from site_agent import classifiers, dataset, report
from site_agent.assemble import site_report
from site_agent.commands.setting import site_name
from site_agent.devices import ready
from site_agent.evaluate import Estimate, Evaluation
from site_agent.home import SiteHome


@click.command("evaluate")
@click.pass_obj
def evaluate(home: SiteHome) -> None:
    """Score every classifier on the test women's images; write the report and results.json."""
    stored = classifiers.all_classifiers(home)
    if not stored:
        raise ModelError(
            "there is no classifier to evaluate", cause="none was fine-tuned yet", next_step="site-agent finetune"
        )
    device, collection = ready(home.config().hardware).device, dataset.open_collection(home)
    stale = [c.start for c in stored if c.collection != collection.digest]
    if stale:
        raise ModelError(
            f"the images have changed since {', '.join(stale)} was fine-tuned",
            cause="images, labels or splits were added or changed: a test woman might have been trained on",
            next_step=f"site-agent --home {home.folder} finetune",
        )
    inputs = {c.start: (c.recipe.image_px, c.recipe.fit) for c in stored}
    if len(set(inputs.values())) > 1:
        named = ", ".join(f"{start} {px} px {fit}" for start, (px, fit) in inputs.items())
        raise ModelError(
            f"the classifiers take different input: {named}",
            cause="they were fine-tuned with different recipes, and cannot be compared",
            next_step=f"site-agent --home {home.folder} finetune (with one recipe for all)",
        )
    test = dataset.labelled(home, collection, stored[0].recipe, "test")
    now = datetime.now(UTC)
    content = site_report(home, site_name(home), collection, stored, test, device, now)
    page, results = report.write_results(content, home.reports)
    console = stdout_console()
    console.print(table(content.evaluations, f"site {content.site}: {len(test.labels)} test images"))
    for comparison in content.comparisons:
        found = comparison.difference
        difference = f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
        console.print(f"AUC of {comparison.name} minus {comparison.versus}: {difference}: {comparison.verdict}")
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
