"""The sections on claims: put to this study's data, and to the paper's own printed numbers."""

from __future__ import annotations

from collections.abc import Iterable

from cervix_study.analysis.comparing import MARGIN, TESTED, HypothesisTest
from cervix_study.analysis.findings import StudyFindings
from cervix_study.analysis.hypotheses import QUESTIONS, Question
from cervix_study.evidence.paper import CLAIMS, TEST_WOMEN, PrintedTest, kind_of
from cervix_study.report import figures
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
    left,
)
from cervix_study.report.scores import named
from cervix_study.report.wording import NOTHING, difference_cell, measure, p_value, verdict_cell
from site_agent.classifier.intervals import FOLD_WOMEN_MIN, WOMEN_MIN
from site_agent.report.answer import listed

LEVEL_P = 0.05


def ours(findings: StudyFindings) -> Iterable[Block]:
    """Yield every question with its comparisons in this data."""
    yield Heading("The paper's claims in this data")
    family = sum(found.kind == "better" for found in findings.comparisons)
    profiles = len(findings.study.axes.profiles)
    yield Text(
        "Each start as validation chose it, two at a time on the same women and seeds. **Better** means: the "
        "difference has the direction of the claim, and p is below .05 after Holm's correction over all comparisons "
        f"of one measure{' and profile' if profiles > 1 else ''} ({family // max(1, profiles)} here). **Worse** "
        f"means the same in the opposite direction. **Close** means: a difference of {MARGIN:g} either way is as "
        "improbable (p below .05 after the same correction, over the questions for closeness). **Not shown** is "
        "everything else; it does not prove equality."
    )
    yield from _overview(findings)
    for question in QUESTIONS:
        yield from _question(question, findings)
    asked = {found.question for found in findings.comparisons}
    silent = [question.name for question in QUESTIONS if question.name not in asked]
    if silent:
        yield Text(f"Not asked here, because fewer than two such starts were tested: {listed(silent)}.", quiet=True)
    yield Details("McNemar's and DeLong's tests of every comparison", tuple(_classical(findings)))


def _overview(findings: StudyFindings) -> Iterable[Block]:
    drawn = []
    for found in findings.sites:
        own = [c for c in findings.comparisons if (c.profile, c.site, c.kind) == (found.profile, found.site, "better")]
        unique = list({(c.first, c.second): c for c in own}.values())
        if unique:
            picture = figures.effect_dots(unique)
            caption = (
                f"**{named(found, findings)}.** Right of the line: the first start is better. Filled: shown after "
                "correction."
            )
            drawn.append(Figure(picture, f"Differences in AUC at {named(found, findings)}", caption))
    if drawn:
        yield Figures(tuple(drawn))


def _question(question: Question, findings: StudyFindings) -> Iterable[Block]:
    """Yield a question's comparisons; nothing where it was not asked."""
    found = [c for c in findings.comparisons if c.question == question.name]
    if not found:
        return
    yield Heading(f"{question.name[0].upper()}{question.name[1:]}", 3)
    if question.quote:
        yield Text(f"The paper: “{question.quote}”.")
    p = "corrected p"
    heads: list[str | Column] = ["comparison"]
    for head in ("AUC", "accuracy"):
        heads += [left(f"{head}: verdict", p), "difference", Column(head, "first, second")]
    several = len(findings.study.axes.profiles) > 1
    rows = tuple(_comparison_row(c, several=several) for c in found)
    strong = frozenset(place for place, c in enumerate(found) if c.effects["auc"].verdict != "not shown")
    yield Table(columns(*heads), rows, f"{question.name}, in this data", strong)


def _comparison_row(found: HypothesisTest, *, several: bool) -> tuple[TableCell, ...]:
    where = f"at {found.site}, {found.profile}" if several else f"at {found.site}"
    row = [TableCell(f"{found.first} − {found.second}", (where,))]
    for name in TESTED:
        effect = found.effects[name]
        both = f"{measure(name, effect.first).removesuffix(' %')}, {measure(name, effect.second)}"
        row += [verdict_cell(effect), difference_cell(name, effect.difference), TableCell(both)]
    return tuple(row)


def _classical(findings: StudyFindings) -> Iterable[Block]:
    yield Text(
        "For readers who know these tests; the verdicts do not use them. **By image**, a test treats every image as "
        "independent. Two images of one woman are not, so its p is too small. **By woman**, each woman votes once, "
        "for the start that called more of her images right. This report's test of the AUC is DeLong's by woman, with "
        "an unbiased variance. With several seeds, McNemar's p is twice the median, and DeLong's test by image uses "
        "the mean AUC of each start, with the seeds as given. No p is corrected; the detectable difference is. With "
        f"fewer than {WOMEN_MIN} test women of a class, or {FOLD_WOMEN_MIN} in a fold, these tests are not made."
    )
    several = len(findings.study.axes.profiles) > 1
    tests = (
        Column("accuracy: McNemar", "by image"),
        Column("accuracy: McNemar", "by woman"),
        Column("AUC: DeLong", "by image"),
        Column("AUC: this report's test", "by woman and seed"),
        Column("detectable", "difference in AUC"),
    )
    heads = columns("comparison", left("site"), *([left("profile")] if several else []), *tests)
    unique = {(c.profile, c.site, c.first, c.second): c for c in findings.comparisons}
    rows = []
    for found in unique.values():
        auc = found.effects["auc"]
        values = (found.mcnemar_images, found.mcnemar_women, found.delong_images, auc.p)
        names = [f"{found.first} − {found.second}", found.site, *([found.profile] if several else [])]
        rows.append(
            cells(*names, *map(p_value, values), NOTHING if auc.detectable is None else measure("auc", auc.detectable))
        )
    yield Table(heads, tuple(rows), "Classical tests of every comparison, p values not corrected")


def printed(findings: StudyFindings) -> Iterable[Block]:
    """Yield the tests that the paper's own numbers would pass or fail; nothing unless they were asked for."""
    if not findings.printed:
        return
    yield Heading("What the paper's own numbers can show")
    tests = findings.printed
    better = [test for test in tests if kind_of(test.claim) == "better"]
    images = listed(
        [f"{test.right[0].whole} images of {TEST_WOMEN[test.site]} women at {test.site}" for test in tests[:2]]
    )
    passed = [test for test in better if test.fisher < LEVEL_P]
    possible = [test for test in better if test.at_best < LEVEL_P]
    kept = [test for test in better if test.at_best_corrected is not None and test.at_best_corrected < LEVEL_P]
    yield Text(
        f"The paper tests {images}, with one training per row, and reports no statistical test. Its Table II follows "
        "exactly from whole numbers of images, so its claims can be tested here, by image (that is, generously). "
        "**Unpaired**: Fisher's exact test, as if the two rows had been tested on different images. **Paired at "
        "best**: the paper does not print which classifier was right on which image, but the counts give the "
        "smallest number of images on which two rows differ. With these counts, p in McNemar's exact test cannot be "
        "smaller."
    )
    yield Text(
        f"Of {len(better)} printed comparisons that claim one start to be better, **{len(passed)}** pass the "
        f"unpaired test; **{len(possible)}** could pass the paired test if the images were as favourable as "
        f"possible{_which(possible)}; after correction for their number **{len(kept)}** could. The claims may be "
        "true, but these numbers do not show it."
    )
    heads = columns(
        left("rows", "and the claim"),
        left("institution"),
        Column("called right", "first, second"),
        "difference",
        Column("unpaired", "Fisher's p"),
        Column("paired at best", "McNemar's p"),
        Column("cases found", "Fisher's p"),
    )
    yield Table(heads, tuple(_printed_row(test) for test in tests), "Tests of the paper's printed numbers")
    silent = [claim.name for claim in CLAIMS if not claim.printed]
    yield Text(
        "Differences with Newcombe's 95 % interval for unpaired proportions. The paper prints no numbers for: "
        f"{listed(silent)}.",
        quiet=True,
    )


def _which(tests: list[PrintedTest]) -> str:
    return f" ({listed([f'{test.row} over {test.versus} at {test.site}' for test in tests])})" if tests else ""


def _printed_row(test: PrintedTest) -> tuple[TableCell, ...]:
    one, two = test.right
    return cells(
        TableCell(f"{test.row} − {test.versus}", (test.claim,)),
        test.site,
        f"{one.part}, {two.part} of {one.whole}",
        difference_cell("accuracy", test.difference),
        p_value(test.fisher),
        TableCell(p_value(test.at_best), (f"{test.discordant[0]} against {test.discordant[1]} images",)),
        p_value(test.recall_fisher),
    )
