"""A start as a clinic would see it: one score for each woman, thresholds for a wanted share, chance beside the AUC.

Rules
1. A woman's score is the highest probability of her images, as in a site's report. Each training keeps its own scores
   and thresholds: those of two networks have no common scale.
2. A training's threshold for a wanted sensitivity or specificity comes from its own validation women.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from cervix_study.analysis.findings import ByWoman, WantedPoint
from cervix_study.analysis.result_rows import ResultRow
from cervix_study.records import Prediction
from site_agent.classifier.by_woman import Scored, Trials, measure, roster
from site_agent.classifier.conformal import womens_scores
from site_agent.classifier.intervals import AREA, SHARE
from site_agent.classifier.operating import TARGETS, threshold_for_recall, threshold_for_specificity
from site_agent.classifier.permutation import ByChance, by_chance, is_small

_THRESHOLD: Mapping[Literal["recall", "specificity"], Callable[..., float]] = {
    "recall": threshold_for_recall,
    "specificity": threshold_for_specificity,
}


def chance_of(trials: Trials) -> ByChance | None:
    """Return how high an AUC of so few women comes by chance; None where there are many."""
    tested = roster([trials]).tested
    return by_chance(trials) if is_small(tested.case, tested.control) else None


def by_woman(row: ResultRow, predictions: Mapping[str, Sequence[Prediction]]) -> ByWoman | None:
    """Return a row by woman: `predictions` of each cell, of validation images among them.

    None where the women of a test or validation part are all of one class.
    """
    valid = {part: [p for p in predictions[record.key] if p.split == "valid"] for part, record in row.cells.items()}
    of_valid = {part: _women(own) for part, own in valid.items()}
    if any(len(set(labels)) < 2 for labels, _ in of_valid.values()) or any(_one_class(s) for s in row.trials.values()):
        return None
    trials = {part: _scored(scored) for part, scored in row.trials.items()}
    women = roster([trials])
    points = []
    for of, threshold in _THRESHOLD.items():
        for wanted in TARGETS:
            given = {
                part: dataclasses.replace(scored, threshold=threshold(*of_valid[part], wanted))
                for part, scored in trials.items()
            }
            found = measure(given, women)
            recall, specificity = (found[name].estimate(women, SHARE) for name in ("recall", "specificity"))
            points.append(WantedPoint(wanted, of, recall, specificity))
    auc = measure(trials, women)["auc"].estimate(women, AREA)
    return ByWoman(auc, chance_of(trials), tuple(points))


def _women(rows: Sequence[Prediction]) -> tuple[list[bool], list[float]]:
    labels, scores, _ = womens_scores([r.label for r in rows], [r.probability for r in rows], [r.patient for r in rows])
    return labels.tolist(), scores.tolist()


def _one_class(scored: Scored) -> bool:
    labels, _, _ = womens_scores(scored.labels, scored.scores, scored.women)
    return bool(labels.all() or not labels.any())


def _scored(scored: Scored) -> Scored:
    return Scored.of(*womens_scores(scored.labels, scored.scores, scored.women))
