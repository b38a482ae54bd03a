"""How often a 95 % interval holds the truth, and how often a difference is shown where there is none.

    python benchmarks/coverage.py [--sims 1000] [--draws 400] [--seed 0] [--methods ours] [--quick]

Women are made up: each sends one image, or one to four. A score is her class, plus something of her own, plus something
of the image; `alike` is her own part of the variance. The truth is then known in closed form: AUC, and recall,
precision, F1 and accuracy at a fixed threshold. Two classifiers are equally good; their scores correlate by .6, on the
woman's part and on the image's. In later rows each is trained with several seeds, which are not equally good; in the
last rows the women are tested in folds. Where a fold holds only one woman of a class, no interval is printed.

Three methods are measured on the same women. `ours` is what site report, study and card print
(`site_agent.classifier.intervals`). `percentile` and `unstratified` are percentiles of a bootstrap by woman: with cases
and controls drawn apart, and together. In brackets: the mean width. Where no interval is printed, none is counted; the
share of such crowds is in the column `none`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from fedcervix.core.seeds import derive
from site_agent.classifier.intervals import DIFFERENCE, LEVEL, RATE, Estimate, verdict
from site_agent.classifier.resampling import Draws, Part, Roster, Sampled, Scored, Trials, draw, roster, sample

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

MEASURES = ("auc", "difference", "accuracy", "recall", "precision", "f1")
CORRELATION = 0.6
"""of two classifiers' scores on one image"""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Test women of a known truth."""

    case_women: int
    control_women: int
    images_max: int
    """of a woman; she has one to so many"""
    alike: float
    """share of the variance that a woman's images have in common"""
    auc: float
    """at the mean of all trainings' gaps"""
    recall: float
    seeds: int = 1
    """trainings of each classifier"""
    apart: float = 0.0
    """standard deviation of the gap between cases and controls over trainings"""
    folds: int = 1
    """test parts; the women of a class are dealt to them in turn"""

    def __str__(self) -> str:
        images = "1" if self.images_max == 1 else f"1 to {self.images_max}, alike {self.alike:g}"
        seeds = f", {self.seeds} seeds" if self.seeds > 1 else ""
        folds = f" in {self.folds} folds" if self.folds > 1 else ""
        return f"{self.case_women} + {self.control_women}{folds} | {images}{seeds} | {self.auc:g}"

    @property
    def gap(self) -> float:
        """By how much the scores of cases are higher, as a rule: AUC = Phi(gap / sqrt 2)."""
        return float(norm.ppf(self.auc)) * 2**0.5

    @property
    def threshold(self) -> float:
        """Above which cases are found at the recall."""
        return self.gap - float(norm.ppf(self.recall))

    def truth(self) -> dict[str, float]:
        """Return what each measure would be with infinitely many such women and trainings.

        With several seeds a mean of ratios has no closed form: precision and F1 are left out.
        """
        recall = float(norm.cdf((self.gap - self.threshold) / (1 + self.apart**2) ** 0.5))
        found = self.case_women * recall
        alarms = self.control_women * float(norm.sf(self.threshold))
        plain = {
            "auc": float(norm.cdf(self.gap / (2 + self.apart**2) ** 0.5)),
            "difference": 0.0,
            "accuracy": (found + self.control_women - alarms) / (self.case_women + self.control_women),
            "recall": recall,
        }
        ratios = {"precision": found / (found + alarms), "f1": 2 * found / (found + alarms + self.case_women)}
        return plain if self.seeds > 1 else {**plain, **ratios}

    def draw(self, rng: np.random.Generator) -> tuple[Trials, Trials]:
        """Return the test images of two starts that are equally good."""
        women = self.case_women + self.control_women
        owner = np.repeat(np.arange(women), rng.integers(1, self.images_max + 1, women))
        labels = owner < self.case_women
        names = [f"{place:04d}" for place in owner]
        shared, alone = (rng.normal(size=(1 + 2 * self.seeds, count)) for count in (women, len(owner)))
        gaps = self.gap + self.apart * rng.normal(size=2 * self.seeds)
        scored: list[tuple[Scored, ...]] = []
        for number, gap in enumerate(gaps, 1):
            own, other = (CORRELATION**0.5 * z[0] + (1 - CORRELATION) ** 0.5 * z[number] for z in (shared, alone))
            scores = gap * labels + self.alike**0.5 * own[owner] + (1 - self.alike) ** 0.5 * other
            scored.append(in_parts(Scored.of(labels, scores, names, self.threshold), self.folds))
        return _trials(scored[: self.seeds]), _trials(scored[self.seeds :])


def in_parts(scored: Scored, folds: int) -> tuple[Scored, ...]:
    """Return the test images fold by fold; the women of each class are dealt to the folds in turn."""
    part: dict[str, int] = {}
    for case in (True, False):
        women = dict.fromkeys(w for w, label in zip(scored.women, scored.labels, strict=True) if label == case)
        part |= {woman: place % folds for place, woman in enumerate(women)}
    parts = np.array([part[woman] for woman in scored.women])
    return tuple(_only(scored, np.flatnonzero(parts == fold)) for fold in range(folds))


def _only(scored: Scored, rows: npt.NDArray[np.intp]) -> Scored:
    women = [scored.women[row] for row in rows]
    return Scored.of(scored.labels[rows], scored.scores[rows], women, scored.threshold)


def _trials(scored: Iterable[tuple[Scored, ...]]) -> Trials:
    return {Part(seed, 0, fold): part for seed, parts in enumerate(scored) for fold, part in enumerate(parts)}


@dataclass(slots=True)
class Tally:
    """How intervals of one measure did."""

    held: int = 0
    too_high: int = 0
    """the whole interval lies above the truth"""
    too_low: int = 0
    none: int = 0
    widths: list[float] = field(default_factory=list)

    def add(self, found: Interval | None, truth: float) -> None:
        """Count one interval."""
        if found is None:
            self.none += 1
            return
        low, high = found
        self.held += low <= truth <= high
        self.too_high += truth < low
        self.too_low += truth > high
        self.widths.append(high - low)

    @property
    def coverage(self) -> float:
        """Share of the printed intervals that hold the truth."""
        return self.held / len(self.widths) if self.widths else float("nan")

    def __str__(self) -> str:
        return f"{100 * self.coverage:.1f} ({np.mean(self.widths):.2f})" if self.widths else "none"


Method = Callable[[Trials, Trials, int, int], dict[str, Interval | None]]
"""two starts, seed, draws -> measure -> interval"""


def ours(first: Trials, second: Trials, seed: int, draws: int) -> dict[str, Interval | None]:
    """Return the intervals that are printed."""
    drawn = draw(roster([first, second]), seed=seed, draws=draws)
    one, two = sample(first, drawn), sample(second, drawn)
    found = {name: drawn.estimate(one[name], RATE) for name in MEASURES if name != "difference"}
    found["difference"] = drawn.estimate(one["auc"] - two["auc"], DIFFERENCE)
    return {name: estimate.interval for name, estimate in found.items()}


def percentiles(strata: Callable[[Roster], Iterable[Sequence[int]]]) -> Method:
    """Return the percentile bootstrap over as many women as there are in each stratum."""

    def method(first: Trials, second: Trials, seed: int, draws: int) -> dict[str, Interval | None]:
        drawn = draw(roster([first, second]), seed=seed, draws=draws)
        women = drawn.roster
        rng = np.random.default_rng(seed)
        copies = np.ones((1 + draws, len(women.women)))
        for own in strata(women):
            copies[1:, list(own)] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=draws)
        with np.errstate(invalid="ignore"):  # draws without a class have no AUC
            one, two = (sample(start, Draws(women, copies, drawn.shares)) for start in (first, second))
        return {name: _percentile(_values(name, one, two)) for name in MEASURES}

    return method


def _values(name: str, one: Sampled, two: Sampled) -> Floats:
    return one["auc"] - two["auc"] if name == "difference" else one[name]


def _percentile(values: Floats) -> Interval | None:
    low, high = np.nanquantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return (float(low), float(high)) if low < high else None


METHODS: dict[str, Method] = {
    "ours": ours,
    "percentile": percentiles(lambda women: women.strata),
    "unstratified": percentiles(lambda women: [range(len(women.women))]),
}


def measure(crowd: Crowd, sims: int, *, draws: int, seed: int, method: Method = ours) -> dict[str, Tally]:
    """Return how often the intervals of `sims` crowds hold the truth."""
    truth = crowd.truth()
    tallies = {name: Tally() for name in truth}
    for number in range(sims):
        own = derive(seed, "coverage", number)
        found = method(*crowd.draw(np.random.default_rng(own)), own, draws)
        for name, tally in tallies.items():
            tally.add(found[name], truth[name])
    return tallies


def false_verdicts(case_women: int, control_women: int, sims: int, *, draws: int, seed: int, folds: int = 1) -> float:
    """Return how often two classifiers are called different whose scores have nothing to do with anything."""
    called = 0
    for number in range(sims):
        rng = np.random.default_rng(derive(seed, "false-verdicts", number))
        labels = [1] * case_women + [0] * control_women
        women = [f"{place:04d}" for place in range(len(labels))]
        crowds = (Scored.of(labels, rng.normal(size=len(labels)), women) for _ in range(2))
        starts = [_trials([in_parts(scored, folds)]) for scored in crowds]
        drawn = draw(roster(starts), seed=number, draws=draws)
        one, two = (sample(start, drawn)["auc"] for start in starts)
        found: Estimate = drawn.estimate(one - two, DIFFERENCE)
        called += verdict(found) != "not shown"
    return called / sims


SIZES = ((8, 8), (8, 20), (20, 60))
IMAGES = ((1, 0.6), (4, 0.3), (4, 0.8))
LEVELS = ((0.6, 0.5), (0.75, 0.7), (0.85, 0.8), (0.95, 0.9))
"""(AUC, recall)"""
SEEDS = tuple(Crowd(20, 60, 4, 0.6, 0.75, 0.7, seeds, apart) for seeds in (2, 3, 5) for apart in (0.05, 0.3))
"""several trainings, which differ little, and much"""


FOLDED = ((10, 40, 5), (20, 60, 5), (20, 60, 10), (10, 40, 10), (8, 40, 5), (15, 60, 10))
"""case women, control women, folds: two case women or more in every fold, or in the last three a lone one"""
FOLDS = tuple(Crowd(cases, controls, 4, 0.6, 0.75, 0.7, folds=folds) for cases, controls, folds in FOLDED)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sims", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--quick", action="store_true", help="one row, and few simulations")
    asked = parser.parse_args()
    sims = 50 if asked.quick else asked.sims
    cells = [Crowd(*size, *images, *level) for size, images, level in itertools.product(SIZES, IMAGES, LEVELS)]
    cells = cells[:1] if asked.quick else [*cells, *SEEDS, *FOLDS]
    print(f"| case + control women | images of each | AUC | method | {' | '.join(MEASURES)} | none (auc, recall) |")
    print("|" + "---|" * (5 + len(MEASURES)))
    for crowd in cells:
        for title in asked.methods:
            found = measure(crowd, sims, draws=asked.draws, seed=asked.seed, method=METHODS[title])
            shares = " | ".join(str(found.get(name, "")) for name in MEASURES)
            none = f"{found['auc'].none / sims:.2f}, {found['recall'].none / sims:.2f}"
            print(f"| {crowd} | {title} | {shares} | {none} |", flush=True)
    print("\nVerdicts on scores that have nothing to do with the classes:")
    for cases, controls, folds in (*((*size, 1) for size in ((1, 1), (1, 3), (2, 10), *SIZES)), *FOLDED):
        share = false_verdicts(cases, controls, sims, draws=asked.draws, seed=asked.seed, folds=folds)
        print(f"{cases} + {controls} women in {folds} test part(s): {100 * share:.1f} %", flush=True)


if __name__ == "__main__":
    main()
