"""The distance of an update from the model that it was trained from, and its limit.

The numbers of a model fall into three groups: what is trained, running means, and the square roots of running variances
(a variance is a square: it moves a hundred times where an activation moves ten times). Of each group
    step = ||update - base|| / max(||base||, FLOOR sqrt(n))
with Euclidean norms over the group's n numbers. The floor stands in for a base that is (nearly) zero: running means
begin at zero, as do biases. It is a mean square of .01^2 for what is trained, and of 1 for running statistics, which
are those of activations. The plan's `step_max` bounds each step; honest training stays far below it (measured: see
docs/configuration.md). A counter grows by at most `COUNTER_STEP_MAX`, so that no site can make it overflow.

A `Meter` measures the parts of an update as they come: from a file here, or from the network, where the processor has
them at hand (`fedcervix.models.stream_validation`). The size of the base is the same for all sites: it is kept.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcervix.disk.files import opened, read_at
from fedcervix.disk.storage import disk
from fedcervix.errors import RemoteError
from fedcervix.models.weights import (
    BLOCK_BYTES,
    FLOATS,
    Kind,
    Layout,
    Tensor,
    blocks,
    check_same,
    decode,
    kind,
    read_layout,
)

FLOOR: dict[Kind, float] = {"float": 0.01, "running_mean": 1.0, "running_var": 1.0}
WORDS: dict[Kind, str] = {
    "float": "weights and biases",
    "running_mean": "running means",
    "running_var": "running deviations (roots of variances)",
}
PART_BYTES = 2**19
"""of a tensor that are looked at together"""
COUNTER_STEP_MAX = 2**40
"""as many optimiser steps as a report may claim"""


@dataclass(frozen=True, slots=True)
class Group:
    """What was measured of one group of numbers; sums of squares."""

    kind: Kind
    count: int
    moved: float
    """of update - base"""
    base: float
    farthest: str
    """the tensor that moved most"""
    farthest_moved: float

    @property
    def step(self) -> float:
        """How far the group moved, relative to its base; 0 for a group without numbers."""
        return math.sqrt(self.moved) / self.size if self.count else 0.0

    @property
    def size(self) -> float:
        """The norm of the base, or the floor where that is larger."""
        return max(math.sqrt(self.base), FLOOR[self.kind] * math.sqrt(self.count))


class _Room(threading.local):
    """Room for a part of a tensor: one for each thread, for there may be many more uploads at once."""

    def __init__(self) -> None:
        self.base = memoryview(bytearray(PART_BYTES))


_ROOM = _Room()
_ONE_READS = threading.Lock()
"""the size of a base: many updates that are whole at once would each read it"""


class Meter:
    """Adds up how far the tensors of one update have moved from their base. Not thread-safe."""

    def __init__(self, base: Path, like: Layout | None = None) -> None:
        """The base is read when the first numbers come: an upload that only begins costs nothing.

        `like`: the layout that it most likely has, which then need not be parsed again.
        """
        self.base, self._like = base, like
        self._file: FileIO | None = None
        self._tensors: dict[str, Tensor] = {}
        self._moved: dict[str, float] = {}

    def add(self, tensor: Tensor, start: int, raw: memoryview) -> bool:
        """Count the bytes of a tensor of the update that begin at byte `start` of it, with a whole number.

        Returns whether `weights.sound` is known of them by that: a finite sum of squares holds only finite numbers, and
        roots only of numbers that are not negative. Raises RemoteError where the base has no such tensor, or a counter
        leaps; StorageError.
        """
        file = self._opened()
        base = self._tensors.get(tensor.name)
        if base is None or (base.dtype, base.shape) != (tensor.dtype, tensor.shape):
            raise RemoteError(f"{tensor.name} of the update is not in the base model")
        if tensor.dtype == "BOOL":
            return False
        known = True
        for at in range(0, len(raw), PART_BYTES):
            known = self._count(base, start + at, raw[at : at + PART_BYTES], file) and known
        return known

    def _count(self, base: Tensor, start: int, raw: memoryview, file: FileIO) -> bool:
        ours, theirs = decode(raw, base.dtype), self._part(base, start, len(raw), file)
        if base.dtype not in FLOATS:
            _check_counter(ours, theirs, base)
            return False
        with np.errstate(over="ignore", invalid="ignore"):
            if roots := kind(base.name, base.dtype) == "running_var":
                ours, theirs = np.sqrt(ours), np.sqrt(theirs)
            near = _square(np.subtract(ours, theirs, out=theirs))
            if near is None:
                theirs = self._part(base, start, len(raw), file)
                self._moved[base.name] += _wide_square(ours, np.sqrt(theirs) if roots else theirs)
                return False
        self._moved[base.name] += near
        return True

    @staticmethod
    def _part(base: Tensor, start: int, length: int, file: FileIO) -> NDArray[Any]:
        """Return numbers of the base, which may be overwritten; the next ones take their place."""
        theirs = _ROOM.base[:length]
        read_at(file, base.start + start, theirs)
        return decode(theirs, base.dtype)

    def _opened(self) -> FileIO:
        """Return the base, opened. Raises RemoteError where it is no model, StorageError."""
        if self._file is None:
            self._tensors = {tensor.name: tensor for tensor in read_layout(self.base, self._like).tensors}
            self._moved = dict.fromkeys(self._tensors, 0.0)
            with disk(self.base, "read"):
                self._file = self.base.open("rb", buffering=0)
        return self._file

    def close(self) -> None:
        """Close the base."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def groups(self) -> tuple[Group, ...]:
        """Return what was found, when all of the update was counted. Raises RemoteError as `add`, StorageError."""
        self._opened()
        with disk(self.base, "read"):
            known = self.base.stat()
        with _ONE_READS:
            sizes = _base_squares(self.base, known.st_ino, known.st_mtime_ns)
        floats = [tensor for tensor in self._tensors.values() if tensor.dtype in FLOATS]
        of = {name: [tensor for tensor in floats if kind(tensor.name, tensor.dtype) == name] for name in FLOOR}
        return tuple(_group(name, tensors, self._moved, sizes) for name, tensors in of.items())


def _group(name: Kind, tensors: Sequence[Tensor], moved: Mapping[str, float], sizes: Mapping[str, float]) -> Group:
    found = {tensor.name: moved[tensor.name] for tensor in tensors}
    farthest = max(found, key=lambda tensor: found[tensor], default="")
    count, base = sum(tensor.count for tensor in tensors), sum(sizes[tensor] for tensor in found)
    return Group(name, count, sum(found.values()), base, farthest, found.get(farthest, 0.0))


@lru_cache(maxsize=4)
def _base_squares(base: Path, _inode: int, _written_ns: int) -> dict[str, float]:
    """Return the sum of squares of each tensor of a model; of variances, the sum. Raises StorageError."""
    found = {}
    with opened(base) as file:
        for tensor in read_layout(base).tensors:
            if tensor.dtype in FLOATS:
                roots = kind(tensor.name, tensor.dtype) == "running_var"
                found[tensor.name] = sum(_size(decode(raw, tensor.dtype), roots) for raw in blocks(file, tensor))
    return found


def _size(values: NDArray[Any], roots: bool) -> float:
    if roots:
        return float(values.sum(dtype=np.float64))
    near = _square(values)
    return _wide_square(values, np.zeros_like(values)) if near is None else near


def measure_groups(update: Path, base: Path) -> tuple[Group, ...]:
    """Return how far each group of an update lies from its base. What is not a finite number is infinitely far.

    Raises RemoteError where the two do not hold the same tensors, or a counter leaps; StorageError from the disk.
    """
    ours = read_layout(update)
    check_same(ours, read_layout(base))
    with opened(update) as file, closing(Meter(base)) as found:
        for tensor in ours.tensors:
            for at, raw in zip(range(0, tensor.end - tensor.start, BLOCK_BYTES), blocks(file, tensor), strict=True):
                found.add(tensor, at, raw)
        return found.groups()


def vet_step(update: Path, base: Path, step_max: float) -> float:
    """Return the largest step of a vetted update. Raises RemoteError above `step_max`, and as `measure_groups`."""
    return check_steps(measure_groups(update, base), step_max)


def check_steps(groups: Sequence[Group], step_max: float) -> float:
    """Return the largest step of an update of which this was measured. Raises RemoteError if it is above `step_max`."""
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


def _check_counter(ours: NDArray[Any], theirs: NDArray[Any], tensor: Tensor) -> None:
    if (ours.astype(np.float64) - theirs.astype(np.float64) > COUNTER_STEP_MAX).any():
        raise RemoteError(
            f"{tensor.name} counts over {COUNTER_STEP_MAX:.3g} steps more than its base",
            cause="the update was not made by training",
            next_step="ask the site what happened",
        )
