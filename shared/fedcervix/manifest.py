"""The manifest: one line per image, written by the hospital, read with suspicion.

    image,patient,label,split            header; `label` and `split` may be missing, other columns are ignored
    images/0001.jpg,P17,1,train          label: 0 = control, 1 = case, empty = unlabelled
    images/0002.jpg,P17,,train           split: train, valid, test; empty everywhere = drawn by fedcervix

Rules
1. `image` is a path below the folder that holds the manifest, never absolute and never through `..`.
2. An image stands in one row. A row belongs to one patient.
3. Comma, semicolon or tab; UTF-8 with or without a byte-order mark; a Windows path's backslashes are read as `/`.
4. Nothing is guessed: a label `yes` or `1.0` is an error that names the line. Several are reported at once.

Pure: text in, values or a DataError out. Whether the images exist is the business of whoever opens them.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Literal, cast

from fedcervix.errors import DataError

Split = Literal["train", "valid", "test"]

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
REQUIRED = ("image", "patient")
KNOWN = ("image", "patient", "label", "split")
LABELS: dict[str, int | None] = {"": None, "0": 0, "1": 1}
OFFENCES_SHOWN = 5
CELL_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One image, as the manifest declares it."""

    image: str
    """path below the manifest's folder, with `/`"""
    patient: str
    label: int | None
    """0 = control, 1 = case, None = unlabelled"""
    split: Split | None
    line: int
    """of the manifest, the header being line 1"""


def decode_text(raw: bytes, source: str) -> str:
    """Return the text of a file. Raises DataError unless it is UTF-8 (a byte-order mark is dropped)."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not UTF-8 text (byte {error.start} is {raw[error.start]:#04x})",
            cause="it was saved by a spreadsheet in another encoding, or it is not a CSV file",
            next_step="save it again as 'CSV UTF-8'",
        ) from error


def parse(text: str, source: str) -> tuple[Row, ...]:
    """Return the rows of a manifest in file order. `source` is the name that error messages give it.

    Raises DataError, naming file, line and column, on anything that the module's rules do not allow.
    """
    table = _records(text, source)
    header = [cell.casefold() for cell in next(table, (0, []))[1]]
    _check_header(header, source)
    offences: list[str] = []
    rows: list[Row] = []
    for line, cells in table:
        row, wrong = _row(line, cells, header)
        offences += wrong
        rows += [] if row is None else [row]
    offences += _repeated(rows)
    if offences:
        raise _refused(offences, source)
    if not rows:
        raise DataError(
            f"{source} lists no image",
            cause="there is a header but no row below it",
            next_step=f"add one row per image: {', '.join(header)}",
        )
    return tuple(rows)


def at_most(items: Sequence[str], shown: int = OFFENCES_SHOWN) -> list[str]:
    """Return the first `shown` items and, where there are more, a last one saying how many."""
    more = len(items) - shown
    return [*items[:shown], *([f"and {more} more"] if more > 0 else [])]


def _records(text: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, stripped cells) of every record that is not blank."""
    stream = io.StringIO(text.removeprefix("\ufeff"), newline=None)
    header = next((line for line in stream if line.strip()), "")
    stream.seek(0)
    reader = csv.reader(stream, delimiter=max(",;\t", key=header.count), strict=True)
    end = 0
    try:
        for record in reader:
            begin, end = end + 1, reader.line_num  # a quoted cell may span lines
            cells = [cell.strip() for cell in record]
            if any(cells):
                yield begin, cells
    except csv.Error as error:
        raise DataError(
            f"{source}, line {reader.line_num}: not a CSV file ({error})",
            cause="a quotation mark that is opened and never closed",
            next_step=f"mend line {end + 1} of {source}",
        ) from error


def _check_header(header: Sequence[str], source: str) -> None:
    """Raise DataError unless every required column is there and no known column stands twice."""
    twice = [name for name in KNOWN if header.count(name) > 1]
    if twice:
        raise DataError(
            f"{source} has two columns named {twice[0]!r}", next_step=f"keep one column {twice[0]!r} in {source}"
        )
    missing = [name for name in REQUIRED if name not in header]
    if not missing:
        return
    found = ", ".join(map(_shown, header)) if any(header) else "none: the file is empty"
    raise DataError(
        f"{source} has no column {' and no column '.join(map(repr, missing))}; columns found: {found}",
        cause=_nearest(missing[0], header),
        next_step=f"the first line of {source} must name image, patient and, where known, label and split",
    )


def _nearest(missing: str, header: Sequence[str]) -> str:
    """Say which of the columns found was probably meant."""
    meant = difflib.get_close_matches(missing, [name for name in header if name not in KNOWN], n=1, cutoff=0.5)
    if meant:
        return f"column {meant[0]!r} was probably meant to be {missing!r}"
    return "the columns have other names, or the header line is missing"


def _row(line: int, cells: Sequence[str], header: Sequence[str]) -> tuple[Row | None, list[str]]:
    """Return the row, or None and what is wrong with it."""
    if len(cells) < len(header) or any(cells[len(header) :]):
        return None, [f"line {line}: {len(cells)} cells, but the header names {len(header)} columns"]
    cell = dict(zip(header, cells, strict=False))
    wrong = [
        f"line {line}, column {column}: {complaint}"
        for column, check in _CHECKS.items()
        if (complaint := check(cell.get(column, ""))) is not None
    ]
    if wrong:
        return None, wrong
    split = cast("Split | None", cell.get("split") or None)
    image = str(PurePosixPath(cell["image"].replace("\\", "/")))
    return Row(image, cell["patient"], LABELS[cell.get("label", "")], split, line), []


def _image_complaint(text: str) -> str | None:
    path = text.replace("\\", "/")
    windows = PureWindowsPath(text)
    if not text:
        return "empty; expected the path of an image"
    if not text.isprintable():
        return f"{_shown(text)} holds characters that cannot be printed"
    if path.startswith("/") or windows.drive or windows.root:
        return f"{_shown(text)} is an absolute path; expected one relative to the manifest's folder"
    if ".." in PurePosixPath(path).parts:
        return f"{_shown(text)} leaves the manifest's folder"
    if not PurePosixPath(path).parts:
        return f"{_shown(text)} is the manifest's folder; expected an image in it"
    return None


def _patient_complaint(text: str) -> str | None:
    if not text:
        return "empty; expected an identifier that all images of this woman share"
    return None if text.isprintable() else f"{_shown(text)} holds characters that cannot be printed"


def _label_complaint(text: str) -> str | None:
    return None if text in LABELS else f"found {_shown(text)}; expected 0 = control, 1 = case, empty = unlabelled"


def _split_complaint(text: str) -> str | None:
    allowed = text == "" or text in SPLITS
    return None if allowed else f"found {_shown(text)}; expected train, valid, test, or empty"


_CHECKS: Mapping[str, Callable[[str], str | None]] = {
    "image": _image_complaint,
    "patient": _patient_complaint,
    "label": _label_complaint,
    "split": _split_complaint,
}


def _repeated(rows: Iterable[Row]) -> list[str]:
    """Return one complaint per row whose image stood in an earlier row."""
    first: dict[str, int] = {}
    return [
        f"line {row.line}: image {_shown(row.image)} is already in line {first[row.image]}"
        for row in rows
        if first.setdefault(row.image, row.line) != row.line
    ]


def _refused(offences: Sequence[str], source: str) -> DataError:
    listed = "\n".join(f"    {offence}" for offence in at_most(offences))
    return DataError(
        f"{source} cannot be used as it stands:\n{listed}",
        cause="it was written by hand or exported with other conventions",
        next_step=f"mend these lines of {source} and check it again",
    )


def _shown(text: str) -> str:
    """Return a cell as it is safe to print: quoted, escaped, not longer than a line."""
    return repr(text if len(text) <= CELL_SHOWN_CHARS else f"{text[:CELL_SHOWN_CHARS]}...")
