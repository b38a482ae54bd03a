"""What a manifest may say of a picture beside whose it is, and its label.

    stage       native, acetic, green, iodine or other: before and after acetic acid, green filter, after iodine
    visit       any text that the pictures of one visit of one woman share
    device      any text that the pictures of one device share
    roi         x,y,w,h: the box around the cervix. Whole pixels of the picture as it is seen, upright (after the turn
                that its EXIF data ask for), from its left upper corner; separated by commas, semicolons or blanks
    covariates  further columns that [data] covariates of site.toml names (age, HPV); kept as they are written

Every cell may be empty: then nothing is known. So may a whole column be missing. In stage, visit, device and roi, a
word for a missing value (NA, unknown, -) counts as empty. Nothing of this leaves the site.

Pure: text in, values or complaints out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, cast

from fedcervix.core.plan import STAGES, Stage
from site_agent.manifest.identifiers import is_missing
from site_agent.manifest.spreadsheet import plain, shown

DETAIL_COLUMNS = ("stage", "visit", "device", "roi")
TEXT_CHARS_MAX = 100
BOX_PX_MIN = 16
"""of either side: a smaller picture is refused as well (`decode.SIDE_MIN_PX`)"""

T = TypeVar("T")

_BOX = re.compile(r"(\d{1,6})[,; ]+(\d{1,6})[,; ]+(\d{1,6})[,; ]+(\d{1,6})")


@dataclass(frozen=True, slots=True)
class PixelBox:
    """A part of a picture as it is seen, in whole pixels from its left upper corner."""

    x: int
    y: int
    w: int
    h: int

    def __post_init__(self) -> None:
        if min(self.x, self.y) < 0 or min(self.w, self.h) < BOX_PX_MIN:
            raise ValueError(f"not a box of {BOX_PX_MIN} or more pixels a side: {self}")

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.w},{self.h}"

    def is_within(self, width_px: int, height_px: int) -> bool:
        """Say whether all of the box is in a picture of this size."""
        return self.x + self.w <= width_px and self.y + self.h <= height_px


@dataclass(frozen=True, slots=True)
class ImageDetails:
    """What is known of one picture beside whose it is, and its label."""

    stage: Stage | Literal[""] = ""
    """empty: unknown"""
    visit: str = ""
    """of this woman; empty: unknown"""
    device: str = ""
    """empty: unknown"""
    roi: PixelBox | None = None
    """the cervix; None: unknown"""
    grade: int | None = None
    """which of more than two ordered classes its label names, from 0 (`classes`); None: no label, or two classes"""
    covariates: Mapping[str, str] = field(default_factory=dict, hash=False)
    """column, in lower case -> its cell as it is written; empty: unknown"""


NO_DETAILS = ImageDetails()


def details(cell: Mapping[str, str], covariates: Sequence[str] = ()) -> ImageDetails:
    """Return what a row says; its cells have no `complaints`."""
    known = {name: text for name in DETAIL_COLUMNS if (text := _known(cell.get(name, "")))}
    if not known and not covariates:
        return NO_DETAILS
    return ImageDetails(
        stage=cast("Stage", plain(known.get("stage", ""))),
        visit=known.get("visit", ""),
        device=known.get("device", ""),
        roi=_box(known["roi"]) if "roi" in known else None,
        covariates={name: cell.get(name, "") for name in covariates},
    )


def complaints(cell: Mapping[str, str], covariates: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return (column, what is wrong with its cell)."""
    checks = {**_CHECKS, **dict.fromkeys(covariates, _text_complaint)}
    found = ((name, check(_known(cell.get(name, "")))) for name, check in checks.items())
    return [(name, wrong) for name, wrong in found if wrong is not None]


def together(said: Sequence[ImageDetails]) -> ImageDetails:
    """Return what several rows of one picture say of it; what they contradict each other about is unknown."""
    if len(said) == 1:
        return said[0]
    names = dict.fromkeys(name for one in said for name in one.covariates)
    return ImageDetails(
        stage=_agreed([one.stage for one in said], ""),
        visit=_agreed([one.visit for one in said], ""),
        device=_agreed([one.device for one in said], ""),
        roi=_agreed([one.roi for one in said], None),
        grade=max((one.grade for one in said if one.grade is not None), default=None),
        covariates={name: _agreed([one.covariates.get(name, "") for one in said], "") for name in names},
    )


def _agreed(values: Sequence[T], unknown: T) -> T:
    known = {value for value in values if value}
    return known.pop() if len(known) == 1 else unknown


def _known(text: str) -> str:
    return "" if is_missing(text) else text


def _box(text: str) -> PixelBox | None:
    """Return the box that a cell holds, or None."""
    found = _BOX.fullmatch(text)
    numbers = [int(number) for number in found.groups()] if found else []
    return PixelBox(*numbers) if numbers and min(numbers[2:]) >= BOX_PX_MIN else None


def _stage_complaint(text: str) -> str | None:
    known = not text or plain(text) in STAGES
    return None if known else f"found {shown(text)}; expected {', '.join(STAGES)}, or empty"


def _roi_complaint(text: str) -> str | None:
    if not text or _box(text):
        return None
    return f"found {shown(text)}; expected x,y,w,h in whole pixels (w and h {BOX_PX_MIN} or more), or empty"


def _text_complaint(text: str) -> str | None:
    if not text.isprintable():
        return f"{shown(text)} holds characters that cannot be printed"
    return None if len(text) <= TEXT_CHARS_MAX else f"{shown(text)} is longer than {TEXT_CHARS_MAX} characters"


_CHECKS: Mapping[str, Callable[[str], str | None]] = {
    "stage": _stage_complaint,
    "visit": _text_complaint,
    "device": _text_complaint,
    "roi": _roi_complaint,
}
