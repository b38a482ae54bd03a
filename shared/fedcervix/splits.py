"""Which patients train, which choose, which score: the splits of a collection, by woman.

"... divided ... at the level of the woman": every image of a patient is in one split (paper, Table I).

Rules
1. Patients linked by a shared picture are one group and go to one split.
2. An earlier assignment is kept. So patients who are added later never move the others.
3. If a new link joins patients who were in different splits, the whole group goes to the most protected of them:
   test before valid before train. Nothing that was ever used to score is then trained on. `moved` reports it.
4. Everybody else is placed group by group, large groups first, then in the order of SHA-256(seed, patient), each into
   the split that lacks most of its stratum's share. Shares are therefore exact to within a patient.
5. Shares are Table I's women, both institutions pooled: of 970 labelled women 638 / 158 / 174 (.658 / .163 / .179).
   Patients without any label go to train and valid only, 4 to 1 (all images there: 5174 / 1311, .798 / .202).
6. A stratum of 3 or more patients has at least one in each split, where links and earlier assignments allow it.

Pure: values in, values out. The text of a site's `splits.csv` is read and written here, the file itself elsewhere.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Literal, cast

from fedcervix.errors import DataError
from fedcervix.manifest import SPLITS, Row, Split, at_most

Stratum = Literal["case", "control", "unlabelled"]

STRATA: tuple[Stratum, ...] = ("case", "control", "unlabelled")
_LABELLED = {"train": Fraction(638, 970), "valid": Fraction(158, 970), "test": Fraction(174, 970)}
SHARES: Mapping[Stratum, Mapping[Split, Fraction]] = {
    "case": cast("Mapping[Split, Fraction]", _LABELLED),
    "control": cast("Mapping[Split, Fraction]", _LABELLED),
    "unlabelled": {"train": Fraction(4, 5), "valid": Fraction(1, 5), "test": Fraction(0)},
}
MOST_PROTECTED_FIRST: tuple[Split, ...] = ("test", "valid", "train")
EVERY_SPLIT_FROM = 3
"""patients of a labelled stratum from which on each split gets one"""

Group = tuple[str, ...]
Needs = dict[Stratum, dict[Split, Fraction]]


def stratum(labels: Iterable[int | None]) -> Stratum:
    """Return the stratum of a patient with these image labels: one case makes a case."""
    known = {label for label in labels if label is not None}
    return "case" if 1 in known else "control" if known else "unlabelled"


def assign(
    patients: Mapping[str, Stratum],
    links: Iterable[tuple[str, str]],
    earlier: Mapping[str, Split],
    seed: int,
) -> dict[str, Split]:
    """Return the split of every patient, sorted by patient.

    `links` are pairs of patients who share a picture; `earlier` is what was assigned before (patients who are no
    longer in the collection count for nothing). The result depends on nothing else, and not on any order.
    """
    result: dict[str, Split] = {}
    needs = _needs(patients)
    new: list[Group] = []
    for group in groups(patients, links):
        settled = {earlier[patient] for patient in group if patient in earlier}
        if settled:
            _place(group, next(split for split in MOST_PROTECTED_FIRST if split in settled), patients, needs, result)
        else:
            new.append(group)
    for group in sorted(new, key=lambda members: (-len(members), _order(seed, members[0]))):
        _place(group, _neediest(group, patients, needs, result), patients, needs, result)
    return dict(sorted(result.items()))


def groups(patients: Iterable[str], links: Iterable[tuple[str, str]]) -> tuple[Group, ...]:
    """Return the patients as sorted groups, those joined by a chain of links together. Unknown patients are ignored."""
    parent = {patient: patient for patient in patients}

    def root(patient: str) -> str:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    for one, other in links:
        if one in parent and other in parent:
            parent[root(one)] = root(other)
    members: dict[str, list[str]] = {}
    for patient in sorted(parent):
        members.setdefault(root(patient), []).append(patient)
    return tuple(sorted(tuple(group) for group in members.values()))


def moved(earlier: Mapping[str, Split], now: Mapping[str, Split]) -> tuple[str, ...]:
    """Return the patients whose split is no longer the earlier one (rule 3), sorted."""
    return tuple(sorted(patient for patient, split in now.items() if earlier.get(patient, split) != split))


def given(rows: Sequence[Row], source: str) -> dict[str, Split] | None:
    """Return the splits that the manifest itself gives, or None if it gives none.

    Raises DataError if only some rows give one, or if a patient is in two splits.
    """
    found: dict[str, set[Split]] = {}
    for row in rows:
        if row.split is not None:
            found.setdefault(row.patient, set()).add(row.split)
    if not found:
        return None
    _check_all_given(rows, source)
    crossing = [
        f"{patient} ({', '.join(split for split in SPLITS if split in splits)})"
        for patient, splits in sorted(found.items())
        if len(splits) > 1
    ]
    if crossing:
        raise DataError(
            f"{source}: patients in more than one split: {', '.join(at_most(crossing))}",
            cause="the split was drawn by image; images of one woman on both sides make every score too good",
            next_step=f"give all images of a patient one split, or empty the column and fedcervix draws it: {source}",
        )
    return {patient: next(iter(splits)) for patient, splits in found.items()}


def _check_all_given(rows: Sequence[Row], source: str) -> None:
    without = [f"line {row.line}" for row in rows if row.split is None]
    if without:
        raise DataError(
            f"{source}: {len(rows) - len(without)} rows give a split and {len(without)} do not "
            f"({', '.join(at_most(without))})",
            cause="rows were added after the split was drawn",
            next_step=f"fill column split in every row, or empty it in every row and fedcervix draws it: {source}",
        )


def check_links(
    given_splits: Mapping[str, Split], links: Iterable[tuple[str, str]], source: str, way_out: str = ""
) -> None:
    """Raise DataError if two patients share a picture across the splits that the manifest gives.

    `way_out` is what else to do, where there is a choice.
    """
    crossing = sorted(
        {
            f"{one} ({given_splits[one]}) and {other} ({given_splits[other]})"
            for one, other in map(sorted, links)
            if given_splits[one] != given_splits[other]
        }
    )
    if crossing:
        raise DataError(
            f"{source}: the same picture is in two splits, under two patients: {'; '.join(at_most(crossing))}",
            cause="one woman has two identifiers, or a file was copied under a wrong one",
            next_step=f"give both patients one split (or one identifier) in {source}" + (way_out and f"; {way_out}"),
        )


def parse_splits(text: str, source: str) -> dict[str, Split]:
    """Read the text of a site's splits.csv (`patient,split`). Raises DataError if it was damaged."""
    table = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=None))
    result: dict[str, Split] = {}
    try:
        if next(table, None) != ["patient", "split"]:
            raise _damaged(source, 1)
        for cells in table:
            if len(cells) != 2 or cells[1] not in SPLITS or cells[0] in result:
                raise _damaged(source, table.line_num)
            result[cells[0]] = cells[1]
    except csv.Error as error:
        raise _damaged(source, table.line_num) from error
    return result


def format_splits(assigned: Mapping[str, Split]) -> str:
    """Return the text of a splits.csv that `parse_splits` reads back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["patient", "split"])
    writer.writerows(sorted(assigned.items()))
    return text.getvalue()


def _damaged(source: str, line: int) -> DataError:
    return DataError(
        f"{source}, line {line}: expected a patient, once, and one of train, valid, test",
        cause="the file was edited by hand or damaged",
        next_step=f"restore {source} from a backup; without it patients change splits, and test scores are spoilt",
    )


def _needs(patients: Mapping[str, Stratum]) -> Needs:
    """Return how many patients of each stratum each split should hold."""
    counts = Counter(patients.values())
    return {name: _targets(name, counts[name]) for name in STRATA}


def _targets(name: Stratum, count: int) -> dict[Split, Fraction]:
    target = {split: share * count for split, share in SHARES[name].items()}
    if name != "unlabelled" and count >= EVERY_SPLIT_FROM:
        target["valid"] = max(Fraction(1), target["valid"])
        target["test"] = max(Fraction(1), target["test"])
        target["train"] = count - target["valid"] - target["test"]
    return target


def _neediest(group: Group, patients: Mapping[str, Stratum], needs: Needs, placed: Mapping[str, Split]) -> Split:
    """Return the split that lacks most of this group's strata; its unlabelled members follow the labelled ones."""
    strata = [patients[patient] for patient in group]
    labelled = [name for name in strata if name != "unlabelled"]
    allowed = SPLITS if labelled else SPLITS[:2]
    sizes = Counter(placed.values()) if len(group) > 1 else Counter[Split]()

    def need(split: Split) -> tuple[Fraction, int]:
        lack = sum((needs[name][split] for name in labelled or strata), Fraction(0))
        return lack, -sizes[split]  # a tie goes to the emptier split, then to train

    return max(allowed, key=need)


def _place(group: Group, split: Split, patients: Mapping[str, Stratum], needs: Needs, result: dict[str, Split]) -> None:
    for patient in group:
        result[patient] = split
        needs[patients[patient]][split] -= 1


def _order(seed: int, patient: str) -> bytes:
    """Return the place of a patient in the seeded order."""
    return hashlib.sha256(f"{seed}\x1fsplits\x1f{patient}".encode()).digest()
