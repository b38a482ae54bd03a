"""A zone of scores at which a classifier does not say case or control. How it is found: `conformal`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fedcervix.core.plan import check

Call = Literal["case", "control", "indeterminate"]

ROUNDING = 1e-9
"""of a product of an error and a number of women: .1 x 30 is 3.0000000000000004"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """Where a classifier does not decide. Scores are a woman's, 0 to 1; None: no score is stranger than permitted."""

    error: float
    """share of the women of either class who may be called wrongly"""
    clear_below: float | None
    """below this score, case is no longer possible"""
    case_above: float | None
    """above this score, control is no longer possible"""
    case_women: int
    """validation women it was calibrated on"""
    control_women: int

    def __post_init__(self) -> None:
        check(0 < self.error < 0.5, f"the permitted error is above 0 and below .5; found {self.error}")

    def call(self, score: float) -> Call:
        """Return what is said of a woman."""
        may_be_case = self.clear_below is None or score >= self.clear_below
        may_be_control = self.case_above is None or score <= self.case_above
        if may_be_case == may_be_control:
            return "indeterminate"
        return "case" if may_be_case else "control"

    @property
    def lacking(self) -> str:
        """What the zone cannot say for want of validation women, in a sentence; empty where nothing is missing."""
        least = women_min(self.error)
        few = {"case": self.case_women, "control": self.control_women}
        short = [(kind, count) for kind, count in few.items() if count < least]
        if not short:
            return ""
        others = {"case": "control", "control": "case"}
        never = " or ".join(others[kind] for kind, _ in short)
        found = " and ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in short)
        return (
            f"Nobody is called {never}: with an error of {self.error:g}, each class needs {least} validation women, "
            f"and there are {found}."
        )


def women_min(error: float) -> int:
    """Return the validation women of a class below which that class always stays possible."""
    return math.ceil(1 / error - ROUNDING) - 1
