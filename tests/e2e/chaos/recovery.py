"""How long it takes until every agent works again, until a site that died is named; and whether one that is back joins.

Seconds are read off the outside: the coordinator's overview and its journal, looked at every few milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcervix.core.modes import Mode
from tests.e2e.line import Line
from tests.e2e.loopback import Federation, Process, federation

WORKS_AGAIN_S = 5.0
"""the promise: after a coordinator has come back"""
NAMED_S = 10.0
"""the promise: after a site has died"""
AWAY_S = (1.0, 10.0, 40.0)
"""how long the coordinator is away: pauses between tries grow meanwhile"""
LOOK_S = 0.005
WAIT_S = 90.0
VICTIM = "alts"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was measured; `limit_s` is what was promised of it."""

    what: str
    seconds: float
    limit_s: float

    @property
    def kept(self) -> bool:
        return self.seconds <= self.limit_s

    def __str__(self) -> str:
        verdict = "" if self.kept else f"   LATE: {self.limit_s:.0f} s were promised"
        return f"{self.seconds:7.2f} s  {self.what}{verdict}"


@dataclass(frozen=True, slots=True)
class Return:
    """A site that was away for a while: the rounds in which it took part."""

    mode: Mode
    back_in_round: int
    """the round in progress when it was back"""
    contributed: tuple[int, ...]
    missing: tuple[int, ...]

    @property
    def kept(self) -> bool:
        """It takes part from the round in progress on, or from the next one where that was closed to it."""
        first = next((number for number in self.contributed if number >= self.back_in_round), 0)
        return first in (self.back_in_round, self.back_in_round + 1) and bool(self.missing)

    def __str__(self) -> str:
        missing, contributed = (", ".join(map(str, rounds)) for rounds in (self.missing, self.contributed))
        return (
            f"{self.mode}: away in round {missing}, back in round {self.back_in_round}, "
            f"took part in rounds {contributed}{'' if self.kept else '   NOT AS PROMISED'}"
        )


def measure(folder: Path) -> Iterator[Finding | Return]:
    """Yield one finding after the other."""
    for away_s in AWAY_S:
        yield works_again(folder / f"away-{away_s:.0f}", away_s)
    for at_work in (True, False):
        yield named(folder / f"killed-{at_work}", at_work=at_work, vanishes=False)
    for at_work in (True, False):
        yield named(folder / f"vanished-{at_work}", at_work=at_work, vanishes=True)
    for mode in ("csfssl", "ppfssl"):
        yield returns(folder / f"returns-{mode}", mode)


def _until(what: str, condition: Callable[[], bool]) -> float:
    """Return the seconds until a condition holds."""
    begun_s = time.monotonic()
    while not condition():
        assert time.monotonic() - begun_s < WAIT_S, f"not within {WAIT_S:.0f} s: {what}"
        time.sleep(LOOK_S)
    return time.monotonic() - begun_s


def _begin(made: Federation, mode: Mode, pace_s: float) -> tuple[Process, dict[str, Process]]:
    coordinator = made.coordinate("--mode", mode)
    for site in made.sites:
        made.enrol(site)
    return coordinator, {site: made.light(site, "--pace-s", str(pace_s)) for site in made.sites}


def _site(made: Federation, name: str) -> dict[str, Any]:
    [site] = [site for site in made.overview()["sites"] if site["site"] == name]
    return dict(site)


def works_again(folder: Path, away_s: float) -> Finding:
    """The coordinator is killed while its sites train; it is back when all have something to tell it."""
    with federation(folder, terms={"rounds": 2, "lease_s": 60.0}) as made:
        coordinator, agents = _begin(made, "csfssl", 0.1)
        agents[VICTIM].says("asked to train in round 1")
        coordinator.kill()
        updates = made.events("UpdateStored")
        assert updates == 1, "a site was too quick: only the first model was to be there"
        time.sleep(away_s)  # the fault itself
        back = made.coordinate()
        all_of_them = updates + len(made.sites)
        seconds = _until("every site has delivered", lambda: made.events("UpdateStored") >= all_of_them)
        made.finish(back, *agents.values())
    return Finding(
        f"after {away_s:.0f} s without a coordinator, until every site has delivered", seconds, WORKS_AGAIN_S
    )


def named(folder: Path, *, at_work: bool, vanishes: bool) -> Finding:
    """A site dies, at work or at rest; `vanishes`: without a word, as when its machine or its network goes."""
    with federation(folder, terms={"rounds": 2, "lease_s": 60.0}) as made:
        coordinator = made.coordinate("--mode", "csfssl")
        line = Line(made.port)
        for site in made.sites:
            made.enrol(site)
        made.settle(VICTIM, port=line.port)
        # A site is at rest while a slower one makes the first model.
        paces = {site: 20.0 if (site == VICTIM) == at_work else 0.0 for site in made.sites}
        agents = {site: made.light(site, "--pace-s", str(pace)) for site, pace in paces.items()}
        agents[VICTIM].says("asked to train in round 1" if at_work else "makes the first model")
        if vanishes:
            line.silence()
        else:
            made.kill_site(agents[VICTIM])

        def seen() -> bool:
            site = _site(made, VICTIM)
            return bool(site["line"]) or site["presence"] != "present"

        seconds = _until("status names it", seen)
        line.close()
        coordinator.kill()
    how = "vanishes without a word" if vanishes else "is killed"
    return Finding(f"after a site {how} {'at work' if at_work else 'at rest'}, until status names it", seconds, NAMED_S)


def returns(folder: Path, mode: Mode) -> Return:
    """A site is killed, missed by a round, and started again."""
    terms = {"rounds": 4, "epochs_per_round": 1, "patience_rounds": 4, "lease_s": 2.0, "grace_s": 0.0, "quorum": 1}
    with federation(folder, terms=terms) as made:
        coordinator, agents = _begin(made, mode, 0.3)
        agents[VICTIM].says("asked to train in round 1")
        made.kill_site(agents[VICTIM])
        made.until("a round is done without it", lambda seen: seen["round"] >= 2)
        again = made.light(VICTIM, "--pace-s", "0.3")
        made.until("it is back", lambda seen: seen["sites"][1]["presence"] == "present")
        back_in_round = int(made.overview()["round"])
        made.finish(coordinator, agents[made.sites[0]], again, code=20)
        ledger = made.record()["ledger"]
    contributed = [line["round"] for line in ledger if VICTIM in [one["site"] for one in line["contributions"]]]
    missing = [line["round"] for line in ledger if VICTIM in [one["site"] for one in line["missing"]]]
    return Return(mode, back_in_round, tuple(contributed), tuple(missing))
