"""How far an update lies from the model that it was trained from, and how far it may.

The numbers of a model fall into three groups: what is trained, running means, and the square roots of running variances
(a variance is a square: it moves a hundred times where an activation moves ten times). Of each group
    step = ||update - base|| / max(||base||, FLOOR sqrt(n))
with Euclidean norms over the group's n numbers. The floor stands in for a base that is (nearly) zero: running means
begin at zero, as do biases. It is a mean square of .01^2 for what is trained, and of 1 for running statistics, which
are those of activations. The plan's `step_max` bounds each step; honest training stays far below it (measured: see
docs/configuration.md). A counter grows by at most `COUNTER_STEP_MAX`, so that no site can make it overflow.

Both files are read together, block by block, through buffers of a fixed size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcervix.disk.files import opened, read_at
from fedcervix.errors import RemoteError
from fedcervix.models.weights import BLOCK_BYTES, FLOATS, Kind, Tensor, check_same, decode, kind, read_layout

FLOOR: dict[Kind, float] = {"float": 0.01, "running_mean": 1.0, "running_var": 1.0}
WORDS: dict[Kind, str] = {
    "float": "weights and biases",
    "running_mean": "running means",
    "running_var": "running deviations (roots of variances)",
}
Pair = tuple[NDArray[Any], NDArray[Any]]
COUNTER_STEP_MAX = 2**40
"""as many optimiser steps as a report may claim"""


@dataclass(slots=True)
class Group:
    """What was measured of one group of numbers; sums of squares."""

    kind: Kind
    count: int = 0
    moved: float = 0.0
    """of update - base"""
    base: float = 0.0
    farthest: str = ""
    """the tensor that moved most"""
    farthest_moved: float = 0.0

    @property
    def step(self) -> float:
        """How far the group moved, relative to its base; 0 for a group without numbers."""
        return math.sqrt(self.moved) / self.size if self.count else 0.0

    @property
    def size(self) -> float:
        """The norm of the base, or the floor where that is larger."""
        return max(math.sqrt(self.base), FLOOR[self.kind] * math.sqrt(self.count))

    def add(self, tensor: Tensor, moved: float, base: float) -> None:
        """Count one tensor."""
        self.count, self.moved, self.base = self.count + tensor.count, self.moved + moved, self.base + base
        if not moved <= self.farthest_moved:
            self.farthest, self.farthest_moved = tensor.name, moved


def measure(update: Path, base: Path) -> list[Group]:
    """Return how far each group of an update lies from its base. What is not a finite number is infinitely far.

    Raises RemoteError where the two do not hold the same tensors, or a counter leaps; StorageError from the disk.
    """
    ours, theirs = read_layout(update), read_layout(base)
    check_same(ours, theirs)
    places = {tensor.name: tensor for tensor in ours.tensors}
    groups = {name: Group(name) for name in FLOOR}
    with opened(update) as ours_file, opened(base) as theirs_file:
        for tensor in theirs.tensors:
            pairs = _pairs(ours_file, places[tensor.name], theirs_file, tensor)
            if tensor.dtype in FLOATS:
                group = groups[kind(tensor.name, tensor.dtype)]
                group.add(tensor, *_squares(_roots(pairs) if group.kind == "running_var" else pairs))
            elif tensor.dtype != "BOOL":
                _check_counter(pairs, tensor)
    return list(groups.values())


def vet_step(update: Path, base: Path, step_max: float) -> float:
    """Return the largest step of a vetted update. Raises RemoteError if it is above `step_max`; and as `measure`."""
    groups = measure(update, base)
    for group in groups:
        if not group.step <= step_max:
            raise _too_far(group, step_max)
    return max(group.step for group in groups)


def _too_far(group: Group, step_max: float) -> RemoteError:
    moved, farthest = math.sqrt(group.moved), math.sqrt(group.farthest_moved)
    return RemoteError(
        f"the update lies too far from the model that it was trained from: its {WORDS[group.kind]} moved by "
        f"{moved:.3g}, which is {group.step:.3g} times their size of {group.size:.3g}; at most {step_max:g} times is "
        f"accepted. {group.farthest} moved most, by {farthest:.3g}",
        cause="training diverged, or the update was made to do harm",
        next_step="look at the site's loss in this round; the plan's step_max sets the bound",
    )


def _pairs(ours_file: FileIO, ours: Tensor, theirs_file: FileIO, theirs: Tensor) -> Iterator[Pair]:
    """Yield the numbers of a tensor in both files, block by block."""
    blocks = [memoryview(bytearray(min(BLOCK_BYTES, max(1, theirs.end - theirs.start)))) for _ in range(2)]
    for at in range(0, theirs.end - theirs.start, BLOCK_BYTES):
        length = min(BLOCK_BYTES, theirs.end - theirs.start - at)
        mine, other = (block[:length] for block in blocks)
        read_at(ours_file, ours.start + at, mine)
        read_at(theirs_file, theirs.start + at, other)
        yield decode(mine, ours.dtype), decode(other, theirs.dtype)


def _roots(pairs: Iterator[Pair]) -> Iterator[Pair]:
    with np.errstate(invalid="ignore"):
        for ours, theirs in pairs:
            yield np.sqrt(ours), np.sqrt(theirs)


def _squares(pairs: Iterator[Pair]) -> tuple[float, float]:
    """Return the sums of squares of update - base, and of base."""
    moved = size = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for ours, theirs in pairs:
            near = _square(ours - theirs)
            moved += _wide_square(ours, theirs) if near is None else near
            small = _square(theirs)
            size += _wide_square(theirs, np.zeros_like(theirs)) if small is None else small
    return moved, size


def _square(values: NDArray[Any]) -> float | None:
    """Return a sum of squares; None where their own type is too small for it."""
    # Not np.dot: its threads wait for one another on a busy machine.
    found = float(np.einsum("n,n->", values, values))
    return found if math.isfinite(found) else None


def _wide_square(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Return the sum of squares of the differences, in float64; infinite where one is not a number."""
    apart = ours.astype(np.float64) - theirs
    found = float(np.einsum("n,n->", apart, apart))
    return math.inf if math.isnan(found) else found


def _check_counter(pairs: Iterator[Pair], tensor: Tensor) -> None:
    for ours, theirs in pairs:
        if (ours.astype(np.float64) - theirs.astype(np.float64) > COUNTER_STEP_MAX).any():
            raise RemoteError(
                f"{tensor.name} counts more than {COUNTER_STEP_MAX:.3g} steps more than its base",
                cause="the update was not made by training",
                next_step="ask the site what happened",
            )
