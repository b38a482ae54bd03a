"""How often a 95 % interval holds the truth, how often a difference is shown that is none, and power at "detectable".

    python benchmarks/coverage.py [--sims 4000] [--seed 0] [--quick]

Women are made up; each sends two images. A score is her class, plus something of her own, plus something of the image;
`alike` is her own part of the variance. The truth is then known in closed form. Starts are equally good; of the
variance of a score, .6 is common to all starts, .2 belongs to the start, and .2 is independent noise of each training
(a standard deviation of .45). `apart` adds a standard deviation of AUC between trainings. Women of a class are dealt to
the folds in turn.

Everything is calculated by the functions that site report and study call (`site_agent.classifier.by_woman`,
`site_agent.classifier.intervals`), thousands of crowds at once. What they would not print is not counted; the columns
`would` show what it would have been. The site report compares one start with 5 others, the study here one with 12.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from fedcervix.core.seeds import derive
from site_agent.classifier.by_woman import Measured, Roster, Stratum, area, mean, rates
from site_agent.classifier.intervals import (
    AREA,
    DIFFERENCE,
    LEVEL,
    POWER,
    SHARE,
    Scale,
    Scatter,
    ends,
    holm,
)

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

COMMON, OF_START, OF_TRAINING = 0.6, 0.2, 0.2
"""parts of the variance of a score"""
AT_ONCE = 500
"""simulated crowds that are held in memory"""
SITE, STUDY = 5, 12
"""comparisons beside one another"""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Test women of a known truth."""

    case_women: int
    control_women: int
    auc: float
    """of every start"""
    alike: float
    """share of the variance that a woman's images have in common"""
    seeds: int = 1
    """trainings of each start"""
    folds: int = 1
    apart: float = 0.0
    """standard deviation of the AUC over trainings"""
    images: int = 2
    """of a woman"""

    def __str__(self) -> str:
        return f"{self.case_women} + {self.control_women}"

    @property
    def owners(self) -> Floats:
        """(images, women): 1 where the image is hers."""
        return np.repeat(np.eye(self.case_women + self.control_women), self.images, axis=0)

    @property
    def labels(self) -> Labels:
        """(images,), True is case."""
        return self.owners[:, : self.case_women].any(axis=1)

    def roster(self) -> Roster:
        """Return the women in strata, as the product has them."""
        classes = (range(self.case_women), range(self.case_women, self.case_women + self.control_women))
        strata = [
            Stratum(case, tuple(places[fold :: self.folds]))
            for case, places in zip((True, False), classes, strict=True)
            for fold in range(self.folds)
        ]
        names = tuple(f"{place:04d}" for place in range(self.case_women + self.control_women))
        return Roster(names, tuple(found for found in strata if found.places), tuple(range(self.seeds)))

    def printed(self) -> bool:
        """Whether site report and study print any interval of such a crowd."""
        return not self.roster().tested.undecided

    def scores(self, rng: np.random.Generator, aucs: Sequence[float], crowds: int) -> Floats:
        """Return scores (crowds, starts, seeds, images) of starts of these AUCs."""
        women = self.case_women + self.control_women
        found = np.zeros((crowds, len(aucs), self.seeds, women * self.images))
        shapes = ((crowds, 1, 1), (crowds, len(aucs), 1), (crowds, len(aucs), self.seeds))
        for part, shape in zip((COMMON, OF_START, OF_TRAINING), shapes, strict=True):
            own = np.repeat(rng.standard_normal((*shape, women)), self.images, axis=-1)
            found += math.sqrt(part * self.alike) * own
            found += math.sqrt(part * (1 - self.alike)) * rng.standard_normal((*shape, women * self.images))
        gaps = np.array([gap(auc) for auc in aucs])[:, None]
        sd = self.apart * math.sqrt(2) / norm.pdf(gaps / math.sqrt(2))
        found += (gaps + sd * rng.standard_normal((crowds, len(aucs), self.seeds)))[..., None] * self.labels
        return found

    def truth(self, auc: float) -> float:
        """Return the mean AUC over infinitely many such women and trainings."""
        sd = self.apart * math.sqrt(2) / norm.pdf(gap(auc) / math.sqrt(2))
        return float(norm.cdf(gap(auc) / math.sqrt(2 + sd**2)))

    def areas(self, scores: Floats) -> Measured:
        """Return the AUC of scores (..., seeds, images), and each woman's share of it, by the product's functions."""
        owner, found = np.arange(len(self.labels)) // self.images, []
        within = np.where(owner < self.case_women, owner, owner - self.case_women) % self.folds
        for fold in range(self.folds):
            rows = np.flatnonzero(within == fold)
            one = area(self.labels[rows], scores[..., rows], self.owners[rows])
            found.append(Measured(one.values[..., 0], one.shares[..., 0, :]))
        return mean(found)


def gap(auc: float) -> float:
    """Return by how much the scores of cases are higher: AUC = Phi(gap / sqrt 2)."""
    return float(norm.ppf(auc)) * math.sqrt(2)


def start(found: Measured, number: int) -> Measured:
    """Return one start of many (crowds, starts, ...)."""
    return Measured(found.values[:, number], found.shares[:, number])


def crowds(crowd: Crowd, aucs: Sequence[float], sims: int, seed: int) -> Iterator[Measured]:
    """Yield simulated crowds, `AT_ONCE` at a time."""
    rng = np.random.default_rng(derive(seed, "coverage", str(crowd), *map(str, aucs)))
    for done in range(0, sims, AT_ONCE):
        yield crowd.areas(crowd.scores(rng, aucs, min(AT_ONCE, sims - done)))


def may_print(values: Floats, scatter: Scatter, scale: Scale) -> Labels:
    """Return where the women are not all alike and the number is not at the end of its scale."""
    return np.asarray((scatter.women > 0) & (values > scale.low) & (values < scale.high))


def held(found: Measured, women: Roster, scale: Scale, truth: float) -> Labels:
    """Return whether each interval holds the truth; only those that may be printed."""
    scatter, values = found.scatter(women), found.values.mean(axis=-1)
    fine = may_print(values, scatter, scale)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        low, high = ends(values, scatter, scale)
    return np.asarray(((low <= truth) & (truth <= high))[fine])


# --- coverage of an AUC and of a difference ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of intervals that hold the truth."""

    area: float
    difference: float
    """of two equally good starts; the rest is called different"""


def coverage(crowd: Crowd, sims: int, seed: int) -> Coverage:
    """Return the coverage of a crowd, whether or not anything would be printed of it."""
    women, truth = crowd.roster(), crowd.truth(crowd.auc)
    singles, differences = [], []
    for found in crowds(crowd, [crowd.auc] * 2, sims, seed):
        one, two = start(found, 0), start(found, 1)
        singles += [held(one, women, AREA, truth), held(two, women, AREA, truth)]
        differences.append(held(one - two, women, DIFFERENCE, 0.0))
    return Coverage(float(np.mean(np.concatenate(singles))), float(np.mean(np.concatenate(differences))))


# --- verdicts ------------------------------------------------------------------------------------------------------


def shown(found: Measured, women: Roster) -> Labels:
    """Return (crowds, comparisons): whether the first start is called different from each other one, after Holm."""
    gains = [start(found, 0) - start(found, other) for other in range(1, found.values.shape[1])]
    p_values = np.stack([_p_values(gain, women) for gain in gains], axis=1)
    return np.array([holm(row.tolist()) for row in p_values]) < 1 - LEVEL


def _p_values(gain: Measured, women: Roster) -> Floats:
    scatter, values = gain.scatter(women), gain.values.mean(axis=-1)
    return np.where(may_print(values, scatter, DIFFERENCE), scatter.p(values), 1.0)


def false_verdicts(crowd: Crowd, comparisons: int, sims: int, seed: int) -> float:
    """Return how often any of so many comparisons of equally good starts is called different."""
    women = crowd.roster()
    found = crowds(crowd, [crowd.auc] * (comparisons + 1), sims, seed)
    return float(np.mean(np.concatenate([shown(own, women).any(axis=1) for own in found])))


@dataclass(frozen=True, slots=True)
class Power:
    """What is found of a difference of the size that is printed as detectable."""

    size: float
    found: float


def power(crowd: Crowd, comparisons: int, sims: int, seed: int) -> Power:
    """Return the power at the difference that equals the mean of the printed ones; the other starts are equal."""
    size = 0.1
    for _ in range(6):  # the printed size depends on the true one
        size = float(np.mean([_detectable(own, crowd, comparisons) for own in _unequal(crowd, size, 1, 500, seed)]))
    women = crowd.roster()
    hits = [shown(own, women)[:, 0] for own in _unequal(crowd, size, comparisons, sims, seed)]
    return Power(size, float(np.mean(np.concatenate(hits))))


def _unequal(crowd: Crowd, size: float, comparisons: int, sims: int, seed: int) -> Iterator[Measured]:
    """Yield crowds whose second start is off by a size: worse where a better one would come near 1."""
    other = crowd.auc + size if crowd.auc + size < 0.9 else crowd.auc - size
    return crowds(crowd, [crowd.auc, other, *[crowd.auc] * (comparisons - 1)], sims, seed)


def _detectable(found: Measured, crowd: Crowd, comparisons: int) -> float:
    scatter = (start(found, 0) - start(found, 1)).scatter(crowd.roster())
    return float(np.mean(scatter.reach((1 - LEVEL) / comparisons) + scatter.reach(2 * (1 - POWER))))


# --- rates at a threshold ------------------------------------------------------------------------------------------

RATES = ("accuracy", "recall", "precision", "f1")


def rate_coverage(crowd: Crowd, recall: float, sims: int, seed: int) -> dict[str, Coverage]:
    """Return the coverage of every rate at the threshold that finds this share of the cases."""
    women, truth = crowd.roster(), _rates_of(crowd, recall)
    rng = np.random.default_rng(derive(seed, "rates", str(crowd), str(recall)))
    called = crowd.scores(rng, [crowd.auc] * 2, sims)[:, :, 0] >= gap(crowd.auc) - float(norm.ppf(recall))
    case = crowd.labels
    counts = [kind.astype(np.float64) @ crowd.owners for kind in (called & case, ~called & case, called & ~case)]
    both = rates(*counts, (~called & ~case).astype(np.float64) @ crowd.owners)
    found = {}
    for name in RATES:
        one, two = start(both[name], 0), start(both[name], 1)
        singles = [held(own, women, SHARE, truth[name]) for own in (one, two)]
        found[name] = Coverage(
            float(np.mean(np.concatenate(singles))), float(np.mean(held(one - two, women, DIFFERENCE, 0.0)))
        )
    return found


def _rates_of(crowd: Crowd, recall: float) -> dict[str, float]:
    """Return every rate with infinitely many such women."""
    hits = crowd.case_women * recall
    alarms = crowd.control_women * float(norm.sf(gap(crowd.auc) - float(norm.ppf(recall))))
    return {
        "accuracy": (hits + crowd.control_women - alarms) / (crowd.case_women + crowd.control_women),
        "recall": recall,
        "precision": hits / (hits + alarms),
        "f1": 2 * hits / (hits + alarms + crowd.case_women),
    }


# --- tables --------------------------------------------------------------------------------------------------------

SIZES = ((4, 8), (8, 8), (8, 20), (12, 30), (20, 60), (60, 120))
AUCS, ALIKE = (0.6, 0.75, 0.9), (0.0, 0.5, 0.9)
SEEDS, FOLDS = (1, 3, 5), (1, 5, 10)
RECALL = {0.6: 0.5, 0.75: 0.7, 0.9: 0.85}


def percent(values: Iterable[float]) -> str:
    """Return the lowest and the highest share: 94.1 to 96.0."""
    low, high = min(found := [100 * value for value in values]), max(found)
    return f"{low:.1f} to {high:.1f}"


def levels(crowd: Crowd) -> list[Crowd]:
    """Return a crowd at every AUC and likeness of images."""
    return [replace(crowd, auc=auc, alike=alike) for auc, alike in itertools.product(AUCS, ALIKE)]


def coverage_table(sims: int, seed: int) -> Iterator[str]:
    """Yield a row for each size, number of seeds, and of folds; extremes over AUC and likeness."""
    yield f"| women | seeds | folds | AUC | difference | printed |\n{'|---' * 6}|"
    for size, seeds, folds in itertools.product(SIZES, SEEDS, FOLDS):
        crowd = Crowd(*size, 0.6, 0.0, seeds, folds)
        if min(size) >= 2 * folds:
            found = [coverage(one, sims, seed) for one in levels(crowd)]
            areas, differences = percent(one.area for one in found), percent(one.difference for one in found)
            yield f"| {crowd} | {seeds} | {folds} | {areas} | {differences} | {'yes' if crowd.printed() else 'no'} |"


def trainings_table(sims: int, seed: int) -> Iterator[str]:
    """Yield rows of trainings that are not equally good."""
    yield f"| women | seeds | standard deviation of AUC | AUC | difference | printed |\n{'|---' * 6}|"
    for size, seeds, apart in itertools.product(((20, 60), (60, 120)), (2, 3, 5), (0.02, 0.05)):
        crowd = Crowd(*size, 0.75, 0.5, seeds, apart=apart)
        one = coverage(crowd, 2 * sims, seed)
        printed = "yes" if crowd.printed() else "no"
        yield f"| {crowd} | {seeds} | {apart:g} | {100 * one.area:.1f} | {100 * one.difference:.1f} | {printed} |"


def verdict_table(sims: int, seed: int) -> Iterator[str]:
    """Yield how often equally good starts are called different, and the power at the detectable difference."""
    heads = [f"{name}: {what}" for name in ("site", "study") for what in ("any false verdict", "detectable", "power")]
    yield f"| women | seeds | folds | {' | '.join(heads)} | printed |\n{'|---' * 10}|"
    for size, (seeds, folds) in itertools.product(SIZES[1:], ((1, 1), (3, 1), (5, 1), (1, 5), (1, 10))):
        crowd = Crowd(*size, 0.6, 0.5, seeds, folds)
        if min(size) >= 2 * folds:
            row = [f"{crowd} | {seeds} | {folds}"]
            for comparisons in (SITE, STUDY):
                wrong = [false_verdicts(replace(crowd, auc=auc), comparisons, sims, seed) for auc in AUCS]
                found = [power(replace(crowd, auc=auc), comparisons, sims, seed) for auc in AUCS]
                sizes = f"{min(one.size for one in found):.2f} to {max(one.size for one in found):.2f}"
                row += [percent(wrong), sizes, percent(one.found for one in found)]
            yield f"| {' | '.join(row)} | {'yes' if crowd.printed() else 'no'} |"


def rates_table(sims: int, seed: int) -> Iterator[str]:
    """Yield the coverage of every rate, and of the difference of two."""
    yield f"| women | images | {' | '.join(RATES)} | difference of accuracy | printed |\n{'|---' * 8}|"
    for size, images in itertools.product(SIZES[1:], (1, 2)):
        crowd = Crowd(*size, 0.6, 0.0, images=images)
        found = [rate_coverage(one, RECALL[one.auc], sims, seed) for one in levels(crowd)]
        cells = [percent(one[name].area for one in found) for name in RATES]
        cells.append(percent(one["accuracy"].difference for one in found))
        yield f"| {crowd} | {images} | {' | '.join(cells)} | {'yes' if crowd.printed() else 'no'} |"


TABLES = {
    "coverage": coverage_table,
    "trainings": trainings_table,
    "verdicts": verdict_table,
    "rates": rates_table,
}


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sims", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--quick", action="store_true", help="few simulations, the first table only")
    asked = parser.parse_args()
    for name in ["rates"] if asked.quick else asked.tables:
        print(f"\n{name}", flush=True)
        for line in TABLES[name](50 if asked.quick else asked.sims, asked.seed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
