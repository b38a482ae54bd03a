"""Losses, read without making a GPU wait.

Reading a value from a GPU stops the program until the GPU has caught up, and the GPU then waits for the program. So a
loss is copied aside as soon as it is there, and read when the copy is done: a few steps later. Nothing is lost, and
everything comes in order. On a CPU a loss is read at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

PENDING_MAX = 16
"""steps that may be unread: so late at most is a loss that is not finite noticed"""


class Readings:
    """Scalars on their way to the CPU, each with a tag."""

    def __init__(self) -> None:
        self._pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, tag: int, scalar: Tensor) -> None:
        """Send a scalar on its way."""
        if scalar.device.type == "cpu":
            self._pending.append((tag, scalar, None))
            return
        aside = torch.empty((), dtype=scalar.dtype, pin_memory=True)
        aside.copy_(scalar, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self._pending.append((tag, aside, arrived))

    def arrived(self) -> Iterator[tuple[int, float]]:
        """Yield what is there, in order; waits only where too many are pending."""
        while self._pending and (len(self._pending) > PENDING_MAX or _is_there(self._pending[0][2])):
            yield self._next()

    def rest(self) -> Iterator[tuple[int, float]]:
        """Yield everything, waiting for it."""
        while self._pending:
            yield self._next()

    def _next(self) -> tuple[int, float]:
        tag, scalar, arrived = self._pending.popleft()
        if arrived is not None:
            arrived.synchronize()
        return tag, float(scalar)


def _is_there(arrived: torch.cuda.Event | None) -> bool:
    return arrived is None or bool(arrived.query())  # type: ignore[no-untyped-call]
