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
from fedcervix.models.weights import BLOCK_BYTES, FLOATS, Kind, Tensor, blocks, check_same, decode, kind, read_layout

FLOOR: dict[Kind, float] = {"float": 0.01, "running_mean": 1.0, "running_var": 1.0}
WORDS: dict[Kind, str] = {
    "float": "weights and biases",
    "running_mean": "running means",
    "running_var": "running deviations (roots of variances)",
}
PART_BYTES = 2**18
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
        self.apart = memoryview(bytearray(2 * PART_BYTES))  # bfloat16 is widened


_ROOM = _Room()


class Meter:
    """Adds up how far the tensors of one update have moved from their base. Not thread-safe."""

    def __init__(self, base: Path) -> None:
        """The base is read when the first numbers come: an upload that only begins costs nothing."""
        self.base = base
        self._file: FileIO | None = None
        self._tensors: dict[str, Tensor] = {}
        self._moved: dict[str, float] = {}

    def add(self, tensor: Tensor, start: int, raw: memoryview) -> None:
        """Count the bytes of a tensor of the update that begin at byte `start` of it, with a whole number.

        Raises RemoteError where the base has no such tensor, or a counter leaps; StorageError.
        """
        file = self._opened()
        base = self._tensors.get(tensor.name)
        if base is None or (base.dtype, base.shape) != (tensor.dtype, tensor.shape):
            raise RemoteError(f"{tensor.name} of the update is not in the base model")
        if tensor.dtype == "BOOL":
            return
        for at in range(0, len(raw), PART_BYTES):
            ours, theirs = raw[at : at + PART_BYTES], _ROOM.base[: min(PART_BYTES, len(raw) - at)]
            read_at(file, base.start + start + at, theirs)
            self._count(base, decode(ours, base.dtype), decode(theirs, base.dtype))

    def _count(self, tensor: Tensor, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
        if tensor.dtype not in FLOATS:
            _check_counter(ours, theirs, tensor)
            return
        with np.errstate(over="ignore", invalid="ignore"):
            if kind(tensor.name, tensor.dtype) == "running_var":
                ours, theirs = np.sqrt(ours), np.sqrt(theirs)
            apart = np.frombuffer(_ROOM.apart, ours.dtype)[: ours.size]
            near = _square(np.subtract(ours, theirs, out=apart))
            self._moved[tensor.name] += _wide_square(ours, theirs) if near is None else near

    def _opened(self) -> FileIO:
        """Return the base, opened. Raises RemoteError where it is no model, StorageError."""
        if self._file is None:
            self._tensors = {tensor.name: tensor for tensor in read_layout(self.base).tensors}
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


def measure(update: Path, base: Path) -> tuple[Group, ...]:
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
    """Return the largest step of a vetted update. Raises RemoteError if it is above `step_max`; and as `measure`."""
    return check_steps(measure(update, base), step_max)


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
            f"{tensor.name} counts more than {COUNTER_STEP_MAX:.3g} steps more than its base",
            cause="the update was not made by training",
            next_step="ask the site what happened",
        )
