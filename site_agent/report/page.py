"""The report as one HTML page that needs nothing else: no network, no script, no other file.

The template holds the words and the layout; this module prepares what it shows. Whatever comes from outside (names of
sites, images, patients, reasons) is escaped by the template engine, and the page's own content security policy
forbids the browser to load anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fedcervix.files import make_folder, write_whole
from fedcervix.plan import Recipe
from site_agent.evaluate import DRAWS, Evaluation
from site_agent.neighbours import NEIGHBOURS
from site_agent.report import figures, results
from site_agent.report.answer import OK, answer, percent, signed
from site_agent.report.content import CensusRow, Round, SiteReport

TEMPLATE = "page.html.j2"
STYLE = "style.css"
PAGE_FILE = "report.html"
RESULTS_FILE = "results.json"
LISTED_MAX = 200
"""At most so many set-aside images are named on the page; the rest are counted."""


def render(report: SiteReport) -> str:
    """Return the page: self-contained HTML."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=percent, signed=signed, three=three)
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8"))
    return template.render(
        style=style(),
        report=report,
        answer=answer(report),
        ok=report.final_state == OK,
        figures=_figures(report),
        maps=[(drawn.model, figures.embedding_map(drawn)) for drawn in report.maps],
        neighbours_asked=NEIGHBOURS,
        census=_census(report.census),
        census_total=_total(report.census),
        listed_max=LISTED_MAX,
        roster=_roster(report.rounds),
        absences=_absences(report.rounds),
        recipe=recipe_rows(report.recipe),
        draws=DRAWS,
        tables=(
            ("Called a case from a probability of .5, the published threshold", _rows(report.evaluations, "fixed")),
            ("Called a case from the threshold chosen on validation images", _rows(report.evaluations, "chosen")),
        ),
    )


def style() -> Markup:
    """Return the style sheet of every report, for its <style> element."""
    return Markup(resources.files(__package__).joinpath(STYLE).read_text("utf-8"))  # noqa: S704  (our own file)


def write_results(report: SiteReport, folder: Path) -> tuple[Path, Path]:
    """Write report.html and results.json into `folder`; return their paths. Raises StorageError."""
    page, numbers = folder / PAGE_FILE, folder / RESULTS_FILE
    make_folder(folder)
    write_whole(page, render(report).encode())
    write_whole(numbers, results.dump(report).encode())
    return page, numbers


def three(number: float) -> str:
    """Return a rate with three decimals: 0.871."""
    return f"{number:.3f}"


def recipe_rows(recipe: Recipe) -> list[tuple[str, str, str]]:
    """Return (key, value, the published value where this one differs), sections flattened with dots."""
    published = dict(_flat(dataclasses.asdict(Recipe())))
    return [
        (key, _shown(value), "" if value == published[key] else _shown(published[key]))
        for key, value in _flat(dataclasses.asdict(recipe))
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rows(evaluations: Iterable[Evaluation], which: str) -> list[tuple[Evaluation, Any]]:
    return [(found, getattr(found, which)) for found in evaluations]


def _figures(report: SiteReport) -> dict[str, str]:
    """Return every figure that the report has the numbers for, by name, as a data URI."""
    draw: dict[str, tuple[bool, Callable[[], str]]] = {
        "roc": (bool(report.evaluations), lambda: figures.roc_curves(report.evaluations)),
        "auc": (bool(report.evaluations), lambda: figures.auc_intervals(report.evaluations)),
        "differences": (bool(report.comparisons), lambda: figures.differences(report.comparisons)),
        "contrastive": (
            bool(report.contrastive_history),
            lambda: figures.loss_curves(
                report.contrastive_history, title="Learning without labels", line=report.collapse_line
            ),
        ),
        "neighbours": (
            bool(report.neighbour_history),
            lambda: figures.neighbour_curves(report.neighbour_history),
        ),
        "classifier": (
            bool(report.classifier_history),
            lambda: figures.loss_curves(report.classifier_history, title="Learning from labels"),
        ),
        "rounds": (
            any(turn.mean_loss is not None for turn in report.rounds),
            lambda: figures.round_losses(report.rounds, line=report.collapse_line),
        ),
        "sheet": (bool(report.contact_sheet), lambda: figures.contact_sheet(report.contact_sheet)),
    }
    return {name: make() if wanted else "" for name, (wanted, make) in draw.items()}


def _census(rows: Iterable[CensusRow]) -> list[tuple[str, list[CensusRow]]]:
    """Return the rows of each split together."""
    splits: dict[str, list[CensusRow]] = {}
    for row in rows:
        splits.setdefault(row.split, []).append(row)
    return list(splits.items())


def _total(rows: Iterable[CensusRow]) -> tuple[int, int, int]:
    """Return (patients, labelled images, all images)."""
    listed = list(rows)
    return (
        sum(row.patients for row in listed),
        sum(row.labelled for row in listed),
        sum(row.images for row in listed),
    )


def _roster(rounds: Iterable[Round]) -> list[str]:
    """Return every site that a round names, in order of first appearance."""
    return list(dict.fromkeys(part.site for turn in rounds for part in turn.contributions))


def _absences(rounds: Iterable[Round]) -> list[tuple[int, str, str]]:
    """Return (round, site, why) of every contribution that is missing."""
    return [(turn.number, part.site, part.why_not) for turn in rounds for part in turn.contributions if part.why_not]
