"""What will be done to a federation: one (seed, number, mode) is one schedule, whoever draws it.

A blow falls when the coordinator has journaled so many more events, and then a random moment later: so blows find
every stage of a run, also the restart after the blow before. Processes keep their own time; a repeated schedule is the
same list of blows, not the same history.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from fedcervix.core.modes import Mode
from site_agent.worker.worker import DEATHS_MAX
from tests.e2e.line import Way

COORDINATOR = "coordinator"
SITES = ("nhs", "alts", "leeds")


class Fault(StrEnum):
    """What can happen to a process, its line or its disk."""

    KILL = "kill"
    POWER = "power"
    WORKER = "worker"
    FREEZE = "freeze"
    CUT = "cut"
    SILENCE = "silence"
    CORRUPT = "corrupt"
    FULL = "full"


MEANING = {
    Fault.KILL: "kill -9 of this process alone",
    Fault.POWER: "kill -9 of an agent with its worker",
    Fault.WORKER: "kill -9 of a worker alone",
    Fault.FREEZE: "SIGSTOP, later SIGCONT",
    Fault.CUT: "all its connections ended",
    Fault.SILENCE: "nothing passes on its line for a while, no connection is ended",
    Fault.CORRUPT: "one bit on its line turned round",
    Fault.FULL: "its disk full for a while",
}
KILLS = (Fault.KILL, Fault.POWER, Fault.WORKER)
KILL_SHARE = 0.7
OF_COORDINATOR = (Fault.FREEZE, Fault.FULL, Fault.FULL)
OF_SITE = (Fault.FREEZE, Fault.CUT, Fault.SILENCE, Fault.CORRUPT, Fault.FULL, Fault.FULL)
MOMENTARY = (Fault.WORKER, Fault.CUT, Fault.CORRUPT)
ON_LINES = (Fault.CUT, Fault.SILENCE, Fault.CORRUPT)

Kind = Mode | Literal["sealed"]
"""of federations: by their mode; a ring whose models travel under seal is one of its own"""
SEALED: Literal["sealed"] = "sealed"

TRAINING_EVERY = 6
"""one federation in so many really trains; the others compute (see light_worker.py)"""


@dataclass(frozen=True, slots=True)
class Setting:
    """Which federation it is. Two of one setting have the same right result."""

    mode: Mode
    sites: tuple[str, ...]
    work: Literal["light", "training"]
    secure: bool = False
    """with secure sums; then only of light sites: what is trained depends on the run's name and keys"""
    sealed: bool = False
    """whether its models travel under seal"""

    def __str__(self) -> str:
        hides = "secure " if self.secure else "sealed " if self.sealed else ""
        return f"{self.mode} {hides}{self.work} {len(self.sites)}"


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault: when, what, whom, for how long (of a kill: until it is started again)."""

    events: int
    after_s: float
    fault: Fault
    victim: str
    lasts_s: float
    way: Way

    def __str__(self) -> str:
        on = f" {self.way}" if self.fault is Fault.CORRUPT else ""
        lasts = "" if self.fault in MOMENTARY else f" for {self.lasts_s:.2f} s"
        return f"{self.events} events + {self.after_s:.2f} s: {self.fault}{on} {self.victim}{lasts}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One federation, and everything that is done to it."""

    seed: int
    number: int
    setting: Setting
    lines: bool
    disks: bool
    blows: tuple[Blow, ...]

    def __str__(self) -> str:
        has = [words for there, words in ((self.lines, "lines"), (self.disks, "small disks")) if there]
        return "\n  ".join([f"{self.setting}, seed {self.seed}, number {self.number} {has}", *map(str, self.blows)])


def draw(seed: int, number: int, kind: Kind, *, secure: bool = False) -> Schedule:
    """Return a federation's schedule."""
    dice = random.Random(f"{seed} {number} {kind}")
    mode: Mode = "ppfssl" if kind == SEALED else kind
    training = number % TRAINING_EVERY == TRAINING_EVERY - 1 and not secure
    sites = SITES if secure else SITES[: 2 if training else dice.choice([2, 3])]
    setting = Setting(mode, sites, "training" if training else "light", secure, sealed=kind == SEALED)
    lines, disks = number % 2 == 0, number % 4 in (0, 1)
    count = dice.randint(5, 8) if training else dice.randint(14, 22)
    drawn = [_blow(dice, setting, lines=lines, disks=disks) for _ in range(count)]
    return Schedule(seed, number, setting, lines, disks, tuple(_bearable(drawn)))


def _blow(dice: random.Random, setting: Setting, *, lines: bool, disks: bool) -> Blow:
    victim = COORDINATOR if dice.random() < 1 / 3 else dice.choice(setting.sites)
    kills = (Fault.KILL,) if victim == COORDINATOR else KILLS
    others = OF_COORDINATOR if victim == COORDINATOR else OF_SITE
    possible = [fault for fault in others if (lines or fault not in ON_LINES) and (disks or fault is not Fault.FULL)]
    fault = dice.choice(kills) if dice.random() < KILL_SHARE else dice.choice(possible)
    slowness = 4 if setting.work == "training" else 1
    return Blow(
        events=dice.choice([0, 0, 0, 1, 1]),
        after_s=dice.uniform(0, 0.5) * slowness,
        fault=fault,
        victim=victim,
        lasts_s=_lasts_s(dice, fault),
        way=dice.choice(["up", "down"]),
    )


def _lasts_s(dice: random.Random, fault: Fault) -> float:
    if fault in KILLS:
        return dice.choice([0.0, 0.0, 0.0, dice.uniform(0, 1.5)])
    return dice.uniform(0.3, 3.0)


def _bearable(blows: Iterable[Blow]) -> Iterable[Blow]:
    """Leave out what a site may not bear: its worker killed more often than one task survives, by design."""
    left = dict.fromkeys(SITES, DEATHS_MAX)
    for blow in blows:
        if blow.fault is Fault.WORKER:
            left[blow.victim] -= 1
        if blow.fault is not Fault.WORKER or left[blow.victim] >= 0:
            yield blow
