"""The section on the study's own hypotheses: their order, since when they stand, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cervix_study.analysis.findings import StudyFindings
from cervix_study.analysis.sequence import Outcome, SequenceTest
from cervix_study.records import Registered
from cervix_study.report.document import Block, Heading, Table, TableCell, Text, cells, columns, left
from cervix_study.report.wording import NOTHING, difference_cell, measure, p_value
from site_agent.classifier.intervals import Tone, Verdict
from site_agent.starts import title

DIGITS = 12
"""of a digest or a commit, where it is named in a sentence"""

VERDICTS: dict[Outcome, Verdict] = {"shown": "better", "not shown": "not shown", "not tested": "not shown"}
"""how an outcome is coloured"""


def answered(findings: StudyFindings) -> tuple[str, Tone, str, tuple[str, ...]] | None:
    """Return question and answer of a study with hypotheses of its own, a sentence for each; else None."""
    registered = findings.study.registered
    if registered is None or not findings.sequence:
        return None
    question = f"The study's primary hypothesis: {findings.sequence[0].hypothesis.name}"
    lines = tuple(f"**{found.hypothesis.name}**: {_sentence(found)}" for found in findings.sequence)
    if registered.after_opening:
        return question, "unknown", "Not confirmed: the study was changed after its test images were opened.", lines
    return question, *_headline(findings.sequence), lines


def _headline(found: Sequence[SequenceTest]) -> tuple[Tone, str]:
    first, shown = found[0], sum(one.outcome == "shown" for one in found)
    if first.outcome == "shown":
        more = f" Of {len(found)} hypotheses in order, {shown} {'is' if shown == 1 else 'are'} shown."
        return "helped", f"Shown: {first.hypothesis.name}.{more if len(found) > 1 else ''}"
    if first.outcome == "not shown":
        return "not shown", "Not shown: these test results do not decide it."
    return "unknown", "Not finished."


def _sentence(found: SequenceTest) -> str:
    if found.effect is None:
        return "the study is not finished."
    if found.outcome == "not tested":
        return "not tested, because the one before it is not shown."
    auc = found.effect
    said = f"difference in AUC of women {difference_cell('auc', auc.difference).text}"
    if auc.difference.interval is None:
        return f"{said}; no interval and no test: {auc.difference.why}. **Not shown.**"
    low_high = difference_cell("auc", auc.difference).small[0]
    against = ", the difference is the other way round" if auc.difference.value < 0 else ""
    return f"{said} (95 % interval {low_high}; p {p_value(auc.p)}): **{found.outcome}**{against}."


def section(findings: StudyFindings) -> Iterable[Block]:
    """Yield the hypotheses in order; nothing where the study has none."""
    registered = findings.study.registered
    if registered is None:
        return
    yield Heading("The study's own hypotheses, in order")
    yield Text(
        "Each is tested at 5 % only if the one before it is shown. So the chance that any of them is called shown by "
        "chance alone is 5 %, and no p value here is corrected. Tested is the AUC of averaged classifiers: one score "
        "of each woman, the mean over her images and over the trainings. Starts are compared on the same women. The "
        "tables below, with Holm's correction, ask other questions and decide nothing here."
    )
    yield Text(_standing(registered))
    if registered.second_look:
        yield Text(f"**This is a second look at these women.** {registered.second_look}")
    heads = columns(
        "hypothesis", left("outcome", "p"), "difference in AUC", "AUC: first, second", left("women", "cases, trainings")
    )
    strong = frozenset(place for place, found in enumerate(findings.sequence) if found.outcome == "shown")
    rows = tuple(_row(found) for found in findings.sequence)
    yield Table(heads, rows, "The study's own hypotheses, in their order", strong)


def _standing(registered: Registered) -> str:
    """Say since when the hypotheses stand, and what proves it."""
    file = f"STUDY.toml has the SHA-256 {registered.file[:DIGITS]}…"
    where = f" and is commit {registered.commit[:DIGITS]} of its repository" if registered.commit else ""
    if registered.after_opening:
        return (
            f"**The study was changed after test images were opened** ({registered.at}; {file}{where}). What these "
            "hypotheses show may have been chosen by test results: nothing here is confirmed."
        )
    proof = "" if registered.commit else " No commit holds this file: only this folder says when it was written."
    return f"Fixed {registered.at}, before any test image of this study was opened: {file}{where}.{proof}"


def _row(found: SequenceTest) -> tuple[TableCell, ...]:
    one = found.hypothesis
    labels = f", {100 * one.label_fraction:g} % of the labels" if one.label_fraction != 1 else ""
    what = TableCell(one.name, (f"{title(one.first)} − {title(one.second)} at {one.site}{labels}",))
    if found.effect is None:
        return cells(what, found.outcome, NOTHING, NOTHING, NOTHING)
    auc, tested = found.effect, found.outcome != "not tested"
    p = (p_value(auc.p) if auc.p is not None else auc.difference.why,) if tested else ()
    return cells(
        what,
        TableCell(found.outcome, p, verdict=VERDICTS[found.outcome]),
        difference_cell("auc", auc.difference),
        f"{measure('auc', auc.first)}, {measure('auc', auc.second)}",
        TableCell(f"{found.women}", (f"{found.case_women}, {found.trainings}",)),
    )
