"""Checklists: the published numbers, answers from the study's files, and nothing where these know nothing."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cervix_study.analysis.analysis import judge
from cervix_study.analysis.findings import StudyFindings
from cervix_study.analysis.result_rows import Finished
from cervix_study.report.checklists import CHECKLISTS, CLAIM, OPEN, STARD, TRIPOD, facts, sheets
from cervix_study.report.compose import compose
from cervix_study.report.markdown import markdown
from tests.unit.synthetic_study import Synthetic, write


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> StudyFindings:
    folder: Path = tmp_path_factory.mktemp("study")
    return judge(Finished.read(write(folder, Synthetic(starts=("random", "ssl"), seeds=(1,), sites=("nhs",)))))


def numbers(found: tuple[tuple[str, str, str], ...]) -> list[int]:
    return [int(re.match(r"\d+", number)[0]) for number, _, _ in found]


@pytest.mark.parametrize(
    ("found", "items", "rows"), [(TRIPOD, 27, 52), (CLAIM, 44, 44), (STARD, 40, 48)], ids=["tripod", "claim", "stard"]
)
def test_every_published_number_is_there_once_and_in_order(found, items, rows):
    assert len({number for number, _, _ in found.items}) == len(found.items) == rows
    assert sorted(set(numbers(found.items))) == list(range(1, items + 1))
    assert numbers(found.items) == sorted(numbers(found.items))


def test_an_answer_comes_from_the_study_or_is_empty(findings: StudyFindings):
    known = facts(findings)
    asked = {key for one in CHECKLISTS for _, _, key in one.items} - {OPEN}
    assert asked == set(known)
    assert all(known.values())
    text = sheets(findings)
    assert "| 20a | flow of participants | Report, “The data (Table I)”" in text
    for number, topic in (("17", "ethical approval, consent"), ("44", "funding"), ("6", "ethics approval")):
        assert f"| {number} | {topic} |  |" in text
    assert text.count("\n| ") == 3 + sum(len(one.items) for one in CHECKLISTS)


def test_devices_that_were_left_out_are_the_partition(findings: StudyFindings):
    axes = dataclasses.replace(findings.study.axes, leave_out_devices=("Koken", "Zeiss"))
    study = dataclasses.replace(findings.study, axes=axes)
    known = facts(dataclasses.replace(findings, study=study))
    assert "each of 2 devices in turn are tested, and train nothing: Koken and Zeiss." in known["partition"]
    assert "a device that it has not learned from" in known["same_source"]
    assert "devices left out: Koken and Zeiss" in known["robustness"]
    assert "crop to the cervix: none, harmonised colours: none" in known["preprocessing"]


def test_every_section_that_is_named_is_in_the_report(findings: StudyFindings):
    report = markdown(compose(findings))
    named = {name for text in facts(findings).values() for name in re.findall("“(.*?)”", text)}
    assert len(named) > 5
    assert [name for name in named if name not in report] == []


def test_it_names_what_the_study_is(findings: StudyFindings):
    text = sheets(findings)
    assert "nhs" in text
    assert "Random and SSL" in text
    assert "None was written down first." in text
