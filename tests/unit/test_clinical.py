"""The clinical page: numbers counted by hand, what is too few is said, and nothing of a woman in results.json."""

from __future__ import annotations

import dataclasses
import html
import json
import re

import numpy as np
import pytest
from scipy.stats import chi2

from site_agent.classifier.intervals import TOO_FEW_WOMEN
from site_agent.classifier.zone import Zone
from site_agent.data.collection import Image
from site_agent.manifest.details import ImageDetails
from site_agent.report import results
from site_agent.report.clinic_data import clearest
from site_agent.report.clinical import Clinical, FloorScores, Sheet, clinical, floor_evaluations
from site_agent.report.clinical_page import render_clinical
from site_agent.report.content import LookedAt
from site_agent.report.groups import columns
from site_agent.report.predictions import ClassifierScores, Predictions, ScoredImage, ScoredWoman, women
from site_agent.report.repeatability import NO_COLUMNS, NO_PAIRS, pairs_of, repeats
from tests.unit.site_reports import report

ATTACK = '"><script>alert(1)</script>'
NOTHING = repeats((), (0.5,), said=False)


def drawn(seed: int, cases: int, controls: int, gain: float = 1.2) -> tuple[tuple[ScoredImage, ...], np.ndarray]:
    """Two images of each woman, and their scores."""
    draws = np.random.default_rng(seed)
    labels = [1] * cases + [0] * controls
    images = tuple(
        ScoredImage(f"{seed}/{n}-{k}.jpg", f"SECRET{n}", f"SECRET{n}", label)
        for n, label in enumerate(labels)
        for k in "ab"
    )
    logits = draws.normal([gain * image.label for image in images])
    return images, 1 / (1 + np.exp(-logits))


def sheet(cases: int = 45, controls: int = 60, **changes: object) -> Sheet:
    images, scores = drawn(1, cases, controls)
    valid, valid_scores = drawn(2, 25, 30)
    others = drawn(3, cases, controls, 0.5)[1]
    details = {
        image.path: ImageDetails(
            device="A" if int(image.woman.removeprefix("SECRET")) % 2 else ATTACK,
            covariates={"age": str(20 + int(image.woman.removeprefix("SECRET")) % 50), "hpv": "16" if n == 0 else ""},
        )
        for n, image in enumerate(images)
    }
    full = {
        "start": "SSL",
        "learned": 0.5,
        "valid_images": valid,
        "valid": valid_scores,
        "predictions": Predictions(images, (ClassifierScores("SSL", "ab" * 32, 0.6, scores),)),
        "floor": FloorScores(others[: len(valid_scores)], others, 0.5),
        "prevalence": 0.1,
        "details": details,
        "repeats": NOTHING,
        "zone": None,
    }
    return Sheet(**{**full, **changes})


@pytest.fixture(scope="module")
def found() -> Clinical:
    return clinical(sheet())


def page(found: Clinical, **changes: object) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", render_clinical(report(**changes), found)))


def test_each_threshold_is_counted_in_women(found: Clinical):
    given = sheet()
    tested = women(given.predictions.images, given.predictions.classifiers[0].scores)
    valid = sorted(w.score for w in women(given.valid_images, given.valid) if w.label)
    for point in found.points:
        called = [w for w in tested if w.score >= point.threshold]
        assert point.counts.tp == sum(w.label for w in called)
        assert point.counts.fp == sum(1 - w.label for w in called)
        assert point.recall.value == pytest.approx(point.counts.recall)
    reach = next(p for p in found.points if (p.goal, p.wanted) == ("recall", 0.9))
    assert sum(score >= reach.threshold for score in valid) == 23  # of 25: the fewest that are 90 %
    right, wrong = 0.1 * reach.recall.value, 0.9 * (1 - reach.specificity.value)
    assert reach.ppv.value == pytest.approx(right / (right + wrong))


def test_without_a_prevalence_nothing_is_invented():
    plain = clinical(sheet(prevalence=0.0))
    assert plain.decisions == ()
    assert all(point.ppv is None and point.npv is None for point in plain.points)
    said = page(plain)
    assert "State it in site.toml" in " ".join(said.split())
    assert "1,000 women" not in said


def test_a_stated_prevalence_is_told_in_women(found: Clinical):
    point = next(p for p in found.points if p.goal == "recall")
    said = " ".join(page(found).split())
    assert (
        "Of 1,000 women like those of this test, 100 of whom are cases (10 %, as this site states), it would call"
        in said
    )
    assert f"It would miss {100 * (1 - point.recall.value):.0f} cases" in said


def test_the_page_says_which_share_of_cases_was_learned():
    said = " ".join(page(clinical(sheet(learned=1 / 3))).split())
    assert "a population in which 33 % of the women are cases" in said
    assert "trained as if 33 % of all women were cases" in said


def test_what_costs_nothing_stands_beside_the_predictive_values(found: Clinical):
    said = " ".join(page(found).split())
    assert "if you call every woman a case, the PPV is 0.100; if you clear every woman, the NPV is 0.900." in said


@pytest.mark.parametrize(("scale", "promises", "sorts_nobody"), [(0.0, False, True), (1.0, True, False)])
def test_a_threshold_that_misses_nobody_promises_nothing(scale: float, promises: bool, sorts_nobody: bool):
    """13 of 13 found and 0 of 13 cleared read like a perfect classifier."""
    given = sheet()
    flat = Predictions(
        given.predictions.images,
        (ClassifierScores("SSL", "ab" * 32, 0.6, given.predictions.classifiers[0].scores * scale + 0.01),),
    )
    said = " ".join(page(clinical(sheet(predictions=flat, valid=given.valid * scale + 0.01))).split())
    assert (
        "It would miss 0 cases (none of 45 was missed in this test, which does not promise that" in said
    ) != promises
    assert ("it sorts nobody, and is of no use there" in said) == sorts_nobody


def test_floor_and_chance_stand_beside_every_start(found: Clinical):
    given = sheet()
    assert [one.name for one in found.beside] == ["SSL", "Colour and texture"]
    assert all(one.chance is not None and abs(one.chance.middle - 0.5) < 0.02 for one in found.beside)
    by_image, by_woman = floor_evaluations(given.predictions, given.floor)
    assert found.beside[1].auc == by_woman.auc
    assert by_image.images == 2 * by_woman.images
    assert found.above_floor.difference.value == pytest.approx(found.beside[0].auc.value - found.beside[1].auc.value)


def test_too_few_women_are_counted_and_nothing_is_drawn():
    few = clinical(sheet(cases=8, controls=12))
    assert few.points[0].recall.why == TOO_FEW_WOMEN
    assert all(group.auc is None for column in few.columns for group in column.groups)
    drawn_page = render_clinical(report(), few)
    assert "data:image/svg" not in drawn_page
    assert TOO_FEW_WOMEN in drawn_page
    assert "1,000 women" not in page(few)


def test_a_column_is_tested_once_and_numbers_are_halved(found: Clinical):
    device, age, hpv = found.columns
    assert [group.value for group in device.groups] == [ATTACK, "A"]
    assert [group.value.split()[0] for group in age.groups] in (["below", "43"], ["43", "below"])
    assert sum(group.case_women for group in age.groups) == 45
    assert [(group.value, group.case_women + group.control_women) for group in hpv.groups] == [
        ("16", 1),
        ("not stated", 104),
    ]
    assert hpv.alike is None
    assert 0 <= device.alike <= 1


def test_the_rarest_of_too_many_values_are_one_group_and_no_woman_is_lost():
    """Before: from the 25th group on, none was listed."""
    women = [ScoredWoman(f"w{n}", (f"w{n}",), (f"{n}.jpg",), n % 2, n / 100) for n in range(100)]
    details = {f"{n}.jpg": ImageDetails(device=f"D{min(n // 2, 30):02}") for n in range(100)}
    (column,) = columns(women, details, 0.5)
    assert [group.value for group in column.groups[:2]] == ["D30", "8 further values"]
    assert len(column.groups) == 24
    assert sum(group.case_women + group.control_women for group in column.groups) == 100


def test_a_device_of_one_woman_stands_in_no_table_of_results() -> None:
    given = sheet()
    alone = {path: dataclasses.replace(one, device="A") for path, one in given.details.items()}
    alone |= {path: dataclasses.replace(one, device="RARE") for path, one in list(alone.items())[:2]}
    found = clinical(sheet(details=alone))
    assert [one.value for one in found.calibrated] == ["", "A", "RARE"]
    written = results.to_json(dataclasses.replace(report(), clinical=found))["clinical"]
    assert "RARE" not in json.dumps(written)


def test_the_test_of_two_groups_is_that_of_their_difference():
    tested = [
        ScoredWoman(f"w{n}", (f"w{n}",), (f"{n}.jpg",), n % 2, s) for n, s in enumerate(np.linspace(0.01, 0.99, 100))
    ]
    draws = np.random.default_rng(6)
    tested = [
        dataclasses.replace(w, score=float(draws.normal(w.label * (2.5 if n < 50 else 0.0))))
        for n, w in enumerate(tested)
    ]
    details = {f"{n}.jpg": ImageDetails(device="A" if n < 50 else "B") for n in range(100)}
    (column,) = columns(tested, details, 0.5)
    spans = []
    for group in column.groups:
        logit_error = np.diff(np.log(np.array(group.auc.interval) / (1 - np.array(group.auc.interval))))[0] / 2 / 2.01
        spans.append((group.auc.value, (logit_error * group.auc.value * (1 - group.auc.value)) ** 2))
    (one, v), (two, u) = spans
    assert column.alike == pytest.approx(chi2.sf((one - two) ** 2 / (v + u), 1), rel=0.35)
    assert column.alike < 0.05


def test_the_zone_is_judged_on_test_women():
    zone = Zone(error=0.1, clear_below=0.4, case_above=0.8, case_women=25, control_women=30)
    judged = clinical(sheet(zone=zone))
    tested = women(sheet().predictions.images, sheet().predictions.classifiers[0].scores)
    undecided = sum(0.4 <= woman.score <= 0.8 for woman in tested)
    assert judged.judgement.indeterminate.value == pytest.approx(undecided / 105)
    assert "When does it not decide?" in page(judged)
    wrong = sum(woman.label == 0 and woman.score > 0.8 for woman in tested)
    assert f"{wrong} of 60" in page(judged), "women called wrongly are counted, like all others of the table"


def test_a_name_from_outside_becomes_no_markup_and_the_page_fetches_nothing(found: Clinical):
    text = render_clinical(report(), found)
    assert "<script" not in text
    assert not re.search(r"<(a|link|iframe|object)\b", text)
    assert "http" not in text.replace("http-equiv", "")


def test_results_hold_no_woman_and_no_small_group():
    pairs = [(0.1, 0.2), (0.7, 0.4)] * 15
    made = report(clinical=clinical(sheet(repeats=repeats(pairs, (0.5,), said=True))))
    text = json.dumps(results.to_json(made)["clinical"], allow_nan=False)
    assert "SECRET" not in text
    assert "pairs" not in text
    assert '"16"' not in text
    assert json.loads(text)["repeats"]["agreement"]["women"] == 30
    assert results.parse(results.dump(made)).site == "nhs"


def test_women_are_named_only_where_pictures_were_asked_for(found: Clinical):
    grey = np.full((8, 8, 3), 128, np.uint8)
    assert "Where did it look?" not in page(found)
    looked = page(found, looks=(LookedAt((ATTACK,), "missed", 0.2, grey, grey),))
    assert "Where did it look?" in looked
    assert "It shows images of patients" in looked
    assert "<script" not in render_clinical(report(looks=(LookedAt((ATTACK,), "missed", 0.2, grey, grey),)), found)


def test_the_surest_errors_are_shown():
    tested = [ScoredWoman(f"w{n}", (), (), 1, score) for n, score in enumerate((0.1, 0.4, 0.2, 0.3, 0.9))]
    assert [woman.name for woman in clearest(tested, 0.5, "missed")] == ["w0", "w2", "w3"]


def image(woman: str, split: str = "test", **details: str) -> Image:
    return Image(f"{woman}.jpg", woman, woman, None, split, "ab", ImageDetails(**details))


def test_a_pair_is_of_one_visit_and_one_stage_and_each_woman_has_one():
    of = [
        image("w1", stage="native", visit="1"),
        image("w1", stage="acetic", visit="1"),
        image("w1", stage="acetic", visit="2"),
        one := image("w1", stage="acetic", visit="3"),
        two := image("w1", stage="acetic", visit="3"),
        image("w1", stage="acetic", visit="3"),
        image("w2", stage="acetic", visit="1"),
        image("w2", stage="acetic"),
        image("w3", split="train", stage="acetic", visit="1"),
        image("w3", split="train", stage="acetic", visit="1"),
    ]
    (pair,) = pairs_of(of)
    assert pair[0] is one
    assert pair[1] is two
    assert repeats((), (0.5,), said=False).why_not == NO_COLUMNS
    assert repeats([(0.1, 0.2)], (0.5,), said=True).why_not == NO_PAIRS
