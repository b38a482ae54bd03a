"""Runs for pages to show: made by the real state machine, with numbers as a run has them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from coordinator.run.liveness import Line
from coordinator.run.status import overview
from coordinator.run.status_document import StatusDocument
from fedcervix.core.events import (
    AggregateStored,
    Event,
    ScoreReported,
    SiteAttached,
    SiteFailed,
    SiteSilent,
    Task,
    UpdateStored,
)
from fedcervix.core.modes import Mode
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.participants import open_sites
from fedcervix.core.rounds.state import Phase, Presence, Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.transport.codec import Progress

BASE = "5" * 64
ROUND_S = 240.0
RUN = "20261130-021503-{}-5a5a5a5a"


@dataclass
class Scene:
    """A run in the making: its events so far, and how its sites' connections are."""

    mode: Mode
    sites: tuple[str, ...]
    rounds: int
    now: float
    events: list[Event] = field(default_factory=list)
    lines: dict[str, Line] = field(default_factory=dict)

    def __post_init__(self) -> None:
        terms = Terms(
            rounds=self.rounds, patience_rounds=self.rounds, quorum=max(1, len(self.sites) - 1), give_up_s=25_200.0
        )
        recipe = Recipe(epochs_max=self.rounds)
        self.plan = Plan(mode=self.mode, sites=self.sites, profile="paper", terms=terms, recipe=recipe)
        self.began = self.now
        self.run: Run = begin(RUN.format(self.mode), self.plan, base=BASE, at=self.now)
        for site in self.sites:
            self.happen(SiteAttached(site, self.later(2), "0.1.0"))
            self.lines[site] = Line(True, None, 1.0, 40.0, None, software="0.1.0")

    def later(self, seconds: float) -> float:
        self.now += seconds
        return self.now

    def happen(self, event: Event) -> None:
        self.events.append(event)
        self.run, _ = step(self.run, event)

    def document(self) -> StatusDocument:
        return overview(self.run, self.lines, now=self.now)

    def train_all(self) -> None:
        """Let every site that is asked train, then average and score: one round."""
        number = len(self.run.rounds)
        while self.run.phase is Phase.TRAINING and len(self.run.rounds) == number:
            asked = [site.name for site in open_sites(self.run) if site.presence is Presence.PRESENT]
            for site in asked:
                self.update(site, ROUND_S / len(asked) / (len(self.sites) if self.plan.mode_rules.in_turns else 1))
        self.finish_round()

    def update(self, site: str, seconds: float) -> None:
        task = instruction(self.run, site)
        assert isinstance(task, Task), task
        number, place = len(self.run.rounds), self.sites.index(site)
        given = self.run.current.contributions if self.plan.mode_rules.in_turns else ()
        asked_at = max([self.run.since, *(one.at for one in given)])
        at = self.later(seconds)
        train_s = 0.75 * (at - asked_at)
        digest = hashlib.sha256(f"{site} {number}".encode()).hexdigest()
        loss = 1.1 + 1.35 * math.exp(-number / 9) + 0.05 * math.sin(3 * place + number)
        self.happen(UpdateStored(site, task, digest, 400 + 90 * place, 50 + 12 * place, loss, train_s, at))

    def finish_round(self) -> None:
        """Average where that is done, and let every site score."""
        number = len(self.run.rounds)
        if self.run.phase is Phase.AGGREGATING:
            digest = hashlib.sha256(f"average {number}".encode()).hexdigest()
            self.happen(AggregateStored(number, digest, self.later(2)))
        for place, site in enumerate(self.sites):
            task = instruction(self.run, site)
            if self.run.phase is Phase.SCORING and isinstance(task, Task):
                loss = (
                    1.3 + 1.3 * math.exp(-number / 10) + 0.12 * math.sin(2.1 * place) + 0.03 * math.sin(number + place)
                )
                rank = 9 * (1 - math.exp(-number / 8)) + 1.2 + 0.6 * math.sin(place)
                gauges = {
                    "alignment": 0.35 * math.exp(-number / 14),
                    "dead_units": 0.2,
                    "effective_rank": rank,
                    "uniformity": -0.4 - 2 * (1 - math.exp(-number / 11)) + 0.05 * place,
                    "unit_std": 0.6,
                    "zero_rows": 0.0,
                }
                count = 120 + 10 * place
                pairs = tuple(sorted(gauges.items()))
                self.happen(ScoreReported(site, task, loss * count, count, 400 + 90 * place, pairs, self.later(6)))

    def progress(self) -> None:
        """Let every site that works say how far it is."""
        for place, site in enumerate(self.sites):
            task = instruction(self.run, site)
            if isinstance(task, Task) and self.lines[site].connected:
                said = Progress(task, "training", 21 + 4 * place, 64, "steps", 1.4 + 0.1 * place, 38.0 + place)
                self.lines[site] = Line(True, None, 1.0, 40.0, said, software="0.1.0")

    def cut(self, site: str, ago_s: float = 3.0) -> None:
        """`kill -9` of a site's agent, as the coordinator sees it."""
        self.lines[site] = Line(False, ago_s, ago_s, 36.0, None, software="0.1.0")

    def silence(self, site: str, ago_s: float = 900.0) -> None:
        """Let its lease run out."""
        self.cut(site, ago_s)
        self.happen(SiteSilent(site, self.now - ago_s + 60))

    def inject(self, site: str) -> None:
        """A site that is not honest says markup where words are expected."""
        hint = "<img src=x onerror=alert(1)><script>document.title='owned'</script> & \u202e"
        self.happen(SiteFailed(site, "<b>", hint, "INC-1-<i>", self.now, "X", True))

    def fail(self, site: str) -> None:
        hint = "out of memory: a batch of 256 images needs 11.2 GB, and the GPU has 8 GB"
        self.happen(SiteFailed(site, "train in round 8", hint, "INC-20261130-7f3a", self.now - 300, "TrainingError"))


def night(mode: Mode = "csfssl", sites: tuple[str, ...] = ("nhs", "alts", "kiel")) -> Scene:
    """Return a run in its twelfth round, of which one site has failed, one is silent and the others train."""
    scene = Scene(mode, sites, rounds=40, now=1_796_000_000.0)
    for _ in range(11):
        scene.train_all()
    scene.later(70)
    scene.progress()
    return scene


def documents(scene: Scene, rounds: int) -> Iterator[StatusDocument]:
    """Yield a document after each of some further rounds."""
    for _ in range(rounds):
        scene.train_all()
        yield scene.document()
