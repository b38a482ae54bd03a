"""The labels of a hospital's table, by the value of one header element."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from fedcervix.disk.storage import read_file
from fedcervix.errors import DataError
from site_agent.dicom.headers import DicomHeader
from site_agent.manifest.spreadsheet import decode_text, plain, read_table

KEYS: Final[Mapping[str, Callable[[DicomHeader], str]]] = {
    "AccessionNumber": lambda header: header.accession,
    "PatientID": lambda header: header.patient,
    "StudyInstanceUID": lambda header: header.study,
    "SOPInstanceUID": lambda header: header.instance,
}
"""the header elements by which a table may name what its labels belong to"""
LABEL = "label"


def read_labels(file: Path, key: str) -> dict[str, str]:
    """Return the labels of a table by its column `key`. Values of the table stand in no message.

    Raises DataError where a column is missing, or one key has two labels; StorageError.
    """
    source = str(file)
    table = read_table(decode_text(read_file(file), source), source, [key.lower(), LABEL])
    names = [plain(cell) for cell in table.header]
    for column in (key, LABEL):
        if names.count(column.lower()) != 1:
            found = "no column" if column.lower() not in names else "two columns"
            raise DataError(
                f"{source} has {found} {column!r}", next_step=f"its first line must name {key} and {LABEL}, each once"
            )
    at_key, at_label = names.index(key.lower()), names.index(LABEL)
    labels: dict[str, str] = {}
    for record in table.records:
        cells = (*record.cells, *("",) * len(names))
        name, label = cells[at_key], cells[at_label]
        if name and labels.setdefault(name, label) != label:
            raise DataError(
                f"{source}, line {record.line}: an earlier line gives the same {key} another label",
                next_step="keep one of the two lines; where one visit has two labels, use --key SOPInstanceUID",
            )
    return labels
