"""The study's report: what is shown first, nothing fetched, the same numbers in the page and in its Markdown twin."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cervix_study.analysis.analysis import judge
from cervix_study.analysis.findings import Shuffled, StudyFindings
from cervix_study.analysis.result_rows import Finished
from cervix_study.report.answer import answer
from cervix_study.report.compose import FINDINGS_FILE, MARKDOWN_FILE, PAGE_FILE, compose, write_report
from cervix_study.report.document import Code, Details, Table, Text, cells
from cervix_study.report.markdown import blocks_text, words
from cervix_study.report.page import page as as_page
from cervix_study.report.page import words as as_html
from cervix_study.report.wording import difference, energy, often, p_value, size
from site_agent.classifier.intervals import TOO_FEW_MOVERS, TOO_FEW_TRAININGS, Estimate
from site_agent.report.answer import listed
from tests.unit.synthetic_study import WHOLE, Synthetic, write

SECTIONS = (
    "The data (Table I)",
    "How well each start does (Table II)",
    "ROC curves (Fig. 2)",
    "By woman",
    "The paper's claims in this data",
    "What the paper's own numbers can show",
    "What was chosen, and by what",
    "Learning curves",
    "With fewer labels",
    "Controls",
    "Calibration",
    "Profiles side by side: paper and recommended",
    "Settings",
    "Leakage and near-duplicates",
    "What it cost",
    "Words on this page",
    "Provenance",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("study"), WHOLE)


@pytest.fixture(scope="module")
def findings(folder: Path) -> StudyFindings:
    return judge(Finished.read(folder), paper_audit=True)


@pytest.fixture(scope="module")
def written(folder: Path, findings: StudyFindings) -> Path:
    write_report(findings, folder)
    return folder


@pytest.fixture(scope="module")
def page(written: Path) -> str:
    return (written / PAGE_FILE).read_text("utf-8")


@pytest.fixture(scope="module")
def text(written: Path) -> str:
    return (written / MARKDOWN_FILE).read_text("utf-8")


class Elements(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_fetches_and_runs_nothing(page: str):
    for tag, attributes in Elements(page).found:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert all(not name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"https?://|@import|url\(", page)
    policies = [a["content"] for _, a in Elements(page).found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_every_control_that_was_asked_for_is_told(text: str):
    controls = text[text.index("## Controls") : text.index("## Calibration")]
    heads = [line.removeprefix("### ") for line in controls.splitlines() if line.startswith("### ")]
    assert heads == [
        "Equal updates",
        "Mini-batches of one site each",
        "Shuffled labels",
        "Does the representation reveal the site?",
    ]
    assert "CSSL, one site each" in controls
    assert "CSSL N=8, mixed" in controls


def test_the_pictures_fetch_nothing_and_each_is_described(page: str):
    pictures = [base64.b64decode(found) for found in re.findall(r"svg\+xml;base64,([A-Za-z0-9+/=]+)", page)]
    assert len(pictures) >= 20
    for picture in pictures:
        drawn = picture.decode()
        assert "<script" not in drawn
        assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', drawn))
    assert all(a.get("alt") for tag, a in Elements(page).found if tag == "img")


def test_every_section_is_there_once_and_in_order(page: str, text: str):
    heads = [html.unescape(found) for found in re.findall(r'<h2 id="[^"]*">(.*?)</h2>', page)]
    assert heads == list(SECTIONS)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(SECTIONS)
    anchors = {a["id"] for tag, a in Elements(page).found if tag == "h2"}
    assert {str(a["href"])[1:] for tag, a in Elements(page).found if tag == "a"} == anchors


def numbers(source: str) -> list[str]:
    return re.findall(r"[+−]?\d+(?:[.,]\d+)*", source)


def test_page_and_markdown_hold_the_same_numbers_in_the_same_order(page: str, text: str):
    main = page[page.index("<main>") : page.index("</main>")]
    shown = html.unescape(re.sub(r"<[^>]*>", " ", main))
    twin = text[text.index(f"## {SECTIONS[0]}") : text.rindex("\n---\n")].replace("\\", "")
    assert numbers(shown) == numbers(twin)


def test_page_and_markdown_name_no_woman_and_no_image(page: str, text: str):
    for source in (page, text):
        assert "SECRET" not in source
        assert "nhs-test-" not in source


def test_the_papers_numbers_stand_beside_ours(page: str):
    assert "paper 83.1 / 79.8" in page, "SSL N=8: accuracy at NHS and ALTS"
    assert "paper 0.633 / 0.721" in page, "its recall"


def test_the_same_study_is_the_same_bytes(page: str, findings: StudyFindings):
    assert as_page(compose(findings)) == page


def test_findings_json_can_be_read(written: Path):
    raw = json.loads((written / FINDINGS_FILE).read_text("utf-8"))
    assert raw["study"]["name"] == "synthetic"
    assert raw["comparisons"]


def verdicts(findings: StudyFindings, **by_site: str) -> StudyFindings:
    """Give every `federated beats Random` at a site this verdict."""
    changed = []
    for c in findings.comparisons:
        if c.question == "federated beats Random":
            auc = dataclasses.replace(c.effects["auc"], verdict=by_site[c.site])
            changed.append(dataclasses.replace(c, effects={**c.effects, "auc": auc}))
        else:
            changed.append(c)
    return dataclasses.replace(findings, comparisons=tuple(changed))


@pytest.mark.parametrize(
    ("nhs", "alts", "tone", "headline"),
    [
        ("better", "better", "helped", "Shown at every site: a federated start beats random weights."),
        (
            "better",
            "not shown",
            "not shown",
            "Shown at nhs, not shown at alts: a federated start beats random weights.",
        ),
        (
            "not shown",
            "not shown",
            "not shown",
            "Not shown: these test results do not decide whether a federated start beats random weights.",
        ),
        (
            "better",
            "worse",
            "harmed",
            "The opposite is shown at alts: a federated start does worse than random weights.",
        ),
    ],
)
def test_the_headline_says_no_more_than_the_verdicts(findings: StudyFindings, nhs, alts, tone, headline):
    found = answer(verdicts(findings, nhs=nhs, alts=alts))
    assert (found.tone, found.headline) == (tone, headline)


def test_what_is_shown_nowhere_is_said_once_and_not_of_every_site(findings: StudyFindings):
    nowhere = blocks_text(answer(verdicts(findings, nhs="not shown", alts="not shown")).blocks)
    assert "**Federated beats Random**: at no site (" in nowhere
    somewhere = blocks_text(answer(verdicts(findings, nhs="better", alts="not shown")).blocks)
    assert "**Federated beats Random**: alts (" in somewhere
    said = [line for line in somewhere.splitlines() if "**Federated beats Random**" in line]
    assert said
    assert all("at no site (CSFSSL" not in line for line in said)


def test_without_a_comparison_nothing_is_claimed(findings: StudyFindings):
    found = answer(dataclasses.replace(findings, comparisons=()))
    assert (found.tone, found.headline) == ("unknown", "Not measured: there is nothing to compare yet.")


def test_what_weakens_an_answer_stands_beside_it(findings: StudyFindings):
    site = dataclasses.replace(
        findings.sites[0], shuffled=(Shuffled("CSSL", Estimate(0.7, 0.6, 0.8)),), unfinished=("ImageNet",)
    )
    weak = dataclasses.replace(findings, sites=(site, *findings.sites[1:]), missing=3, degraded=1, seen_before=2)
    said = blocks_text(answer(weak).blocks)
    for words_ in (
        "Check this",
        "3 cells of",
        "1 federation ended DEGRADED",
        "2 classifiers of an earlier version",
        "Not in the tables of nhs (profile paper): ImageNet",
        "“Not shown” is not “no difference”",
    ):
        assert words_ in said, words_


def test_two_seeds_are_too_few_for_an_interval_and_the_page_says_so(findings: StudyFindings, text: str):
    assert "the mean over 2 seeds; these are too few trainings for an interval; 5 are enough" in text
    why = [c.effects["auc"].difference.why for c in findings.comparisons]
    assert set(why) == {TOO_FEW_TRAININGS, TOO_FEW_MOVERS}
    tested = [c.effects["auc"].corrected is not None for c in findings.comparisons]
    assert tested == [one == TOO_FEW_TRAININGS for one in why]
    assert "no interval: fewer than 5 trainings; corrected p" in text


def test_a_study_that_has_only_begun_can_be_reported(tmp_path: Path):
    bare = Synthetic(starts=("random",), seeds=(1,), batch_images=(8,), case_women=2, control_women=3)
    found = judge(Finished.read(write(tmp_path, bare)))
    assert "Not measured" in as_page(compose(found))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> StudyFindings:
    """Everything a study can ask, of three women who are cases and four who are not."""
    small = dataclasses.replace(WHOLE, profiles=("paper",), case_women=3, control_women=4)
    return judge(Finished.read(write(tmp_path_factory.mktemp("few"), small)))


def estimates(found: object) -> Iterator[dict[str, object]]:
    """Yield every estimate below a value of findings.json."""
    if isinstance(found, dict):
        if found.keys() == {"value", "low", "high", "why"}:
            yield found
        found = list(found.values())
    if isinstance(found, list):
        for part in found:
            yield from estimates(part)


def test_a_study_of_fewer_than_twenty_women_prints_no_interval_no_test_and_no_detectable_difference(
    few: StudyFindings, tmp_path: Path
):
    written = {
        path.suffix: path.read_text("utf-8") for path in write_report(few, tmp_path) if path.stem != "checklists"
    }
    page, text, findings = written[".html"], written[".md"], written[".json"]
    kept = json.loads(findings)
    own = list(estimates(kept))
    assert len(own) > 100
    assert {(each["low"], each["high"]) for each in own} == {(None, None)}
    assert all(each["why"] for each in own)
    effects = [effect for c in kept["comparisons"] for effect in c["effects"].values()]
    assert {(e["p"], e["corrected"], e["detectable"], e["verdict"]) for e in effects} == {
        (None, None, None, "not shown")
    }
    for source in (page, text):
        plain = html.unescape(re.sub(r"<[^>]*>", " ", source))
        tables = plain[plain.rindex(SECTIONS[1]) : plain.rindex("What was chosen, and by what")]
        of_chance = re.compile(r"chance[^.]{0,20}\.?\d[.\d]* to [.\d]+")  # what shuffled classes have is no interval
        assert not re.search(r"\d to [+−]?\d", of_chance.sub("", tables)), "an interval"
        assert "No intervals and no tests: fewer than 20 test women of a class" in tables
        assert "would find a difference in AUC of about" not in plain
        assert "nan" not in plain.split()


def test_the_papers_own_numbers_are_tested_only_on_request(few: StudyFindings):
    assert "What the paper's own numbers can show" not in as_page(compose(few))


ATTACK = '\u202e\x1b"><script>alert(1)</script><img src=x onerror=alert(1)> | `x` [a](http://evil)'


def test_names_from_outside_cannot_become_markup(findings: StudyFindings):
    study = dataclasses.replace(findings.study, configuration=ATTACK, failed={"k": ATTACK}, host=ATTACK)
    source = as_page(compose(dataclasses.replace(findings, study=study)))
    assert "<script" not in source
    assert not {"\u202e", "\x1b"} & {*source}
    assert "onerror" not in {name for _, attributes in Elements(source).found for name in attributes}


def test_words_are_escaped_before_they_are_marked():
    assert as_html("**<b>** and `a<b`") == "<b>&lt;b&gt;</b> and <code>a&lt;b</code>"
    assert words("PPFSSL_NHS | <x> `a_b`") == r"PPFSSL\_NHS \| \<x\> `a_b`"


def test_blocks_as_markdown():
    table = Table((), (), "t")
    assert blocks_text([Text("a"), Details("more", (Code("x = 1\n"),))]) == "a\n\n**more**\n\n```text\nx = 1\n```\n"
    with pytest.raises(ValueError, match="a row has 1 cells, the table 0 columns"):
        dataclasses.replace(table, rows=(cells("x"),))


@pytest.mark.parametrize(
    ("made", "text_"),
    [
        (p_value(0.0002), "< 0.001"),
        (p_value(0.0436), "0.044"),
        (p_value(None), "–"),
        (difference("accuracy", -0.0135), "−1.4 points"),
        (difference("auc", 0.07), "+0.070"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (listed([]), ""),
        (size(94_600_000), "94.6 MB"),
        (size(None), "–"),
        (energy(3600.0), "1.0 Wh"),
    ],
)
def test_how_numbers_are_written(made, text_):
    assert made == text_


def test_a_share_of_few_women_is_no_more_precise_than_they_allow(text: str):
    assert (often(0.768, 11), often(0.768, 150)) == ("77 %", "76.8 %")
    assert not re.search(r"\d\.\d % of the time", text)


def test_a_setting_without_a_value_is_called_unset(text: str):
    assert "`quorum = unset`" in text
    assert "None`" not in text
