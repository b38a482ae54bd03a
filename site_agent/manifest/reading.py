"""The manifest: one line per image, written by the hospital and read strictly.

    image,patient,label,split            header; `label` and `split` may be missing, see `columns` for others
    images/0001.jpg,P17,1,train          label: 0 = control, 1 = case, empty = unlabelled
    images/0002.jpg,P17,,train           split: train, valid, test; empty everywhere = drawn by fedcervix

Further columns that may be there: `details`.

Rules
1. `image` is a path below the folder that holds the manifest, never absolute and never through `..`.
2. An image has one row. A row belongs to one patient.
3. `spreadsheet` describes the accepted file formats. A Windows path's backslashes are read as `/`.
4. Nothing is guessed: a label `yes` or `1.0` is an error that names the line. Several are reported at once.
5. A word for a missing identifier (`#N/A`, `unknown`) is refused like an empty cell: all its women would be one.

Pure: text in, values or a DataError out. Whether the images exist is checked when they are opened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath
from typing import Literal, cast

from fedcervix.errors import DataError
from site_agent.manifest import identifiers
from site_agent.manifest.classes import BINARY, Classes
from site_agent.manifest.columns import REQUIRED, Columns, read_columns
from site_agent.manifest.details import NO_DETAILS, ImageDetails, complaints, details
from site_agent.manifest.spreadsheet import ManifestTable, Record, read_table, shown

Split = Literal["train", "valid", "test"]

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
OFFENCES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One image, as the manifest declares it."""

    image: str
    """path below the manifest's folder, with `/`"""
    patient: str
    label: int | None
    """0 = control, 1 = case, None = unlabelled"""
    split: Split | None
    line: int
    """of the manifest, the header being line 1"""
    details: ImageDetails = NO_DETAILS


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says."""

    rows: tuple[ManifestRow, ...]
    """in file order"""
    ignored: tuple[str, ...]
    """the columns that are not read, as the file names them"""


def parse(
    text: str,
    source: str,
    ignore: Collection[str] = (),
    covariates: Sequence[str] = (),
    classes: Classes = BINARY,
) -> Manifest:
    """Return what a manifest says. `source` is the name that error messages give it.

    `ignore` are columns that are meant to be ignored, although they look like known ones (`columns`); `covariates` are
    columns that are read although they have no meaning here (`details`); `classes` are what a label may be.
    Raises DataError, naming file, line and column, on anything that the module's rules do not allow.
    """
    table = read_table(text, source, REQUIRED)
    columns = read_columns(table, source, ignore, covariates)
    read = [_row(record, columns, classes) for record in table.records]
    rows = [row for row, _ in read if row is not None]
    offences = [*(one for _, wrong in read for one in wrong), *_cut_short(table), *repeated(rows)]
    if offences:
        raise refused(offences, source)
    if not rows:
        raise DataError(
            f"{source} lists no image",
            cause="there is a header but no row below it",
            next_step=f"add one row per image: {', '.join(filter(None, columns.names))}",
        )
    return Manifest(tuple(rows), columns.ignored)


def at_most(items: Sequence[str], shown: int = OFFENCES_SHOWN) -> list[str]:
    """Return the first `shown` items and, where there are more, a last one saying how many."""
    more = len(items) - shown
    return [*items[:shown], *([f"and {more} more"] if more > 0 else [])]


def _row(record: Record, columns: Columns, classes: Classes) -> tuple[ManifestRow | None, list[str]]:
    """Return the row, or None and what is wrong with it."""
    line, cells, names = record.line, record.cells, columns.names
    if any(cells[len(names) :]):
        return None, [f"line {line}: {len(cells)} cells, but the header names {len(names)} columns"]
    cell = {name: text for name, text in zip(names, cells, strict=False) if name}
    checks: dict[str, Callable[[str], str | None]] = {**_CHECKS, "label": partial(_label_complaint, classes=classes)}
    checked = ((column, check(cell.get(column, ""))) for column, check in checks.items())
    wrong = [*((column, found) for column, found in checked if found), *complaints(cell, columns.covariates)]
    if wrong:
        return None, [f"line {line}, column {column}: {complaint}" for column, complaint in wrong]
    split = cast("Split | None", cell.get("split") or None)
    image = str(PurePosixPath(cell["image"].replace("\\", "/")))
    rank, about = classes.rank(cell.get("label", "")), details(cell, columns.covariates)
    about = replace(about, grade=rank) if classes.ordered and rank is not None else about
    return ManifestRow(image, cell["patient"], classes.label(rank), split, line, about), []


def _cut_short(table: ManifestTable) -> list[str]:
    """Report where the file ends within a line: the content of the missing cells is unknown."""
    last = next((record for record in table.records if record.line == table.cut_line), None)
    if last is None or len(last.cells) >= len(table.header):
        return []
    return [f"line {last.line}: the file ends in this line ({len(last.cells)} of {len(table.header)} cells)"]


def _image_complaint(text: str) -> str | None:
    path = text.replace("\\", "/")
    windows = PureWindowsPath(text)
    if not text:
        return "empty; expected the path of an image"
    if not text.isprintable():
        return f"{shown(text)} holds characters that cannot be printed"
    if path.startswith("/") or windows.drive or windows.root:
        return f"{shown(text)} is an absolute path; expected one relative to the manifest's folder"
    if ".." in PurePosixPath(path).parts:
        return f"{shown(text)} leaves the manifest's folder"
    if not PurePosixPath(path).parts:
        return f"{shown(text)} is the manifest's folder; expected an image in it"
    return None


def _patient_complaint(text: str) -> str | None:
    if not text:
        return "empty; expected an identifier that all images of this woman share"
    if not text.isprintable():
        return f"{shown(text)} holds characters that cannot be printed"
    complaint = identifiers.complaint(text)
    return None if complaint is None else f"{shown(text)} {complaint}"


def _label_complaint(text: str, classes: Classes) -> str | None:
    return None if text in ("", *classes.names) else f"found {shown(text)}; expected {classes.expected}"


def _split_complaint(text: str) -> str | None:
    allowed = text == "" or text in SPLITS
    return None if allowed else f"found {shown(text)}; expected train, valid, test, or empty"


_CHECKS: Mapping[str, Callable[[str], str | None]] = {
    "image": _image_complaint,
    "patient": _patient_complaint,
    "split": _split_complaint,
}


def repeated(rows: Iterable[ManifestRow]) -> list[str]:
    """Return one complaint per row whose image stood in an earlier row."""
    first: dict[str, int] = {}
    return [
        f"line {row.line}: image {shown(row.image)} is already in line {first[row.image]}"
        for row in rows
        if first.setdefault(row.image, row.line) != row.line
    ]


def refused(offences: Sequence[str], source: str) -> DataError:
    """Return the error that names what is wrong with lines of a manifest."""
    listed = "\n".join(f"    {offence}" for offence in at_most(offences))
    nameless = any(", column patient:" in offence for offence in offences)
    return DataError(
        f"{source} cannot be used as it is:\n{listed}",
        cause="it was written by hand or exported with other conventions",
        next_step=f"correct these lines of {source} and check it again"
        + ("; remove the rows of women who are not known" if nameless else ""),
    )
