"""The report's answer: what is shown and what is not, in plain words, only from the verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from cervix_study.analysis.comparing import Effect, HypothesisTest
from cervix_study.analysis.findings import SiteFindings, StudyFindings
from cervix_study.report import sequence
from cervix_study.report.document import Block, Bullets, Heading, Summary
from cervix_study.report.wording import difference, difference_interval, often, p_value
from site_agent.classifier.intervals import TRAININGS_MIN, Tone, Verdict
from site_agent.report.answer import counted, listed
from site_agent.report.page import three

QUESTION = "Does learning without labels at several institutions give a better start than random weights?"
MAIN = "federated beats Random"
"""the question that the headline answers"""
SECOND = ("CSSL beats Random", "SSL beats Random")
"""what stands in where nothing was federated"""

STARTS = {MAIN: "a federated start", "CSSL beats Random": "a pooled start", "SSL beats Random": "a start of its own"}


def answer(findings: StudyFindings) -> Summary:
    """Return the box at the top of the page."""
    question, tone, headline, lines = sequence.answered(findings) or _of_main_question(findings)
    blocks: list[Block] = [Bullets(lines)] if lines else []
    for name in findings.study.axes.profiles:
        several = len(findings.study.axes.profiles) > 1
        beside = ", beside the hypotheses: exploratory, AUC of images" if findings.sequence else ""
        blocks += _lists(findings, name, beside + (f" (profile {name})" if several else ""))
    caveats = tuple(_caveats(findings))
    if caveats:
        blocks += [Heading("Limits of this result", 3), Bullets(caveats)]
    return Summary(tone, question, headline, tuple(blocks))


def _of_main_question(findings: StudyFindings) -> tuple[str, Tone, str, tuple[str, ...]]:
    """Return the question that every study has, and its answer, with a sentence per site."""
    question, asked = _main(findings, findings.study.axes.profiles[0])
    return QUESTION, *_headline(question, asked), tuple(_main_lines(findings, asked))


def _main(findings: StudyFindings, profile: str) -> tuple[str, list[HypothesisTest]]:
    """Return the first question that this study can answer, and its comparisons."""
    for question in (MAIN, *SECOND):
        found = [c for c in findings.comparisons if (c.profile, c.question) == (profile, question)]
        if found:
            return question, found
    return MAIN, []


def _headline(question: str, asked: Sequence[HypothesisTest]) -> tuple[Tone, str]:
    start = STARTS[question]
    if not asked:
        return "unknown", "Not measured: there is nothing to compare yet."
    sites = list(dict.fromkeys(found.site for found in asked))
    worse = _sites(asked, "worse")
    if worse:
        return "harmed", f"The opposite is shown at {listed(worse)}: {start} does worse than random weights."
    shown = _sites(asked, "better")
    if not shown:
        return "not shown", f"Not shown: these test results do not decide whether {start} beats random weights."
    if len(shown) < len(sites):
        missing = [site for site in sites if site not in shown]
        return "not shown", f"Shown at {listed(shown)}, not shown at {listed(missing)}: {start} beats random weights."
    every = all(found.effects["auc"].verdict == "better" for found in asked)
    at = "at every site" if len(sites) > 1 else f"at {sites[0]}"
    which = {True: start, False: f"{start} (not every one)"}[every]
    return "helped", f"Shown {at}: {which} beats random weights."


def _sites(asked: Iterable[HypothesisTest], verdict: Verdict) -> list[str]:
    return list(dict.fromkeys(found.site for found in asked if found.effects["auc"].verdict == verdict))


def _main_lines(findings: StudyFindings, asked: Sequence[HypothesisTest]) -> Iterable[str]:
    """Yield one sentence per site, on the first pair that was asked there: no pair is picked by its result."""
    for site in dict.fromkeys(found.site for found in asked):
        found = next(c for c in asked if c.site == site)
        auc = found.effects["auc"]
        tested = next(s for s in findings.sites if (s.profile, s.site) == (found.profile, site))
        first, second = (often(value, tested.women) for value in (auc.first, auc.second))
        yield (
            f"**{site}** ({counted(tested.women, 'test woman', 'test women')}): the classifier that starts from "
            f"{found.first} ranks a case above a control {first} of the time; the classifier that starts from random "
            f"weights, {second}. The difference in AUC is {difference('auc', auc.difference.value)} "
            f"({_certainty(auc)}): **{auc.verdict}**."
        )


def _certainty(found: Effect) -> str:
    """Return interval and p value, or why there are none."""
    if not found.difference.tested:
        return f"no interval and no test: {found.difference.why}"
    if found.difference.interval is None:
        return f"no interval: {found.difference.why}; corrected p {p_value(found.corrected)}"
    return f"95 % interval {difference_interval('auc', found.difference)}; corrected p {p_value(found.corrected)}"


def _lists(findings: StudyFindings, profile: str, suffix: str) -> Iterable[Block]:
    """Yield what is shown, what is not, and what is shown to be the other way round, by question and site."""
    own = [found for found in findings.comparisons if found.profile == profile]
    for verdicts, title in (
        (("better", "close"), "What is shown"),
        (("not shown",), "What is not shown"),
        (("worse",), "Where the opposite is shown"),
    ):
        lines = tuple(_lines(own, verdicts))
        if lines:
            yield Heading(f"{title}{suffix}", 3)
            yield Bullets(lines)


def _lines(comparisons: Sequence[HypothesisTest], verdicts: Sequence[str]) -> Iterable[str]:
    """Yield one line per question: where, and for which starts."""
    for question in dict.fromkeys(found.question for found in comparisons):
        asked = [found for found in comparisons if found.question == question]
        own = [found for found in asked if found.effects["auc"].verdict in verdicts]
        if own:
            sites = dict.fromkeys(found.site for found in own)
            starts = {site: _place([found for found in own if found.site == site]) for site in sites}
            where = "; ".join(f"{site} {names}" for site, names in starts.items())
            if verdicts == ("not shown",) and len(own) == len(asked) and len(set(starts.values())) == 1 < len(starts):
                where = f"at no site {starts[own[0].site]}"
            yield f"**{question[0].upper()}{question[1:]}**: {where}."


def _place(found: Sequence[HypothesisTest]) -> str:
    """Return what stands behind a site's name: `(CSFSSL +0.154, PPFSSL_NHS +0.125)`."""
    same_second = len({c.second for c in found}) == 1
    parts = []
    for c in found:
        name = c.first if same_second else f"{c.first} over {c.second}"
        auc = c.effects["auc"]
        parts.append(name if auc.verdict == "not shown" else f"{name} {difference('auc', auc.difference.value)}")
    return f"({', '.join(parts)})"


def _caveats(findings: StudyFindings) -> Iterable[str]:
    yield from _power(findings)
    yield _trainings(findings)
    yield from _seen(findings)
    yield from _unfinished(findings)
    yield from _alarms(findings)
    yield from _leaks(findings)


def _power(findings: StudyFindings) -> Iterable[str]:
    """Say what this test could have found."""
    sizes = []
    for site in dict.fromkeys(found.site for found in findings.comparisons):
        found = [c.effects["auc"].detectable for c in findings.comparisons if c.site == site]
        detectable = [size for size in found if size is not None]
        if detectable:
            sizes.append(f"{three(statistics.median(detectable))} at {site}")
    what_is_found = (
        " One of these comparisons, corrected for their number, would find a difference in AUC of about "
        f"{listed(sizes)} in four of five studies; a smaller one would more often be missed."
    )
    if findings.comparisons:
        yield f"“Not shown” is not “no difference”.{what_is_found if sizes else ''}"


def _trainings(findings: StudyFindings) -> str:
    axes = findings.study.axes
    seeds, classifiers = len(axes.seeds), len(axes.classifier_seeds)
    folds = f", in each of {axes.folds} folds" if axes.folds else ""
    folds = f", leaving out each of {len(axes.leave_out_devices)} devices" if axes.leave_out_devices else folds
    folds += f" of {axes.fold_repeats} cross-validations" if axes.fold_repeats > 1 else ""
    if seeds * classifiers == 1:
        return (
            f"Every start was trained once{folds}: intervals and verdicts hold for these trainings. They do not say "
            f"what other trainings of the same starts would give. Train each start {TRAININGS_MIN} times or more "
            "before you rely on a difference."
        )
    what = counted(seeds, "seed") if classifiers == 1 else f"{counted(seeds, 'seed')}, {classifiers} classifiers each"
    mean = f"Every number is the mean over {what}{folds}; "
    if (seeds if seeds > 1 else classifiers) >= TRAININGS_MIN:  # of several seeds, the classifiers are averaged
        return f"{mean}intervals cover the choice of women and of trainings."
    return (
        f"{mean}these are too few trainings for an interval; {TRAININGS_MIN} are enough. Verdicts take into account "
        "how much the trainings differ."
    )


def _seen(findings: StudyFindings) -> Iterable[str]:
    if findings.seen_before:
        yield (
            f"The study was changed after test parts were opened: {counted(findings.seen_before, 'classifier')} of an "
            "earlier version had theirs opened as well. Later changes may have been chosen by test results."
        )


def _unfinished(findings: StudyFindings) -> Iterable[str]:
    if findings.missing:
        yield f"The study is not finished: {counted(findings.missing, 'cell')} of {len(findings.study.cells)} to come."
    if findings.study.failed:
        yield f"{counted(len(findings.study.failed), 'cell')} could not be trained; the reasons are listed under "
        "provenance."
    if findings.degraded:
        yield f"{counted(findings.degraded, 'federation')} ended DEGRADED: a site is missing from a round."
    for found in findings.sites:
        if found.unfinished:
            yield f"Not in the tables of {found.site} (profile {found.profile}): {listed(found.unfinished)}."


def _alarms(findings: StudyFindings) -> Iterable[str]:
    for found in findings.sites:
        for shuffled in found.shuffled:
            if not shuffled.as_expected:
                yield (
                    f"**Check this**: at {found.site} a classifier that learned from shuffled labels "
                    f"({shuffled.label}) has an AUC of {three(shuffled.auc.value)}, and its interval is above .5. "
                    "Labels or splits may leak."
                )
    undecided = [(found.undecided, found.site) for found in findings.sites if found.scores and found.undecided]
    for reason in dict.fromkeys(reason for reason, _ in undecided):
        sites = list(dict.fromkeys(site for own, site in undecided if own == reason))
        yield f"At {listed(sites)}: {reason}. No conclusion is possible there, and no interval is printed."


def _leaks(findings: StudyFindings) -> Iterable[str]:
    pictures = sum(found.pictures for found in findings.leakage)
    if pictures:
        yield (
            f"{counted(pictures, 'picture')} appeared under more than one patient. Such patients count as one woman "
            "and share a split."
        )
    crossing = sum(
        found.pairs for found in findings.alike if found.sites[0] == found.sites[1] and "test" in found.splits
    )
    if crossing:
        yield (
            f"{counted(crossing, 'pair')} of look-alike images of different women touch a test part. "
            "A person must judge them (data.json in the study's folder names them)."
        )


def tested(found: SiteFindings) -> str:
    """Say how much a site was tested on."""
    return (
        f"{counted(found.women, 'woman', 'women')} ({counted(found.case_women, 'case')}, "
        f"{counted(found.women - found.case_women, 'control')}), {counted(found.images, 'image')}"
    )
