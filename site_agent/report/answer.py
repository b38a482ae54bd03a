"""The first line of the report: did joining help this hospital? In plain words, and no stronger than the numbers.

The question is put to one comparison: the classifier that starts from the federation's model against the one that
starts from this hospital's images alone, on the same test women. Where the hospital trained none alone, the random
start stands in, and the sentence says so. An interval that includes zero is answered "not shown", never "no".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from site_agent.evaluate import Comparison
from site_agent.intervals import Estimate, Verdict
from site_agent.report.content import SiteReport

Tone = Literal["helped", "not shown", "harmed", "unknown"]

TONES: dict[Verdict, Tone] = {"better": "helped", "not shown": "not shown", "worse": "harmed"}
"""A comparison asks whether the federated start is better; it is never asked whether two are close."""

HEADLINES: dict[Tone, str] = {
    "helped": "Yes: on these test women, joining helped.",
    "not shown": "Not shown: these test women cannot tell whether joining helped.",
    "harmed": "No: on these test women, the federated model did worse.",
    "unknown": "Not measured: there is nothing to compare yet.",
}

OK = "OK"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer, its reason in a sentence, and what qualifies it."""

    tone: Tone
    headline: str
    sentence: str
    caveats: tuple[str, ...]


def answer(report: SiteReport) -> Answer:
    """Return what the page says first."""
    found = report.comparison(report.alone) or report.comparison(report.untrained)
    if found is None:
        why = (
            "This page holds no test score of a federated model beside one that this hospital made alone. "
            "It needs labelled test images of cases and controls, and both classifiers."
        )
        return Answer("unknown", HEADLINES["unknown"], why, _run_caveats(report))
    meaning = MEANINGS[found.verdict] if found.difference.interval else f"No interval: {found.why}."
    sentence, tone = f"{_scores(report, found)} {meaning}", TONES[found.verdict]
    return Answer(tone, HEADLINES[tone], sentence, (*_other(report, found), *_run_caveats(report)))


MEANINGS: dict[Verdict, str] = {
    "better": "The whole interval lies above zero.",
    "not shown": "That interval includes zero: the difference may be chance; more test women could tell.",
    "worse": "The whole interval lies below zero.",
}


def _scores(report: SiteReport, found: Comparison) -> str:
    """Say both scores and their difference."""
    joint, other = report.evaluation(found.name), report.evaluation(found.versus)
    assert joint is not None  # SiteReport checks that both were evaluated
    assert other is not None
    return (
        f"On {joint.images} test images of {joint.women} women, the classifier that starts from the federated model "
        f"({found.name}) ranks a case above a control {percent(joint.auc.value)} of the time; {_start(report, found)} "
        f"({found.versus}) does so {percent(other.auc.value)} of the time. The difference in AUC is "
        f"{signed_interval(found.difference)}."
    )


def _start(report: SiteReport, found: Comparison) -> str:
    if found.versus == report.alone:
        return "the one that starts from our own images alone"
    return "the one that starts from random weights (no model was trained on our own images alone)"


def _other(report: SiteReport, found: Comparison) -> tuple[str, ...]:
    """Say how the federated model compares with the random start, if that is not the answer itself."""
    other = report.comparison(report.untrained)
    if other is None or other is found:
        return ()
    words: dict[Verdict, str] = {
        "better": "is better than",
        "not shown": "is not shown to differ from",
        "worse": "is worse than",
    }
    difference = signed_interval(other.difference)
    return (f"The federated start {words[other.verdict]} random weights: difference in AUC {difference}.",)


def _run_caveats(report: SiteReport) -> tuple[str, ...]:
    """Say what in the run itself weakens any answer."""
    missing = sorted({part.site for turn in report.rounds for part in turn.contributions if part.why_not})
    names = f" Missing from at least one round: {', '.join(missing)}." if missing else ""
    state = (
        () if report.final_state == OK or not report.run else (f"The run ended {report.final_state}, not OK.{names}",)
    )
    return (*state, *report.alarms)


def signed_interval(estimate: Estimate) -> str:
    """Return a difference as +0.070 (95 % interval +0.020 to +0.120), or as +0.250 (no interval: why)."""
    if estimate.interval is None:
        return f"{signed(estimate.value)} (no interval: {estimate.why})"
    low, high = map(signed, estimate.interval)
    return f"{signed(estimate.value)} (95 % interval {low} to {high})"


def signed(number: float) -> str:
    """Return a difference with three decimals and a sign: a real minus, and no sign on zero."""
    text = f"{number:+.3f}".replace("-", "−")
    return "0.000" if text[1:] == "0.000" else text


def percent(share: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"
