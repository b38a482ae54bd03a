"""Which files are imported, by their headers. Pure functions: a header in, a reason out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from site_agent.dicom.headers import DicomHeader
from site_agent.images.decode import PIXELS_MAX, SIDE_MIN_PX
from site_agent.manifest.identifiers import complaint

PHOTOGRAPHS: Final = ("ES", "GM", "OP", "OT", "SC", "XC")
"""kinds of devices (PS3.3, C.7.3.1.1.1) that take photographs, and those that say nothing: endoscope, microscope,
ophthalmic camera, other, secondary capture, camera"""
COLOURS: Final = (
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_ICT",
    "YBR_RCT",
    "PALETTE COLOR",
    "MONOCHROME1",
    "MONOCHROME2",
)
"""kinds of pixels that are read"""
BITS: Final = (8, 16)
FRAMES_MAX = 100_000
BURNED_IN = "text is burnt into the pictures (BurnedInAnnotation YES)"
NO_PATIENT = "no PatientID, or a word for a missing one: nobody can say whose picture it is"


def _side(header: DicomHeader) -> int:
    return min(header.rows or 0, header.columns or 0)


RULES: Final[tuple[tuple[str, Callable[[DicomHeader], bool]], ...]] = (
    ("no SOPInstanceUID", lambda header: not header.instance),
    ("no picture: no rows, or no columns", lambda header: not (header.rows and header.columns)),
    (NO_PATIENT, lambda header: complaint(header.patient) is not None),
    (
        f"a side of less than {SIDE_MIN_PX} pixels",
        lambda header: _side(header) < SIDE_MIN_PX,
    ),
    (f"larger than {PIXELS_MAX:,} pixels", lambda header: (header.rows or 0) * (header.columns or 0) > PIXELS_MAX),
    (
        "PhotometricInterpretation is missing, or is none that is read",
        lambda header: header.photometric not in COLOURS,
    ),
    ("SamplesPerPixel is neither 1 nor 3", lambda header: header.samples not in (1, 3)),
    ("neither 8 nor 16 bits", lambda header: header.bits not in BITS),
    (
        "NumberOfFrames is no number of frames",
        lambda header: header.frames is None or not 1 <= header.frames <= FRAMES_MAX,
    ),
)
"""why a header is refused, whatever was asked for; the first that holds counts"""


def refusal(header: DicomHeader, modalities: frozenset[str], *, burned_in: bool) -> str:
    """Return why the pictures of a header are not imported; "" where they are.

    `modalities`: those that are taken; a header that names none is taken. `burned_in`: pictures with text are taken.
    """
    if header.modality and header.modality not in modalities:
        return "not a photograph, by its Modality"
    if header.burned_in == "YES" and not burned_in:
        return BURNED_IN
    return next((why for why, holds in RULES if holds(header)), "")
