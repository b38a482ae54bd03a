"""Compares the steps of a round's updates with each other, one block of one tensor at a time.

`fedcervix.core.measures` says what a step is.
With d_k the step of update k out of K, and S the sum of all steps, the mean of the others is (S - d_k) / (K - 1). All
that is measured follows from the sums |d_k|^2, d_k . S and |S|^2. Steps are made in the type of the weights, which is
exact enough and takes half the time; their products are added up a piece at a time, and the pieces in float64, in the
order given. A block whose products are too large for its type is measured again in float64.

A plain mean reads a block of all updates once for both (`Steps`). With clipping, which needs the lengths first, with a
trimmed mean, and for the hops of a ring, measuring is a pass of its own (`measure_steps`).

A piece is too short for the threads of the linear algebra library, which would make the sums depend on the number of
processors, and wait for each other on a busy machine.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.measures import Measures
from fedcervix.core.plan import BatchNorm, check
from fedcervix.models.aggregate import Blocks, OpenModel, is_trained, open_models, rows_of, spans
from fedcervix.models.weights import Layout

RESOLVED = 1e-6
"""A difference of two sums of squares is only rounding below this share of the larger one."""
PIECE = 1024
"""elements whose products are added up in their own type; the library takes threads from 10,000 on"""


def measure_steps(updates: Sequence[tuple[Path, Path]], layout: Layout, batch_norm: BatchNorm) -> tuple[Measures, ...]:
    """Return the measures of each (vetted update, model that it was trained from), in the order given.

    Raises ValueError for no updates, RemoteError if a model has other tensors than `layout`, StorageError.
    """
    check(len(updates) > 0, "there is at least one update to measure")
    bases = list(dict.fromkeys(base for _, base in updates))
    positions = {tensor.name: position for position, tensor in enumerate(layout.tensors)}
    with (
        open_models([(update, 1.0) for update, _ in updates], layout) as sources,
        open_models([(base, 1.0) for base in bases], layout) as origins,
        np.errstate(over="ignore", invalid="ignore"),
    ):
        steps = Steps(layout, origins, [bases.index(base) for _, base in updates])
        for position, tensor in enumerate(layout.tensors):
            if is_trained(tensor, batch_norm, positions):
                for span in spans(tensor, steps.block_elements(position)):
                    steps.read(sources, position, span)
                    steps.count()
    return steps.measures()


@contextmanager
def steps_from(base: Path, layout: Layout, updates: int) -> Iterator[Steps]:
    """Measure so many updates of one model while they are averaged. Errors as `measure_steps`."""
    with open_models([(base, 1.0)], layout) as origins:
        yield Steps(layout, origins, [0] * updates)


def _dots(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return the inner products of the last axis, of which there is one for each row of `one`, in float64."""
    whole = one.shape[-1] // PIECE * PIECE
    ours, theirs = (array[..., :whole].reshape(*array.shape[:-1], -1, PIECE) for array in (one, other))
    found = np.matmul(ours[..., None, :], theirs[..., None])[..., 0, 0].sum(axis=-1, dtype=np.float64)
    return np.asarray(found + np.einsum("...n,...n->...", one[..., whole:], other[..., whole:]), np.float64)


class Steps:
    """The sums over the steps of a round's updates so far: `read` a block of all of them, use it, then `count` it.

    `begun` says of each update which of the open models `origins` it was trained from.
    """

    def __init__(self, layout: Layout, origins: Sequence[OpenModel], begun: Sequence[int]) -> None:
        self._tensors, self._blocks, self._origins, self._begun = layout.tensors, Blocks(layout), origins, begun
        self._rooms: dict[np.dtype[Any], NDArray[Any]] = {}
        self._block = self._bases = np.empty((0, 0))
        """what was read last"""
        self._sums = np.zeros(len(begun)), np.zeros(len(begun)), np.zeros(len(origins)), np.zeros(())
        """|d_k|^2, d_k . S, the squared lengths of the models that the steps begin from, |S|^2"""

    def block_elements(self, position: int) -> int:
        """How many elements of a tensor are read at once."""
        return int(self._room(position).shape[1])

    def _room(self, position: int) -> NDArray[Any]:
        dtype = np.dtype(np.float64 if self._tensors[position].dtype == "F64" else np.float32)
        rows = len(self._begun) + len(self._origins)
        return self._rooms[dtype] if dtype in self._rooms else self._rooms.setdefault(dtype, rows_of(rows, dtype))

    def read(self, updates: Sequence[OpenModel], position: int, span: slice) -> NDArray[Any]:
        """Return a block of a tensor of every update, a row for each, until it is counted. Raises StorageError."""
        rows = self._room(position)[:, : span.stop - span.start]
        for row, source in zip(rows, (*updates, *self._origins), strict=True):
            self._blocks.read_into(row, source, position, span)
        self._block, self._bases = rows[: len(updates)], rows[len(updates) :]
        return self._block

    def count(self) -> None:
        """Count the block that was read last, which becomes that of the steps."""
        rows, bases = self._block, self._bases
        for row, base in zip(rows, self._begun, strict=True):
            row -= bases[base]
        found = self._products(rows, bases)
        if not all(np.isfinite(sums).all() for sums in found) and rows.dtype != np.float64:
            found = self._products(rows.astype(np.float64), bases.astype(np.float64))
        squares, inner, sizes, whole = (sums + more for sums, more in zip(self._sums, found, strict=True))
        self._sums = squares, inner, sizes, whole

    @staticmethod
    def _products(steps: NDArray[Any], bases: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
        total = np.add.reduce(steps, axis=0)
        return _dots(steps, steps), _dots(steps, total), _dots(bases, bases), _dots(total, total)

    def measures(self) -> tuple[Measures, ...]:
        """Return what follows for each update."""
        return tuple(self._of(update, base) for update, base in enumerate(self._begun))

    def _of(self, update: int, base: int) -> Measures:
        squares, products, sizes, whole = self._sums
        square, size, others = float(squares[update]), float(sizes[base]), len(squares) - 1
        norm = _length(square)
        relative = _finite(norm / _length(size)) if size else None
        if others == 0:
            return Measures(norm, relative)
        inner = float(products[update]) - square
        """d_k . (S - d_k)"""
        rest = _difference(float(whole) - 2 * inner - square, max(float(whole), square))
        """|S - d_k|^2"""
        scale = norm * _length(rest)
        measurable = 0 < scale < math.inf and math.isfinite(inner)
        cosine = max(-1.0, min(1.0, inner / scale)) if measurable else None
        apart = square - 2 * inner / others + rest / others**2
        return Measures(norm, relative, cosine, _length(_difference(apart, max(square, rest / others**2))))


def _difference(value: float, of: float) -> float:
    """Return a sum of squares that was found by subtraction; 0 where only rounding is left of it."""
    return value if value > RESOLVED * of or not math.isfinite(value) else 0.0


def _length(square: float) -> float:
    return _finite(math.sqrt(square)) if square >= 0 else sys.float_info.max


def _finite(value: float) -> float:
    """Limit a number to the largest float: squares of float64 models may be beyond it."""
    return min(value, sys.float_info.max)
