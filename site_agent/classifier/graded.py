"""How well a classifier tells ordered classes apart, woman by woman. Values in, values out.

Rules
1. A woman's class is the most severe of her images', and she is called the most severe class that one of them is
   called: as with case and control, one suspicious image is enough to look at her again.
2. An image is called class k where k of the thresholds say "worse" with a probability of .5 or more.
3. Chance-corrected agreement is Cohen's kappa with quadratic weights (Cohen 1968): a mistake of two classes counts four
   times a mistake of one. Its interval is the bootstrap's, by woman.
4. A class that no test woman has stands in the table with zeros and has no recall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcervix.core.plan import check
from fedcervix.core.seeds import derive
from site_agent.classifier.intervals import AT_THE_END, LEVEL, WOMEN_MIN, Estimate

Counts = NDArray[np.int64]
DRAWS = 2000
FAR = 2
"""classes between the true one and the called one, from which on a mistake is a grave one"""
TOO_FEW = f"fewer than {WOMEN_MIN} test women"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """The calls of one classifier on test women."""

    names: tuple[str, ...]
    """of the classes, the mildest first"""
    confusion: tuple[tuple[int, ...], ...]
    """true class -> called class -> women"""
    kappa: Estimate
    """quadratic weighted: 1 is agreement, 0 is chance"""
    grave: Estimate
    """share of the women who are called two classes off or more"""
    recall: dict[str, float | None]
    """share of the women of each class who are called it; None: no test woman has it"""

    @property
    def women(self) -> int:
        """How many were tested."""
        return sum(map(sum, self.confusion))


def grade(names: Sequence[str], grades: ArrayLike, probabilities: ArrayLike, women: Sequence[str]) -> Graded:
    """Return the results of test images: classes (n,) from 0, probabilities of the classes (n, K), whose they are (n).

    Raises ValueError where the shapes do not match.
    """
    true, chances = np.asarray(grades, np.int64), np.asarray(probabilities, np.float64)
    check(
        chances.shape == (len(true), len(names)), f"probabilities are {(len(true), len(names))}; found {chances.shape}"
    )
    confusion = _confusion(true, called(chances), women, len(names))
    total = confusion.sum()
    far = np.abs(np.subtract.outer(np.arange(len(names)), np.arange(len(names)))) >= FAR
    drawn = np.random.default_rng(derive(0, "graded")).multinomial(total, confusion.ravel() / total, DRAWS)
    tables = drawn.reshape(DRAWS, len(names), len(names))
    own = confusion.sum(axis=1)
    return Graded(
        names=tuple(names),
        confusion=tuple(map(tuple, confusion.tolist())),
        kappa=_estimate(float(kappa(confusion)), kappa(tables), total),
        grave=_estimate(float(confusion[far].sum() / total), tables[:, far].sum(axis=1) / total, total),
        recall={name: int(confusion[k, k]) / int(own[k]) if own[k] else None for k, name in enumerate(names)},
    )


def called(probabilities: NDArray[np.float64]) -> Counts:
    """Return the class (n,) that each image is called, of the probabilities of the classes (n, K); see rule 2."""
    worse = np.cumsum(probabilities[:, ::-1], axis=1)[:, ::-1][:, 1:]  # (n, K - 1), of "worse than class k"
    return np.asarray((worse >= 0.5).sum(axis=1), np.int64)


def kappa(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the quadratic weighted kappa (...) of tables (..., K, K); 1 where all are of one class, and called so."""
    places = np.arange(confusion.shape[-1])
    weights = np.subtract.outer(places, places) ** 2
    total = confusion.sum(axis=(-2, -1))
    expected = confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :] / total[..., None, None]
    by_chance = (weights * expected).sum(axis=(-2, -1))
    off = (weights * confusion).sum(axis=(-2, -1))
    return np.asarray(1 - np.divide(off, by_chance, out=np.zeros(np.shape(total)), where=by_chance > 0))


def _confusion(true: Counts, said: Counts, women: Sequence[str], classes: int) -> Counts:
    _, place = np.unique(np.asarray(women), return_inverse=True)
    worst, worst_said = (np.zeros(place.max() + 1, np.int64) for _ in range(2))
    np.maximum.at(worst, place, true)
    np.maximum.at(worst_said, place, said)
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (worst, worst_said), 1)
    return table


def _estimate(value: float, drawn: NDArray[np.float64], women: int) -> Estimate:
    if women < WOMEN_MIN:
        return Estimate.alone(value, TOO_FEW)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Estimate(value, low, high) if low < high else Estimate.alone(value, AT_THE_END)
