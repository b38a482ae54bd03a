"""The content of a site's report, as values: filled by the agent, drawn by `page`, written as numbers by `results`.

A report is about one site and stays there: it holds images, file names and patient identifiers of that hospital.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.plan import Recipe
from fedcervix.errors import DataError
from site_agent.classifier.evaluate import Comparison, Evaluation
from site_agent.classifier.intervals import Verdict
from site_agent.data.duplicates import CrossPatientPicture
from site_agent.manifest.reading import Split
from site_agent.report.clinical import Clinical
from site_agent.report.predictions import Predictions
from site_agent.store.audit_sheets import AuditSheet
from site_agent.store.provenance import Provenance

TRAINED_DIFFERENTLY = "the compared models were trained differently"

RgbImage = NDArray[np.uint8]
"""(S, S, 3), RGB"""


@dataclass(frozen=True, slots=True)
class TableOneRow:
    """How much of one split and class there is, as in the paper's Table I."""

    split: Split
    label: str
    """case, control or unlabelled"""
    patients: int
    labelled: int
    """images with a label"""
    images: int
    """all images of these patients"""


@dataclass(frozen=True, slots=True)
class SetAside:
    """What was not used, and why."""

    quarantined: tuple[tuple[str, str], ...] = ()
    """(image, reason)"""
    duplicates: int = 0
    """images that are a copy of another one of the same patient"""
    shared_pictures: tuple[CrossPatientPicture, ...] = ()
    remarks: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(what should be known of the manifest or the pictures, the patients, columns or images concerned)"""


@dataclass(frozen=True, slots=True)
class Losses:
    """One curve of training, and of validation where there was one. Entry i is epoch i + 1."""

    name: str
    train: tuple[float, ...]
    valid: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """How well the nearest images told cases from controls, by epoch of learning without labels."""

    name: str
    aucs: tuple[float | None, ...]
    """entry i is epoch i + 1; None where it was not measured"""
    kept_epoch: int | None = None
    """whose weights were kept, counted from 1"""

    def __post_init__(self) -> None:
        if self.kept_epoch is not None and not 1 <= self.kept_epoch <= len(self.aucs):
            raise ValueError(f"epoch {self.kept_epoch} was kept, of {len(self.aucs)}")


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one site gave to one round."""

    site: str
    images: int = 0
    """trained on"""
    steps: int = 0
    norm: float | None = None
    """length of its step; None where the record does not say"""
    cosine: float | None = None
    """of its step to the mean of the others"""
    distance: float | None = None
    """of its step from the mean of the others"""
    why_not: str = ""
    """empty where it contributed"""


@dataclass(frozen=True, slots=True)
class RoundRow:
    """One round of the federation (in a ring: one cycle)."""

    number: int
    mean_loss: float | None
    """mean validation loss of the sites; None before it was scored"""
    contributions: tuple[Contribution, ...]
    alarms: tuple[tuple[str, str], ...] = ()
    """(site, what is unusual about its update), as the coordinator found"""


@dataclass(frozen=True, slots=True, eq=False)
class Augmented:
    """One image as it is, and as the trainer saw it."""

    original: RgbImage
    versions: tuple[RgbImage, ...]

    def __post_init__(self) -> None:
        for picture in (self.original, *self.versions):
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise ValueError(f"a picture is uint8 (S, S, 3); found {picture.dtype} {picture.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class LookedAt:
    """One picture of a test woman, and where the classifier looked."""

    patients: tuple[str, ...]
    result: str
    """found, missed, false alarm or cleared"""
    score: float
    picture: RgbImage
    heat: RgbImage
    """the picture, dark where nothing raised the score"""


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """How one model arranges images of training and validation women: similar images are close together."""

    model: str
    points: tuple[tuple[float, float], ...]
    labels: tuple[int | None, ...]
    """of each point: 1 case, 0 control, None unlabelled"""
    images: int
    """from which the points were drawn"""

    def __post_init__(self) -> None:
        if not len(self.points) == len(self.labels) <= self.images:
            raise ValueError(f"{len(self.points)} points, {len(self.labels)} labels, of {self.images} images")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteReport:
    """Everything that one site's report says."""

    site: str
    federation: str
    run: str
    """empty where the site took part in none"""
    mode: str
    """of the run: csfssl or ppfssl; empty without one"""
    plan_digest: str
    recipe: Recipe
    when: str
    """the time of writing, as people read it"""
    versions: Mapping[str, str]
    """of the software, by name"""
    final_state: str
    """of the run: OK, DEGRADED, or what ended it"""
    federated: str = ""
    """the evaluation that starts from the federation's model; empty where there is none"""
    alone: str = "SSL"
    """the evaluation that starts from contrastive learning on this site's images alone"""
    census: tuple[TableOneRow, ...] = ()
    set_aside: SetAside = field(default_factory=SetAside)
    evaluations: tuple[Evaluation, ...] = ()
    """in the order in which they are shown: Random, ImageNet, SSL, CSSL, CSFSSL, PPFSSL"""
    by_woman: tuple[Evaluation, ...] = ()
    """the same classifiers on women: a woman's score is the highest of her images' (see `predictions`)"""
    comparisons: tuple[Comparison, ...] = ()
    """of `federated` with the others, on images"""
    predictions: Predictions | None = None
    floor: tuple[Evaluation, ...] = ()
    """a logistic regression of colour and texture (`site_agent.classifier.floor`) on images, and on women"""
    clinical: Clinical | None = None
    """the second page, of women"""
    looks: tuple[LookedAt, ...] = ()
    """where the classifier in question looked, if that was asked for"""
    differences: tuple[str, ...] = ()
    """how the compared classifiers were trained differently, one sentence each; then no comparison has a conclusion"""
    reservations: tuple[str, ...] = ()
    """what of this site is not compared here, one sentence each"""
    provenance: tuple[Provenance, ...] = ()
    """what the numbers of each evaluation are based on"""
    unread: tuple[str, ...] = ()
    """what of the site's records could not be read, and so is missing from this report, one sentence each"""
    contrastive_history: tuple[Losses, ...] = ()
    collapse_line: float | None = None
    """the contrastive loss of representations that tell nothing apart, log(2N - 1)"""
    neighbour_history: tuple[Neighbours, ...] = ()
    classifier_history: tuple[Losses, ...] = ()
    rounds: tuple[RoundRow, ...] = ()
    audits: tuple[AuditSheet, ...] = ()
    """of this site's updates in the run, by round: what they tell about who was trained on"""
    alarms: tuple[str, ...] = ()
    """what the collapse gauges found, one sentence each"""
    contact_sheet: tuple[Augmented, ...] = ()
    maps: tuple[EmbeddingMap, ...] = ()
    """of the same images: before training, and after"""
    no_map: str = ""
    """why there is none, in a sentence"""

    def __post_init__(self) -> None:
        names = [evaluation.name for evaluation in self.evaluations]
        if len(set(names)) != len(names):
            raise DataError(f"a report shows each initialisation once; found {', '.join(names)}")
        if not {evaluation.name for evaluation in self.by_woman} <= set(names):
            raise DataError("a start was evaluated by woman and not by image")
        if self.federated and self.federated not in names:
            raise DataError(f"the report has no evaluation of {self.federated}; it has {', '.join(names) or 'none'}")
        for comparison in self.comparisons:
            if not {comparison.name, comparison.versus} <= set(names):
                raise DataError(f"{comparison.name} is compared with {comparison.versus}, but one was not evaluated")

    def evaluation(self, name: str) -> Evaluation | None:
        """Return the evaluation of that name."""
        return next((found for found in self.evaluations if found.name == name), None)

    @property
    def judged(self) -> Evaluation | None:
        """The classifier whose women and probabilities are shown: the federated one, else the last."""
        return self.evaluation(self.federated) or next(reversed(self.evaluations), None)

    def conclusion(self, found: Comparison) -> tuple[Verdict, str]:
        """Return what a comparison shows and, where it shows nothing, why.

        Where the compared models were trained differently (`differences`), no comparison shows anything, either way.
        """
        if found.verdict == "not shown" or not self.differences:
            return found.verdict, found.why
        return "not shown", TRAINED_DIFFERENTLY

    def comparison(self, versus: str) -> Comparison | None:
        """Return the comparison of the federated model with `versus`."""
        found = (c for c in self.comparisons if (c.name, c.versus) == (self.federated, versus))
        return next(found, None)
