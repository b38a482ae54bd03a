"""The clinical page: one classifier as a clinician needs it, counted in women. Like the report it loads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from site_agent.classifier.intervals import IMAGES_MIN, WOMEN_MIN, Estimate
from site_agent.classifier.notices import RESEARCH_ONLY
from site_agent.classifier.permutation import SHUFFLES, WOMEN_ENOUGH
from site_agent.report import clinical_figures
from site_agent.report.answer import counted, number, share, shown, shown_difference, signed, threshold
from site_agent.report.clinical import Clinical, Goal, OperatingPoint
from site_agent.report.content import SiteReport
from site_agent.report.page import chance, style, template
from site_agent.report.repeatability import Repeats

TEMPLATE = "clinical.html.j2"
THOUSAND = 1000
P_MIN = 0.001
"""A smaller p value is not printed in full."""

GOALS: Mapping[Goal, str] = {
    "published": "the published threshold",
    "validation": "best balance on validation images",
    "recall": "find {} of the cases",
    "specificity": "clear {} of the controls",
}


def render_clinical(report: SiteReport, found: Clinical) -> str:
    """Return the page: self-contained HTML."""
    return template(__package__, TEMPLATE).render(
        style=style(),
        report=report,
        found=found,
        women=found.case_women + found.control_women,
        research_only=RESEARCH_ONLY,
        summary=list(_summary(found)),
        undecided=_undecided(found),
        goal=_goal,
        counted=counted,
        share=share,
        shown=shown,
        shown_difference=shown_difference,
        threshold=threshold,
        number=number,
        percent=_percent,
        chance=chance,
        shuffles=SHUFFLES,
        women_enough=WOMEN_ENOUGH,
        per_hundred=_per_hundred,
        p_value=_p_value,
        curve=clinical_figures.decision_curve(found) if found.decisions and not _undecided(found) else "",
        says_floor=_says_floor(found),
        repeat_figure=clinical_figures.bland_altman(found.repeats) if _may_be_drawn(found.repeats) else "",
        pictures=[clinical_figures.side_by_side(look) for look in report.looks],
        women_min=WOMEN_MIN,
        images_min=IMAGES_MIN,
        percent_whole=lambda value: f"{100 * value:.0f} %",
        plain=_plain,
        signed=_signed,
        off=_off,
    )


def _may_be_drawn(found: Repeats) -> bool:
    return found.agreement is not None and found.agreement.women >= WOMEN_MIN


def _plain(found: Estimate) -> str:
    return _with_ends(found, lambda value: f"{value:.2f}")


def _signed(found: Estimate) -> str:
    return _with_ends(found, lambda value: signed(value, 2))


def _with_ends(found: Estimate, words: Callable[[float], str]) -> str:
    """Return a number and its interval in brackets, if it has one."""
    ends = f" ({' to '.join(map(words, found.interval))})" if found.interval else ""
    return f"{words(found.value)}{ends}"


def _off(found: Estimate) -> str:
    return "–" if math.isnan(found.value) else _signed(found).replace("+", "")


def _goal(point: OperatingPoint) -> str:
    return GOALS[point.goal].format(_percent(point.wanted))


def _percent(value: float) -> str:
    """Return a share as a percentage without needless zeros: 5 %, 0.8 %."""
    return f"{100 * value:.3g} %"


def _undecided(found: Clinical) -> str:
    return found.above_floor.difference.why if found.above_floor.difference.interval is None else ""


def _summary(found: Clinical) -> Iterator[str]:
    """Yield the sentences at the top: what it finds, what that means in a clinic, floor, chance."""
    point = next((one for one in found.points if one.goal == "recall"), found.points[0])
    c = point.counts
    useless = ": it sorts nobody, and is of no use there" if not c.tn + c.fn or not c.tp + c.fp else ""
    yield (
        f"At the threshold that should {_goal(point)} ({threshold(point.threshold)}), {found.start} finds "
        f"{share(c.tp, c.tp + c.fn)} case women and clears {share(c.tn, c.tn + c.fp)} control women{useless}."
    )
    if found.prevalence and not _undecided(found):
        yield _in_a_thousand(found.prevalence, point)
    yield _says_floor(found)


def _in_a_thousand(prevalence: float, point: OperatingPoint) -> str:
    cases = prevalence * THOUSAND
    right, wrong = cases * point.recall.value, (THOUSAND - cases) * (1 - point.specificity.value)
    c = point.counts
    none = f" (none of {c.tp} was missed in this test, which does not promise that none would be)" if not c.fn else ""
    return (
        f"Of 1,000 women like those of this test, {cases:.0f} of whom are cases ({_percent(prevalence)}, as this site "
        f"states), it would call {right + wrong:,.0f} a case: {right:.0f} cases, and {wrong:.0f} without the disease. "
        f"It would miss {cases - right:.0f} cases{none}."
    )


def _says_floor(found: Clinical) -> str:
    """Return what the comparison with the floor shows."""
    women = found.case_women + found.control_women
    own, floor = (next(one.auc for one in found.beside if one.name == name) for name in (found.start, _floor(found)))
    values = f"{number(own.value, women)} against {number(floor.value, women)}"
    says = {
        "better": "ranks women better than colour and texture alone",
        "worse": "ranks women worse than colour and texture alone",
    }.get(found.above_floor.verdict, "is not shown to see more than colour and texture")
    why = f": {found.above_floor.why}" if found.above_floor.why else ""
    return f"{found.start} {says} (AUC of women {values}{why})."


def _floor(found: Clinical) -> str:
    return found.beside[-1].name


def _p_value(p: float, equals: str = "") -> str:
    return f"< {P_MIN:g}" if p < P_MIN else f"{equals}{p:.2g}"


def _per_hundred(value: float) -> str:
    return signed(100 * value, 1).removeprefix("+")
