"""How a training ends before its time without losing what it has learned: at the next step, with a checkpoint.

Whoever wants it to end asks (`Stop.ask`); who trains says from when to when a checkpoint can be kept. Outside of that
there is nothing to wait for: images that were decoded are in the cache, and a score is quickly done again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from site_agent.training.checkpoints import INTERVAL_S, Checkpoint, Checkpoints


class Stop:
    """Whether someone has asked the training to end."""

    def __init__(self) -> None:
        self.asked = False
        self.kept = False
        """a checkpoint was kept because of it"""
        self._waits = False

    @contextlib.contextmanager
    def waits_for_checkpoint(self) -> Iterator[None]:
        """While this holds, asking is not ending: the training ends by itself, soon."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    def ask(self) -> bool:
        """Ask the training to end; returns whether it does so by itself."""
        self.asked = True
        return self._waits

    def heard(self, _number: int, _frame: object) -> None:
        """Answer a signal: the first one asks; where nothing waits, and the second time, it interrupts at once.

        Raises KeyboardInterrupt.
        """
        if self.asked or not self.ask():
            raise KeyboardInterrupt

    def end_if_asked(self) -> None:
        """Raise KeyboardInterrupt where the training was asked to end."""
        if self.asked:
            raise KeyboardInterrupt


class Stoppable(Checkpoints):
    """Checkpoints of a training that may be asked to end: then one is due at once, and is the last."""

    def __init__(self, folder: Path, contract: str, stop: Stop, *, interval_s: float = INTERVAL_S) -> None:
        super().__init__(folder, contract, interval_s=interval_s)
        self._stop = stop

    def due(self) -> bool:
        """Return whether it is time to keep another."""
        return super().due() or self._stop.asked

    def keep(self, checkpoint: Checkpoint) -> bool:
        """Write a checkpoint. Raises KeyboardInterrupt where the training was asked to end."""
        self._stop.kept = super().keep(checkpoint)
        self._stop.end_if_asked()
        return self._stop.kept
