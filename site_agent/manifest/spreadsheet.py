"""Reads tables as spreadsheets and people save them: encoding, delimiter, header, cells.

Rules
1. UTF-8 with or without a byte-order mark, or UTF-16 (Excel's "Unicode text"). Other files are refused with the name of
   their format.
2. The delimiter is the one that a first line `sep=;` names. Else it is the one of comma, semicolon and tab with which
   the first line holds the columns that must be there; else the one that the first line holds most often.
3. Cells that are missing at the end of a line are empty: Excel leaves out the last delimiters.

Pure: bytes or text in, values or a DataError out.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fedcervix.errors import DataError

DELIMITERS = (",", ";", "\t")
CELL_SHOWN_CHARS = 60

_SEP_LINE = re.compile(r'\s*"?sep=([^\w\s"]|\t)"?[,;\t ]*\n?', re.IGNORECASE)
_WORKBOOK_CAUSE = "a workbook may hold an identifier as a number (001 becomes 1), so it is not read"
_WORKBOOK_NEXT = (
    "in the spreadsheet, see that column patient shows every zero (format: Text), save the sheet as 'CSV UTF-8', "
    "and name that file"
)
_OTHER_NEXT = "name the CSV file that lists the images"
_OTHER_FILES: tuple[tuple[bytes, str, str, str], ...] = (
    (b"PK\x03\x04", "a workbook (.xlsx or .ods)", _WORKBOOK_CAUSE, _WORKBOOK_NEXT),
    (b"\xd0\xcf\x11\xe0", "a workbook (.xls)", _WORKBOOK_CAUSE, _WORKBOOK_NEXT),
    (b"\x1f\x8b", "a compressed file (gzip)", "it was not unpacked", "unpack it (gunzip), and name the CSV file"),
    (b"PAR1", "a Parquet file", "the path of another file was given", _OTHER_NEXT),
    (b"%PDF", "a PDF file", "the path of another file was given", _OTHER_NEXT),
    (b"\x89PNG", "an image", "the path of another file was given", _OTHER_NEXT),
    (b"\xff\xd8\xff", "an image", "the path of another file was given", _OTHER_NEXT),
)
_ENCODINGS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\xff\xfe|\xfe\xff"), "utf-16"),
    (re.compile(rb"[^\x00]\x00"), "utf-16-le"),
    (re.compile(rb"\x00[^\x00]"), "utf-16-be"),
)
"""how the first two bytes tell; everything else is UTF-8"""


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a table that is not blank."""

    line: int
    """of the file, the first being line 1"""
    cells: tuple[str, ...]
    """without blanks around them"""


@dataclass(frozen=True, slots=True)
class ManifestTable:
    """A header and the lines below it."""

    header: tuple[str, ...]
    records: tuple[Record, ...]
    cut_line: int
    """the last line where the file ends within it, 0 where the file ends with a line end"""


def decode_text(raw: bytes, source: str) -> str:
    """Return the text of a file, without a byte-order mark. Raises DataError where it is neither UTF-8 nor UTF-16."""
    for beginning, what, cause, next_step in _OTHER_FILES:
        if raw.startswith(beginning):
            raise DataError(f"{source} is {what}, not a CSV file", cause=cause, next_step=next_step)
    encoding = next((name for head, name in _ENCODINGS if head.match(raw)), "utf-8")
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{source} is not {encoding.upper()} text (line {line}, byte {error.start} is {raw[error.start]:#04x})",
            cause="a spreadsheet saved it in an older encoding (Windows-1252, for example), or it is not a CSV file",
            next_step="save it again as 'CSV UTF-8'",
        ) from error


def read_table(text: str, source: str, required: Collection[str]) -> ManifestTable:
    """Return the table that a text holds. `required` are the columns by which the delimiter is chosen.

    Raises DataError where a quotation mark is not closed.
    """
    text = text.removeprefix("\ufeff")
    delimiter, body = _delimited(text, required)
    records = _records(body, delimiter, source)
    cut_line = records[-1].line if records and not text.endswith(("\n", "\r")) else 0
    return ManifestTable(records[0].cells if records else (), tuple(records[1:]), cut_line)


def plain(text: str) -> str:
    """Return a text in one form: compatibility characters resolved, invisible ones dropped, lower case, no margins."""
    if text.isascii() and text.isprintable():
        return text.strip().lower()  # the same, and much quicker
    for _ in range(2):  # dropping a character can bring together what composes
        seen = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in ("Cf", "Cc"))
        text = "".join(c for c in seen if not "\ufe00" <= c <= "\ufe0f").casefold()
    return unicodedata.normalize("NFKC", text).strip()


def without_accents(text: str) -> str:
    """Return a text without the marks on its letters: nao for não."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


def shown(text: str) -> str:
    """Return a cell as it is safe to print: quoted, escaped, not longer than a line."""
    return repr(text if len(text) <= CELL_SHOWN_CHARS else f"{text[:CELL_SHOWN_CHARS]}...")


def _delimited(text: str, required: Collection[str]) -> tuple[str, str]:
    """Return the delimiter, and the text with a line `sep=` left blank."""
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    named = _SEP_LINE.fullmatch(first)
    if named:
        return named[1], text.replace(first.rstrip("\n"), "", 1)
    fits = [mark for mark in DELIMITERS if set(required) <= {plain(cell) for cell in _split(first, mark)}]
    return (fits or [max(DELIMITERS, key=first.count)])[0], text


def _split(line: str, delimiter: str) -> Sequence[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _records(text: str, delimiter: str, source: str) -> list[Record]:
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, strict=True)
    found: list[Record] = []
    end = 0
    try:
        for cells in reader:
            begin, end = end + 1, reader.line_num  # a quoted cell may span lines
            stripped = tuple(cell.strip() for cell in cells)
            if any(stripped):
                found.append(Record(begin, stripped))
    except csv.Error as error:
        raise DataError(
            f"{source}, line {reader.line_num}: not a CSV file ({error})",
            cause="a quotation mark is opened and never closed",
            next_step=f"correct line {end + 1} of {source}",
        ) from error
    return found
