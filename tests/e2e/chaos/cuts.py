"""The network of one site is cut for minutes: nothing is computed again, and no byte that had arrived is sent again.

Cut means: packets vanish. The line stops passing anything on, in either direction, and no socket is told (see
`tests.e2e.line`). It happens in mid-training, in mid-upload, or in mid-download of a model; then the line passes again.
Every byte through the line is counted, and so is every step of training.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fedcervix.models.weights import write_tensors
from tests.e2e.chaos.verdict import Right, found, violations
from tests.e2e.line import Connection, Line, Way
from tests.e2e.loopback import Federation, federation, until

When = Literal["training", "upload", "download"]
WHENS: tuple[When, ...] = ("training", "upload", "download")
CUT_SITE = "nhs"
PACE_S = 0.3
"""of the training's five steps"""
ALLOWANCE_BYTES = 4 << 20
"""what may be sent twice: a chunk that had arrived in part, and what sockets held when the line fell silent"""
TURN_S = 120.0
"""in which the rest of the run is done, once the line is there again"""


@dataclass(frozen=True, slots=True)
class Passed:
    """Bytes that passed the site's line."""

    up: int
    down: int

    def __sub__(self, other: Passed) -> Passed:
        return Passed(self.up - other.up, self.down - other.down)

    def __str__(self) -> str:
        return f"{self.up:,} up, {self.down:,} down"


@dataclass(frozen=True, slots=True)
class Cut:
    """One federation whose line was cut, beside one whose line was not."""

    when: When
    seconds: float
    model_bytes: int
    before: Passed
    """until the line fell silent"""
    passed: Passed
    undisturbed: Passed
    steps: int
    """of training and scoring at the site, as often as they were done"""
    steps_undisturbed: int
    presence: str
    """of the site, as the coordinator saw it just before the line was there again"""
    rest_s: float
    """from then until the run's end"""
    broken: tuple[str, ...]

    @property
    def again(self) -> Passed:
        """What was sent twice, with what reconnecting costs."""
        return self.passed - self.undisturbed

    def __str__(self) -> str:
        return (
            f"cut in mid-{self.when} for {self.seconds:.0f} s: model {self.model_bytes:,} bytes\n"
            f"  before the cut      {self.before}\n"
            f"  in all              {self.passed}\n"
            f"  undisturbed         {self.undisturbed}\n"
            f"  more than that      {self.again}\n"
            f"  steps of the site   {self.steps}, undisturbed {self.steps_undisturbed}\n"
            f"  the site was {self.presence} at the cut's end; the run ended {self.rest_s:.1f} s after it"
        )


class Ambush(Line):
    """A line that falls silent by itself, once so many bytes have passed on one connection."""

    def __init__(self, to: int, way: Way, after_bytes: int) -> None:
        self._way, self._after_bytes, self._done = way, after_bytes, False
        super().__init__(to)

    def meddle(self, connection: Connection, way: Way, data: bytes) -> bytes | None:
        if way == self._way and connection.passed[way] >= self._after_bytes and not self._done:
            self._done = True
            self.silence()
        return super().meddle(connection, way, data)


def cut_all(folder: Path, seconds: float, *, numbers: int, lease_s: float, forgets: bool = False) -> list[Cut]:
    """Cut three federations at once, in mid-training, mid-upload and mid-download; `numbers` of float32 are the model.

    `forgets`: what stood between has forgotten the old connections and ends them, as firewalls do after minutes.
    Otherwise they are as they were, which they outlive only where the cut is shorter than the keepalive's patience.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "first.safetensors"
    write_tensors(base, {"weight": np.random.default_rng(1).standard_normal(numbers).astype(np.float32)})
    scene = Scene(base, lease_s)
    right, passed, steps = scene.undisturbed(folder / "undisturbed")

    def one(when: When) -> Cut:
        return scene.cut(folder / when, when, seconds, right, passed, steps, forgets=forgets)

    with ThreadPoolExecutor(len(WHENS)) as each:
        return list(each.map(one, WHENS))


@dataclass(frozen=True, slots=True)
class Scene:
    """What the federations have in common: one round, two sites, a first model that both have to fetch."""

    base: Path
    lease_s: float

    @property
    def model_bytes(self) -> int:
        return self.base.stat().st_size

    def undisturbed(self, folder: Path) -> tuple[Right, Passed, int]:
        with federation(folder, **self._plan()) as made:
            line = self._begin(made, Line)
            made.finish(*made.processes)
            line.close()
            return found(made), _passed(line), len(_diary(made))

    def cut(
        self, folder: Path, when: When, seconds: float, right: Right, passed: Passed, steps: int, *, forgets: bool
    ) -> Cut:
        with federation(folder, **self._plan()) as made:
            line = self._begin(made, self._lines(when))
            if when == "training":
                until("it trains", lambda: len(_diary(made)) >= 2, seen=made.texts)
                line.silence()
            else:
                until("the line falls silent", lambda: line.silent, seen=made.texts)
            before = _passed(line)
            time.sleep(seconds)  # the fault itself: nothing is waited for
            presence = _presence(made)
            if forgets:
                line.cut()
            line.speak()
            back_s = time.monotonic()
            until("the run is over", lambda: not any(p.running() for p in made.processes), timeout_s=TURN_S)
            rest_s = time.monotonic() - back_s
            made.finish(*made.processes)
            line.close()
            diary = _diary(made)
            broken = (*violations(made, right), *_twice(diary))
            counts = (before, _passed(line), passed, len(diary), steps)
            return Cut(when, seconds, self.model_bytes, *counts, presence, rest_s, broken)

    def _plan(self) -> dict[str, dict[str, object]]:
        return {"terms": {"rounds": 1, "lease_s": self.lease_s}, "run": {"base": self.base.name}}

    def _lines(self, when: When) -> Callable[[int], Line]:
        half = self.model_bytes // 2
        return {
            "training": Line,
            "upload": lambda port: Ambush(port, "up", half),
            "download": lambda port: Ambush(port, "down", half),
        }[when]

    def _begin(self, made: Federation, lines: Callable[[int], Line]) -> Line:
        (made.home.folder / self.base.name).hardlink_to(self.base)
        made.coordinate("--mode", "csfssl")
        line = lines(made.port)
        for site in made.sites:
            made.enrol(site)
        made.settle(CUT_SITE, port=line.port)
        for site in made.sites:
            made.light(site, "--pace-s", str(PACE_S), "--diary", str(made.folder / f"{site}.diary"))
        return line


def _passed(line: Line) -> Passed:
    return Passed(line.passed["up"], line.passed["down"])


def _diary(made: Federation) -> list[str]:
    """Return the steps that the site has done, one a line."""
    file = made.folder / f"{CUT_SITE}.diary"
    return file.read_text().splitlines() if file.exists() else []


def _presence(made: Federation) -> str:
    [seen] = [site for site in made.overview()["sites"] if site["site"] == CUT_SITE]
    return f"{seen['presence']}, {'connected' if seen['connected'] else 'not connected'}"


def _twice(diary: list[str]) -> list[str]:
    return [f"done {count} times: {step}" for step, count in Counter(diary).items() if count > 1]


def complaints(cut: Cut) -> list[str]:
    """Return what does not hold of a cut, in words."""
    more = {"up": cut.again.up, "down": cut.again.down}
    return [
        *cut.broken,
        *([] if cut.steps == cut.steps_undisturbed else [f"{cut.steps} steps, not {cut.steps_undisturbed}"]),
        *(f"{sent:,} bytes more {way} than undisturbed" for way, sent in more.items() if sent > ALLOWANCE_BYTES),
    ]
