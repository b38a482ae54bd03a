"""The report as one self-contained HTML page: no network, no script, no other file.

The template contains the text and the layout; this module prepares the values. Everything that comes from outside
(names of sites, images, patients, reasons) is escaped by the template engine, and the page's own content security
policy forbids the browser to load anything.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from fedcervix.core.plan import Recipe
from fedcervix.printable import on_a_page
from site_agent.classifier.evaluate import AtThreshold, Evaluation
from site_agent.classifier.intervals import IMAGES_MIN, MOVERS_MIN, Estimate, Women
from site_agent.classifier.notices import NOT_CALIBRATED, RESEARCH_ONLY
from site_agent.classifier.permutation import ByChance
from site_agent.report import figures
from site_agent.report.answer import answer, counted, counts_of, number, share, shown, threshold
from site_agent.report.content import Contribution, RoundRow, SiteReport, TableOneRow
from site_agent.report.predictions import ScoredWoman, missed_women
from site_agent.report.reliability import Reliability, reliability
from site_agent.store.audit_sheets import verdict
from site_agent.store.provenance import Provenance, recipe_digest

TEMPLATE = "page.html.j2"
STYLE = "style.css"
LISTED_MAX = 200
"""At most so many set-aside images or missed women are named on the page; the rest are counted."""
ROUNDS_LISTED_MAX = 200
SITES_LISTED_MAX = 32
"""At most so many rounds (the last ones) and sites (the first ones) have a row and a column in the table of rounds."""
WIDE_FROM_SITES = 4
"""From so many sites on, the table of rounds is wider than a small screen: it says so."""
COLUMNS = {
    "recall": "sensitivity",
    "specificity": "true negative rate",
    "precision": "PPV",
    "npv": "negative predictive value",
    "accuracy": "all calls right",
    "f1": "",
}
"""of the tables at a threshold: measure -> its other name"""
HEADS = {"npv": "NPV", "f1": "F1"}


@dataclass(frozen=True, slots=True)
class PageCell:
    """One number of a table: in counts where there are any, and its interval."""

    label: str
    """of its column, for screens on which the head is not beside it"""
    main: str
    small: str = ""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One classifier at one threshold, counted in images or in women."""

    start: str
    unit: str
    """images or women"""
    kind: str
    """federated, alone, or empty"""
    cells: tuple[PageCell, ...]


@dataclass(frozen=True, slots=True)
class Missed:
    """The women that one classifier misses at one threshold."""

    start: str
    threshold: str
    women: tuple[ScoredWoman, ...]
    of: int


def render(report: SiteReport) -> str:
    """Return the page: self-contained HTML."""
    from site_agent.training.knn_probe import NEIGHBOURS  # with torch, which the study's report does without

    return template(__package__, three=three).render(
        number=number,
        counted=counted,
        threshold=threshold,
        estimated=shown,
        first_women=report.evaluations[0].women if report.evaluations else 0,
        by_chance=_by_chance(report),
        style=style(),
        report=report,
        answer=answer(report),
        research_only=RESEARCH_ONLY,
        not_calibrated=NOT_CALIBRATED,
        figures=_figures(report),
        maps=[(drawn.model, figures.embedding_map(drawn)) for drawn in report.maps],
        neighbours_asked=NEIGHBOURS,
        audit_verdict=verdict,
        census=_census(report.census),
        listed_max=LISTED_MAX,
        roster=(roster := _roster(report.rounds))[:SITES_LISTED_MAX],
        sites_unlisted=len(roster[SITES_LISTED_MAX:]),
        turns=_turns(report.rounds[-ROUNDS_LISTED_MAX:], roster[:SITES_LISTED_MAX]),
        rounds_listed_max=ROUNDS_LISTED_MAX,
        wide_from_sites=WIDE_FROM_SITES,
        absences=_absences(report.rounds),
        unusual=_unusual(report.rounds),
        recipe=recipe_rows(report.recipe),
        heads=[(HEADS.get(measure, measure), small) for measure, small in COLUMNS.items()],
        tables=(
            ("Classified as a case from a probability of .5, the published threshold", _score_rows(report, "fixed")),
            ("Classified as a case from the threshold chosen on validation images", _score_rows(report, "chosen")),
        ),
        images_min=IMAGES_MIN,
        movers_min=MOVERS_MIN,
        no_intervals=_women(report.evaluations[0]).undecided if report.evaluations else "",
        missed=_missed(report),
        reliability=_reliability(report),
        judged=report.judged,
        made_of=_made_of(report.provenance),
    )


def template(package: str, file: str = TEMPLATE, **filters: Callable[..., str]) -> jinja2.Template:
    """Return the template of a page that lies in a package: what it is given is text, and becomes no markup."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=on_a_page,
    )
    environment.filters.update(filters)
    return environment.from_string(resources.files(package).joinpath(file).read_text("utf-8"))


def _by_chance(report: SiteReport) -> dict[str, str]:
    """Return what shuffled women have, by start; nothing where there are so many women that it is not asked."""
    found = report.clinical.beside if report.clinical else ()
    women = report.evaluations[0].women if report.evaluations else 0
    return {one.name: chance(one.chance, women) for one in found if one.chance}


def chance(found: ByChance, women: int) -> str:
    """Return between which AUCs 95 of 100 shuffles lie."""
    return f"{number(found.low, women)} to {number(found.high, women)}"


@dataclass(frozen=True, slots=True)
class MadeOf:
    """One thing that the numbers of a report are based on."""

    what: str
    name: str
    digest: str
    """SHA-256; empty where there is none, as for random weights"""


def _made_of(provenance: Sequence[Provenance]) -> list[MadeOf]:
    """Return digests of what the numbers are based on; what is the same for several classifiers stands once."""
    rows = [row for found in provenance for row in _own_digests(found)] + [
        row for found in provenance for row in _shared_digests(found)
    ]
    return list(dict.fromkeys(rows))


def _own_digests(found: Provenance) -> Iterable[MadeOf]:
    yield MadeOf("classifier", f"{found.label}, made {found.made_at}", found.weights)
    yield MadeOf("its start", found.start.origin if found.start.weights else "random weights", found.start.weights)


def _shared_digests(found: Provenance) -> Iterable[MadeOf]:
    yield MadeOf("recipe of fine-tuning", f"seed {found.seed}", recipe_digest(found.recipe))
    yield MadeOf("images, women, labels and splits", "all parts", found.data.collection)
    yield MadeOf("splits", "which woman is in which part", found.data.splits)
    yield MadeOf("test images", "the labelled ones", found.data.test_images)


def style() -> Markup:
    """Return the style sheet of every report, for its <style> element."""
    return Markup(resources.files(__package__).joinpath(STYLE).read_text("utf-8"))  # noqa: S704  (our own file)


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


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- scores at a threshold ----------------------------------------------------------------------------------------


def _score_rows(report: SiteReport, which: str) -> list[ScoreRow]:
    """Return the rows of one table: every classifier, counted in images and in women."""
    women = {found.name: found for found in report.by_woman}
    rows = []
    for found in report.evaluations:
        rows.append(_score_row(report, found, "images", getattr(found, which)))
        if found.name in women:
            rows.append(_score_row(report, women[found.name], "women", getattr(women[found.name], which)))
    return rows


def _score_row(report: SiteReport, found: Evaluation, unit: str, at: AtThreshold) -> ScoreRow:
    kinds = {report.federated: "federated", report.alone: "alone"}
    counts = counts_of(at)
    cells = (
        _cell(measure, label, counts.get(measure), getattr(at, measure), found.women)
        for measure, label in COLUMNS.items()
    )
    return ScoreRow(found.name, unit, kinds.get(found.name, ""), tuple(cells))


def _cell(measure: str, label: str, counts: tuple[int, int] | None, estimate: Estimate, women: int) -> PageCell:
    head = HEADS.get(measure, measure) + (f" ({label})" if label else "")
    if counts and not counts[1]:
        return PageCell(head, "none called")
    found = shown(estimate, women)
    return PageCell(head, share(*counts) if counts else found.value, found.interval)


def _women(found: Evaluation) -> Women:
    return Women.of_one_part(found.case_women, found.women - found.case_women)


# --- women that it misses, and what its probabilities are worth ---------------------------------------------------


def _missed(report: SiteReport) -> list[Missed]:
    """Return the women that the judged classifier misses, at each threshold."""
    judged = report.judged
    if judged is None or report.predictions is None:
        return []
    return [
        Missed(
            judged.name,
            threshold(at.threshold),
            missed_women(report.predictions, judged.name, at.threshold),
            judged.case_women,
        )
        for at in dict.fromkeys((judged.fixed, judged.chosen))
    ]


def _reliability(report: SiteReport) -> tuple[Reliability, ...]:
    """Return the groups of probabilities of the judged classifier; none with too few women."""
    judged = report.judged
    if judged is None or report.predictions is None or _women(judged).undecided:
        return ()
    return reliability(report.predictions.images, report.predictions.of(judged.name).scores)


def _figures(report: SiteReport) -> dict[str, str]:
    """Return every figure that the report has the numbers for, by name, as a data URI."""
    line, losses = report.collapse_line, figures.loss_curves
    scored = any(turn.mean_loss is not None for turn in report.rounds)
    learnt = functools.partial(losses, report.contrastive_history, title="Learning without labels", line=line)
    tuned = functools.partial(losses, report.classifier_history, title="Learning from labels")
    draw: tuple[tuple[str, object, Callable[[], str]], ...] = (
        ("roc", report.evaluations, lambda: figures.roc_curves(report.evaluations)),
        ("auc", report.evaluations, lambda: figures.auc_intervals(report.evaluations)),
        ("differences", report.comparisons, lambda: figures.differences(report.comparisons)),
        ("contrastive", report.contrastive_history, learnt),
        ("neighbours", report.neighbour_history, lambda: figures.neighbour_curves(report.neighbour_history)),
        ("classifier", any(len(one.train) > 1 for one in report.classifier_history), tuned),
        ("rounds", scored, lambda: figures.round_losses(report.rounds, line=line)),
        ("sheet", report.contact_sheet, lambda: figures.contact_sheet(report.contact_sheet)),
    )
    return {name: make() if numbers else "" for name, numbers, make in draw}


def _census(rows: Iterable[TableOneRow]) -> list[tuple[str, list[TableOneRow]]]:
    """Return the rows of each split together."""
    splits: dict[str, list[TableOneRow]] = {}
    for row in rows:
        splits.setdefault(row.split, []).append(row)
    return list(splits.items())


def _roster(rounds: Iterable[RoundRow]) -> list[str]:
    """Return every site that a round names, in order of first appearance."""
    return list(dict.fromkeys(part.site for turn in rounds for part in turn.contributions))


def _turns(rounds: Iterable[RoundRow], roster: Sequence[str]) -> list[tuple[RoundRow, list[Contribution | None]]]:
    """Return each round with what each site of the roster gave; the first, where a ring came to it twice."""
    found = []
    for turn in rounds:
        gave = {part.site: part for part in reversed(turn.contributions)}
        found.append((turn, [gave.get(site) for site in roster]))
    return found


def _unusual(rounds: Iterable[RoundRow]) -> list[tuple[int, str, str]]:
    """Return (round, site, what is unusual) of every alarm, the newest first."""
    return [(turn.number, site, words) for turn in rounds for site, words in turn.alarms][::-1]


def _absences(rounds: Iterable[RoundRow]) -> list[tuple[int, str, str]]:
    """Return (round, site, why) of every contribution that is missing."""
    return [(turn.number, part.site, part.why_not) for turn in rounds for part in turn.contributions if part.why_not]
