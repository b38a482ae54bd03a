"""The classifiers whose test part was opened, gathered into rows: one row per start and variant, site and profile.

Rules
1. Only what `selection.json` says was opened is read; the test images of anything else are unknown here as well.
2. A row is complete when it has every training that the study asks for (seeds, classifiers per seed, folds). An
   incomplete row is named and not judged: its mean would be of other trainings than that of the row beside it.
3. `chosen` follows validation. Where folds chose differently, the start has a row of its own, made of what each fold
   chose: that row is what the procedure "choose by validation" gives, and no other is.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cervix_study import records
from cervix_study.records import Axes, Cell, CellRecord, Choice, Control, Prediction, Selection, Study, StudyData
from fedcervix.errors import DataError
from site_agent.classifier.by_woman import Part, Scored, Trials
from site_agent.starts import title


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """Everything that a study's folder holds, read once."""

    folder: Path
    study: Study
    data: StudyData
    selection: Selection
    cells: Mapping[str, CellRecord]
    predictions: Mapping[str, tuple[Prediction, ...]]
    """of the opened classifiers"""

    @classmethod
    def read(cls, folder: Path) -> Finished:
        """Read a study's folder. Raises StorageError; DataError where a woman was seen before she was tested."""
        study, selection, cells = records.read_study(folder), records.read_selection(folder), records.read_cells(folder)
        opened = [found.key for found in selection.opened if found.key in cells]
        predictions = {key: records.read_predictions(folder, key) for key in opened}
        for key, rows in predictions.items():
            _check_apart(key, rows)
        return cls(folder, study, records.read_data(folder), selection, cells, predictions)


def _check_apart(key: str, rows: Sequence[Prediction]) -> None:
    """Raise DataError where a woman is in validation and test images of one classifier."""
    women = {split: {row.patient for row in rows if row.split == split} for split in ("valid", "test")}
    both = women["valid"] & women["test"]
    if both:
        raise DataError(
            f"{len(both)} women are in the validation and in the test part of cell {key}",
            cause="predictions.csv was changed by hand",
            next_step=f"delete cells/{key} and run the study again: that one cell is computed again",
        )


@dataclass(frozen=True, slots=True)
class Variant:
    """What tells rows of one start apart."""

    start: str
    batch_images: int | None
    epochs_per_round: int | None
    width: int | None

    @property
    def setting(self) -> tuple[int | None, int | None, int | None]:
        """N, E and width."""
        return self.batch_images, self.epochs_per_round, self.width


@dataclass(frozen=True, slots=True, eq=False)
class ResultRow:
    """The trainings of one start, as one row of the table."""

    label: str
    """Random, SSL N=8, PPFSSL_NHS ..."""
    start: str
    variant: Variant | None
    """None where folds chose different ones"""
    chosen: bool
    """by validation"""
    trials: Trials
    """on test images, called case from .5"""
    cells: Mapping[Part, CellRecord]

    def at_validation_thresholds(self) -> Trials:
        """Return the trials called case from each training's own threshold, which its validation images chose."""
        return {
            part: dataclasses.replace(scored, threshold=_results(self.cells[part]).threshold)
            for part, scored in self.trials.items()
        }


def _results(record: CellRecord) -> records.ClassifierResults:
    assert record.classifier is not None  # a record has the results of its kind
    return record.classifier


@dataclass(frozen=True, slots=True, eq=False)
class Follower:
    """The trainings that follow a chosen start: on part of the labels, or as a control."""

    start: str
    label_fraction: float
    control: Control
    row: ResultRow
    rival: ResultRow | None
    """of equal-updates: SSL in the same settings, at whose number of updates the start was stopped"""


@dataclass(frozen=True, slots=True, eq=False)
class SiteRows:
    """The rows of one profile at one site."""

    profile: str
    site: str
    rows: tuple[ResultRow, ...]
    """complete, all labels, no control, in the order of the tables"""
    followers: tuple[Follower, ...] = ()
    unfinished: tuple[str, ...] = ()
    """starts without a complete row that validation chose"""

    def chosen(self, start: str) -> ResultRow | None:
        """Return the row that validation chose for a start."""
        return next((row for row in self.rows if row.start == start and row.chosen), None)


def benches(finished: Finished) -> tuple[SiteRows, ...]:
    """Return the rows of every profile and site, in the study's order."""
    axes = finished.study.axes
    sites = [site.name for site in finished.study.sites]
    return tuple(_bench(finished, profile, site) for profile, site in itertools.product(axes.profiles, sites))


def _bench(finished: Finished, profile: str, site: str) -> SiteRows:
    own = [
        finished.cells[key]
        for key in finished.predictions
        if (finished.cells[key].cell.profile, finished.cells[key].cell.site) == (profile, site)
    ]
    plain = [record for record in own if _is_plain(record.cell)]
    choices = [c for c in finished.selection.choices if (c.profile, c.site) == (profile, site)]
    rows = _rows(finished, plain, choices)
    starts = finished.study.axes.starts
    return SiteRows(
        profile=profile,
        site=site,
        rows=tuple(rows),
        followers=tuple(_followers(finished, [record for record in own if not _is_plain(record.cell)], plain)),
        unfinished=tuple(title(start) for start in starts if not any(r.chosen for r in rows if r.start == start)),
    )


def _is_plain(cell: Cell) -> bool:
    """Whether it learned from all labels, as they are."""
    return cell.label_fraction == 1 and cell.control == "none"


def _rows(finished: Finished, plain: Sequence[CellRecord], choices: Sequence[Choice]) -> list[ResultRow]:
    groups: dict[Variant, dict[Part, CellRecord]] = {}
    for record in plain:
        groups.setdefault(variant_of(record.cell), {})[_part(finished, record)] = record
    wanted = expected_parts(finished)
    known = {Variant(c.start, o.batch_images, o.epochs_per_round, o.width) for c in choices for o in c.candidates}
    names = labels(known | set(groups))
    rows = [
        ResultRow(names[variant], variant.start, variant, _is_chosen(variant, choices), _trials(finished, cells), cells)
        for variant, cells in groups.items()
        if set(cells) == wanted
    ]
    rows += [row for start in finished.study.axes.starts if (row := _mixed(finished, start, choices, wanted))]
    order = {start: place for place, start in enumerate(finished.study.axes.starts)}
    return sorted(rows, key=lambda row: (order.get(row.start, len(order)), row.variant is None, _rank(row.variant)))


def _rank(variant: Variant | None) -> tuple[int, ...]:
    return tuple(value or 0 for value in variant.setting) if variant else ()


def variant_of(cell: Cell) -> Variant:
    """Return what tells a cell's row from others of its start."""
    return Variant(cell.start, cell.batch_images, cell.epochs_per_round, cell.width)


def labels(variants: Iterable[Variant]) -> dict[Variant, str]:
    """Return a name for each variant: what differs among the variants of its start, and nothing else, is named."""
    known = list(variants)
    return {variant: _label(variant, [other for other in known if other.start == variant.start]) for variant in known}


def _label(variant: Variant, family: Sequence[Variant]) -> str:
    parts = [title(variant.start)]
    for key, sign in (("batch_images", "N="), ("epochs_per_round", "E="), ("width", "width ")):
        if len({getattr(other, key) for other in family}) > 1:
            parts.append(f"{sign}{getattr(variant, key)}")
    return " ".join(parts)


def _followers(
    finished: Finished, own: Sequence[CellRecord], plain: Sequence[CellRecord]
) -> Iterable[Follower]:  # fmt: skip
    """Yield fractions and controls. Each training follows what was chosen for it, whatever that was in its fold."""
    groups: dict[tuple[str, float, Control], dict[Part, CellRecord]] = {}
    for record in own:
        cell = record.cell
        groups.setdefault((cell.start, cell.label_fraction, cell.control), {})[_part(finished, record)] = record
    order = {start: place for place, start in enumerate(finished.study.axes.starts)}
    for (start, fraction, control), cells in sorted(groups.items(), key=lambda g: (order.get(g[0][0], 0), g[0][1:])):
        rival = _rival(finished, cells, plain) if control == "equal-updates" else None
        yield Follower(start, fraction, control, _row(finished, start, cells), rival)


def _row(finished: Finished, start: str, cells: Mapping[Part, CellRecord]) -> ResultRow:
    return ResultRow(title(start), start, None, False, _trials(finished, cells), cells)


def _rival(finished: Finished, cells: Mapping[Part, CellRecord], plain: Sequence[CellRecord]) -> ResultRow | None:
    """Return SSL in the settings of each of these trainings; None where one is missing."""
    found = {
        part: other
        for part, record in cells.items()
        for other in plain
        if _part(finished, other) == part
        and variant_of(other.cell) == dataclasses.replace(variant_of(record.cell), start="ssl")
    }
    return _row(finished, "ssl", found) if set(found) == set(cells) else None


def expected_parts(finished: Finished) -> set[Part]:
    """Return every training that a complete row has."""
    axes = finished.study.axes
    folds = range(axes.parts)
    return {
        _roles(axes, seed, classifier, fold)
        for seed, classifier, fold in itertools.product(axes.seeds, axes.classifier_seeds, folds)
    }


def _part(finished: Finished, record: CellRecord) -> Part:
    cell = record.cell
    return _roles(finished.study.axes, cell.seed, cell.classifier_seed or 0, cell.fold or 0)


def _roles(axes: Axes, seed: int, classifier: int, fold: int) -> Part:
    """With one encoder seed the classifiers on it are all there is to draw from. A repeat is a repetition."""
    repeat = fold // (axes.parts // axes.fold_repeats)
    if len(axes.seeds) > 1:
        return Part(seed, classifier * axes.fold_repeats + repeat, fold)
    return Part(classifier, repeat, fold)


def _trials(finished: Finished, cells: Mapping[Part, CellRecord]) -> Trials:
    return {part: scored(finished.predictions[record.key]) for part, record in cells.items()}


def scored(predictions: Iterable[Prediction]) -> Scored:
    """Return the test images of one classifier, by name of the image: the same order for every classifier."""
    rows = sorted((row for row in predictions if row.split == "test"), key=lambda row: row.image)
    return Scored.of([row.label for row in rows], [row.probability for row in rows], [row.patient for row in rows])


def _keys(choice: Choice) -> tuple[str, ...]:
    return choice.candidates[choice.chosen].keys


def _is_chosen(variant: Variant, choices: Iterable[Choice]) -> bool:
    """Whether every fold chose this variant for its start."""
    own = {_chosen_setting(choice) for choice in choices if choice.start == variant.start}
    return own == {variant.setting}


def _mixed(finished: Finished, start: str, choices: Iterable[Choice], wanted: set[Part]) -> ResultRow | None:
    """Return the row of a start whose folds chose different variants; None where they agree or are not done."""
    own = [choice for choice in choices if choice.start == start]
    if len({_chosen_setting(choice) for choice in own}) < 2:
        return None
    chosen = {key for choice in own for key in _keys(choice) if key in finished.predictions}
    cells = {_part(finished, finished.cells[key]): finished.cells[key] for key in chosen}
    if set(cells) != wanted:
        return None
    return ResultRow(f"{title(start)} (as chosen)", start, None, True, _trials(finished, cells), cells)


def _chosen_setting(choice: Choice) -> tuple[int | None, int | None, int | None]:
    candidate = choice.candidates[choice.chosen]
    return candidate.batch_images, candidate.epochs_per_round, candidate.width
