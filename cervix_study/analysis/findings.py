"""The findings of a study, as values: computed by `analysis`, shown by `report`, saved in findings.json.

No patient and no image is named in here: findings may leave the institution, the study's folder may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cervix_study.analysis.comparing import Effect, HypothesisTest
from cervix_study.analysis.sequence import SequenceTest
from cervix_study.evidence.calibration import Calibration
from cervix_study.evidence.paper import PrintedTest
from cervix_study.evidence.spread import Spread
from cervix_study.records import Control, DataRow, Quarantine, Study
from site_agent.classifier.intervals import Estimate
from site_agent.classifier.permutation import ByChance


@dataclass(frozen=True, slots=True)
class ByWoman:
    """What a clinic would see of a start: a woman's score is the highest of her images', each training by itself."""

    auc: Estimate
    chance: ByChance | None
    points: tuple[WantedPoint, ...]


@dataclass(frozen=True, slots=True)
class WantedPoint:
    """What the thresholds give that validation women chose for a wanted share."""

    wanted: float
    of: Literal["recall", "specificity"]
    recall: Estimate
    specificity: Estimate


@dataclass(frozen=True, slots=True)
class Scores:
    """One row of the table at one site: the mean over its trainings."""

    label: str
    start: str
    chosen: bool
    """by validation"""
    trainings: int
    measures: Mapping[str, Estimate]
    """called case from .5"""
    at_validation: Mapping[str, Estimate]
    """called case from the threshold of each training's own validation images"""
    thresholds: tuple[float, float]
    """lowest and highest of those"""
    spread: Mapping[str, Spread]
    """measure -> over seeds; with one seed, over folds"""
    spread_over: str
    """seeds, folds, or nothing"""
    calibration: Calibration
    roc: tuple[tuple[float, float], ...]
    """(false positive rate, recall), mean over trainings at each false positive rate"""
    paper_row: str
    """the row of the paper's Table II that this one repeats; empty where there is none"""
    chance: ByChance | None = None
    """the AUCs of shuffled women; None where there are so many women that it is not asked"""
    by_woman: ByWoman | None = None
    """of a chosen row: one score for each woman; None where women of a part are all of one class"""


@dataclass(frozen=True, slots=True)
class FractionPoint:
    """One start, trained on part of the labels."""

    start: str
    label: str
    label_fraction: float
    train_women: float
    """labelled; mean over trainings"""
    auc: Estimate
    accuracy: Estimate


@dataclass(frozen=True, slots=True)
class Shuffled:
    """A classifier that learned from shuffled labels: it must know nothing of the true ones."""

    label: str
    auc: Estimate

    @property
    def as_expected(self) -> bool:
        """Whether it may be guessing. Below .5 is chance too: a shuffling may happen to turn against the truth.

        Without an interval nobody can tell: it may.
        """
        return self.auc.low is None or self.auc.low <= 0.5


HOW: dict[Control, tuple[str, str]] = {
    "equal-updates": ("held", "not held"),
    "one-site-batches": ("one site each", "mixed"),
}
"""in a word or two, how a controlled start was trained, and how the same start without the control"""


@dataclass(frozen=True, slots=True)
class Controlled:
    """A start that was trained in another way, as a control, beside itself as it was or beside another start."""

    label: str
    updates: float
    """of its encoder until it stopped, mean over trainings"""
    versus: str
    versus_updates: float
    itself: bool
    """beside the same start, without the control"""
    effects: Mapping[str, Effect]
    """measure -> controlled start minus the other"""


@dataclass(frozen=True, slots=True)
class Probe:
    """How well a linear probe tells the sites apart on a start's representation."""

    label: str
    balanced_accuracy: float
    """mean over seeds and folds"""
    lowest: float
    highest: float
    chance: float
    trainings: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """What validation chose for one start at one site (in one fold)."""

    start: str
    fold: int | None
    batch_images: int | None
    epochs_per_round: int | None
    width: int | None
    candidates: int
    validation_loss: float | None
    next_best_loss: float | None
    validation_auc: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """One training's losses: points are (epoch, loss)."""

    name: str
    train: tuple[tuple[float, float], ...]
    valid: tuple[tuple[float, float], ...]
    kept: float | None
    """epoch of the weights that were kept"""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One start on the women of a device that it has not learned from."""

    device: str
    label: str
    women: int
    case_women: int
    auc: Estimate


@dataclass(frozen=True, slots=True)
class SiteFindings:
    """One profile at one site."""

    profile: str
    site: str
    women: int
    """tested"""
    case_women: int
    images: int
    cases: int
    """images of the class case"""
    undecided: str
    """why the test women decide nothing; empty where they may"""
    scores: tuple[Scores, ...]
    unfinished: tuple[str, ...]
    choices: tuple[Chosen, ...]
    encoder_curves: tuple[Curve, ...]
    """contrastive loss as a share of that of a collapsed model, so that different N can be drawn together"""
    classifier_curves: tuple[Curve, ...]
    fractions: tuple[FractionPoint, ...]
    shuffled: tuple[Shuffled, ...]
    equal_updates: tuple[Controlled, ...]
    one_site_batches: tuple[Controlled, ...]
    left_out: tuple[LeftOut, ...] = ()
    """where devices were left out: by device, then start"""


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One start under two profiles, at one site: second minus first."""

    site: str
    label: str
    first_profile: str
    second_profile: str
    effects: Mapping[str, Effect]


@dataclass(frozen=True, slots=True)
class CostLine:
    """What one kind of cell took."""

    profile: str
    kind: str
    start: str
    cells: int
    seconds: float
    """elapsed, added up"""
    cpu_s: float
    wire_bytes: int | None
    peak_memory_bytes: int | None
    """the largest"""
    energy_j: float | None
    """None where any of the cells has none"""
    interruptions: int


@dataclass(frozen=True, slots=True)
class Alike:
    """Images of different women that look alike, counted: which they are stays in data.json."""

    sites: tuple[str, str]
    splits: tuple[str, str]
    pairs: int
    highest_likeness: float


@dataclass(frozen=True, slots=True)
class Leakage:
    """Pictures that one site has under several patients."""

    site: str
    pictures: int
    identical: int
    conflicting: int
    patients: int
    """involved"""


@dataclass(frozen=True, slots=True)
class CellLine:
    """One cell, for the record."""

    key: str
    kind: str
    profile: str
    start: str
    sites: tuple[str, ...]
    batch_images: int | None
    epochs_per_round: int | None
    width: int | None
    seed: int
    classifier_seed: int | None
    fold: int | None
    label_fraction: float
    control: str
    model: str
    opened: str
    """why its test part was opened; empty where it was not"""
    seconds: float


@dataclass(frozen=True, slots=True)
class StudyFindings:
    """Everything that a report says."""

    study: Study
    census: tuple[DataRow, ...]
    quarantine: tuple[Quarantine, ...]
    leakage: tuple[Leakage, ...]
    alike: tuple[Alike, ...]
    sites: tuple[SiteFindings, ...]
    """by profile, then site"""
    comparisons: tuple[HypothesisTest, ...]
    sequence: tuple[SequenceTest, ...]
    """the study's own hypotheses, in order"""
    side_by_side: tuple[SideBySide, ...]
    seen_before: int
    """classifiers whose test part an earlier version of the study opened and this one would not have"""
    probes: Mapping[str, tuple[Probe, ...]]
    """profile -> starts"""
    printed: tuple[PrintedTest, ...]
    """tests of the paper's own numbers; empty unless they were asked for"""
    costs: tuple[CostLine, ...]
    cells: tuple[CellLine, ...]
    missing: int
    """cells of the plan that are not finished"""
    degraded: int
    """federations that a site is missing from in some round"""
    machines: tuple[tuple[str, str, int], ...]
    """(host, machine, cells) where cells were made"""
    versions: Mapping[str, str]
    """of what judged"""
