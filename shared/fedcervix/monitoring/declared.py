"""What a metric is, declared once: code, page (docs/monitoring.md), dashboard and alert rules agree on these rows.

Rules
1. A label's value is a name of the roster or of the configuration, or one of a closed list in the code. Never a text
   that somebody else has written: no path, no incident, no error, nothing of a patient.
2. What is not known is left out. It is never 0, and never the last known value.
3. A moment is a Unix time in seconds. Who reads it computes the age: an age that is written down stands still when the
   program does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

PREFIX = "fedcervix_"


@dataclass(frozen=True, slots=True, eq=False)
class Declared:
    """A metric: its name, what it counts, and the names of its labels. Declared once, it equals only itself."""

    name: str
    """without `PREFIX`"""
    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"

    @property
    def full_name(self) -> str:
        """Its name in Prometheus."""
        return f"{PREFIX}{self.name}"

    def of(self, value: float | None, *labels: str) -> Sample:
        """Return a value of it; None: not known. The labels are in the order in which they are declared."""
        return Sample(self, value, labels)

    def among(self, choices: Iterable[str], chosen: str, *labels: str) -> list[Sample]:
        """Return 1 for the one of a closed list that holds, and 0 for the others. The choice is the last label."""
        return [self.of(float(one == chosen), *labels, one) for one in choices]


@dataclass(frozen=True, slots=True)
class Sample:
    """A value of a metric, with the values of its labels; None: not known."""

    metric: Declared
    value: float | None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.metric.labels):
            raise ValueError(f"{self.metric.name} has the labels {self.metric.labels}; found {self.labels}")
