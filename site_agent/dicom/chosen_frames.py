"""Which frames of a file become pictures: `all`, `every:N`, or `sharpest:N`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

FORM = re.compile(r"all|(?P<kind>sharpest|every):(?P<count>[1-9]\d{0,5})")


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """A choice of frames; `text` is as it was asked for."""

    text: str

    def __post_init__(self) -> None:
        if not FORM.fullmatch(self.text):
            raise ValueError(f"a choice of frames is all, every:N or sharpest:N; found {self.text!r}")

    def of(self, frames: int, sharpness: Callable[[int], float]) -> tuple[int, ...]:
        """Return the chosen frames of a file with so many, in order. `sharpness` is asked only where it decides.

        Of equally sharp frames the earlier one is chosen.
        """
        found = FORM.fullmatch(self.text)
        kind, count = (found["kind"], int(found["count"] or 1)) if found else (None, 1)
        if kind == "sharpest" and count < frames:
            ranked = sorted(range(frames), key=lambda index: (-sharpness(index), index))
            return tuple(sorted(ranked[:count]))
        return tuple(range(0, frames, count if kind == "every" else 1))
