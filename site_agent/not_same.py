"""Pairs of pictures that a site declares to be of two women, although they look like one photograph saved twice.

    image_a,image_b,verdict              images as the manifest names them
    images/1.jpg,images/9.jpg,different  declared: of two women
    images/2.jpg,images/8.jpg,           not judged yet, or `same`: counts as one woman

Where there is no column `verdict`, every row is declared. Other columns are there for people. `site-agent data check
--write-pairs` writes the pairs that look alike, to be judged.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fedcervix.errors import DataError
from fedcervix.manifest import at_most
from fedcervix.spreadsheet import decode_text

Pair = frozenset[str]
"""two images"""
COLUMNS = ("image_a", "image_b", "verdict", "patients")
DECLARED, VERDICTS = "different", ("", "same", "different")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Two pictures that look alike."""

    images: tuple[str, ...]
    patients: tuple[str, ...]
    declared: bool
    """to be of two women"""


def read_pairs(file: Path) -> frozenset[Pair]:
    """Return the pairs that a file declares to be of two women. Raises DataError."""
    try:
        text = decode_text(file.read_bytes(), file.name)
    except OSError as error:
        raise DataError(
            f"the file of pairs {file} cannot be read: {error.strerror}",
            cause="not_same in site.toml (or --not-same) names another file",
            next_step="give the path of the file that lists pairs of images, or remove the key",
        ) from error
    header = next((line for line in text.splitlines() if line.strip()), "")
    table = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=header.count), restval="")
    table.fieldnames = [name.strip().casefold() for name in table.fieldnames or ()]
    rows = list(table)
    wrong = _wrong(table.fieldnames, rows)
    if wrong:
        raise DataError(
            f"{file.name} cannot be used as it stands: {'; '.join(at_most(wrong))}",
            cause="it lists pairs of images: columns image_a, image_b and, if wanted, verdict",
            next_step=f"mend {file.name}",
        )
    return frozenset(_pair(row) for row in rows if row.get("verdict", DECLARED).strip().casefold() == DECLARED)


def format_pairs(candidates: Iterable[Candidate]) -> str:
    """Return the text of a file with these pairs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in sorted(candidates, key=lambda one: one.images):
        writer.writerow((*one.images, DECLARED if one.declared else "", " = ".join(one.patients)))
    return text.getvalue()


def _wrong(header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[str]:
    missing = [name for name in COLUMNS[:2] if name not in header]
    if missing:
        return [f"there is no column {name}" for name in missing]
    return [f"row {number}: {why}" for number, row in enumerate(rows, 1) if (why := _complaint(row))]


def _complaint(row: Mapping[str, str]) -> str:
    if not all(row[name].strip() for name in COLUMNS[:2]):
        return "an image is missing"
    if row.get("verdict", "").strip().casefold() not in VERDICTS:
        return f"verdict {row['verdict']!r:.60} is not `different`, `same` or empty"
    return "" if len(_pair(row)) == 2 else "an image with itself"


def _pair(row: Mapping[str, str]) -> Pair:
    return frozenset(str(PurePosixPath(row[name].strip().replace("\\", "/"))) for name in COLUMNS[:2])
