"""The files of a study: written by `cervix-study run`, read by `cervix-study report`.

    STUDY/study.json                 `Study`: what was asked for, on what, with what; the keys of its cells
    STUDY/data.json                  `StudyData`: the images (Table I), leakage, near-duplicates for a person to judge
    STUDY/selection.json             `Selection`: what validation chose, and which test parts were opened, and why
    STUDY/cells/KEY/cell.json        `CellRecord`: one finished cell
    STUDY/cells/KEY/predictions.csv  classifiers: image by image; `valid` rows always, `test` rows once it was opened
    STUDY/cells/KEY/model.safetensors  encoders (cervix models) and classifiers: the weights

Rules
1. Only the cells that study.json lists belong to the study. A folder may hold others: of an earlier version of the
   same STUDY.toml, or of one that is not finished.
2. Every file is canonical JSON (sorted keys, no NaN) or CSV, and is there whole or not at all.
3. A cell is never changed once it is there. Opening its test part adds rows to predictions.csv and nothing else, but
   that it drops a classifier's weights where STUDY.toml says so (`keep_weights = false`).
4. The folder names women and images. Keep it where the images are.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from fedcervix.core.formats import FIRST, KEY, UnknownFormat, contents
from fedcervix.core.plan import Recipe, Terms, canonical_json, check
from fedcervix.core.plan_formats import shortest, to_dict, unsaid
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import later, read_file
from fedcervix.errors import StorageError
from fedcervix.json_text import parsed
from fedcervix.runtime import typed_json
from site_agent.manifest.reading import Split
from site_agent.manifest.splits import Stratum
from site_agent.starts import RINGS, TITLES, is_federated

T = TypeVar("T")

Kind = Literal["encoder", "classifier", "site-probe"]
Control = Literal["none", "shuffled-labels", "equal-updates", "one-site-batches"]
State = Literal["running", "stopped", "finished"]

STUDY_FILE = "study.json"
DATA_FILE = "data.json"
SELECTION_FILE = "selection.json"
CELLS_FOLDER = "cells"
CELL_FILE = "cell.json"
PREDICTIONS_FILE = "predictions.csv"
MODEL_FILE = "model.safetensors"

CONTROLS = ("shuffled-labels", "equal-updates", "one-site-batches", "site-predictability")
FOLDS_MIN = 3
"""one part to test, one to validate, one at least to train"""
KEY_DIGITS = 24
"""of the SHA-256 that names a cell"""


class StudyRecord:
    """Base of what these files and STUDY.toml hold: an unknown key and a value of another type are errors."""

    __slots__ = ()


# --- a cell -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell(StudyRecord):
    """What a cell is: exactly everything that its result depends on."""

    kind: Kind
    profile: str
    start: str
    """random, imagenet, ssl, cssl, csfssl, ppfssl-from-SITE; floor"""
    sites: tuple[str, ...]
    """an encoder's: whose images trained it, in the order of the roster or ring. A classifier's: the one whose labels
    it learned. A site probe's: those that it tells apart"""
    batch_images: int | None
    """N of the encoder; None where there was no contrastive training (random, imagenet)"""
    width: int | None
    """of the encoder's dense layer; None as above"""
    epochs_per_round: int | None
    """E of the federation; None outside of one"""
    seed: int
    """of the encoder, and of the classifier as far as `classifier_seed` does not say otherwise"""
    classifier_seed: int | None = None
    """which of several classifiers on one encoder, from 0; None for what is no classifier"""
    fold: int | None = None
    """of cross-validation, from 0; None: the one division of the women"""
    label_fraction: float = 1.0
    """of the labelled training women; smaller fractions are subsets of larger ones"""
    control: Control = "none"
    recipe: Recipe
    """whole, as it was asked for (`precision` may be `auto`)"""
    terms: Terms | None = None
    """of the federation"""
    inputs: tuple[str, ...] = ()
    """keys of the cells whose results this one begins from"""
    data: dict[str, str]
    """site -> SHA-256 of the images, women, labels and splits that it depends on; `ImageNet` -> of the weights that it
    begins from"""
    software: str
    """versions that its bits depend on (`fedcervix.core.numerics`); with which ones it was made, its provenance says"""

    def __post_init__(self) -> None:
        check(bool(self.sites), "a cell needs at least one site")
        check(0 < self.label_fraction <= 1, f"label_fraction is above 0, 1 at most; found {self.label_fraction}")
        is_classifier = self.kind == "classifier"
        check(
            (self.classifier_seed is not None) == is_classifier, "classifier_seed is for classifiers, and they need it"
        )
        check(len(self.sites) == 1 or not is_classifier, "a classifier learns the labels of one site")
        check(self.start in TITLES or is_federated(self.start), f"start {self.start!r} is not known")

    @property
    def key(self) -> str:
        """The cell's name: SHA-256 of its canonical form, shortened."""
        terms = self.terms and to_dict(self.terms, "terms", after=FIRST)
        said = {**dataclasses.asdict(self), "recipe": to_dict(self.recipe, "recipe"), "terms": terms}
        return hashlib.sha256(canonical_json(said).encode()).hexdigest()[:KEY_DIGITS]

    @property
    def site(self) -> str:
        """The site of a classifier."""
        return self.sites[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint(StudyRecord):
    """One epoch of local training, or one round of a federation. Losses are means over images, in nats."""

    number: int
    """from 1"""
    train_loss: float | None
    """mean over the sites, weighted as they were averaged"""
    valid_loss: float | None
    seconds: float
    by_site: dict[str, dict[str, float]] = field(default_factory=dict)
    """federations: site -> what it reported of the round (train_loss, valid_loss, images, steps, seconds)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderResults(StudyRecord):
    """A cervix model that was trained (or drawn, or loaded) and how."""

    validation_loss: float | None
    """contrastive, of the weights that were kept; compares at the same N only. None: nothing was trained"""
    best: int | None
    """epoch (federations: round) of the weights that were kept, from 1"""
    updates: int
    """optimiser steps of one model until training stopped; in a federation, of one site and round after the other:
    csfssl the steps of the site with most, ppfssl those of all hops"""
    updates_best: int
    """the same, until the weights that were kept"""
    images: dict[str, int]
    """site -> training images"""
    precision: dict[str, str]
    """site (or `pooled`) -> what the network computed in"""
    outcome: str
    """OK, or DEGRADED where a site is missing from a round"""
    curve: tuple[CurvePoint, ...]
    model: str
    """SHA-256 of model.safetensors"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierResults(StudyRecord):
    """A classifier, judged on validation images."""

    validation_loss: float
    """unweighted cross-entropy of the epoch that was kept: what chooses N, E and width"""
    validation_auc: float
    """shown, chooses nothing"""
    best: int
    """epoch that was kept, from 1"""
    stopped: Literal["patience", "epochs"]
    threshold: float
    """chosen on validation images: highest balanced accuracy"""
    updates: int
    train_women: int
    train_images: int
    train_cases: int
    """images"""
    precision: str
    loaded: str
    """how much of the start was taken over: `120 of 120 backbone tensors`"""
    curve: tuple[CurvePoint, ...]
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResults(StudyRecord):
    """Can a linear probe tell from the representation which site an image comes from? Test images take no part."""

    balanced_accuracy: float
    """mean over sites of the share of validation women's images that were told right, fitted on training women's"""
    chance: float
    """1 / number of sites"""
    recall: dict[str, float]
    """site -> share told right"""
    images: dict[str, int]
    """site -> validation images"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs(StudyRecord):
    """What a cell took, with all processes that were started for it."""

    seconds: float
    """on the wall, interruptions not counted"""
    cpu_s: float
    """of all processes"""
    wire_bytes: int | None = None
    """both directions, all sites, TLS included; None outside a federation"""
    wire_bytes_by_site: dict[str, int] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    """resident, of the largest process"""
    energy_j: float | None = None
    """of the whole processor package while the cell ran, with whatever else ran; None where it cannot be read"""
    interruptions: int = 0
    """times that it was stopped and went on; what was lost when a process was killed is not counted"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellProvenance(StudyRecord):
    """Where and with what a cell was made."""

    begun_at: str
    """UTC, ISO 8601"""
    ended_at: str
    host: str
    machine: str
    """processor or GPU"""
    threads: int
    """of each process"""
    versions: dict[str, str]
    details: dict[str, object] = field(default_factory=dict)
    """federations: run, plan_digest, outcome's reason, processes. Classifiers: start_sha256, of the weights that they
    started from, where these are another cell's"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRecord(StudyRecord):
    """The file cell.json. Of the three results that of its kind is there."""

    key: str
    cell: Cell
    encoder: EncoderResults | None = None
    classifier: ClassifierResults | None = None
    site_probe: ProbeResults | None = None
    costs: Costs
    provenance: CellProvenance

    def __post_init__(self) -> None:
        found = {"encoder": self.encoder, "classifier": self.classifier, "site-probe": self.site_probe}
        there = [kind for kind, results in found.items() if results is not None]
        check(there == [self.cell.kind], f"a cell of kind {self.cell.kind} has its own results; found {there}")


@dataclass(frozen=True, slots=True)
class Prediction(StudyRecord):
    """One row of predictions.csv."""

    split: Split
    """valid or test"""
    image: str
    """path below the site's folder"""
    patient: str
    """the woman: the first of the patients who are linked with this one; intervals resample her"""
    label: int
    """the true one, also under the shuffled-label control; 1 case, 0 control"""
    probability: float
    """of case"""


# --- the study ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySite:
    """One institution of the study."""

    name: str
    manifest: str
    """path of the manifest"""
    phantom: str = ""
    """which phantom institution was drawn for it; empty: a collection that was given"""
    digests: dict[str, str]
    """fold ("-" without cross-validation) -> SHA-256 of pictures, women, labels and splits"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileUsed(StudyRecord):
    """A profile with what the study overrides."""

    recipe: Recipe
    terms: Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes(StudyRecord):
    """What a study varies: table [axes] of STUDY.toml, and in study.json the same with all defaults written out."""

    profiles: tuple[str, ...] = ("paper",)
    starts: tuple[str, ...] = ("random", "ssl", "csfssl")
    """in the order of the tables"""
    batch_images: tuple[int, ...] = ()
    federated_batch_images: tuple[int, ...] = ()
    width: tuple[int, ...] = ()
    epochs_per_round: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0,)
    classifier_seeds: tuple[int, ...] = (0,)
    folds: int = 0
    """0: no cross-validation"""
    label_fractions: tuple[float, ...] = ()
    """beside 1, which is always there"""
    controls: tuple[str, ...] = ()
    fold_repeats: int = 1
    """times that the women are dealt to the folds anew"""
    leave_out_devices: tuple[str, ...] = ()
    """instead of folds: one part for each of these devices, whose women are tested while the others train"""

    def __post_init__(self) -> None:
        for name in ("profiles", "starts", "seeds", "classifier_seeds"):
            check(bool(getattr(self, name)), f"{name} is empty")
        for name in self.__slots__:
            values = getattr(self, name)
            check(not isinstance(values, tuple) or len(set(values)) == len(values), f"{name} contains a value twice")
        for name in ("batch_images", "federated_batch_images", "width", "epochs_per_round"):
            check(
                all(value >= 1 for value in getattr(self, name)), f"{name} are 1 or more; found {getattr(self, name)}"
            )
        for name in ("seeds", "classifier_seeds"):
            check(all(0 <= value < 2**63 for value in getattr(self, name)), f"{name} are 0 to 2^63 - 1")
        check(self.folds == 0 or self.folds >= FOLDS_MIN, f"folds is 0, or {FOLDS_MIN} or more; found {self.folds}")
        check(self.fold_repeats >= 1, f"fold_repeats is 1 or more; found {self.fold_repeats}")
        check(self.fold_repeats == 1 or self.folds > 0, "fold_repeats repeats a cross-validation: set folds")
        alone = not (self.folds and self.leave_out_devices)
        check(alone, "folds divides the women by chance, leave_out_devices by device: set one of them")
        ok = all(0 < fraction < 1 for fraction in self.label_fractions)
        check(ok, f"label_fractions are above 0 and below 1 (1 is always included); found {self.label_fractions}")
        for control in self.controls:
            check(control in CONTROLS, f"controls are {', '.join(CONTROLS)}; found {control!r}")
        both = "equal-updates" not in self.controls or {"ssl", "cssl"} <= set(self.starts)
        check(both, "control equal-updates compares cssl with ssl: starts must name both")
        pooled = "one-site-batches" not in self.controls or "cssl" in self.starts
        check(pooled, "control one-site-batches trains cssl in another way: starts must name it")

    @property
    def parts(self) -> int:
        """Times that a start is trained with one seed: on so many divisions of the women."""
        return len(self.leave_out_devices) or max(1, self.folds) * self.fold_repeats

    @property
    def divided(self) -> bool:
        """Whether the study divides the women several times, each division with a part to be tested."""
        return bool(self.folds or self.leave_out_devices)

    @property
    def federated(self) -> bool:
        """Whether a start needs a federation."""
        return any(is_federated(start) or start in RINGS for start in self.starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis(StudyRecord):
    """One of the tables [[hypotheses]]: at a site the first start has a higher AUC than the second."""

    name: str
    """in words: `E1: ImageNet beats Random at colpo`"""
    site: str
    first: str
    """a start"""
    second: str
    profile: str = ""
    """empty: the study's first"""
    label_fraction: float = 1.0
    """of the labelled training women; one of those that the study trains with"""

    def __post_init__(self) -> None:
        check(bool(self.name), "a hypothesis has a name")
        check(self.first != self.second, f"hypothesis {self.name!r} compares {self.first} with itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered(StudyRecord):
    """The hypotheses of a study, in order, and since when they stand."""

    hypotheses: tuple[Hypothesis, ...]
    second_look: str
    """where these women were tested before; empty: nowhere that the study's authors know of"""
    design: str
    """SHA-256 of all that decides a result: STUDY.toml without [machine] and [slurm]"""
    file: str
    """SHA-256 of STUDY.toml"""
    commit: str
    """of the git repository that holds STUDY.toml, where that is committed as it stands; else empty"""
    at: str
    """UTC, ISO 8601"""
    after_opening: bool
    """a test part was open by then: what is shown was chosen, or may have been, after it was seen"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study(StudyRecord):
    """The file study.json."""

    name: str
    state: State
    sites: tuple[StudySite, ...]
    profiles: dict[str, ProfileUsed]
    axes: Axes
    cells: tuple[str, ...]
    """keys of the cells that belong to the study, in the order of the plan. Some may not be finished yet"""
    failed: dict[str, str] = field(default_factory=dict)
    """key -> why it could not be trained"""
    command: tuple[str, ...]
    configuration: str
    """the text of STUDY.toml"""
    versions: dict[str, str]
    host: str
    machine: str
    cores: int
    begun_at: str
    """UTC, ISO 8601: of the first start"""
    ended_at: str = ""
    registered: Registered | None = None
    """None where STUDY.toml names no hypotheses"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(StudyRecord):
    """One combination that validation may choose."""

    batch_images: int | None
    epochs_per_round: int | None
    width: int | None
    validation_loss: float | None
    """mean over seeds of the classifier's; None where it could not be trained with every seed"""
    validation_auc: float | None
    """the same; chooses nothing"""
    keys: tuple[str, ...]
    """of its classifiers, one per seed"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(StudyRecord):
    """What was chosen for one initialisation at one site (in one fold): of `candidates`, number `chosen`."""

    profile: str
    site: str
    start: str
    fold: int | None
    candidates: tuple[Candidate, ...]
    chosen: int
    """index into candidates"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(StudyRecord):
    """A classifier whose test part was opened."""

    key: str
    why: Literal["chosen", "named in advance", "control", "label fraction", "counterpart of a control"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection(StudyRecord):
    """The file selection.json."""

    choices: tuple[Choice, ...]
    opened: tuple[Opened, ...]
    opened_before: tuple[str, ...] = ()
    """keys of classifiers whose test part an earlier version of STUDY.toml opened and this one would not have: whoever
    changes a study after its test parts were opened has seen these"""


# --- the data -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRow(StudyRecord):
    """One row of a table like the paper's Table I."""

    site: str
    fold: int | None
    split: Split
    stratum: Stratum
    women: int
    labelled_images: int
    images: int
    """all of these women"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPicture(StudyRecord):
    """One picture under several patients of a site. They count as one woman, and share a split."""

    site: str
    patients: tuple[str, ...]
    images: tuple[str, ...]
    identical: bool
    """else nearly the same: saved twice"""
    conflicting: bool
    """labelled case in one place and control in another: these images count as unlabelled"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicate(StudyRecord):
    """Two images of different women that look alike, too little to count as one picture: a person must judge."""

    sites: tuple[str, str]
    patients: tuple[str, str]
    images: tuple[str, str]
    splits: tuple[Split, Split]
    """in the first fold"""
    likeness: float
    """correlation of their thumbnails, 0 to 1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine(StudyRecord):
    """What of a site's manifest is not used."""

    site: str
    rows: int
    """of the manifest"""
    copies: int
    """images that repeat the pixels of another"""
    unreadable: int
    disputed: int
    """images whose label was dropped"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyData(StudyRecord):
    """The file data.json. No woman crosses a split: a study where one does is refused before it begins."""

    rows: tuple[DataRow, ...]
    quarantine: tuple[Quarantine, ...]
    shared: tuple[SharedPicture, ...]
    near_duplicates: tuple[NearDuplicate, ...]
    """the most alike first"""


FORMATS: dict[type, int] = {Study: 2}
"""the latest format of a file, where it is not the first"""


# --- files --------------------------------------------------------------------------------------------------------


def to_json(record: Any) -> bytes:
    """Return a record as canonical JSON, indented for people, in the lowest format. Raises ValueError on NaN."""
    plain = _with_plans(dataclasses.asdict(record), _shortest)
    if isinstance(record, Study):
        plain = _lowest(plain)
    return (json.dumps(plain, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def from_json(schema: type[T], text: bytes, source: Path) -> T:
    """Undo `to_json`, also of earlier versions. Raises StorageError; FormatError where a later version wrote it."""
    try:
        said = contents("the file", parsed(text), FORMATS.get(schema, FIRST))
        return typed_json.from_json(schema, _with_plans(said, _whole))
    except UnknownFormat as error:
        raise later(source, error) from error
    except ValueError as error:
        raise StorageError(
            f"{source} is not valid: {error}",
            cause="it was edited by hand, or written by another version",
            next_step=f"move it away and run the study again: finished cells are kept ({source.parent})",
        ) from error


Said = dict[str, object]
LATER: dict[str, object] = {"registered": None, "axes.fold_repeats": 1, "axes.leave_out_devices": []}
"""what format 2 of study.json can say, and what a file means that does not: format 1 is written where that holds"""


def _lowest(whole: Any) -> Said:
    """Return a study without what format 2 can say, where nothing of it is used."""
    axes = whole["axes"]
    said = {"registered": whole["registered"], **{f"axes.{name}": axes[name] for name in axes}}
    used = [name for name, unused in LATER.items() if said[name] != unused]
    kept = {name: below for name, below in axes.items() if f"axes.{name}" not in LATER or f"axes.{name}" in used}
    study = {**whole, "axes": kept, **({KEY: FORMATS[Study]} if used else {})}
    return {name: below for name, below in study.items() if name not in LATER or name in used}


def _whole(said: Said, path: str) -> Said:
    """Return what a part of a plan says, with what holds for keys that are later than the file."""
    return {**unsaid(path, FIRST), **said}


def _shortest(whole: Said, path: str) -> Said:
    """Return what a part of a plan says without later keys that are not used: earlier versions read it."""
    return shortest(whole, path, FIRST)


def _with_plans(value: Any, change: Callable[[Said, str], Said], path: str = "") -> Any:
    """Return a value whose recipes and terms, and the tables in them, are changed."""
    if isinstance(value, list | tuple):
        return [_with_plans(one, change) for one in value]
    if not isinstance(value, dict):
        return value
    said = change(value, path) if path else value
    below = {key: f"{path}.{key}" if path else key if key in ("recipe", "terms") else "" for key in said}
    return {key: _with_plans(one, change, below[key]) for key, one in said.items()}


def write(file: Path, record: Any) -> None:
    """Write a record, whole or not at all. Raises StorageError."""
    write_whole(file, to_json(record))


def _read(schema: type[T], file: Path) -> T:
    return from_json(schema, read_file(file), file)


def read_study(folder: Path) -> Study:
    """Return study.json of a study's folder. Raises StorageError."""
    return _read(Study, folder / STUDY_FILE)


def read_data(folder: Path) -> StudyData:
    """Return data.json. Raises StorageError."""
    return _read(StudyData, folder / DATA_FILE)


def read_selection(folder: Path) -> Selection:
    """Return selection.json; one without choices where nothing was chosen yet. Raises StorageError."""
    file = folder / SELECTION_FILE
    return _read(Selection, file) if file.exists() else Selection(choices=(), opened=())


def cell_folder(folder: Path, key: str) -> Path:
    """Return the folder of a cell."""
    return folder / CELLS_FOLDER / key


def read_cell(folder: Path, key: str) -> CellRecord | None:
    """Return a finished cell; None where it is not finished. Raises StorageError."""
    file = cell_folder(folder, key) / CELL_FILE
    return _read(CellRecord, file) if file.exists() else None


def read_cells(folder: Path) -> dict[str, CellRecord]:
    """Return the finished cells that belong to the study, by key, in the order of the plan. Raises StorageError."""
    found = ((key, read_cell(folder, key)) for key in read_study(folder).cells)
    return {key: record for key, record in found if record is not None}


COLUMNS = tuple(column.name for column in dataclasses.fields(Prediction))


def predictions_text(rows: Iterable[Prediction]) -> bytes:
    """Return the text of a predictions.csv; probabilities in full, so that reading them back gives the same floats."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        check(math.isfinite(row.probability), f"a probability is a number; found {row.probability}")
        writer.writerow([row.split, row.image, row.patient, row.label, repr(row.probability)])
    return text.getvalue().encode()


def read_predictions(folder: Path, key: str) -> tuple[Prediction, ...]:
    """Return a classifier's predictions: validation images, and test images once they were opened.

    Raises StorageError.
    """
    file = cell_folder(folder, key) / PREDICTIONS_FILE
    lines = csv.DictReader(io.TextIOWrapper(io.BytesIO(read_file(file)), "utf-8", newline=""))
    try:
        check(tuple(lines.fieldnames or ()) == COLUMNS, f"its columns are not {', '.join(COLUMNS)}")
        return tuple(_prediction(line) for line in lines)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise StorageError(
            f"{file}, line {lines.line_num}: not a prediction ({error!r})",
            cause="it was edited by hand, or damaged",
            next_step=f"delete {file.parent} and run the study again: that one cell is computed again",
        ) from error


def _prediction(line: dict[str, str]) -> Prediction:
    split = line["split"]
    if split not in ("valid", "test"):
        raise ValueError(split)
    label, probability = int(line["label"]), float(line["probability"])
    return Prediction("valid" if split == "valid" else "test", line["image"], line["patient"], label, probability)
