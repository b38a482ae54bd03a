"""How far a number moves with other women and other trainings: each woman's share of it, in closed form.

Rules
1. Two images of one woman are not independent. So a number is written as a sum over women, and its variance is that of
   their shares: Obuchowski's clustered form of DeLong's variance for the AUC, the variance of a ratio for every rate.
   DeLong's counts twice what belongs neither to the case woman nor to the control woman, but to the pair of them. It is
   taken out once (Sen 1960; Bamber 1975): the variance is then unbiased. In folds of five women of one image each,
   DeLong's is too large by 11 to 25 %.
2. A woman is compared with the women of her class in her test part (fold) only. Each such stratum of n women loses one
   degree of freedom, n / (n - 1): the women of a small fold would otherwise count as too much alike. Degrees of freedom
   are Satterthwaite's, of the cases' and the controls' part of the variance; fewer where rule 1 makes it smaller.
3. Where a start was trained with several seeds, the variance over seeds counts as well. What seeds differ by because of
   these women is taken out of it, for the women's part holds it already; but of fewer than five seeds never more than
   `NOISE_MAX` of it. A few seeds that happen to agree would otherwise pass for no variance at all.
4. Two starts are compared on the same women and the same seeds: `Measured` minus `Measured`.
5. Over the folds of one repetition counts are added (every woman is tested once) and AUCs are averaged, because the
   scores of two networks have no common scale. Over repetitions and seeds every measure is averaged.
6. What follows from a variance, interval, p value and verdict, is in `site_agent.classifier.intervals`.

    DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
    characteristic curves: a nonparametric approach, Biometrics 44:837 (1988)
    Obuchowski, Nonparametric analysis of clustered ROC curve data, Biometrics 53:567 (1997)
    Sen, On some convergence properties of U-statistics, Calcutta Stat Assoc Bull 10:1 (1960)
    Bamber, The area above the ordinal dominance graph and the area below the ROC graph, J Math Psychol 12:387 (1975)
    Sun and Xu, Fast implementation of DeLong's algorithm ..., IEEE Signal Process Lett 21:1389 (2014): by ranks
    Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bull 2:110 (1946)
    Cochran, Sampling techniques (1977), 6.3: the ratio

A share is the derivative of the number by the woman's weight. Of an AUC, a case woman's is the sum over her images of
(V10 - AUC) / cases, V10 being the share of controls that the image beats; a control woman's that of V01 - AUC. Of a
ratio of sums N / D it is (her part of N - N / D her part of D) / D. Where every woman sends one image, the variance
of these shares is DeLong's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedcervix.errors import DataError
from site_agent.classifier.intervals import TRAININGS_MIN, Estimate, Floats, Scale, Scatter, Women, estimate
from site_agent.metrics import THRESHOLD_FIXED

ROUNDING = 1e-20
"""a variance below this is rounding: the numbers are of order 1"""

NOISE_MAX = 0.75
"""Of the variance over two to four seeds at most so much is put down to these women. Chosen by simulation: with 1,
three trainings (SD of AUC .05, 60 + 120 women) show a difference in 13 % of the families of 12 equal starts, with .75
in 5 %; five trainings do so in 3 % with 1."""

PAIRS_MAX = 4_000_000
"""Pairs of images in a test part up to which the women's pairs are looked at. Of more, what DeLong's variance counts
twice is below 1 % of it, and holding every pair would need memory for nothing."""

Labels = NDArray[np.bool_]
Pairs = NDArray[np.float32]
Places = NDArray[np.intp]


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
    """Which training of a start: seeds are trainings; repetitions (classifiers on one encoder) are averaged within."""

    seed: int
    repetition: int = 0
    fold: int = 0


Trials = Mapping[Part, Scored]
"""every training of one start at one site"""


class Stratum(NamedTuple):
    """The women of one class in one test part, by their places in the roster."""

    case: bool
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Roster:
    """The women and seeds that a site's starts were tested on."""

    women: tuple[str, ...]
    strata: tuple[Stratum, ...]
    seeds: tuple[int, ...]
    repeats: int = 1
    """of a cross-validation, the women dealt to the folds anew"""

    @property
    def tested(self) -> Women:
        """How many of each class, and the fewest of a class in a test part."""
        cases = sum(len(found.places) for found in self.strata if found.case)
        fewest = min((len(found.places) for found in self.strata), default=0)
        return Women(cases, len(self.women) - cases, fewest)

    def columns(self, scored: Scored) -> Floats:
        """Return (n, women): 1 where the image is the woman's."""
        place = {woman: number for number, woman in enumerate(self.women)}
        owners = np.zeros((len(scored.women), len(self.women)))
        owners[np.arange(len(scored.women)), [place[woman] for woman in scored.women]] = 1
        return owners


def roster(starts: Iterable[Trials]) -> Roster:
    """Return the women and seeds that some start was tested on, women in strata of class and test parts.

    Raises DataError where two starts disagree on a woman's class: they were then not tested on the same images.
    """
    cases: dict[str, bool] = {}
    parts: dict[str, dict[int, set[int]]] = {}
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
                parts.setdefault(woman, {}).setdefault(part.repetition, set()).add(part.fold)
    women = tuple(sorted(cases))
    strata: dict[tuple[bool, tuple[int, ...]], list[int]] = {}
    for place, woman in enumerate(women):
        first = parts[woman][min(parts[woman])]
        strata.setdefault((cases[woman], tuple(sorted(first))), []).append(place)
    found = tuple(Stratum(case, tuple(places)) for (case, _), places in sorted(strata.items()))
    repeats = max((len({frozenset(folds) for folds in hers.values()}) for hers in parts.values()), default=1)
    return Roster(women, found, tuple(sorted(seeds)), repeats)


def _classes(scored: Scored) -> dict[str, bool]:
    """Return whether each woman is a case: one image of a case makes her one."""
    found: dict[str, bool] = {}
    for woman, case in zip(scored.women, scored.labels.tolist(), strict=True):
        found[woman] = found.get(woman, False) or case
    return found


# --- a number and the women's shares of it --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One measure of one start, or a difference of two; `benchmarks/coverage.py` has thousands, along further axes."""

    values: Floats
    """(..., seeds): the measure of each training"""
    shares: Floats
    """(..., seeds, women): by how much each woman moves it"""
    votes: float = math.inf
    """images, if their number is fixed, that it is a share of"""
    pairs: tuple[Pairs, ...] = ()
    """Of an AUC, for each test part: (..., case women, control women), by how much each pair moves the mean over
    the trainings. Empty for other measures."""

    def __sub__(self, other: Self) -> Self:
        """Return the difference on the same women and seeds."""
        pairs = tuple(own - others for own, others in zip(self.pairs, other.pairs, strict=True))
        return type(self)(self.values - other.values, self.shares - other.shares, pairs=pairs)

    @property
    def value(self) -> float:
        """The mean over the trainings."""
        return float(np.mean(self.values))

    def scatter(self, women: Roster) -> Scatter:
        """Return how far the mean over the trainings moves with other women and other trainings (rules 1 to 3)."""
        many = self.values.shape[-1]
        mean = self.shares.mean(axis=-2, keepdims=True)
        found = variance_of(mean[..., 0, :], women)
        twice = sum((of_pairs(part) for part in self.pairs), np.zeros_like(found.variance))
        variance = np.where(found.variance > 0, np.maximum(found.variance - twice, twice), 0.0)
        kept = np.divide(variance, found.variance, out=np.ones_like(variance), where=found.variance > 0)
        freedom = np.maximum(1.0, found.freedom * kept**2)  # as uncertain as before, and smaller
        if many == 1:
            return Scatter(variance, freedom, np.zeros_like(variance), 0, self.votes, found.movers)
        over_seeds = self.values.var(axis=-1, ddof=1)
        of_these_women = variance_of(self.shares - mean, women).variance.sum(axis=-1) / (many - 1)
        noise_max = 1.0 if many >= TRAININGS_MIN else NOISE_MAX
        of_trainings = over_seeds - np.minimum(of_these_women, noise_max * over_seeds)
        return Scatter(variance, freedom, of_trainings / many, many - 1, self.votes, found.movers)

    def estimate(self, women: Roster, scale: Scale) -> Estimate:
        """Return the mean over the trainings with its interval."""
        return estimate(self.value, self.scatter(women), women.tested, scale)


class OfShares(NamedTuple):
    """How far a sum of women's shares moves with other women, and how well that is known; arrays (...)."""

    variance: Floats
    freedom: Floats
    """degrees of freedom; 1 where the variance is 0"""
    movers: Floats
    """women who would move it as unevenly if they all moved it alike: (sum of s^2)^2 / (sum of s^4)"""


def variance_of(shares: Floats, women: Roster) -> OfShares:
    """Return the variance of a sum of shares (..., women), and how well it is known (rule 2)."""
    variance = {True: np.zeros(shares.shape[:-1]), False: np.zeros(shares.shape[:-1])}
    fourth, freedom = np.zeros(shares.shape[:-1]), {True: 0, False: 0}
    for case, places in women.strata:
        if len(places) > 1:
            own = shares[..., places]
            kept = 1 - (1 - 1 / women.repeats) / len(places)
            squares = (own - own.mean(axis=-1, keepdims=True)) ** 2 * (len(places) / (len(places) - 1) / kept)
            variance[case] = variance[case] + squares.sum(axis=-1)
            fourth = fourth + np.sum(squares**2, axis=-1)
            freedom[case] += len(places) - 1
    total = variance[True] + variance[False]
    known = total > ROUNDING
    parts = sum(variance[case] ** 2 / max(1, freedom[case]) for case in (True, False))
    ones = np.ones_like(total)
    return OfShares(
        np.where(known, total, 0.0),
        np.divide(total**2, parts, out=ones.copy(), where=known),
        np.divide(total**2, fourth, out=ones, where=known),
    )


def of_pairs(moved: Pairs) -> Floats:
    """Return the variance that belongs to pairs of (..., cases, controls) alone, to neither woman of the pair.

    DeLong's variance holds it twice.
    """
    cases, controls = moved.shape[-2:]
    if min(cases, controls) < 2:
        return np.zeros(moved.shape[:-2])
    both = moved.mean(axis=(-2, -1), keepdims=True)
    alone = moved - moved.mean(axis=-1, keepdims=True) - moved.mean(axis=-2, keepdims=True) + both
    return np.asarray(
        np.sum(alone**2, axis=(-2, -1), dtype=np.float64) * (cases * controls) / ((cases - 1) * (controls - 1))
    )


def ratio(part: Floats, whole: Floats) -> Measured:
    """Return a ratio of sums over women (..., women) as one training's; with nothing to divide by, 0."""
    total = whole.sum(axis=-1, keepdims=True)
    value = np.divide(part.sum(axis=-1, keepdims=True), total, out=np.zeros_like(total), where=total > 0)
    shares = np.divide(part - value * whole, total, out=np.zeros_like(part), where=total > 0)
    return Measured(value, shares[..., None, :])


def area(labels: Labels, scores: Floats, owners: Floats) -> Measured:
    """Return the AUCs of scores (..., n), as one training's each; owners (n, women) say whose image it is."""
    won, lost = placements(labels, scores)
    value = won.mean(axis=-1, keepdims=True)
    of_cases = (won - value) @ owners[labels] / labels.sum()
    of_controls = (lost - value) @ owners[~labels] / (~labels).sum()
    pairs = (_pairs(labels, scores, owners, value),) if labels.sum() * (~labels).sum() <= PAIRS_MAX else ()
    return Measured(value, (of_cases + of_controls)[..., None, :], pairs=pairs)


def _pairs(labels: Labels, scores: Floats, owners: Floats, value: Floats) -> Pairs:
    """Return by how much each pair of a case woman and a control woman moves AUCs of scores (..., n)."""
    (cases, first_cases, many_cases), (controls, first_controls, many_controls) = (
        _by_owner(owners, rows) for rows in (labels, ~labels)
    )
    high, low = scores[..., cases, None], scores[..., None, controls]
    order = (high > low).view(np.int8) - (high < low).view(np.int8)
    won = np.add.reduceat(order, first_controls, axis=-1, dtype=np.float32)
    won = np.add.reduceat(won, first_cases, axis=-2) / 2
    expected = (value[..., None] - 0.5) * np.outer(many_cases, many_controls)
    return np.asarray((won - expected) / (len(cases) * len(controls)), np.float32)


def _by_owner(owners: Floats, rows: Labels) -> tuple[Places, Places, Places]:
    """Return the places of these images, a woman's beside one another; where each woman begins; how many she has."""
    places = np.flatnonzero(rows)
    women = owners[places].argmax(axis=-1)
    _, first, many = np.unique(np.sort(women), return_index=True, return_counts=True)
    return places[np.argsort(women, kind="stable")], first, many


def placements(labels: Labels, scores: Floats) -> tuple[Floats, Floats]:
    """Return V10 (..., cases), the share of controls that each case beats, and V01 (..., controls), of scores (..., n).

    Ties count half.
    """
    from scipy.stats import rankdata  # scipy is loaded where there is something to compute

    among_all = rankdata(scores, axis=-1)
    won = (among_all[..., labels] - rankdata(scores[..., labels], axis=-1)) / (~labels).sum()
    lost = 1 - (among_all[..., ~labels] - rankdata(scores[..., ~labels], axis=-1)) / labels.sum()
    return won, lost


def measure(trials: Trials, women: Roster) -> dict[str, Measured]:
    """Return every measure of one start (rule 5).

    Raises DataError where the start lacks a seed of the roster: it could not be compared with the others.
    """
    seeds = tuple(sorted({part.seed for part in trials}))
    if seeds != women.seeds:
        raise DataError(
            f"a start has the seeds {list(seeds)}, others {list(women.seeds)}",
            cause="the study is not finished",
            next_step="cervix-study run STUDY.toml, which continues where it stopped",
        )
    by_seed = [_one_seed(trials, seed, women) for seed in seeds]
    return {name: joined([found[name] for found in by_seed]) for name in by_seed[0]}


def joined(by_seed: Sequence[Measured]) -> Measured:
    """Return one measure of a start's trainings, from the measure of each seed."""
    return Measured(
        np.concatenate([found.values for found in by_seed], axis=-1),
        np.concatenate([found.shares for found in by_seed], axis=-2),
        by_seed[0].votes,
        tuple(np.mean(part, axis=0) for part in zip(*(found.pairs for found in by_seed), strict=True)),
    )


def mean(found: Sequence[Measured]) -> Measured:
    """Return the mean of measures of the same seeds: of repetitions, or of the AUCs of folds."""
    values, shares = [one.values for one in found], [one.shares for one in found]
    pairs = tuple(part / np.float32(len(found)) for one in found for part in one.pairs)
    return Measured(np.mean(values, axis=0), np.mean(shares, axis=0), found[0].votes, pairs)


def _one_seed(trials: Trials, seed: int, women: Roster) -> dict[str, Measured]:
    """Return the mean over the repetitions of one seed."""
    folds_of: dict[int, list[Scored]] = {}
    for part, scored in sorted(trials.items()):
        if part.seed == seed:
            folds_of.setdefault(part.repetition, []).append(scored)
    repetitions = [_one_repetition(folds, women) for folds in folds_of.values()]
    return {name: mean([found[name] for found in repetitions]) for name in repetitions[0]}


def _one_repetition(folds: Sequence[Scored], women: Roster) -> dict[str, Measured]:
    owners = [women.columns(scored) for scored in folds]
    counts = np.sum([_counts(scored, own) for scored, own in zip(folds, owners, strict=True)], axis=0)
    areas = [area(scored.labels, scored.scores, own) for scored, own in zip(folds, owners, strict=True)]
    return {**rates(*counts), "auc": mean(areas)}


def _counts(scored: Scored, owners: Floats) -> Floats:
    """Return (4, women): each woman's images that are TP, FN, FP, TN."""
    called, case = scored.scores >= scored.threshold, scored.labels
    return np.array([called & case, ~called & case, called & ~case, ~called & ~case], np.float64) @ owners


def rates(tp: Floats, fn: Floats, fp: Floats, tn: Floats) -> dict[str, Measured]:
    """Return every rate at a threshold, of each woman's counts (women,)."""
    return {
        "accuracy": ratio(tp + tn, tp + fn + fp + tn),
        "recall": _of_a_class(tp, fn),
        "precision": ratio(tp, tp + fp),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "specificity": _of_a_class(tn, fp),
        "npv": ratio(tn, tn + fn),
    }


def _of_a_class(right: Floats, wrong: Floats) -> Measured:
    """Return the share of a class's images that were called right; the others' number follows from the calls."""
    found = ratio(right, right + wrong)
    return Measured(found.values, found.shares, float(np.max((right + wrong).sum(axis=-1))))
