"""A study's own hypotheses: fixed before test images are opened, tested in their order, told in plain words."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cervix_study.analysis.analysis import judge
from cervix_study.analysis.findings import StudyFindings
from cervix_study.analysis.result_rows import Finished
from cervix_study.analysis.sequence import averaged
from cervix_study.execution.host import commit_of
from cervix_study.planning.registration import registered
from cervix_study.records import Hypothesis, Registered, from_json, read_study, to_json
from cervix_study.records import Study as StudyFile
from cervix_study.report.answer import answer
from cervix_study.report.markdown import blocks_text
from cervix_study.report.sequence import section
from fedcervix.errors import ConfigError
from site_agent.classifier.by_woman import Part, Scored
from tests.unit.study_cases import asked
from tests.unit.synthetic_study import Synthetic, write

ORDER = (
    Hypothesis(name="one", site="nhs", first="csfssl", second="random"),
    Hypothesis(name="two", site="nhs", first="random", second="csfssl"),
    Hypothesis(name="three", site="alts", first="csfssl", second="random"),
)
FIXED = Registered(
    hypotheses=ORDER,
    second_look="They were tested before.",
    design="d" * 64,
    file="f" * 64,
    commit="c" * 40,
    at="2026-11-30T15:00:00+00:00",
    after_opening=False,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    starts = ("random", "csfssl")
    drawn = Synthetic(starts=starts, case_women=60, control_women=60, noise=0.2, registered=FIXED)
    return write(tmp_path_factory.mktemp("sequence"), drawn)


@pytest.fixture(scope="module")
def findings(folder: Path) -> StudyFindings:
    return judge(Finished.read(folder))


def said(findings: StudyFindings) -> str:
    return blocks_text(tuple(section(findings)))


def with_study(findings: StudyFindings, **changes: object) -> StudyFindings:
    assert findings.study.registered is not None
    changed = dataclasses.replace(findings.study.registered, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(findings, study=dataclasses.replace(findings.study, registered=changed))


# --- the order ----------------------------------------------------------------------------------------------------


def test_what_follows_a_hypothesis_that_is_not_shown_is_not_tested(findings: StudyFindings):
    """The third alone would be shown: its p is small."""
    assert [found.outcome for found in findings.sequence] == ["shown", "not shown", "not tested"]
    third = findings.sequence[2].effect
    assert third is not None
    assert third.p is not None
    assert third.p < 0.05
    assert third.difference.value > 0


def test_a_difference_against_the_hypothesis_shows_nothing(findings: StudyFindings):
    second = findings.sequence[1].effect
    assert second is not None
    assert second.p is not None
    assert second.p < 0.05
    assert findings.sequence[1].outcome == "not shown"
    assert "**not shown**, the difference is the other way round" in str(answer(findings).blocks)


def test_no_p_value_of_the_sequence_is_corrected(findings: StudyFindings):
    first = findings.sequence[0].effect
    assert first is not None
    assert first.corrected is None


def test_one_score_of_each_woman_is_the_mean_over_her_images_and_the_trainings():
    labels, women = [True, True, False], ["b", "b", "a"]
    trials = {Part(0): Scored.of(labels, [0.2, 0.4, 0.1], women), Part(1): Scored.of(labels, [0.6, 0.8, 0.3], women)}
    [(part, scored)] = averaged(trials, 1).items()
    assert part == Part(0)
    assert scored.women == ("a", "b")
    assert scored.labels.tolist() == [False, True]
    assert np.allclose(scored.scores, [0.2, 0.5])


def test_folds_are_not_mixed():
    trials = {Part(0, 0, fold): Scored.of([True, False], [0.2, 0.4], [f"{fold}a", f"{fold}b"]) for fold in range(3)}
    assert averaged(trials, 3).keys() == trials.keys()


def test_a_study_without_the_rows_is_not_finished(findings: StudyFindings, folder: Path):
    finished = Finished.read(folder)
    none_opened = dataclasses.replace(finished, selection=dataclasses.replace(finished.selection, opened=()))
    bare = dataclasses.replace(none_opened, predictions={})
    assert [found.outcome for found in judge(bare).sequence] == ["not finished"] * 3
    assert answer(judge(bare)).headline == "Not finished."


# --- told ---------------------------------------------------------------------------------------------------------


def test_the_headline_is_the_primary_hypothesis(findings: StudyFindings):
    told = answer(findings)
    assert told.question == "The study's primary hypothesis: one"
    assert "What is shown, beside the hypotheses: exploratory, AUC of images" in str(told.blocks)
    assert "difference in AUC of women" in str(told.blocks), "the two are different AUCs, and may differ in verdict"
    assert (told.tone, told.headline) == ("helped", "Shown: one. Of 3 hypotheses in order, 1 is shown.")


def test_the_page_says_since_when_and_that_it_is_a_second_look(findings: StudyFindings):
    text = said(findings)
    assert "before any test image of this study was opened" in text
    assert "ffffffffffff" in text
    assert "commit cccccccccccc" in text
    assert "second look" in text
    assert "not tested" in text


def test_what_was_changed_after_test_images_were_opened_is_not_confirmed(findings: StudyFindings):
    late = with_study(findings, after_opening=True)
    assert answer(late).headline.startswith("Not confirmed")
    assert answer(late).tone == "unknown"
    assert "nothing here is confirmed" in said(late)


# --- fixed before test images are opened --------------------------------------------------------------------------

MORE = '[[hypotheses]]\nname = "E1"\nsite = "nhs"\nfirst = "ssl"\nsecond = "random"\n'


def fixed(
    folder: Path, earlier: Registered | None, *, opened: bool, same: bool = True, more: str = MORE, axes: str = ""
) -> Registered:
    at = "later" if earlier else "first"
    found = registered(asked(folder, axes, more), earlier, opened=opened, same=same, commit="", at=at)
    assert found is not None
    return found


def test_hypotheses_stand_from_the_first_run_on(tmp_path: Path):
    first = fixed(tmp_path, None, opened=False)
    assert (first.at, first.after_opening) == ("first", False)
    assert fixed(tmp_path, first, opened=True) == first
    elsewhere = MORE + "\n[machine]\nworkers = 2\n"
    assert fixed(tmp_path, first, opened=True, more=elsewhere) == first, "where it runs decides no result"


@pytest.mark.parametrize(("more", "axes"), [(MORE.replace("E1", "E2"), ""), (MORE, "seeds = [1]"), ("", "")])
def test_a_change_after_test_images_were_opened_is_kept_as_such(tmp_path: Path, more: str, axes: str):
    first = fixed(tmp_path, None, opened=False)
    late = fixed(tmp_path, first, opened=True, more=more, axes=axes)
    assert (late.at, late.after_opening) == ("later", True)


def test_other_women_or_labels_after_test_images_were_opened_are_a_change(tmp_path: Path):
    first = fixed(tmp_path, None, opened=False, same=False)
    late = fixed(tmp_path, first, opened=True, same=False)
    assert (late.at, late.after_opening) == ("later", True)
    assert fixed(tmp_path, late, opened=True) == late
    assert fixed(tmp_path, late, opened=False, same=False).after_opening, "opened results that were deleted were seen"


def test_a_change_before_that_stands_anew(tmp_path: Path):
    first = fixed(tmp_path, None, opened=False)
    changed = fixed(tmp_path, first, opened=False, axes="seeds = [1]")
    assert (changed.at, changed.after_opening) == ("later", False)


def test_a_study_without_hypotheses_registers_none(tmp_path: Path):
    assert registered(asked(tmp_path), None, opened=True, same=True, commit="", at="") is None


def test_hypotheses_that_come_after_opening_were_not_fixed_before(tmp_path: Path):
    assert fixed(tmp_path, None, opened=True).after_opening


@pytest.mark.parametrize(
    ("key", "value"), [("site", "nowhere"), ("first", "cssl"), ("profile", "demo"), ("label_fraction", 0.3)]
)
def test_a_hypothesis_about_what_the_study_does_not_train_is_refused(tmp_path: Path, key: str, value: object):
    kept = "".join(line for line in MORE.splitlines(keepends=True) if not line.startswith(key))
    with pytest.raises(ConfigError, match=f"{key} of hypothesis 'E1' is one of"):
        asked(tmp_path, more=f"{kept}{key} = {json.dumps(value)}\n")


def test_a_commit_is_named_only_where_it_holds_the_file_as_it_stands(tmp_path: Path):
    file = tmp_path / "e1.toml"
    file.write_text("one")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    assert commit_of(file) == ""
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "empty"], check=True)
    assert commit_of(file) == "", "not committed yet"
    for words in (["add", "."], ["commit", "-q", "-m", "fixed"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert commit_of(file) == head
    file.write_text("two")
    assert commit_of(file) == ""


# --- the file -----------------------------------------------------------------------------------------------------


def test_a_study_without_hypotheses_is_written_as_earlier_versions_read_it(folder: Path):
    study = dataclasses.replace(read_study(folder), registered=None)
    plain = json.loads(to_json(study))
    assert not {"format", "registered"} & plain.keys()
    assert "fold_repeats" not in plain["axes"]
    assert from_json(StudyFile, to_json(study), folder) == study


def test_a_study_with_hypotheses_names_its_format(folder: Path):
    study = read_study(folder)
    assert json.loads(to_json(study))["format"] == 2
    assert study.registered == FIXED
