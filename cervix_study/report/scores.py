"""The sections on how good classifiers are: Table II, Fig. 2, calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from cervix_study.analysis.findings import ByWoman, Scores, SiteFindings, StudyFindings, WantedPoint
from cervix_study.evidence.calibration import BINS
from cervix_study.evidence.paper import SITES, TABLE_TWO
from cervix_study.report import figures
from cervix_study.report.answer import tested
from cervix_study.report.document import (
    Block,
    Column,
    Details,
    Figure,
    Figures,
    Heading,
    Table,
    TableCell,
    Text,
    cells,
    columns,
)
from cervix_study.report.wording import NOTHING, interval, measure, with_interval
from site_agent.classifier.intervals import FOLD_WOMEN_MIN, IMAGES_MIN, MOVERS_MIN, TRAININGS_MIN, WOMEN_MIN, Estimate
from site_agent.classifier.permutation import ByChance
from site_agent.report.answer import number, signed
from site_agent.report.figures import Stroke
from site_agent.report.page import three
from site_agent.starts import FLOOR, title

MEASURES = ("auc", "accuracy", "recall", "precision", "f1")
HEADS: Mapping[str, Column] = {
    "auc": Column("AUC", "needs no threshold"),
    "accuracy": Column("accuracy", "called right"),
    "recall": Column("recall", "cases found"),
    "precision": Column("precision", "case calls right"),
    "f1": Column("F1"),
}


def named(found: SiteFindings, findings: StudyFindings) -> str:
    """Return a site's name, with the profile where there are several."""
    several = len(findings.study.axes.profiles) > 1
    return f"{found.site}, profile {found.profile}" if several else found.site


def table_two(findings: StudyFindings) -> Iterable[Block]:
    """Yield the scores of every start, in the shape of the paper's Table II, with the paper's numbers beside."""
    yield Heading("How well each start does (Table II)")
    yield Text(
        "Every row is the same classifier, fine-tuned on the site's labelled training images from a different "
        f"start, then scored once on its test images; {title(FLOOR)}, if it is a row, is no network but the floor, a "
        "logistic regression of 25 numbers of each picture. Below each number its 95 % interval, if it has one; below "
        f"that, where the paper has this row, its printed numbers for {' / '.join(SITES)} (other women, other "
        "cameras, other criteria: for information, not for comparison). Coloured rows were chosen by validation. "
        "**Chance**, beside AUCs of fewer than 100 cases or controls: 95 of 100 AUCs lie there when the classes are "
        "shuffled among the tested women; scores stay, nothing is trained again. In a cross-validation the true range "
        "is about a third wider, because folds share women."
    )
    for found in findings.sites:
        yield Heading(f"{named(found, findings)}: {tested(found)}", 3)
        if not found.scores:
            yield Text("No start is finished here.")
            continue
        if found.undecided:
            yield Text(f"No intervals and no tests: {found.undecided}. These numbers allow no conclusion.")
        yield _table_two(found, "measures", f"Scores at {named(found, findings)}, classified as case from .5")
        yield Details(
            "Classified as a case from the threshold that validation images chose",
            (_table_two(found, "at_validation", f"Scores at {named(found, findings)}, validation thresholds"),),
        )
    yield Text(_interval_words(findings), quiet=True)


def _interval_words(findings: StudyFindings) -> str:
    seeds = len(findings.study.axes.seeds) * len(findings.study.axes.classifier_seeds)
    others = "other women and other trainings" if seeds > 1 else "other women"
    return (
        f"Intervals say how much a number would change with {others}. They are by woman (two images of one woman are "
        "not independent), cases and controls separately. There is no interval with fewer than "
        f"{WOMEN_MIN} test women of a class, fewer than {FOLD_WOMEN_MIN} of a class in a fold, "
        f"with two to {TRAININGS_MIN - 1} trainings, for a recall of fewer than {IMAGES_MIN} images of cases, "
        f"for a difference that fewer than {MOVERS_MIN} women decide, "
        "where all test women give the same number, and at the end of a scale (an AUC of 1): in simulations, "
        "intervals that were calculated from so little held the true value too rarely or too often. The trainings of "
        "a start are averaged. Over the folds of one training, counts are added and AUCs are averaged. Scatter: "
        "standard deviation over seeds (with one seed, over folds). Images are classified as case from a probability "
        "of .5, as in the paper, unless said otherwise."
    )


def _table_two(found: SiteFindings, which: str, label: str) -> Table:
    heads = [HEADS[name] for name in MEASURES]
    last = Column("scatter", "of AUC") if which == "measures" else Column("threshold", "lowest to highest")
    rows = [_row(scores, which) for scores in found.scores]
    strong = frozenset(place for place, scores in enumerate(found.scores) if scores.chosen)
    return Table(columns("start", *heads, last), tuple(rows), label, strong)


def _row(scores: Scores, which: str) -> tuple[TableCell, ...]:
    values: Mapping[str, Estimate] = getattr(scores, which)
    first = TableCell(scores.label, ("chosen by validation",) if scores.chosen else ())
    found = [with_interval(name, values[name], *_printed(scores, name, which)) for name in MEASURES]
    if scores.chance and which == "measures":
        found[0] = dataclasses.replace(found[0], small=(*found[0].small, by_chance(scores.chance)))
    return (first, *found, _last(scores, which))


def by_chance(found: ByChance) -> str:
    """Return between which AUCs 95 of 100 shuffles lie."""
    return f"chance {number(found.low, 0)} to {number(found.high, 0)}"


def by_woman(findings: StudyFindings) -> Iterable[Block]:
    """Yield what a clinic would see of each chosen start."""
    sites = [found for found in findings.sites if any(scores.by_woman for scores in found.scores)]
    if not sites:
        return
    yield Heading("By woman")
    yield Text(
        "A woman's score is the highest probability of her images. Thresholds were chosen on validation women for a "
        "wanted share, then applied to test women: the table shows what these reach (sensitivity; specificity). "
        "PPV, NPV and net benefit need the prevalence of a clinic: a site's own clinical page has them."
    )
    for found in sites:
        yield Heading(named(found, findings), 3)
        yield _women_table(found, named(found, findings))


def _women_table(found: SiteFindings, name: str) -> Table:
    rows = [(scores.label, scores.by_woman) for scores in found.scores if scores.by_woman]
    heads = [
        Column(f"{'sensitivity' if point.of == 'recall' else 'specificity'} {100 * point.wanted:.0f} %", "wanted")
        for point in rows[0][1].points
    ]
    return Table(
        columns("start", Column("AUC", "of women"), *heads),
        tuple(_women_row(label, women) for label, women in rows),
        f"Scores by woman at {name}",
    )


def _women_row(label: str, women: ByWoman) -> tuple[TableCell, ...]:
    auc = with_interval("auc", women.auc, *((by_chance(women.chance),) if women.chance else ()))
    points = [_point(point) for point in women.points]
    return (TableCell(label), auc, *points)


def _printed(scores: Scores, name: str, which: str) -> tuple[str, ...]:
    """Return the paper's numbers of this row, both institutions."""
    if not scores.paper_row or name == "auc" or which != "measures":
        return ()
    values = [measure(name, getattr(TABLE_TWO[scores.paper_row][site], name)) for site in SITES]
    return (f"paper {' / '.join(value.removesuffix(' %') for value in values)}",)


def _last(scores: Scores, which: str) -> TableCell:
    if which == "at_validation":
        low, high = scores.thresholds
        return TableCell(three(low) if low == high else f"{three(low)} to {three(high)}")
    deviation = scores.spread["auc"].deviation
    if deviation is None:
        return TableCell(NOTHING, ("one training",))
    return TableCell(three(deviation), (f"{scores.trainings} trainings",))


def _point(point: WantedPoint) -> TableCell:
    """Return sensitivity and specificity, and their intervals where there are any."""
    both = (("recall", point.recall), ("specificity", point.specificity))
    ends = "; ".join(interval(name, found) for name, found in both) if any(e.interval for _, e in both) else ""
    return TableCell("; ".join(measure(name, found.value) for name, found in both), (ends,) if ends else ())


def figure_two(findings: StudyFindings, by_start: dict[str, Stroke]) -> Iterable[Block]:
    """Yield one ROC panel per institution, one curve per initialisation, and the AUCs with their intervals."""
    yield Heading("ROC curves (Fig. 2)")
    yield Text(
        "One curve per start, as validation chose it: it shows how many false alarms come with finding more cases. A "
        "curve nearer to the top left corner is better; the dotted diagonal is guessing. For several trainings the "
        "mean curve is drawn."
    )
    for found in findings.sites:
        chosen = [scores for scores in found.scores if scores.chosen]
        if chosen:
            name = named(found, findings)
            yield Figures(
                (
                    Figure(figures.roc_panel(chosen, by_start), f"ROC curves at {name}", f"**{name}.** Legend: AUC."),
                    Figure(
                        figures.auc_dots(chosen, by_start),
                        f"AUC of each start at {name}",
                        f"**{name}.** AUC of each start, with its interval if it has one; small marks: single "
                        "trainings. Overlapping intervals do not decide a comparison. The next section does.",
                    ),
                )
            )


def calibrations(findings: StudyFindings, by_start: dict[str, Stroke]) -> Iterable[Block]:
    """Yield Brier scores, their parts, ECE, and reliability diagrams."""
    yield Heading("Calibration")
    yield Text(
        "Does a probability of .8 mean that eight of ten such images are cases? **Brier score**: mean squared "
        "distance of probability and truth, 0 is best; it is reliability (0 is best) − resolution (more is better) "
        "+ uncertainty (due to the data) + the variation within bins. **ECE**: mean distance of a bin's share of "
        f"cases from its mean probability, over {BINS} bins of equal width. With few images it is above 0 even for a "
        "perfect classifier: below it stands about what chance alone would give. It has no interval, because one "
        "around it would be too high. Classifiers here are trained with reverse class weights (as in the paper): they "
        "learn the probability of a case when there are as many cases as controls. Where cases are rarer, the "
        "probabilities are too high by construction."
    )
    for found in findings.sites:
        chosen = [scores for scores in found.scores if scores.chosen]
        if not chosen:
            continue
        name = named(found, findings)
        yield Heading(name, 3)
        yield _calibration_table(chosen, name)
        drawn = figures.reliability(
            [(scores.label, scores.calibration) for scores in chosen], [by_start[title(s.start)] for s in chosen]
        )
        caption = (
            f"**{name}.** Share of cases over mean probability, one dot per bin, larger with more images; vertical "
            f"lines: 95 % intervals by woman, of bins with {WOMEN_MIN} women or more; none where several trainings "
            "are taken together. On the dotted line probabilities are calibrated."
        )
        yield Figures((Figure(drawn, f"Reliability diagrams at {name}", caption),))


def _calibration_table(chosen: list[Scores], name: str) -> Table:
    parts = ("reliability", "resolution", "uncertainty")
    rows = [
        cells(
            scores.label,
            with_interval("brier", scores.calibration.brier),
            TableCell(three(scores.calibration.ece), (f"by chance {three(scores.calibration.ece_by_chance)}",)),
            *(three(getattr(scores.calibration, part)) for part in parts),
            signed(scores.calibration.within),
        )
        for scores in chosen
    ]
    return Table(columns("start", "Brier score", "ECE", *parts, "within bins"), tuple(rows), f"Calibration at {name}")
