"""How often a 95 % interval holds the truth, how often a difference is shown that is none, and power at "detectable".

    python benchmarks/coverage.py [--sims 4000] [--seed 0] [--printed] [--quick]

Women are made up; each sends two images. A score is her class, plus something of her own, plus something of the image;
`alike` is her own part of the variance. The truth is then known in closed form. Starts are equally good; of the
variance of a score, .6 is common to all starts, .2 belongs to the start, and .2 is independent noise of each training
(a standard deviation of .45). `apart` adds a standard deviation of AUC between trainings. Women of a class are dealt to
the folds in turn.

Everything is calculated by the functions that site report and study call (`site_agent.classifier.by_woman`,
`site_agent.classifier.intervals`), thousands of crowds at once. Women who are all alike, and numbers at the end of
their scale, are not counted. What reports would not print for other reasons is in brackets. The site report compares
one start with 5 others, the study here one with 12.
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
    IMAGES_MIN,
    LEVEL,
    MOVERS_MIN,
    POWER,
    SHARE,
    TRAININGS_MIN,
    Scale,
    Scatter,
    ends,
    holm,
)

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

AT_ONCE = 100
"""simulated crowds that are held in memory"""
SELDOM = 0.1
"""Differences of a setting of which fewer are printed are not counted: few women decide nearly all of them."""
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
    common: float = 0.6
    """share of the variance of a score that all starts have in common; half of the rest belongs to the start"""

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

    def decided(self) -> bool:
        """Whether site report and study have any verdict of such a crowd."""
        return not self.roster().tested.undecided

    def printed(self) -> bool:
        """Whether they print an interval as well."""
        return self.decided() and (self.seeds == 1 or self.seeds >= TRAININGS_MIN)

    def scores(self, rng: np.random.Generator, aucs: Sequence[float], crowds: int) -> Floats:
        """Return scores (crowds, starts, seeds, images) of starts of these AUCs."""
        women = self.case_women + self.control_women
        found = np.zeros((crowds, len(aucs), self.seeds, women * self.images))
        shapes = ((crowds, 1, 1), (crowds, len(aucs), 1), (crowds, len(aucs), self.seeds))
        parts = (self.common, (1 - self.common) / 2, (1 - self.common) / 2)
        for part, shape in zip(parts, shapes, strict=True):
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
            pairs = tuple(part.mean(axis=-3) for part in one.pairs)
            found.append(Measured(one.values[..., 0], one.shares[..., 0, :], pairs=pairs))
        return mean(found)


def gap(auc: float) -> float:
    """Return by how much the scores of cases are higher: AUC = Phi(gap / sqrt 2)."""
    return float(norm.ppf(auc)) * math.sqrt(2)


def start(found: Measured, number: int) -> Measured:
    """Return one start of many (crowds, starts, ...)."""
    return Measured(
        found.values[:, number], found.shares[:, number], pairs=tuple(part[:, number] for part in found.pairs)
    )


def crowds(crowd: Crowd, aucs: Sequence[float], sims: int, seed: int) -> Iterator[Measured]:
    """Yield simulated crowds, `AT_ONCE` at a time."""
    rng = np.random.default_rng(derive(seed, "coverage", str(crowd), *map(str, aucs)))
    for done in range(0, sims, AT_ONCE):
        yield crowd.areas(crowd.scores(rng, aucs, min(AT_ONCE, sims - done)))


def may_print(values: Floats, scatter: Scatter, scale: Scale) -> Labels:
    """Return where women are not all alike, enough decide a difference, and the number is not at its scale's end."""
    enough = (scatter.movers >= MOVERS_MIN) | (scale.form != "difference")
    return np.asarray((scatter.women > 0) & enough & (values > scale.low) & (values < scale.high))


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
    """of two starts; NaN where none is printed. Of equally good ones the rest is called different"""
    printed: float = 1.0
    """share of the differences that enough women decide"""


def coverage(crowd: Crowd, sims: int, seed: int, other: float | None = None) -> Coverage:
    """Return the coverage of a crowd, whether or not anything would be printed of it; `other` is the second AUC."""
    women, aucs = crowd.roster(), [crowd.auc, crowd.auc if other is None else other]
    truths = [crowd.truth(auc) for auc in aucs]
    singles, differences = [], []
    for found in crowds(crowd, aucs, sims, seed):
        starts = [start(found, 0), start(found, 1)]
        singles += [held(one, women, AREA, truth) for one, truth in zip(starts, truths, strict=True)]
        differences.append(held(starts[0] - starts[1], women, DIFFERENCE, truths[0] - truths[1]))
    pooled = np.concatenate(differences)
    return Coverage(
        float(np.mean(np.concatenate(singles))), float(np.mean(pooled)) if len(pooled) else math.nan, len(pooled) / sims
    )


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
        own = _unequal(crowd, size, 1, min(sims, 500), seed)
        size = float(np.mean([_detectable(one, crowd, comparisons) for one in own]))
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
    """Return the lowest and the highest share: 94.1 to 96.0; a dash of none."""
    found = [100 * value for value in values]
    return f"{min(found):.1f} to {max(found):.1f}" if found else "–"


def told(text: str, *, printed: bool) -> str:
    """Return a cell of a table, in brackets where reports print no such interval or verdict."""
    return text if printed else f"({text})"


def levels(crowd: Crowd) -> list[Crowd]:
    """Return a crowd at every AUC and likeness of images."""
    return [replace(crowd, auc=auc, alike=alike) for auc, alike in itertools.product(AUCS, ALIKE)]


def asked(*, every: bool) -> Iterator[Crowd]:
    """Yield every size, number of seeds, and of folds; those of which reports print nothing if `every`."""
    for size, seeds, folds in itertools.product(SIZES, SEEDS, FOLDS):
        crowd = Crowd(*size, 0.6, 0.5, seeds, folds)
        if min(size) >= 2 * folds and (every or crowd.printed()):
            yield crowd


def coverage_table(sims: int, seed: int, *, every: bool) -> Iterator[str]:
    """Yield a row for each size, number of seeds, and of folds; extremes over AUC and likeness."""
    yield f"| women | seeds | folds | AUC | difference |\n{'|---' * 5}|"
    for crowd in asked(every=every):
        found = [coverage(one, sims, seed) for one in levels(crowd)]
        values = ([one.area for one in found], [one.difference for one in found if one.printed > SELDOM])
        cells = [told(percent(own), printed=crowd.printed()) for own in values]
        yield f"| {crowd} | {crowd.seeds} | {crowd.folds} | {' | '.join(cells)} |"


EDGES = ((20, 20, 1), (25, 25, 5), (30, 30, 1), (20, 60, 1), (20, 200, 1), (40, 40, 1), (60, 20, 1), (25, 25, 1))
"""women of each class, folds: between and beside the sizes of the other tables"""
KINDS = ((1, 0.0, 0.0), (1, 0.0, 0.6), (1, 0.0, 0.9), (2, 0.5, 0.6), (2, 0.9, 0.9), (10, 0.5, 0.6))
"""images of a woman, what they have in common, and what two starts' scores have in common"""
APART = ((0.6, 0.75), (0.8, 0.95))
"""AUCs of two starts that are not equally good"""


def edges_table(sims: int, seed: int, *, every: bool) -> Iterator[str]:
    """Yield the coverage at the edges; extremes over `KINDS`. Differences of which under 10 % are printed are left out.

    The last columns are starts whose AUCs differ by .15.
    """
    rising = ((0.6, 0.75, 0.9), (0.95,), (0.97,))
    heads = [f"{what}, {'.6 to .9' if len(aucs) > 1 else aucs[0]}" for what in ("AUC", "difference") for aucs in rising]
    yield f"| women | folds | {' | '.join(heads)} | .6 and .75 | .8 and .95 |\n{'|---' * 10}|"
    for *size, folds in EDGES if every else EDGES[:5]:
        crowds_ = [Crowd(*size, 0.6, alike, 1, folds, 0.0, images, common) for images, alike, common in KINDS]
        found = [[coverage(replace(one, auc=a), sims, seed) for one in crowds_ for a in aucs] for aucs in rising]
        apart = [
            [coverage(replace(one, auc=a), sims, seed, b) for one in crowds_] for a, b in ((0.6, 0.75), (0.8, 0.95))
        ]
        cells = [percent(one.area for one in own) for own in found]
        cells += [percent(one.difference for one in own if one.printed > SELDOM) for own in (*found, *apart)]
        yield f"| {crowds_[0]} | {folds} | {' | '.join(cells)} |"


def trainings_table(sims: int, seed: int, *, every: bool) -> Iterator[str]:
    """Yield rows of trainings that are not equally good."""
    yield f"| women | seeds | standard deviation of AUC | AUC | difference |\n{'|---' * 5}|"
    for size, seeds, apart in itertools.product(((20, 60), (60, 120)), (2, 3, 5), (0.02, 0.05)):
        crowd = Crowd(*size, 0.75, 0.5, seeds, apart=apart)
        if not (every or crowd.printed()):
            continue
        one = coverage(crowd, 2 * sims, seed)
        cells = [told(f"{100 * value:.1f}", printed=crowd.printed()) for value in (one.area, one.difference)]
        yield f"| {crowd} | {seeds} | {apart:g} | {' | '.join(cells)} |"


def verdict_table(sims: int, seed: int, *, every: bool) -> Iterator[str]:
    """Yield how often equally good starts are called different, and the power at the detectable difference."""
    heads = [f"{name}: {what}" for name in ("site", "study") for what in ("any false verdict", "detectable", "power")]
    yield f"| women | seeds | folds | {' | '.join(heads)} |\n{'|---' * 9}|"
    for crowd in asked(every=every):
        row = []
        for comparisons in (SITE, STUDY):
            wrong = [false_verdicts(replace(crowd, auc=auc), comparisons, sims, seed) for auc in AUCS]
            found = [power(replace(crowd, auc=auc), comparisons, sims, seed) for auc in AUCS]
            sizes = f"{min(one.size for one in found):.2f} to {max(one.size for one in found):.2f}"
            row += [percent(wrong), sizes, percent(one.found for one in found)]
        shown_too = [crowd.decided(), crowd.printed(), crowd.printed()] * 2
        cells = [told(cell, printed=printed) for cell, printed in zip(row, shown_too, strict=True)]
        yield f"| {crowd} | {crowd.seeds} | {crowd.folds} | {' | '.join(cells)} |"


def rates_table(sims: int, seed: int, *, every: bool) -> Iterator[str]:
    """Yield the coverage of every rate, and of the difference of two."""
    yield f"| women | images | {' | '.join(RATES)} | difference of accuracy | of recall |\n{'|---' * 8}|"
    for size, images in itertools.product(SIZES[1:], (1, 2)):
        crowd = Crowd(*size, 0.6, 0.0, images=images)
        if not (every or crowd.printed()):
            continue
        found = [rate_coverage(one, RECALL[one.auc], sims, seed) for one in levels(crowd)]
        few = {"recall": size[0] * images < IMAGES_MIN}
        cells = [
            told(percent(one[name].area for one in found), printed=crowd.printed() and not few.get(name))
            for name in RATES
        ]
        cells += [
            told(percent(one[name].difference for one in found), printed=crowd.printed())
            for name in ("accuracy", "recall")
        ]
        yield f"| {crowd} | {images} | {' | '.join(cells)} |"


TABLES = {
    "coverage": coverage_table,
    "edges": edges_table,
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
    parser.add_argument("--quick", action="store_true", help="few simulations, rates only")
    parser.add_argument("--printed", action="store_true", help="only what reports print, without brackets")
    chosen = parser.parse_args()
    for name in ["rates"] if chosen.quick else chosen.tables:
        print(f"\n{name}", flush=True)
        for line in TABLES[name](50 if chosen.quick else chosen.sims, chosen.seed, every=not chosen.printed):
            print(line, flush=True)


if __name__ == "__main__":
    main()
