"""The header of a DICOM file, as values. The pixels are not read.

A file is known by its content, never by its name: "DICM" after 128 bytes (PS3.10, section 7.1). The paths in a
DICOMDIR are not followed. Numbers and texts of a header may be anything: what is no number is None, what cannot be read
is empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info

from site_agent.dicom.quiet import quiet

MAGIC: Final = b"DICM"
MAGIC_AT = 128
DIRECTORY = "1.2.840.10008.1.3.10"
"""the class of a DICOMDIR"""
SYNTAXES: Final[Mapping[str, str]] = {
    "1.2.840.10008.1.2": "",
    "1.2.840.10008.1.2.1": "",
    "1.2.840.10008.1.2.2": "",
    "1.2.840.10008.1.2.4.50": "",
    "1.2.840.10008.1.2.4.51": "",
    "1.2.840.10008.1.2.4.57": "",
    "1.2.840.10008.1.2.4.70": "",
    "1.2.840.10008.1.2.4.80": "",
    "1.2.840.10008.1.2.4.81": "",
    "1.2.840.10008.1.2.4.90": "",
    "1.2.840.10008.1.2.4.91": "",
    "1.2.840.10008.1.2.5": "",
    "1.2.840.10008.1.2.1.99": "deflated: convert the file first (dcmconv)",
}
"""transfer syntax -> why it is refused; empty: it is read. A deflated file may unpack to any size"""
FILMS = ("1.2.840.10008.1.2.4.10",)
"""how the transfer syntaxes of films (MPEG2, MPEG-4, HEVC) begin"""
TAGS: Final = (
    "AccessionNumber",
    "BitsAllocated",
    "BitsStored",
    "BurnedInAnnotation",
    "Columns",
    "ImageComments",
    "IssuerOfPatientID",
    "ManufacturerModelName",
    "Modality",
    "NumberOfFrames",
    "PatientID",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "ProtocolName",
    "Rows",
    "SOPClassUID",
    "SOPInstanceUID",
    "SamplesPerPixel",
    "SeriesDescription",
    "StudyDescription",
    "StudyInstanceUID",
)
DEVICE_CHARS_MAX = 64
_NO_NAME = re.compile(r"^[\W_]+")
"""in front of a device's name, in whose cell a spreadsheet might calculate"""
UNREADABLE: Final = "cannot be read: see its permissions, and the disk"


class RefusedError(Exception):
    """A file or a frame is not imported. The text is one of a fixed list: it holds nothing of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomHeader:
    """What is needed of a header. Texts are without blanks around them; "" where there is none."""

    syntax: str
    instance: str
    study: str
    patient: str
    issuer: str
    accession: str
    modality: str
    device: str
    """model of the device"""
    burned_in: str
    photometric: str
    samples: int | None
    rows: int | None
    columns: int | None
    bits: int | None
    """that a value takes in the file"""
    frames: int | None
    """1 where the header does not say it; None where it says no number"""
    remarks: tuple[str, ...]
    """free texts of series, protocol and picture, which are only compared with words"""


def is_dicom(path: Path) -> bool:
    """Say whether a file begins as a DICOM file does. Raises OSError."""
    with path.open("rb") as file:
        return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC


def read_header(path: Path) -> DicomHeader:
    """Return the header of a file. Raises RefusedError, OSError."""
    if not is_dicom(path):
        raise RefusedError("not a DICOM file")
    with quiet():
        syntax, kind = _kind(path)
        if kind == DIRECTORY:
            raise RefusedError("a DICOMDIR: a list of files, which are looked for without it")
        _check_syntax(syntax)
        try:
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
            return _header(dataset, syntax)
        except OSError:
            raise
        except Exception as error:
            raise RefusedError("a damaged header") from error


def _kind(path: Path) -> tuple[str, str]:
    try:
        meta = read_file_meta_info(path)
        return _text(meta, "TransferSyntaxUID"), _text(meta, "MediaStorageSOPClassUID")
    except OSError:
        raise
    except Exception as error:
        raise RefusedError("a damaged header") from error


def _check_syntax(syntax: str) -> None:
    if not syntax:
        raise RefusedError("no transfer syntax: the header does not say how it is written")
    if syntax.startswith(FILMS):
        raise RefusedError("a film (MPEG): export single pictures of it")
    if why := SYNTAXES.get(syntax, "written in a transfer syntax that is not read: convert the file first"):
        raise RefusedError(why)


def _header(dataset: Dataset, syntax: str) -> DicomHeader:
    return DicomHeader(
        syntax=syntax,
        instance=_text(dataset, "SOPInstanceUID"),
        study=_text(dataset, "StudyInstanceUID"),
        patient=_text(dataset, "PatientID"),
        issuer=_text(dataset, "IssuerOfPatientID"),
        accession=_text(dataset, "AccessionNumber"),
        modality=_text(dataset, "Modality").upper(),
        device=_NO_NAME.sub("", _text(dataset, "ManufacturerModelName"))[:DEVICE_CHARS_MAX],
        burned_in=_text(dataset, "BurnedInAnnotation").upper(),
        photometric=_text(dataset, "PhotometricInterpretation").upper(),
        samples=_number(dataset, "SamplesPerPixel"),
        rows=_number(dataset, "Rows"),
        columns=_number(dataset, "Columns"),
        bits=_number(dataset, "BitsAllocated"),
        frames=_number(dataset, "NumberOfFrames", missing=1),
        remarks=tuple(
            text
            for keyword in ("SeriesDescription", "ProtocolName", "ImageComments", "StudyDescription")
            if (text := _text(dataset, keyword))
        ),
    )


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001  (what a header holds may be anything, and pydicom raises what comes of it)
        return None


def _text(dataset: Dataset, keyword: str) -> str:
    value = _value(dataset, keyword)
    try:
        text = "" if value is None else str(value)
    except Exception:  # noqa: BLE001  (the same)
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _number(dataset: Dataset, keyword: str, missing: int | None = None) -> int | None:
    value = _value(dataset, keyword)
    if value is None or value == "":
        return missing
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None
