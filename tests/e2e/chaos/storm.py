"""One federation of real processes under one schedule, from its start to the verdict."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.chaos.schedule import COORDINATOR, KILLS, Blow, Fault, Schedule, Setting
from tests.e2e.chaos.service import Service
from tests.e2e.chaos.verdict import Right, found, violations
from tests.e2e.disks import MayNotMountError, fill, small_disk
from tests.e2e.line import Line
from tests.e2e.loopback import Federation, federation, processes_of

LOOK_S = 0.01
STUCK_S = 120.0
"""without a new event in the journal: it does not go on"""
VICTIM_S = 5.0
"""how long a blow waits for its victim to be there"""
END_S = 20.0

LEASES = {"lease_s": 60.0, "grace_s": 60.0}
"""longer than any fault: a holder of the ring's model that is started again keeps its hop"""
PLANS: dict[str, dict[str, Any]] = {
    "light": {"terms": {"rounds": 4, "epochs_per_round": 1, "patience_rounds": 4, **LEASES}},
    "training": {
        "terms": {"rounds": 3, "epochs_per_round": 4, "patience_rounds": 3, **LEASES},
        "recipe": {"epochs_max": 12},
        "hardware": {"checkpoint_s": 0.0},
    },
}
SECURE_TERMS = {"secure_sum": True, "holders": ["nhs", "alts"]}
LIGHT = ("--worker", "--pace-s", "0.04", "--numbers", "300000")
DISK_BYTES = {"light": 100 << 20, "training": 700 << 20}


class ViolationError(AssertionError):
    """Something that must hold does not."""


@dataclass
class Story:
    """What happened to one federation."""

    schedule: Schedule
    struck: Counter[tuple[Fault, str]] = field(default_factory=Counter)
    """(fault, role of its victim)"""
    seconds: float = 0.0
    still_s: float = 0.0
    """the longest time without a new event in the journal, while no fault lasted"""
    rounds: int = 0
    resumed: int = 0
    """trainings that went on from a checkpoint"""
    notes: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(count for (fault, _), count in self.struck.items() if fault in KILLS)


@dataclass
class Ground:
    """What a federation stands on: its folder, disks and data."""

    folder: Path
    collections: dict[str, Path]
    """{site: folder with manifest.csv}, for sites that really train"""


def undisturbed(setting: Setting, ground: Ground) -> Right:
    """Return what a federation of this setting gives when nothing happens to it."""
    with federation(ground.folder, sites=setting.sites, **_plan(setting)) as made:
        coordinator = made.coordinate("--mode", setting.mode)
        starts = [_site(made, setting, site, ground) for site in setting.sites]
        _know(made, setting)
        made.finish(coordinator, *[start() for start in starts])
        return found(made)


def _plan(setting: Setting) -> dict[str, Any]:
    plan = PLANS[setting.work]
    more = SECURE_TERMS if setting.secure else {"sealed": setting.sealed}
    return {**plan, "terms": plan["terms"] | more}


def _know(made: Federation, setting: Setting) -> None:
    """What is hidden from the coordinator needs partners whose keys were compared."""
    if setting.secure or setting.sealed:
        made.know()


def _site(made: Federation, setting: Setting, site: str, ground: Ground) -> Callable[[], Any]:
    """Enrol a site; return what starts it."""
    if setting.work == "light":
        made.enrol(site)
        return lambda: made.light(site, *LIGHT)
    made.enrol(site, ground.collections[site] / "manifest.csv")
    return lambda: made.agent(site)


def weather(schedule: Schedule, right: Right, ground: Ground) -> Story:
    """Do everything in the schedule to a federation. Raises ViolationError."""
    story, begun_s = Story(schedule), time.monotonic()
    with contextlib.ExitStack() as stack:
        disks = _disks(schedule, ground, stack, story)
        setting = schedule.setting
        made = stack.enter_context(federation(ground.folder, sites=setting.sites, **_plan(setting)))
        storm = Storm(made, schedule, disks, story)
        stack.callback(storm.close)
        storm.begin(ground)
        storm.pass_over()
        if broken := list(violations(made, right)):
            raise ViolationError("\n".join(broken))
        story.rounds = len(right.rounds)
        story.resumed = made.texts().count("goes on from its checkpoint")
    story.seconds = time.monotonic() - begun_s
    return story


def _disks(schedule: Schedule, ground: Ground, stack: contextlib.ExitStack, story: Story) -> dict[str, Path]:
    if not schedule.disks:
        return {}
    homes = {COORDINATOR: "coordinator", **{site: f"site-{site}" for site in schedule.setting.sites}}
    size_bytes = DISK_BYTES[schedule.setting.work]
    try:
        return {name: stack.enter_context(small_disk(ground.folder / home, size_bytes)) for name, home in homes.items()}
    except MayNotMountError as error:
        story.notes.append(f"no disk is filled: {error}")
        return {}


class Storm:
    """A federation's services, and what is done to them."""

    def __init__(self, made: Federation, schedule: Schedule, disks: dict[str, Path], story: Story) -> None:
        self._made, self._schedule, self._disks, self._story = made, schedule, disks, story
        self.services: dict[str, Service] = {}
        self._lines: dict[str, Line] = {}
        self._agenda: list[tuple[float, Callable[[], None]]] = []
        self._events = 0
        self._moved_s = time.monotonic()

    def begin(self, ground: Ground) -> None:
        """Start everything."""
        made, setting = self._made, self._schedule.setting
        self.services[COORDINATOR] = Service(COORDINATOR, lambda: self._coordinate(setting.mode))
        made.port = made.listening(self.services[COORDINATOR].process)
        starts = {site: _site(made, setting, site, ground) for site in setting.sites}
        for site in setting.sites if self._schedule.lines else ():
            self._lines[site] = Line(made.port)
            made.settle(site, _manifest(setting, site, ground), port=self._lines[site].port)
        _know(made, setting)
        self.services |= {site: Service(site, start) for site, start in starts.items()}

    def _coordinate(self, mode: str) -> Any:
        # As a person begins a run, and as a service manager goes on with it.
        return self._made.coordinate(*([] if self._made.port else ["--mode", mode]), listening=False)

    def close(self) -> None:
        """Leave no fault behind."""
        self._lift()
        for line in self._lines.values():
            line.close()

    def _lift(self) -> None:
        """Let every fault that lasts end now."""
        while self._agenda:
            _, end = self._agenda.pop()
            end()

    # --- time passes ---

    def pass_over(self) -> None:
        """Let every blow fall, then wait until the run is over and everybody has left."""
        for blow in self._schedule.blows:
            if not self._moment(blow):
                break
            self.strike(blow)
        while not self.services[COORDINATOR].over:
            self._look()
        self.leave()

    def _moment(self, blow: Blow) -> bool:
        """Wait for the moment of a blow; False: the run was over before."""
        since = self._events
        while self._events < since + blow.events and not self.services[COORDINATOR].over:
            self._look()
        due_s = time.monotonic() + blow.after_s
        while time.monotonic() < due_s and not self.services[COORDINATOR].over:
            self._look()
        return not self.services[COORDINATOR].over

    def _look(self) -> None:
        """Do what is due, then let a moment pass."""
        now_s = time.monotonic()
        due = [entry for entry in self._agenda if entry[0] <= now_s]
        for entry in due:
            self._agenda.remove(entry)
            entry[1]()
        for service in self.services.values():
            service.tend()
            if service.trouble:
                raise ViolationError(service.trouble)
        self._watch(now_s, lifted=bool(due))
        time.sleep(LOOK_S)

    def _watch(self, now_s: float, *, lifted: bool) -> None:
        """See whether the run goes on."""
        events = self._made.events()
        if events != self._events or lifted or self._agenda:
            self._moved_s = now_s
        self._events = events
        self._story.still_s = max(self._story.still_s, now_s - self._moved_s)
        if now_s - self._moved_s > STUCK_S:
            raise ViolationError(f"for {STUCK_S:.0f} s the run has not gone on\n{self._made.overview()}")

    def leave(self) -> None:
        """A site that was started again after the run's end waits for the next one: end it, in order.

        Nothing lasts beyond the run: a site that is frozen in the very moment of its end could not end.
        """
        self._lift()
        for site in self._schedule.setting.sites:
            service = self.services[site]
            if service.running:
                with contextlib.suppress(AssertionError):
                    service.process.ended(timeout_s=1.0)
            if service.running:
                service.process.signal(signal.SIGTERM)
                code = service.process.ended(timeout_s=END_S)
                if code not in (0, 130, -signal.SIGTERM):  # the last: it had only just been started again
                    raise ViolationError(f"{site} was asked to end, and ended with {code}")
        self._made.deserted()

    # --- blows ---

    def strike(self, blow: Blow) -> None:
        """Let a blow fall, if its victim is there."""
        victims = list(self._victims(blow))
        deadline_s = time.monotonic() + VICTIM_S
        while not victims and time.monotonic() < deadline_s and not self.services[blow.victim].over:
            self._look()
            victims = list(self._victims(blow))
        if victims and self._DO[blow.fault](self, blow, victims):
            role = "coordinator" if blow.victim == COORDINATOR else "site"
            self._story.struck[blow.fault, role] += 1
            self._moved_s = time.monotonic()

    def _victims(self, blow: Blow) -> Iterator[int]:
        """Yield the processes that a blow is for."""
        service = self.services[blow.victim]
        if not service.running:
            return
        if blow.fault is not Fault.WORKER:
            yield service.process.pid
        if blow.fault in (Fault.POWER, Fault.WORKER, Fault.FREEZE) and blow.victim != COORDINATOR:
            folder = self._made.site(blow.victim).folder
            yield from (pid for pid in processes_of(folder) if pid != service.process.pid)

    def _kill(self, blow: Blow, victims: list[int]) -> bool:
        _signal(victims, signal.SIGKILL)
        if blow.fault is not Fault.WORKER:
            self.services[blow.victim].process.popen.wait(END_S)
            self.services[blow.victim].back_in(blow.lasts_s)
        return True

    def _freeze(self, blow: Blow, victims: list[int]) -> bool:
        _signal(victims, signal.SIGSTOP)
        self._later(blow, lambda: _signal(victims, signal.SIGCONT))
        return True

    def _cut(self, blow: Blow, _victims: list[int]) -> bool:
        self._lines[blow.victim].cut()
        return True

    def _silence(self, blow: Blow, _victims: list[int]) -> bool:
        self._lines[blow.victim].silence()
        self._later(blow, self._lines[blow.victim].speak)
        return True

    def _corrupt(self, blow: Blow, _victims: list[int]) -> bool:
        self._lines[blow.victim].flip(blow.way)
        return True

    def _fill(self, blow: Blow, _victims: list[int]) -> bool:
        if blow.victim not in self._disks:
            return False
        ballast = fill(self._disks[blow.victim])
        self._later(blow, lambda: ballast.unlink(missing_ok=True))
        return True

    def _later(self, blow: Blow, end: Callable[[], None]) -> None:
        self._agenda.append((time.monotonic() + blow.lasts_s, end))

    _DO: dict[Fault, Callable[[Storm, Blow, list[int]], bool]] = {  # noqa: RUF012  (a constant table)
        Fault.KILL: _kill,
        Fault.POWER: _kill,
        Fault.WORKER: _kill,
        Fault.FREEZE: _freeze,
        Fault.CUT: _cut,
        Fault.SILENCE: _silence,
        Fault.CORRUPT: _corrupt,
        Fault.FULL: _fill,
    }


def _manifest(setting: Setting, site: str, ground: Ground) -> Path | None:
    return ground.collections[site] / "manifest.csv" if setting.work == "training" else None


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
