"""Pictures that stay where they are: rows of arrays, in memory or mapped from the disk, put in an order.

A trainer asks for some rows at a time (`pixels[chosen]`, see `pixels`) and gets those in memory. Selecting from
collections and joining them moves row numbers alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from site_agent.data.pixels import Pixels

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """A `Pixels` of which picture k is row `rows[k]` of `sources[places[k]]`."""

    sources: tuple[Bytes, ...]
    """each (m, S, S, 3), in memory or mapped; all of one S"""
    places: npt.NDArray[np.int64]
    """(n,)"""
    rows: Rows
    """(n,)"""

    def __post_init__(self) -> None:
        if len({source.shape[1:] for source in self.sources}) != 1 or self.places.shape != self.rows.shape:
            raise ValueError("pictures of one size, and a row for each place, are needed")

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, S, S, 3)."""
        return (len(self.rows), *self.sources[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """8-bit."""
        return self.sources[0].dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Rows | slice, /) -> Bytes:
        """Return the pictures of these rows, in this order, in memory."""
        places, wanted = self.places[rows], self.rows[rows]
        if len(self.sources) == 1:
            return self.sources[0].take(wanted, axis=0)
        found = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        for place in np.unique(places):
            there = places == place
            found[there] = self.sources[place].take(wanted[there], axis=0)
        return found


def joined(parts: Sequence[Pixels]) -> Pixels:
    """Return several collections as one, without copying a picture. Raises ValueError unless all have one size."""
    if len(parts) == 1:
        return parts[0]
    all_of = [_gathered(part) for part in parts]
    first_of = itertools.accumulate((len(one.sources) for one in all_of), initial=0)
    return Gathered(
        tuple(source for one in all_of for source in one.sources),
        np.concatenate([one.places + first for one, first in zip(all_of, first_of, strict=False)]),
        np.concatenate([one.rows for one in all_of]),
    )


def selected(pixels: Pixels, rows: Sequence[int] | Rows) -> Pixels:
    """Return some of the pictures, in the order of `rows`, without copying any."""
    whole, chosen = _gathered(pixels), np.asarray(rows, np.int64)
    return Gathered(whole.sources, whole.places[chosen], whole.rows[chosen])


def _gathered(pixels: Pixels) -> Gathered:
    if isinstance(pixels, Gathered):
        return pixels
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"pictures are an array or Gathered; found {type(pixels).__name__}")
    return Gathered((pixels,), np.zeros(len(pixels), np.int64), np.arange(len(pixels)))
