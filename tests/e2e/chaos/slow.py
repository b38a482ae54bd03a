"""A line so slow that what is under way of a model takes a minute: it is not cut, and carries each byte once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcervix.models.weights import write_tensors
from tests.e2e.line import Connection, Line, Way
from tests.e2e.loopback import federation

SITE = "nhs"
FIRST = "first.safetensors"
BEYOND_MAX = 0.05
"""of the necessary bytes: a first model and an average down, an update up"""
LIMIT_S = 900.0


class SlowLine(Line):
    """Passes so many bytes a second, each way."""

    def __init__(self, to: int, bytes_a_s: float) -> None:
        self._bytes_a_s = bytes_a_s
        super().__init__(to)

    def meddle(self, connection: Connection, way: Way, data: bytes) -> bytes | None:
        time.sleep(len(data) / self._bytes_a_s)  # the fault itself
        return super().meddle(connection, way, data)


@dataclass(frozen=True, slots=True)
class Passage:
    """What one round over a slow line took."""

    bytes_a_s: float
    model_bytes: int
    passed: dict[Way, int]
    lines: int
    """that the site opened"""
    seconds: float

    @property
    def kept(self) -> bool:
        """Whether the line was never cut, and carried hardly more than it had to."""
        necessary: dict[Way, int] = {"up": self.model_bytes, "down": 2 * self.model_bytes}
        return self.lines == 1 and all(self.passed[way] < (1 + BEYOND_MAX) * necessary[way] for way in necessary)

    def __str__(self) -> str:
        return (
            f"{self.bytes_a_s / 1e3:.0f} KB/s, a model of {self.model_bytes:,} bytes: {self.passed['up']:,} up, "
            f"{self.passed['down']:,} down, lines {self.lines}, {self.seconds:.0f} s"
            f"{'' if self.kept else '   VIOLATION: cut, or carried twice'}"
        )


def passage(folder: Path, *, bytes_a_s: float, numbers: int) -> Passage:
    """Let two sites make one round, one of them on a slow line; `numbers` of float32 are the model."""
    with federation(folder, terms={"rounds": 1}, run={"base": FIRST}) as made:
        first = made.home.folder / FIRST
        write_tensors(first, {"weight": np.random.default_rng(0).standard_normal(numbers).astype(np.float32)})
        coordinator = made.coordinate("--mode", "csfssl")
        line = SlowLine(made.port, bytes_a_s)
        for site in made.sites:
            made.enrol(site)
        made.settle(SITE, port=line.port)
        begun_s = time.monotonic()
        agents = [made.light(site) for site in made.sites]
        ended = [process.ended(timeout_s=LIMIT_S) for process in (coordinator, *agents)]
        seconds = time.monotonic() - begun_s
        assert ended == [0, 0, 0], made.texts()
        lines = sum("site connected" in said and f'"{SITE}"' in said for said in coordinator.text.splitlines())
        line.close()
        return Passage(bytes_a_s, first.stat().st_size, dict(line.passed), lines, seconds)
