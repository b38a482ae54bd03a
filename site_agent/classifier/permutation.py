"""How high an AUC comes by chance: the classes of the women are shuffled, the scores stay as they are.

What is shuffled: which of the tested women are cases. Their number stays, and all images of a woman get her class. A
woman who has images of both classes is no part of this: the classes of her images are shuffled among these.
Nothing is trained again, so this asks: could scores that know nothing of the disease have ranked these women so well?

- With one test part this is exact: training saw no test label.
- In a cross-validation the AUCs of the folds are averaged, as in the report. Each fold's training saw the labels of
  the other folds' test women, so its folds are not independent. Trained again on shuffled labels, the averaged AUC is
  centred on .5 as well, and scatters more widely than here (`benchmarks/shuffled.py` has figures): p is then too small.
- An AUC pooled over folds would lie below .5 even where nothing can be learned: a fold that happens to hold many cases
  leaves few for its training, so its scores are lower. That is why AUCs are averaged, never pooled (Airola et al.,
  Comput Stat Data Anal 55:1828, 2011).

p is (1 + shuffles at least as good) / (1 + shuffles), which is never 0 (Phipson and Smyth, Stat Appl Genet Mol Biol
9:39, 2010).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from site_agent.classifier.by_woman import Scored, Trials
from site_agent.metrics import auc

SHUFFLES = 2000
WOMEN_ENOUGH = 100
"""With so many women of both classes an AUC is not mistaken for chance, and has an interval that says as much."""
ROUNDING = 1e-12
_ENDS = (0.025, 0.975)

Unit = tuple[str, int]
"""what has a class: (woman, 0), or an image of a woman who has both classes: (woman, its number from 1)"""


@dataclass(frozen=True, slots=True)
class ByChance:
    """The AUCs of shuffled women."""

    middle: float
    """mean; about .5"""
    low: float
    high: float
    """95 of 100 lie between"""
    p: float
    """how often chance does as well or better"""


def is_small(case_women: int, control_women: int) -> bool:
    """Say whether an AUC of so many women needs this beside it."""
    return min(case_women, control_women) < WOMEN_ENOUGH


def by_chance(trials: Trials, seed: int = 0, shuffles: int = SHUFFLES) -> ByChance:
    """Return how high the mean AUC of these trainings comes by chance.

    A woman has the same classes in all of them. A test part that gets one class alone is left out of that shuffle.
    """
    blocks = _blocks(trials.values())
    draws = np.random.default_rng(seed)
    shuffled = np.hstack([draws.permuted(np.tile([*own.values()], (shuffles, 1)), axis=1) for own in blocks])
    places = {unit: place for place, unit in enumerate(unit for own in blocks for unit in own)}
    areas = np.stack([_areas(scored, places, shuffled) for scored in trials.values()])
    chance = np.nanmean(areas, axis=0)  # (shuffles,)
    found = float(np.mean([auc(scored.labels, scored.scores) for scored in trials.values()]))
    low, high = np.nanquantile(chance, _ENDS)
    as_good = int(np.sum(chance >= found - ROUNDING))
    return ByChance(float(np.nanmean(chance)), float(low), float(high), (1 + as_good) / (1 + shuffles))


def _units(scored: Scored) -> list[Unit]:
    """Return what each image's class belongs to: the woman, or the image where she has both classes."""
    of_cases = {woman for woman, case in zip(scored.women, scored.labels.tolist(), strict=True) if case}
    mixed = of_cases & {woman for woman, case in zip(scored.women, scored.labels.tolist(), strict=True) if not case}
    before: Counter[str] = Counter()
    found = []
    for woman in scored.women:
        before[woman] += 1
        found.append((woman, before[woman] if woman in mixed else 0))
    return found


def _blocks(trainings: Iterable[Scored]) -> list[dict[Unit, bool]]:
    """Return the units among whom classes are shuffled, with their classes: the women, then each woman with both."""
    classes = {
        unit: case for scored in trainings for unit, case in zip(_units(scored), scored.labels.tolist(), strict=True)
    }
    blocks: dict[str, dict[Unit, bool]] = {}
    for unit, case in classes.items():
        woman, image = unit
        blocks.setdefault(woman if image else "", {})[unit] = case
    return list(blocks.values())


def _areas(scored: Scored, places: Mapping[Unit, int], classes: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the AUCs of scores (n,) for units' classes (shuffles, units), by ranks; NaN where there is one class."""
    from scipy.stats import rankdata  # scipy is loaded where there is something to compute

    labels = classes[:, [places[unit] for unit in _units(scored)]]  # (shuffles, n)
    cases = labels.sum(axis=1)
    pairs = cases * (labels.shape[1] - cases)
    won = labels @ rankdata(scored.scores) - cases * (cases + 1) / 2
    return np.asarray(np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0))
