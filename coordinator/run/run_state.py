"""The run as it stands, the lock under which it changes, and who is told of a change."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fedcervix.core.rounds.state import Run


class RunState:
    """A value that is replaced: whoever only looks waits for no one who journals."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.changed = threading.Condition()
        """also the lock of everything that is known of the sites"""
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, tell: Callable[[], None]) -> None:
        """Have `tell` called after every change, from any thread and under the lock: it must be quick."""
        with self.changed:
            self._listeners.append(tell)

    def tell(self) -> None:
        """Let whoever waits see a change. Called under the lock."""
        self.changed.notify_all()
        for tell in self._listeners:
            tell()
