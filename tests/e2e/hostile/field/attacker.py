"""One attacker: a program that does one thing for so many seconds, then says what came of it.

    python -m tests.e2e.hostile.field.attacker NAME --port PORT --seconds S [--keys FOLDER] [--source A] [--seed N]

Its last line is JSON: what it has counted.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fedcervix.wire import federation_pb2 as wire
from tests.e2e.hostile.field.frames import Door, Headers, Line

ATTACH, REPORT, OFFER, PACKED, ENROLL, OVERVIEW, COMMAND, WATCH = (
    f"/fedcervix.Federation/{name}"
    for name in ("Attach", "Report", "Offer", "Packed", "Enroll", "Overview", "Command", "Watch")
)
FETCH, PUSH = "/fedcervix.Blobs/Fetch", "/fedcervix.Blobs/Push"
WIRE_VERSION = 2
AGAIN_S = 0.05
"""after a connection was cut, until the next one"""
NUMBERS = 100_000


@dataclass
class Attacker:
    """What an attack is given, and what it counts."""

    door: Door
    seconds: float
    seed: int
    numbers: int = NUMBERS
    """of a model that it makes"""
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._until_s = time.monotonic() + self.seconds
        self.chance = random.Random(self.seed)
        self.instance = f"{self.chance.getrandbits(128):032x}"
        self.plan_digest = "0" * 64

    def goes_on(self) -> bool:
        """Say whether there is time left."""
        return time.monotonic() < self._until_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._until_s - time.monotonic())

    @property
    def who(self) -> Headers:
        """The header of a site's calls."""
        return (("fedcervix-instance", self.instance),)

    def say(self, words: str) -> None:
        """Print a line."""
        sys.stdout.write(f"{words}\n")
        sys.stdout.flush()

    def wait(self, pause_s: float) -> None:
        """Do nothing, until the end at most."""
        time.sleep(min(pause_s, self.left_s))

    def persist(self, work: Callable[[Line], None], *, window: int = 2**31 - 1) -> None:
        """Do something on one connection after the other: when one is cut, dial again."""
        while self.goes_on():
            try:
                line = Line(self.door, window=window)
            except OSError:
                self.counts["refused connections"] += 1
                self.wait(AGAIN_S)
                continue
            self.counts["connections"] += 1
            try:
                work(line)
            except OSError:
                self.counts["cut connections"] += 1
                self.wait(AGAIN_S)
            finally:
                line.close()

    def hold(self, *lines: Line) -> None:
        """Keep connections open and answer pings, to the end. Raises OSError as soon as one is cut."""
        while self.goes_on():
            for line in lines:
                line.pump(min(0.2 / len(lines), self.left_s))

    def welcome(self, line: Line) -> wire.Welcome | None:
        """Hear what the run is; None where nothing is said."""
        request = wire.AttachRequest(wire_version=WIRE_VERSION, look=True)
        reply = line.answer(line.call(ATTACH, request.SerializeToString()))
        if not reply:
            return None
        said = wire.FromCoordinator.FromString(reply).welcome
        self.plan_digest = hashlib.sha256(said.plan.encode()).hexdigest()
        return said


def main() -> None:
    """Attack."""
    from tests.e2e.hostile.field.attacks import ATTACKS

    options = argparse.ArgumentParser()
    options.add_argument("name", choices=[*ATTACKS])
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--seconds", type=float, required=True)
    options.add_argument("--keys", type=Path)
    options.add_argument("--source", default="127.0.0.1")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--numbers", type=int, default=NUMBERS)
    given = options.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    me = Attacker(Door(given.port, given.source, given.keys), given.seconds, given.seed, given.numbers)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with contextlib.suppress(OSError):
            ATTACKS[given.name].attack(me)
    finally:
        me.say(json.dumps(dict(me.counts)))


if __name__ == "__main__":
    main()
