"""Which patients are used for training, for choices and for the test: the splits of a collection, by woman.

"... divided ... at the level of the woman": every image of a patient is in one split (paper, Table I).

Rules
1. Patients linked by a shared picture are one group and go to one split.
2. An earlier assignment is kept. So patients who are added later never move the others. A patient is known by her
   identifier, by another way of writing it (`identifiers`), and by her pictures: a woman who was renamed, or whose
   picture was put under another identifier, stays where she was. Where most of those who were assigned earlier are
   not found again, and most of those who are there are new, nothing is drawn: it is the wrong collection or file.
3. If a new link joins patients who were in different splits, the whole group goes to the most protected of them:
   test before valid before train. Nothing that was ever used to score is then trained on. `moved` reports it.
4. Everybody else is placed group by group, large groups first, then in the order of SHA-256(seed, patient), each into
   the split that lacks most of its stratum's share. Shares are therefore exact to within a patient.
5. Shares are Table I's women, both institutions pooled: of 970 labelled women 638 / 158 / 174 (.658 / .163 / .179).
   Patients without any label go to train and valid only, 4 to 1 (all images there: 5174 / 1311, .798 / .202).
6. A stratum of 3 or more patients has at least one in each split, where links and earlier assignments allow it.

Pure: values in, values out. The text of a site's `splits.csv` is read and written here, the file itself elsewhere.
It has a row per patient: identifier, split, and the digests of her pictures (the first 16 of 64 hexadecimal digits).
Files of earlier versions have no pictures; they are read as well.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeVar, cast

from fedcervix.core.grouped import grouped
from fedcervix.errors import DataError
from site_agent.manifest.identifiers import written_alike
from site_agent.manifest.reading import SPLITS, ManifestRow, Split, at_most

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

HEADER = ["patient", "split", "pictures"]
HEADERS_READ = (HEADER, HEADER[:2])
DIGEST_CHARS = 16
_DIGEST = re.compile(f"[0-9a-f]{{1,{DIGEST_CHARS}}}")
PICTURES_KEPT_MAX = 7000
"""of one patient; more would not fit into a cell that the csv module reads"""

Group = tuple[str, ...]
P = TypeVar("P", str, tuple[str, str])
"""a patient: her name, or (site, name)"""
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
            _place(group, _protected(settled), patients, needs, result)
        else:
            new.append(group)
    for group in sorted(new, key=lambda members: (-len(members), _order(seed, members[0]))):
        _place(group, _neediest(group, patients, needs, result), patients, needs, result)
    return dict(sorted(result.items()))


def groups(patients: Iterable[P], links: Iterable[tuple[P, P]]) -> tuple[tuple[P, ...], ...]:
    """Return the patients as sorted groups, those joined by a chain of links together. Unknown patients are ignored."""
    parent = {patient: patient for patient in patients}

    def root(patient: P) -> P:
        while parent[patient] != patient:
            parent[patient] = parent[parent[patient]]
            patient = parent[patient]
        return patient

    for one, other in links:
        if one in parent and other in parent:
            parent[root(one)] = root(other)
    members = grouped((root(patient), patient) for patient in sorted(parent))
    return tuple(sorted(tuple(group) for group in members.values()))


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one patient."""

    split: Split
    pictures: frozenset[str] = frozenset()
    """the first DIGEST_CHARS characters of their digests"""


@dataclass(frozen=True, slots=True)
class Recognised:
    """Which patients of a collection were assigned earlier."""

    splits: Mapping[str, Split]
    """the earlier split of those who were"""
    renamed: tuple[tuple[str, str], ...]
    """(identifier now, identifier then) of those who were known under one that is gone, or under another woman's"""
    absent: int
    """patients of splits.csv whose identifiers are not in the manifest"""
    earlier: int
    """patients of splits.csv"""


NOBODY = Recognised({}, (), 0, 0)


def short(digest: str) -> str:
    """Return the part of a picture's digest that splits.csv keeps."""
    return digest[:DIGEST_CHARS]


def recognise(now: Mapping[str, Set[str]], earlier: Mapping[str, Kept], named: Iterable[str] = ()) -> Recognised:
    """Say who of the patients `now` (patient -> pictures, as `short` gives them) was assigned earlier, and where to.

    `named` are further patients of the manifest, of whom no picture could be read. Raises DataError (rule 2).
    """
    owners = _owners(earlier)
    spellings = {one: alike for alike in written_alike({*now, *earlier}) for one in alike}
    named_so = {one: [name for name in spellings.get(one, (one,)) if name in earlier] for one in now}
    holders = _holders(now, owners)
    known = {one: _known_as(one, now[one], named_so[one], owners, holders) for one in now}
    splits = {one: _protected(earlier[name].split for name in names) for one, names in known.items() if names}
    absent = set(earlier) - set(now) - set(named)
    renamed = tuple(
        (one, name)
        for one, names in sorted(known.items())
        for name in names
        if name in absent or (name != one and one not in names)
    )
    lost = absent - {name for names in known.values() for name in names}
    strangers = len(now) - len(splits)
    if len(lost) * 2 > len(earlier) and strangers > len(splits):
        raise _other_patients(len(absent), len(earlier))
    return Recognised(splits, renamed, len(absent), len(earlier))


def _owners(earlier: Mapping[str, Kept]) -> dict[str, list[str]]:
    """Return the patients of each picture."""
    return grouped((picture, name) for name, kept in sorted(earlier.items()) for picture in kept.pictures)


def _holders(now: Mapping[str, Set[str]], owners: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Return which patients of today have pictures that were kept under each identifier."""
    held = ((one, picture) for one, pictures in now.items() for picture in pictures)
    holders = grouped((name, one) for one, picture in held for name in owners.get(picture, ()))
    return {name: set(ones) for name, ones in holders.items()}


def _known_as(
    one: str,
    pictures: Set[str],
    by_name: Collection[str],
    owners: Mapping[str, Sequence[str]],
    holders: Mapping[str, Set[str]],
) -> tuple[str, ...]:
    """Return the earlier identifiers of a patient; `by_name` are those that are written like hers.

    An identifier was given to her only now, and counts for nothing, where her own pictures say that she was another
    one and another patient has the pictures that were kept under it.
    """
    by_pictures = {name for picture in pictures for name in owners.get(picture, ())}
    reused = {name for name in by_name if by_pictures and holders.get(name, set()) - {one}} - by_pictures
    return tuple(sorted(by_pictures | set(by_name) - reused))


def _protected(splits: Iterable[Split]) -> Split:
    found = set(splits)
    return next(split for split in MOST_PROTECTED_FIRST if split in found)


def _other_patients(absent: int, earlier: int) -> DataError:
    return DataError(
        f"{absent} of {earlier} patients of splits.csv are not in the manifest, and most patients of the manifest are "
        "not in splits.csv",
        cause="all identifiers were changed (a new pseudonymisation), or this is the manifest of another collection",
        next_step="if these are the same women, restore their old identifiers; if not, move splits.csv away and train "
        "all models again",
    )


def kept(splits: Mapping[str, Split], pictures: Mapping[str, Set[str]], earlier: Mapping[str, Kept]) -> dict[str, Kept]:
    """Return what splits.csv should hold: what was drawn now, and who is not in the collection at the moment."""
    return {**earlier, **{one: _now_kept(split, pictures[one], earlier.get(one)) for one, split in splits.items()}}


def _now_kept(split: Split, pictures: Set[str], before: Kept | None) -> Kept:
    same = before is not None and (not pictures or not before.pictures.isdisjoint(pictures))
    known = before.pictures if before is not None and same else frozenset[str]()
    return Kept(split, known | pictures)


def moved(earlier: Mapping[str, Split], now: Mapping[str, Split]) -> tuple[str, ...]:
    """Return the patients whose split is no longer the earlier one (rule 3), sorted."""
    return tuple(sorted(patient for patient, split in now.items() if earlier.get(patient, split) != split))


def given(rows: Sequence[ManifestRow], source: str) -> dict[str, Split] | None:
    """Return the splits that the manifest itself gives, or None if it gives none.

    Raises DataError if only some rows give one, or if a patient is in two splits.
    """
    found = grouped((row.patient, row.split) for row in rows if row.split is not None)
    if not found:
        return None
    _check_all_given(rows, source)
    crossing = [
        f"{patient} ({', '.join(split for split in SPLITS if split in splits)})"
        for patient, splits in sorted(found.items())
        if len(set(splits)) > 1
    ]
    if crossing:
        raise DataError(
            f"{source}: patients in more than one split: {', '.join(at_most(crossing))}",
            cause="the split was drawn by image; images of one woman in training and test make every score too good",
            next_step=f"give all images of a patient one split, or empty the column, then fedcervix draws it: {source}",
        )
    return {patient: splits[0] for patient, splits in found.items()}


def _check_all_given(rows: Sequence[ManifestRow], source: str) -> None:
    without = [f"line {row.line}" for row in rows if row.split is None]
    if without:
        raise DataError(
            f"{source}: {len(rows) - len(without)} rows give a split and {len(without)} do not "
            f"({', '.join(at_most(without))})",
            cause="rows were added after the split was drawn",
            next_step=f"fill column split in every row, or empty it in every row, then fedcervix draws it: {source}",
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


def check_spellings(given_splits: Mapping[str, Split], alike: Iterable[Sequence[str]], source: str) -> None:
    """Raise DataError if the manifest gives two splits to one identifier that is written in several ways."""
    crossing = [
        " and ".join(f"{one} ({given_splits[one]})" for one in names)
        for names in alike
        if len({given_splits[one] for one in names}) > 1
    ]
    if crossing:
        raise DataError(
            f"{source}: one identifier, written in two ways, is in two splits: {'; '.join(at_most(crossing))}",
            cause="a spreadsheet dropped zeros, or somebody typed the identifiers: these are probably one woman",
            next_step=f"write every woman's identifier in one way in {source}; two women need identifiers that differ "
            "in more than zeros, case and separators",
        )


def parse_splits(text: str, source: str) -> dict[str, Kept]:
    """Read the text of a site's splits.csv. Raises DataError if it was damaged."""
    table = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=None))
    result: dict[str, Kept] = {}
    try:
        header = next(table, None)
        if header not in HEADERS_READ:
            raise _damaged(source, 1)
        for cells in filter(None, table):
            if not _is_entry(cells, header) or cells[0] in result:
                raise _damaged(source, table.line_num)
            result[cells[0]] = Kept(cast("Split", cells[1]), frozenset(" ".join(cells[2:]).split()))
    except csv.Error as error:
        raise _damaged(source, table.line_num) from error
    return result


def _is_entry(cells: Sequence[str], header: Sequence[str]) -> bool:
    """Return whether these cells are a patient's. A digest that a spreadsheet took for a number is none any more."""
    whole = len(cells) == len(header) and bool(cells[0]) and cells[1] in SPLITS
    return whole and all(_DIGEST.fullmatch(digest) for digest in " ".join(cells[2:]).split())


def format_splits(patients: Mapping[str, Kept]) -> str:
    """Return the text of a splits.csv that `parse_splits` reads back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(
        (patient, kept.split, " ".join(sorted(kept.pictures)[:PICTURES_KEPT_MAX]))
        for patient, kept in sorted(patients.items())
    )
    return text.getvalue()


def _damaged(source: str, line: int) -> DataError:
    return DataError(
        f"{source}, line {line}: expected a patient who is in no other line, and train, valid or test",
        cause="the file was edited by hand or damaged",
        next_step=f"restore {source} from a backup; without one, move it away and make every model and classifier of "
        "this site again, because patients change splits",
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
