"""The service manager of one program: what ends and was not to, is started again (see deploy/systemd)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.e2e.loopback import Process

BACK_S = 0.3
"""until a program that ended by itself is started again; the units of deploy/systemd wait for a minute"""
OVER = (0, 20, 21, 130)
MENDED_BY_RESTART = (7, 8, 9)
TAKEN = "cannot listen on"
"""the port of a coordinator that was killed may be another program's for a moment, on a machine full of them"""
NOTHING_TO_DO = "no unfinished run to continue"


@dataclass
class Service:
    """One program. `trouble` says what a restart does not mend."""

    name: str
    launch: Callable[[], Process]
    process: Process = field(init=False)
    over: bool = False
    trouble: str = ""
    restarts: int = 0
    _due_s: float | None = None

    def __post_init__(self) -> None:
        self.process = self.launch()

    @property
    def running(self) -> bool:
        return self._due_s is None and self.process.running()

    def tend(self) -> None:
        """Start it again when that is due."""
        if self.over or self.trouble or self.running:
            return
        if self._due_s is None:
            self._judge()
        elif time.monotonic() >= self._due_s:
            self._due_s = None
            self.process = self.launch()
            self.restarts += 1

    def back_in(self, pause_s: float) -> None:
        """Its process was ended from outside: start another after this."""
        self._due_s = time.monotonic() + pause_s

    def _judge(self) -> None:
        code, text = self.process.popen.returncode, self.process.text
        if code in OVER or NOTHING_TO_DO in text:
            self.over = True
        elif code in MENDED_BY_RESTART or TAKEN in text:
            self.back_in(BACK_S)
        else:
            self.trouble = f"{self.name} ended with {code}, which no restart mends:\n{text[-2000:]}"
