"""The report in short, as `evaluate` prints it: the answer, every start, and what is missed. No column is left out."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from site_agent.classifier.evaluate import AtThreshold
from site_agent.classifier.notices import RESEARCH_ONLY
from site_agent.report.answer import Conclusion, answer, counts_of, share, shown, threshold
from site_agent.report.content import SiteReport


def printed(report: SiteReport) -> Iterator[RenderableType]:
    """Yield what the command prints, in order."""
    found = answer(report)
    yield Text(found.headline, style="bold")
    for line in found.sentences:
        yield Text(line)
    if report.evaluations:
        yield _standings(found, report)
        yield _counts(report)
    for line in (*found.missed, *found.caveats, *(f"Missing: {line}" for line in report.unread)):
        yield Text(f"- {line}")
    for line in found.notices:
        yield Text(line)


def _standings(found: Conclusion, report: SiteReport) -> Table:
    title = "The highest AUC first. Difference: the federated start minus this one. In brackets: 95 % intervals"
    table = Table(
        "start", "AUC of images", "AUC of women", "difference", "conclusion", title=title, title_justify="left"
    )
    for one in found.standings:
        name = f"{one.name} (federated)" if one.joined else one.name
        table.add_row(*map(Text, (name, str(one.auc), str(one.by_woman), str(one.difference), one.says)))
    if report.floor:
        aucs = (str(shown(one.auc, one.women)) for one in report.floor)
        table.add_row(report.floor[0].name, *map(Text, aucs), Text(), Text("no network: the floor"))
    return table


def _counts(report: SiteReport) -> Table:
    """Return the counts of every classifier at both thresholds, in images and in women."""
    columns = ("start", "threshold", "counted in", "sensitivity", "specificity", "PPV", "NPV")
    table = Table(*columns, title=RESEARCH_ONLY, title_justify="left")
    women = {found.name: found for found in report.by_woman}
    for found in report.evaluations:
        for unit, own in (("images", found), ("women", women.get(found.name))):
            for at in dict.fromkeys((own.fixed, own.chosen)) if own else ():
                table.add_row(*map(Text, (found.name, threshold(at.threshold), unit, *_shares(at))))
    return table


def _shares(at: AtThreshold) -> tuple[str, ...]:
    counts = counts_of(at)
    found = (counts[name] for name in ("recall", "specificity", "precision", "npv"))
    return tuple(share(right, of) if of else "none called" for right, of in found)
