"""Decoded images as the trainers take them: an array in memory, or one mapped from a file."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Pixels(Protocol):
    """Images as bytes (n, S, S, 3), RGB. An ndarray is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, S, S, 3)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> npt.NDArray[np.uint8]:
        """Return a copy of the rows asked for: (k,) indices to (k, S, S, 3)."""
