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
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from fedcervix.disk.descriptors import check_used_up
from fedcervix.errors import DataError
from site_agent.manifest.reading import at_most
from site_agent.manifest.spreadsheet import decode_text, plain, read_table, shown

Pair = frozenset[str]
"""two images"""
COLUMNS = ("image_a", "image_b", "verdict", "patients")
DECLARED, VERDICTS = "different", ("", "same", "different")


def read_pairs(file: Path) -> frozenset[Pair]:
    """Return the pairs that a file declares to be of two women. Raises DataError."""
    try:
        text = decode_text(file.read_bytes(), file.name)
    except OSError as error:
        check_used_up(f"the file of pairs {file} cannot be read", error)
        raise DataError(
            f"the file of pairs {file} cannot be read: {error.strerror}",
            cause="not_same in site.toml (or --not-same) names another file",
            next_step="give the path of the file that lists pairs of images, or remove the key",
        ) from error
    table = read_table(text, file.name, COLUMNS[:2])
    header = [plain(name) for name in table.header]
    lines = {record.line: _cells(header, record.cells) for record in table.records}
    wrong = _wrong(header, lines)
    if wrong:
        raise DataError(
            f"{file.name} cannot be used as it is: {'; '.join(at_most(wrong))}",
            cause="it lists pairs of images: columns image_a, image_b and, if wanted, verdict",
            next_step=f"correct {file.name}",
        )
    declared = (cells for cells in lines.values() if plain(cells.get("verdict", DECLARED)) == DECLARED)
    return frozenset(_pair(cells) for cells in declared)


def _cells(header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Return the cells of a line by their columns; those that are missing at its end are empty."""
    return dict(itertools.zip_longest(header, cells[: len(header)], fillvalue=""))


def format_pairs(candidates: Iterable[tuple[Sequence[str], Sequence[str], bool]]) -> str:
    """Return the text of a file with these pairs: their images, their patients, whether they are declared."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for images, patients, declared in sorted(candidates):
        writer.writerow((*images, DECLARED if declared else "", " = ".join(patients)))
    return text.getvalue()


def _wrong(header: Sequence[str], lines: Mapping[int, Mapping[str, str]]) -> list[str]:
    missing = [name for name in COLUMNS[:2] if name not in header]
    if missing:
        return [f"there is no column {name}" for name in missing]
    return [f"line {line}: {why}" for line, cells in lines.items() if (why := _complaint(cells))]


def _complaint(cells: Mapping[str, str]) -> str:
    if not all(cells[name] for name in COLUMNS[:2]):
        return "an image is missing"
    if plain(cells.get("verdict", "")) not in VERDICTS:
        return f"verdict {shown(cells['verdict'])} is not `different`, `same` or empty"
    return "" if len(_pair(cells)) == 2 else "an image with itself"


def _pair(cells: Mapping[str, str]) -> Pair:
    return frozenset(str(PurePosixPath(cells[name].replace("\\", "/"))) for name in COLUMNS[:2])
