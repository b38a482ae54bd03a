"""The report's answer: did joining help this hospital? In plain words, and no stronger than the numbers.

Rules
1. The federated start is compared with every start that the hospital can make without a federation: random weights,
   ImageNet weights, contrastive learning on its own images (SSL). "Yes" needs all of these comparisons to be decided
   for the federated start, random weights and SSL among them. One that is decided against it is a "No". Everything else
   is "not shown".
2. Every comparison of the report is corrected for their number (Holm), so a "No" is as well: it is the worst of
   several. A "Yes" to all would need no correction (an intersection-union test: Berger, Technometrics 24:295, 1982),
   but one rule for every verdict on the page is easier to read.
3. The headline names the start with the highest AUC wherever that is not the federated one. That colour and texture
   alone do as well as that start is said too, and qualifies a "Yes".
4. Where the compared models were trained differently, the answer is neither "yes" nor "no", and no comparison has a
   conclusion (`SiteReport.conclusion`).
5. The answer is not "Yes" if another start is ahead by woman. "Yes" has a reservation, and is not shown in green, if
   the run did not end OK, if the trainer gave an alarm, or if the report has any other reservation.
6. The misses at each threshold are given in counts of images and of women.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from site_agent.classifier.evaluate import AtThreshold, Comparison, Evaluation
from site_agent.classifier.intervals import Estimate, Tone, Verdict
from site_agent.classifier.notices import NOT_CALIBRATED, RESEARCH_ONLY
from site_agent.report.content import TRAINED_DIFFERENTLY, SiteReport
from site_agent.starts import TITLES
from site_agent.store.provenance import FEDERATED

RANDOM = TITLES["random"]
NOT_ALONE = ("CSSL", *FEDERATED)
"""families of starts that take images or weights of other hospitals"""
WOMEN_FOR_THIRD_DIGIT = 100
"""With fewer women the third digit of a rate says nothing: one woman moves the second."""
PERCENT_FROM = 100
"""A share of fewer is given as a count: 9 of 11."""

OK = "OK"

WORDS: dict[Verdict, str] = {
    "better": "shown: the federated start is better",
    "worse": "shown: the federated start is worse",
    "close": "shown: close to each other",
    "not shown": "not shown",
}


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is printed, and its 95 % interval; empty where there is none."""

    value: str = ""
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.interval})" if self.interval else self.value


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One start in the table of the answer."""

    name: str
    auc: Number
    by_woman: Number
    """the AUC of the women's scores; empty where it was not measured"""
    difference: Number
    """the federated start's AUC minus this one; empty for the federated start itself"""
    says: str
    """what the difference shows"""
    joined: bool
    """this is the federated start"""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The answer, its reason in sentences, and what qualifies it."""

    tone: Tone
    headline: str
    sentences: tuple[str, ...]
    standings: tuple[AnswerRow, ...]
    """every start, the highest AUC first"""
    missed: tuple[str, ...]
    caveats: tuple[str, ...]
    notices: tuple[str, ...] = (RESEARCH_ONLY, NOT_CALIBRATED)

    @property
    def guarded(self) -> bool:
        """Whether something qualifies a positive answer: it is then not shown in green."""
        return self.tone == "helped" and bool(self.caveats)


def answer(report: SiteReport) -> Conclusion:
    """Return what the page says first."""
    tone = _tone(report)
    return Conclusion(
        tone=tone,
        headline=_headline(report, tone),
        sentences=tuple(_sentences(report, tone)),
        standings=_standings(report),
        missed=tuple(line for found in _told(report) for line in missed(found, _by_woman(report, found.name))),
        caveats=(
            *_contradictions(report),
            *_floor(report),
            *report.differences,
            *report.reservations,
            *_run_caveats(report),
        ),
    )


# --- which answer -------------------------------------------------------------------------------------------------


def _tone(report: SiteReport) -> Tone:
    """Return the answer by rules 1, 4 and 5."""
    verdicts = _verdicts(report)
    if not verdicts:
        return "unknown"
    if "worse" in verdicts:
        return "harmed"
    decided = all(verdict == "better" for verdict in verdicts) and not _absent(report)
    return "helped" if decided and not _ahead_by_woman(report) else "not shown"


def _own(report: SiteReport) -> tuple[Comparison, ...]:
    """Return the comparisons of the federated start with what this hospital can have without a federation."""
    return tuple(
        found
        for found in report.comparisons
        if found.name == report.federated and not found.versus.startswith(NOT_ALONE)
    )


def _verdicts(report: SiteReport) -> list[Verdict]:
    return [report.conclusion(found)[0] for found in _own(report)]


def _absent(report: SiteReport) -> list[str]:
    """Return the starts without which nothing says whether joining helped, and which were not compared."""
    return [name for name in (RANDOM, report.alone) if report.comparison(name) is None]


def _highest(found: Sequence[Evaluation], federated: str) -> Evaluation | None:
    """Return the evaluation with the highest AUC; of equal ones the federated start."""
    return max(found, key=lambda e: (e.auc.value, e.name == federated), default=None)


def _ahead(report: SiteReport) -> Evaluation | None:
    """Return the evaluation with the highest AUC, unless it is the federated one."""
    best = _highest(report.evaluations, report.federated)
    return None if best is None or best.name == report.federated else best


def _ahead_by_woman(report: SiteReport) -> Evaluation | None:
    """Return the start without a federation that is ahead of the federated one by woman."""
    own = [found for found in report.by_woman if not found.name.startswith(NOT_ALONE) or found.name == report.federated]
    best = _highest(own, report.federated)
    return None if best is None or best.name == report.federated else best


# --- the headline -------------------------------------------------------------------------------------------------


def _headline(report: SiteReport, tone: Tone) -> str:
    worse = [found.versus for found in _own(report) if found.verdict == "worse"]
    says = {
        "helped": "Yes: on these test women, joining helped.",
        "harmed": f"No: on these test women, the federated start did worse than {listed(worse)}.",
        "not shown": _not_shown(report),
        "unknown": "Not measured: there is nothing to compare yet.",
    }[tone]
    return " ".join([says, *_winner(report)])


def _not_shown(report: SiteReport) -> str:
    own = _own(report)
    reasons = {found.difference.why for found in own}
    if len(reasons) == 1 and "" not in reasons:
        return f"No conclusion: {reasons.pop()}."
    if report.differences:
        return f"Not shown whether joining helped: {TRAINED_DIFFERENTLY} (see below)."
    if all(found.verdict == "better" for found in own):
        return f"Not shown that joining helped: {_why_not_yes(report)}."
    return "Not shown: these test results do not decide whether joining helped."


def _why_not_yes(report: SiteReport) -> str:
    """Return why the answer is not "Yes" although all comparisons were decided for the federated start."""
    if _absent(report):
        return f"{listed(_absent(report))} {'was' if len(_absent(report)) == 1 else 'were'} not compared"
    ahead = _ahead_by_woman(report)
    return f"by woman, {ahead.name} has a higher AUC" if ahead else "see below"


def _winner(report: SiteReport) -> tuple[str, ...]:
    """Say which start has the highest AUC, where it is not the federated one."""
    ahead, joined = _ahead(report), report.evaluation(report.federated)
    if ahead is None:
        return ()
    score = number(ahead.auc.value, ahead.women)
    against = f"; the federated start ({joined.name}) has {number(joined.auc.value, joined.women)}" if joined else ""
    return (f"{ahead.name} has the highest AUC of the starts: {score}{against}.",)


# --- what it rests on ---------------------------------------------------------------------------------------------


def _sentences(report: SiteReport, tone: Tone) -> Iterable[str]:
    if report.evaluations:
        yield _tested(report.evaluations[0])
    if report.evaluations and not report.federated:
        yield (
            "No classifier here starts from the model of a federation, so it is not known whether joining helps. "
            "After a run: site-agent finetune, then site-agent evaluate."
        )
    elif tone == "unknown":
        yield (
            "This page has no test score of a federated model together with one of another start. It needs labelled "
            "test images of cases and controls, and both classifiers: site-agent finetune, then site-agent evaluate."
        )
    elif report.comparison(report.alone) is None:
        yield (
            f"No model was trained on our own images alone ({report.alone}), so it is not known what this hospital "
            "can do by itself: site-agent pretrain, then finetune and evaluate."
        )


def _tested(found: Evaluation) -> str:
    controls = found.women - found.case_women
    return (
        f"Tested on {counted(found.women, 'woman', 'women')}: {counted(found.case_women, 'case')} and "
        f"{counted(controls, 'control')}, with {counted(found.images, 'image')}. The AUC says how often an image of a "
        "case gets a higher probability than an image of a control: 1 is perfect, .5 is guessing."
    )


def _standings(report: SiteReport) -> tuple[AnswerRow, ...]:
    """Return every start, the highest AUC first; of equal ones the federated start last."""
    order = sorted(report.evaluations, key=lambda e: (-e.auc.value, e.name == report.federated))
    return tuple(_standing(report, found) for found in order)


def _standing(report: SiteReport, found: Evaluation) -> AnswerRow:
    compared, women = report.comparison(found.name), _by_woman(report, found.name)
    return AnswerRow(
        name=found.name,
        auc=shown(found.auc, found.women),
        by_woman=shown(women.auc, women.women) if women else Number(),
        difference=shown_difference(compared.difference, found.women) if compared else Number(),
        says=_says(*report.conclusion(compared)) if compared else "",
        joined=found.name == report.federated,
    )


def _says(verdict: Verdict, why: str) -> str:
    return WORDS[verdict] + (f": {why}" if why else "")


def _by_woman(report: SiteReport, name: str) -> Evaluation | None:
    return next((found for found in report.by_woman if found.name == name), None)


def _told(report: SiteReport) -> tuple[Evaluation, ...]:
    """Return the classifiers whose misses stand in the answer: the federated one, and the one that is ahead."""
    found = (report.evaluation(report.federated), _ahead(report))
    return tuple(one for one in found if one is not None)


def missed(images: Evaluation, women: Evaluation | None) -> tuple[str, ...]:
    """Say in counts what one classifier misses and calls wrongly, a sentence for each threshold."""
    fixed, chosen = (women.fixed, women.chosen) if women else (None, None)
    called = f"{threshold(images.chosen.threshold)}, chosen on validation images"
    return (
        _missed(images.name, ".5, the published threshold", images.fixed, fixed),
        _missed(images.name, called, images.chosen, chosen),
    )


def _missed(name: str, called: str, images: AtThreshold, women: AtThreshold | None) -> str:
    i = images.confusion
    cases = [f"{i.fn} of {counted(i.tp + i.fn, 'case image')}"]
    controls = [f"{i.fp} of {counted(i.fp + i.tn, 'control image')}"]
    if women:
        w = women.confusion
        cases.append(f"{w.fn} of {counted(w.tp + w.fn, 'case woman', 'case women')}")
        controls.append(f"{w.fp} of {counted(w.fp + w.tn, 'control woman', 'control women')}")
    return f"At {called}, {name} misses {listed(cases)}. It raises a false alarm for {listed(controls)}."


# --- what qualifies it --------------------------------------------------------------------------------------------


def _contradictions(report: SiteReport) -> Iterable[str]:
    ahead = _ahead_by_woman(report)
    if ahead and report.federated:
        score = number(ahead.auc.value, ahead.women)
        yield f"By woman, {ahead.name} has a higher AUC ({score}) than the federated start."


def _floor(report: SiteReport) -> Iterable[str]:
    """Say where the classifier in question ranks no better than the floor."""
    own = report.evaluation(report.federated) or _ahead(report)
    if own and report.floor and own.auc.value <= report.floor[0].auc.value:
        without = number(report.floor[0].auc.value, own.women)
        yield (
            f"{own.name} has no higher AUC ({number(own.auc.value, own.women)}) than colour and texture alone, without "
            f"a network ({without}): nothing here shows that it sees more."
        )


def _run_caveats(report: SiteReport) -> tuple[str, ...]:
    """Say what in the run itself weakens any answer."""
    missing = sorted({part.site for turn in report.rounds for part in turn.contributions if part.why_not})
    names = f" Missing from at least one round: {', '.join(missing)}." if missing else ""
    fine = report.final_state == OK or not report.run
    return (*(() if fine else (f"Outcome of the run: {report.final_state}.{names}",)), *report.alarms)


# --- numbers, no more precise than what they rest on ---------------------------------------------------------------


def number(value: float, women: int) -> str:
    """Return a rate or an AUC: 0.871, with two decimals where fewer than a hundred women were tested."""
    return f"{value:.{_digits(women)}f}"


def _digits(women: int) -> int:
    return 3 if women >= WOMEN_FOR_THIRD_DIGIT else 2


def shown(estimate: Estimate, women: int) -> Number:
    """Return a rate or an AUC with its interval."""
    return Number(number(estimate.value, women), " to ".join(number(end, women) for end in estimate.interval or ()))


def shown_difference(estimate: Estimate, women: int) -> Number:
    """Return a difference with its interval."""
    digits = _digits(women)
    return Number(signed(estimate.value, digits), " to ".join(signed(end, digits) for end in estimate.interval or ()))


def threshold(value: float) -> str:
    """Return a threshold: 0.412, and 1.2e-05 where three decimals would hide it."""
    return f"{value:.3f}" if 0.001 <= value <= 0.999 else f"{value:.3g}"


def signed(number: float, digits: int = 3) -> str:
    """Return a difference with a sign: a real minus, and no sign on zero."""
    text = f"{number:+.{digits}f}".replace("-", "−")
    return text[1:] if float(text[1:]) == 0 else text


def counts_of(at: AtThreshold) -> dict[str, tuple[int, int]]:
    """Return (right, of) for every measure that counts."""
    c = at.confusion
    return {
        "recall": (c.tp, c.tp + c.fn),
        "specificity": (c.tn, c.tn + c.fp),
        "precision": (c.tp, c.tp + c.fp),
        "npv": (c.tn, c.tn + c.fn),
        "accuracy": (c.tp + c.tn, c.tp + c.fn + c.fp + c.tn),
    }


def share(part: int, whole: int) -> str:
    """Return a share as a count, with a percentage where it is of a hundred or more: 9 of 11; 84 of 120 (70 %)."""
    return f"{part} of {whole}" + (f" ({100 * part / whole:.0f} %)" if whole >= PERCENT_FROM else "")


def percent(share: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def counted(count: int, one: str, many: str = "") -> str:
    """Return 1 woman, 2 women."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def listed(names: Sequence[str]) -> str:
    """Return `a`, `a and b`, `a, b and c`."""
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])
