"""How AUCs scatter where nothing can be learned: labels shuffled by woman, and everything trained again.

    python benchmarks/shuffled.py [--shuffles 400]

A logistic regression of 25 random numbers of each woman is trained on women whose classes are drawn by lot, in a
cross-validation of five folds, and with one test part. The columns: the AUC averaged over stratified folds, as reports
have it; the AUC pooled over folds without strata, which no report has; one test part; and what `by_chance` says, which
shuffles test women and trains nothing again. docs/statistics.md has the table.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold

from fedcervix.runtime.printing import say
from site_agent.classifier.by_woman import Part, Scored
from site_agent.classifier.permutation import by_chance
from site_agent.metrics import auc

NUMBERS = 25
FOLDS = 5
SETTINGS = ((10, 20), (20, 29), (36, 58), (100, 200))
"""(cases, controls)"""


def tried(cases: int, controls: int, draws: np.random.Generator) -> tuple[float, float, float]:
    """Return the AUC averaged over stratified folds, pooled over folds without strata, and of one part alone."""
    labels = np.array([1] * cases + [0] * controls)
    numbers = draws.normal(size=(len(labels), NUMBERS))  # drawn anew: the same as shuffling the labels
    seed = int(draws.integers(2**31))
    averaged = [
        auc(labels[test], _scores(numbers, labels, train, test))
        for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(numbers, labels)
    ]
    pooled = np.zeros(len(labels))
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(numbers):
        pooled[test] = _scores(numbers, labels, train, test)
    return float(np.mean(averaged)), auc(labels, pooled), averaged[0]


def _scores(numbers: Any, labels: Any, train: Any, test: Any) -> Any:
    model = LogisticRegression(C=0.1, max_iter=500).fit(numbers[train], labels[train])
    return model.decision_function(numbers[test])


def held(cases: int, controls: int, draws: np.random.Generator) -> float:
    """Return the standard deviation that `by_chance` gives averaged AUCs, from its 95 % of them."""
    trials, names = {}, iter(range(cases + controls))
    for fold in range(FOLDS):
        parts = [len(range(fold, many, FOLDS)) for many in (cases, controls)]
        labels = [1] * parts[0] + [0] * parts[1]
        trials[Part(0, 0, fold)] = Scored.of(labels, draws.random(len(labels)), [f"{next(names)}" for _ in labels])
    found = by_chance(trials)
    return (found.high - found.low) / (2 * 1.96)


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=400)
    shuffles = parser.parse_args(arguments).shuffles
    say("| women, case + control | averaged: mean, SD | pooled: mean, SD | one test part: mean, SD | `by_chance`: SD |")
    say("|---|---|---|---|---|")
    for cases, controls in SETTINGS:
        draws = np.random.default_rng(1)
        found = np.array([tried(cases, controls, draws) for _ in range(shuffles)])
        means, deviations = found.mean(axis=0), found.std(axis=0, ddof=1)
        cells = " | ".join(f"{mean:.3f}, {deviation:.3f}" for mean, deviation in zip(means, deviations, strict=True))
        say(f"| {cases} + {controls} | {cells} | {held(cases, controls, draws):.3f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
