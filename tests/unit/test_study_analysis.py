"""A study's findings: the numbers of its predictions, the same each time, with no name in them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cervix_study.analysis.analysis import judge, mean_roc
from cervix_study.analysis.comparing import TESTED
from cervix_study.analysis.findings import StudyFindings
from cervix_study.analysis.result_rows import Finished, benches
from site_agent.classifier.by_woman import Part, Scored
from site_agent.metrics import Confusion, auc
from tests.unit.synthetic_study import WHOLE, Synthetic, write

DRAWS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("study"), WHOLE)


@pytest.fixture(scope="module")
def findings(folder: Path) -> StudyFindings:
    return judge(Finished.read(folder))


def test_every_score_is_the_mean_over_seeds_of_its_predictions(folder: Path, findings: StudyFindings):
    """By the library's own measures, cell by cell."""
    for bench, found in zip(benches(Finished.read(folder)), findings.sites, strict=True):
        for row, scores in zip(bench.rows, found.scores, strict=True):
            own = list(row.trials.values())
            counts = [Confusion.at(s.labels, s.scores, 0.5) for s in own]
            assert scores.measures["auc"].value == pytest.approx(sum(auc(s.labels, s.scores) for s in own) / len(own))
            for name in ("accuracy", "recall", "precision", "f1"):
                assert scores.measures[name].value == pytest.approx(sum(getattr(c, name) for c in counts) / len(own))


def test_the_same_folder_gives_the_same_findings(folder: Path, findings: StudyFindings):
    assert judge(Finished.read(folder)) == findings


def test_findings_name_no_woman_and_no_image(findings: StudyFindings):
    text = json.dumps(dataclasses.asdict(findings), allow_nan=False)
    assert "SECRET" not in text
    assert "nhs-test-" not in text
    assert "images/" not in text


def test_a_site_is_described_by_its_test_part(findings: StudyFindings):
    nhs = findings.sites[0]
    assert (nhs.women, nhs.case_women, nhs.images, nhs.cases) == (64, 24, 128, 48)


def test_each_profile_is_a_family_of_its_own(findings: StudyFindings):
    for profile in WHOLE.profiles:
        own = [c for c in findings.comparisons if c.profile == profile and c.kind == "better"]
        for measure in TESTED:
            tested = [c.effects[measure] for c in own if c.effects[measure].p is not None]
            smallest = min(tested, key=lambda e: e.p)
            assert smallest.corrected == pytest.approx(min(1.0, len(own) * smallest.p))


def test_profiles_stand_side_by_side_on_the_same_women(findings: StudyFindings):
    assert {(p.site, p.label) for p in findings.side_by_side} == {
        (site, label) for site in ("nhs", "alts") for label in ("Random", "SSL", "CSSL", "CSFSSL", "PPFSSL_NHS")
    }
    one = findings.side_by_side[0]
    paper, recommended = (
        next(s for s in found.scores if s.start == "random").measures["auc"].value
        for found in findings.sites
        if found.site == "nhs"
    )
    assert one.effects["auc"].difference.value == pytest.approx(recommended - paper)


def test_fewer_labels_and_all_of_them_are_points_of_one_curve(findings: StudyFindings):
    points = [p for p in findings.sites[0].fractions if p.start == "cssl"]
    assert [p.label_fraction for p in points] == [0.1, 1.0]
    chosen = next(s for s in findings.sites[0].scores if s.start == "cssl" and s.chosen)
    assert points[1].auc.value == pytest.approx(chosen.measures["auc"].value)


def test_the_held_start_stands_beside_ssl_and_beside_itself(findings: StudyFindings):
    held = findings.sites[0].equal_updates
    assert [(h.label, h.versus, h.itself) for h in held] == [("CSSL", "SSL", False), ("CSSL", "CSSL N=8", True)]
    assert held[0].versus_updates == 1200


def test_mini_batches_of_one_site_stand_beside_mixed_ones_random_weights_and_federations(findings: StudyFindings):
    found = findings.sites[0].one_site_batches
    assert {one.label for one in found} == {"CSSL"}
    assert [one.versus for one in found] == ["CSSL N=8", "Random", "CSFSSL", "PPFSSL_NHS"]
    assert [one.itself for one in found] == [True, False, False, False]
    mixed, random, *_ = (one.effects["auc"].difference.value for one in found)
    assert 0 < mixed < random


def test_shuffled_labels_and_probes_are_told(findings: StudyFindings):
    assert [s.label for s in findings.sites[0].shuffled] == ["CSSL"]
    probe = findings.probes["paper"][0]
    assert (probe.chance, probe.trainings) == (0.5, 2)
    assert probe.balanced_accuracy == pytest.approx(0.915)
    told = [probe.label for probe in findings.probes["paper"]]
    assert "CSSL N=8" in told
    assert "CSSL N=8, one site each" in told


def test_costs_are_added_up_and_an_unread_energy_is_no_zero(findings: StudyFindings):
    lines = {(c.profile, c.kind, c.start): c for c in findings.costs}
    federated = lines["paper", "encoder", "CSFSSL"]
    assert (federated.cells, federated.seconds) == (2, 1200.0)
    assert federated.wire_bytes == 2 * 4 * 94_600_000
    assert lines["paper", "site-probe", ""].energy_j is None


def test_a_mean_curve_by_hand():
    """Recall at no false alarm: up to 1/2 and 1; at half of the controls: 1/2 to 1, and 1."""
    one = Scored.of([1, 1, 0, 0], [0.9, 0.5, 0.6, 0.1], list("abcd"))
    two = Scored.of([1, 1, 0, 0], [0.9, 0.8, 0.6, 0.1], list("abcd"))
    assert mean_roc({Part(0): one, Part(1): two}) == ((0, 0), (0, 0.75), (0.5, 0.75), (0.5, 1), (1, 1))


@pytest.mark.parametrize("seed", range(3))
def test_the_area_below_a_mean_curve_is_the_mean_auc(seed: int):
    """Of four images, .9 .8 .3 .2 with every other one a case: AUC .75, and so much is drawn. Others have ties."""
    by_hand = Scored.of([1, 0, 1, 0], [0.9, 0.8, 0.3, 0.2], list("abcd"))
    rng = np.random.default_rng(seed)
    labels = np.arange(30) % 3 == 0
    tied = Scored.of(labels, np.round(rng.normal(size=30) + labels, 1), [str(place) for place in range(30)])
    for trials in ({Part(0): by_hand}, {Part(0): by_hand, Part(1): tied}):
        false_rate, recall = np.array(mean_roc(trials)).T
        drawn = np.sum(np.diff(false_rate) * (recall[1:] + recall[:-1]) / 2)
        assert drawn == pytest.approx(np.mean([auc(one.labels, one.scores) for one in trials.values()]))


def test_a_study_of_one_seed_and_few_women_shows_nothing(tmp_path: Path):
    small = Synthetic(starts=("random", "ssl"), batch_images=(8,), seeds=(1,), case_women=3, control_women=4)
    found = judge(Finished.read(write(tmp_path, small)))
    assert {e.verdict for c in found.comparisons for e in c.effects.values()} == {"not shown"}
    assert found.sites[0].scores[0].spread_over == "nothing"
