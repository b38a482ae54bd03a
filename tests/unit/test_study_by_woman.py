"""A study's report by woman, and the floor as one of its starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cervix_study.analysis.analysis import judge
from cervix_study.analysis.findings import StudyFindings
from cervix_study.analysis.result_rows import Finished
from cervix_study.execution import floors
from cervix_study.planning.grid import grid
from cervix_study.report.compose import compose
from cervix_study.report.markdown import markdown
from site_agent.classifier import floor
from site_agent.classifier.operating import threshold_for_recall
from site_agent.data.image_sets import Labelled
from site_agent.metrics import auc
from site_agent.starts import FLOOR, title
from tests.unit.study_cases import asked, ground
from tests.unit.synthetic_study import Synthetic, write


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = write(tmp_path_factory.mktemp("study"), Synthetic(starts=("random", "cssl"), seeds=(1,), sites=("nhs",)))
    return Finished.read(folder)


@pytest.fixture(scope="module")
def findings(finished: Finished) -> StudyFindings:
    return judge(finished)


def highest(rows: list, split: str) -> tuple[list[int], list[float]]:
    own: dict[str, tuple[int, float]] = {}
    for row in rows:
        if row.split == split:
            label, score = own.get(row.patient, (0, -1.0))
            own[row.patient] = max(label, row.label), max(score, row.probability)
    return [label for label, _ in own.values()], [score for _, score in own.values()]


def test_a_woman_has_her_highest_score_and_validation_women_the_threshold(finished: Finished, findings: StudyFindings):
    (found,) = findings.sites
    for scores in found.scores:
        cells = [
            key for key, rows in finished.predictions.items() if rows and finished.cells[key].cell.start == scores.start
        ]
        if not scores.chosen:
            assert scores.by_woman is None
            continue
        by_variant = [key for key in cells if scores.label.endswith(f"N={finished.cells[key].cell.batch_images}")]
        (key,) = by_variant or cells
        rows = list(finished.predictions[key])
        labels, own = highest(rows, "test")
        assert scores.by_woman.auc.value == pytest.approx(auc(labels, own))
        point = next(p for p in scores.by_woman.points if (p.of, p.wanted) == ("recall", 0.9))
        threshold = threshold_for_recall(*highest(rows, "valid"), 0.9)
        called = np.array(own) >= threshold
        assert point.recall.value == pytest.approx(np.mean(called[np.array(labels) == 1]))
        assert point.specificity.value == pytest.approx(1 - np.mean(called[np.array(labels) == 0]))


def test_chance_stands_beside_every_small_auc(findings: StudyFindings):
    (found,) = findings.sites
    assert all(scores.chance.middle == pytest.approx(0.5, abs=0.02) for scores in found.scores)
    page = markdown(compose(findings))
    assert "## By woman" in page
    for scores in found.scores:
        assert f"chance {scores.chance.low:.2f} to {scores.chance.high:.2f}" in page


def test_the_floor_has_a_classifier_at_every_site_and_no_encoder(tmp_path: Path):
    cells = [cell for cell in grid(asked(tmp_path, 'starts = ["random", "floor"]'), ground()) if cell.start == FLOOR]
    assert {(cell.kind, cell.inputs, cell.batch_images) for cell in cells} == {("classifier", (), None)}
    assert len(cells) == len({cell.sites for cell in cells}) == 2
    assert title(FLOOR) == "Colour and texture"


def test_the_floor_of_a_cell_is_the_floor(tmp_path: Path):
    draws = np.random.default_rng(1)

    def part(many: int) -> Labelled:
        labels = np.arange(many) % 2
        pixels = draws.integers(0, 200, (many, 32, 32, 3)) + 30 * labels[:, None, None, None]
        return Labelled(pixels.astype(np.uint8), labels.astype(np.int64), tuple(map(str, range(many))))

    train, valid, test = part(20), part(12), part(8)
    results = floors.train(train, valid, tmp_path)
    fitted = floor.fit(train, valid)
    scores = floors.scores(tmp_path, test.pixels)
    assert scores.tobytes() == fitted.floor.scores(floor.describe(test.pixels)).tobytes()
    assert (results.threshold, results.validation_loss) == (fitted.threshold, fitted.loss)
    assert (results.train_images, results.train_cases, results.updates) == (20, 10, 0)
