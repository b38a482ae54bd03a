"""The command `history`: what this site has made, with digests and dates, and two of its reports compared."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from fedcervix.lineage.shelf import state
from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.printing import say
from site_agent.classifier.kept_models import shelf
from site_agent.home import SiteHome
from site_agent.report.history import SHORT, ComparedStart, Entry, Told, compare, entries, find_report


def history(home: SiteHome) -> None:
    """List what this site has made; what cannot be read is named with the reason."""
    found = entries(home)
    if whole := [entry for entry in found if not entry.trouble]:
        known = shelf(home)
        stdout_console().print(table(whole, {one.name: state(known, one) for one in known.models}))
    for entry in found:
        if entry.trouble:
            say(f"{entry.kind} {entry.place} cannot be read:\n{entry.trouble}")
    if not found:
        say(f"there are no models, classifiers or reports yet; next: {home.command('finetune')}")


def table(found: list[Entry], states: Mapping[str, str]) -> Table:
    """Return the entries as a table, digests by their first 12 digits. `states`: how a model stands, by its folder."""
    drawn = Table(title="Models, classifiers and reports", title_justify="left")
    for heading in ("type", "folder", "made (UTC)", "digest", "source", "state"):
        drawn.add_column(heading, overflow="fold", no_wrap=heading == "digest")
    for entry in found:
        made_at = entry.made_at.removesuffix(" UTC").removesuffix("+00:00").replace("T", " ")
        drawn.add_row(entry.kind, entry.place, made_at, entry.digest[:SHORT], entry.what, states.get(entry.place, ""))
    return drawn


def compare_reports(home: SiteHome, report: str, other: str) -> None:
    """Print the scores of two reports side by side, and whether they can be compared."""
    one, two = (_told(home, name) for name in (report, other))
    said, rows = compare(one, two)
    for line in said:
        say(line)
    stdout_console().print(side_by_side(rows, one.name, two.name))


def _told(home: SiteHome, name: str) -> Told:
    from site_agent.report.answer import number
    from site_agent.report.results import read

    place = find_report(home, name)
    found = read(place)
    scores = {evaluation.name: number(evaluation.auc.value, evaluation.women) for evaluation in found.evaluations}
    return Told(name=place.name, scores=scores, provenance=found.provenance)


def side_by_side(rows: list[ComparedStart], one: str, other: str) -> Table:
    """Return the AUCs of two reports as a table."""
    drawn = Table("start", f"AUC in {one}", f"AUC in {other}", "classifiers")
    for row in rows:
        drawn.add_row(row.label, row.one or "–", row.other or "–", row.remark)
    return drawn
