"""What a number would do with other women and other trainings: bootstrap draws, made once and used for every start.

Rules
1. A draw takes women, each with all her images: two images of one woman are not independent. It takes them stratum by
   stratum (cases, controls, per test part), so that no draw lacks a class. Of n women n - 1 are drawn, each counting
   n / (n - 1) times: n would make the variance too small by (n - 1) / n (McCarthy and Snowden 1985). With 8 women
   that matters. A woman who is alone in her stratum is in every draw and adds no variance: then there is no interval
   (`Women.lone`).
2. Where a start was trained with several seeds, a draw takes seeds as well, k - 1 of k (the pigeonhole bootstrap, Owen
   2007): the interval then holds what another training would do.
3. Two starts are compared in the same draws, so a difference is a difference on the same women and the same seeds.
4. The draws give one thing: how far a number scatters (`Draws.scatter`). What follows from that, interval, p value
   and verdict, is in `site_agent.classifier.intervals`.
5. Over the folds of one repetition counts are added (every woman is tested once) and AUCs are averaged, because the
   scores of two networks have no common scale. Over repetitions and seeds every measure is averaged.

The draws are numbers of copies, one column per woman. Counts of a draw are then a product of matrices, and the AUC of
a draw is a bilinear form of the women's own wins, ties counting half: exact, and fast enough for 10,000 draws.

Few seeds tell little of what another training would do. The degrees of freedom of a scatter are therefore
Satterthwaite's, of the part of the variance that comes from the seeds. That part is Efron's infinitesimal jackknife:
the covariance, over the draws, of the number with each seed's share. Women are many enough (`benchmarks/coverage.py`).

Owen, The pigeonhole bootstrap, Ann Appl Stat 1:386 (2007). McCarthy and Snowden, The bootstrap and finite population
sampling, Vital Health Stat 2(95) (1985). Satterthwaite, An approximate distribution of estimates of variance
components, Biometrics Bull 2:110 (1946). Efron, Estimation and accuracy after model selection, JASA 109:991 (2014).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcervix.core.plan import check
from fedcervix.core.seeds import derive
from fedcervix.errors import DataError
from site_agent.classifier.intervals import Estimate, Scale, Scatter, Women, estimate
from site_agent.metrics import THRESHOLD_FIXED

DRAWS = 10_000
"""They give a standard error to within .7 %."""

ROUNDING = 1e-20
"""a variance below this is rounding: the numbers are of order 1"""

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]
Sampled = dict[str, Floats]
"""measure -> (1 + draws,): entry 0 is the value on the women and seeds as they are"""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The test images of one training: one seed, one fold."""

    labels: Labels
    """(n,), True is case"""
    scores: Floats
    """(n,), probability of case"""
    women: tuple[str, ...]
    """whose image it is"""
    threshold: float = THRESHOLD_FIXED
    """from which on an image is called a case"""

    def __post_init__(self) -> None:
        sizes = {self.labels.shape, self.scores.shape, (len(self.women),)}
        if len(sizes) != 1:
            raise DataError(
                f"labels, scores and women differ in number: {', '.join(map(str, sorted(sizes)))}",
                cause="a file of predictions that was changed by hand",
                next_step="cervix-study run STUDY.toml, which writes it again",
            )
        if not np.isfinite(self.scores).all():
            raise DataError(
                "a score is not a finite number",
                cause="a file of predictions that was changed by hand, or a classifier whose training diverged",
                next_step="make the predictions again",
            )
        if not (self.labels.any() and not self.labels.all()):
            raise DataError(
                f"the {len(self.labels)} test images are all of one class",
                cause="the split, or the label column of the manifest",
                next_step="give the test part cases and controls",
            )

    @classmethod
    def of(
        cls, labels: ArrayLike, scores: ArrayLike, women: Sequence[str], threshold: float = THRESHOLD_FIXED
    ) -> Scored:
        """Return the checked arrays of lists."""
        return cls(np.asarray(labels, np.bool_), np.asarray(scores, np.float64), tuple(women), threshold)


class Part(NamedTuple):
    """Which training of a start: draws take seeds; repetitions (classifiers on one encoder) are averaged within."""

    seed: int
    repetition: int = 0
    fold: int = 0


Trials = Mapping[Part, Scored]
"""every training of one start at one site"""


@dataclass(frozen=True, slots=True)
class Roster:
    """The women that a site's starts were tested on; `strata` holds their places."""

    women: tuple[str, ...]
    strata: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...]
    tested: Women
    """how many of each class, and how many are alone in their stratum"""


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """How often each woman and each seed is taken: row 0 takes all of them once."""

    roster: Roster
    copies: Floats
    """(1 + draws, women)"""
    shares: Floats
    """(1 + draws, seeds), each row adding up to 1"""

    def scatter(self, sampled: Floats) -> Scatter:
        """Return how far a number moves over the draws: sampled (1 + draws,), as `sample` gives it."""
        variance = float(np.var(sampled[1:]))
        if variance < ROUNDING:
            return Scatter(0.0)
        of_seeds = self._of_seeds(sampled[1:] - np.mean(sampled[1:]))
        free = len(self.roster.seeds) - 1
        return Scatter(variance, free * max(1.0, variance / of_seeds) ** 2 if of_seeds > 0 else math.inf)

    def _of_seeds(self, deviations: Floats) -> float:
        """Return the part of the variance that comes from the seeds."""
        many = len(self.roster.seeds)
        by_seed = (self.shares[1:] - 1 / many).T @ deviations / len(deviations)
        return float(np.sum(by_seed**2)) * many * (many - 1)

    def estimate(self, sampled: Floats, scale: Scale) -> Estimate:
        """Return the number on all women with its interval."""
        return estimate(float(sampled[0]), self.scatter(sampled), self.roster.tested, scale)


def roster(starts: Iterable[Trials]) -> Roster:
    """Return the women and seeds that some start was tested on, women in strata of class and test parts.

    Raises DataError where two starts disagree on a woman's class: they were then not tested on the same images.
    """
    cases: dict[str, bool] = {}
    parts: dict[str, set[int]] = {}
    seeds: set[int] = set()
    for trials in starts:
        for part, scored in trials.items():
            seeds.add(part.seed)
            for woman, case in _classes(scored).items():
                if cases.setdefault(woman, case) != case:
                    raise DataError(
                        "a woman is a case in one test part and a control in another",
                        cause="cells of different data in one study folder",
                        next_step="cervix-study run STUDY.toml --out FOLDER, with a new folder",
                    )
                parts.setdefault(woman, set()).add(part.fold)
    women = tuple(sorted(cases))
    strata: dict[tuple[bool, tuple[int, ...]], list[int]] = {}
    for place, woman in enumerate(women):
        strata.setdefault((cases[woman], tuple(sorted(parts[woman]))), []).append(place)
    lone = sum(len(places) == 1 for places in strata.values())
    tested = Women(sum(cases.values()), len(cases) - sum(cases.values()), lone)
    return Roster(women, tuple(tuple(places) for _, places in sorted(strata.items())), tuple(sorted(seeds)), tested)


def _classes(scored: Scored) -> dict[str, bool]:
    """Return whether each woman is a case: one image of a case makes her one."""
    found: dict[str, bool] = {}
    for woman, case in zip(scored.women, scored.labels.tolist(), strict=True):
        found[woman] = found.get(woman, False) or case
    return found


def draw(women: Roster, *, seed: int, draws: int = DRAWS) -> Draws:
    """Return the draws of a site: the same for every start, given one `seed`."""
    check(draws >= 1, f"draws is 1 or more; found {draws}")
    generator = np.random.Generator(np.random.PCG64(derive(seed, "test-women")))
    copies = np.ones((1 + draws, len(women.women)))
    for stratum in women.strata:
        size = len(stratum)
        if size > 1:  # a lone woman is in every draw (rule 1)
            taken = generator.multinomial(size - 1, np.full(size, 1 / size), size=draws)
            copies[1:, stratum] = taken * (size / (size - 1))
    many = len(women.seeds)
    shares = np.full((1 + draws, many), 1 / many)
    if many > 1:
        shares[1:] = generator.multinomial(many - 1, np.full(many, 1 / many), size=draws) / (many - 1)
    return Draws(women, copies, shares)


def sample(trials: Trials, drawn: Draws) -> Sampled:
    """Return every measure of one start, on all women and in every draw (rule 5).

    Raises DataError where the start lacks a seed of the roster: its draws would not be those of the others.
    """
    seeds = tuple(sorted({part.seed for part in trials}))
    if seeds != drawn.roster.seeds:
        raise DataError(
            f"a start has the seeds {list(seeds)}, others {list(drawn.roster.seeds)}",
            cause="the study is not finished",
            next_step="cervix-study run STUDY.toml, which continues where it stopped",
        )
    by_seed = [_one_seed(trials, seed, drawn) for seed in seeds]
    return {
        name: np.einsum("ds,sd->d", drawn.shares, np.stack([found[name] for found in by_seed])) for name in by_seed[0]
    }


def _one_seed(trials: Trials, seed: int, drawn: Draws) -> Sampled:
    """Return the mean over the repetitions of one seed."""
    folds_of: dict[int, list[Scored]] = {}
    for part, scored in sorted(trials.items()):
        if part.seed == seed:
            folds_of.setdefault(part.repetition, []).append(scored)
    repetitions = [_one_repetition(folds, drawn) for folds in folds_of.values()]
    return {name: np.mean([found[name] for found in repetitions], axis=0) for name in repetitions[0]}


def _one_repetition(folds: Sequence[Scored], drawn: Draws) -> Sampled:
    counts = np.zeros((len(drawn.copies), 4))
    areas = []
    for scored in folds:
        places = places_of(scored, drawn.roster)
        counts += drawn.copies @ _counts_by_woman(scored, places, len(drawn.roster.women))
        areas.append(_areas(scored, places, drawn.copies))
    return {**rates(counts), "auc": np.mean(areas, axis=0)}


def rates(counts: Floats) -> Sampled:
    """Return every rate at a threshold, of rows of TP, FN, FP, TN; with nothing to divide by, 0."""
    tp, fn, fp, tn = counts.T
    return {
        "accuracy": _ratio(tp + tn, tp + fn + fp + tn),
        "recall": _ratio(tp, tp + fn),
        "precision": _ratio(tp, tp + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "specificity": _ratio(tn, tn + fp),
        "npv": _ratio(tn, tn + fn),
    }


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def places_of(scored: Scored, women: Roster) -> NDArray[np.intp]:
    """Return the roster's column of each image."""
    column = {woman: place for place, woman in enumerate(women.women)}
    return np.array([column[woman] for woman in scored.women], np.intp)


def _counts_by_woman(scored: Scored, places: NDArray[np.intp], women: int) -> Floats:
    """Return (women, 4): her images that are TP, FN, FP, TN."""
    called = scored.scores >= scored.threshold
    kind = np.where(scored.labels, np.where(called, 0, 1), np.where(called, 2, 3))
    counts = np.zeros((women, 4))
    np.add.at(counts, (places, kind), 1)
    return counts


def _areas(scored: Scored, places: NDArray[np.intp], copies: Floats) -> Floats:
    """Return the AUC of every draw: wins of case women's images over control women's, by copies of both."""
    case_women, case_row = np.unique(places[scored.labels], return_inverse=True)
    control_women, control_row = np.unique(places[~scored.labels], return_inverse=True)
    wins = pairwise_wins(scored.scores[scored.labels], scored.scores[~scored.labels])
    by_case = np.zeros((len(case_women), wins.shape[1]))
    np.add.at(by_case, case_row, wins)
    by_both = np.zeros((len(case_women), len(control_women)))
    np.add.at(by_both.T, control_row, by_case.T)
    case_copies, control_copies = copies[:, case_women], copies[:, control_women]
    won = np.einsum("dc,dc->d", case_copies @ by_both, control_copies)
    pairs = (case_copies @ np.bincount(case_row)) * (control_copies @ np.bincount(control_row))
    return np.asarray(won / pairs)


def pairwise_wins(case_scores: Floats, control_scores: Floats) -> Floats:
    """Return (cases, controls): 1 where the case scores higher, one half for a tie, else 0."""
    higher = case_scores[:, None] > control_scores[None, :]
    tied = case_scores[:, None] == control_scores[None, :]
    return np.asarray(higher + 0.5 * tied, np.float64)
