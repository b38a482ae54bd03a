"""Compares the steps of a round's updates with each other, one block of one tensor at a time.

`fedcervix.core.measures` says what a step is.
With d_k the step of update k out of K, and S the sum of all steps, the mean of the others is (S - d_k) / (K - 1). All
that is measured follows from the sums |d_k|^2, d_k . S and |S|^2. Steps are made in the type of the weights, which is
exact enough and takes half the time; their products are added up a piece at a time, and the pieces in float64, in the
order given. A block whose products are too large for its type is measured again in float64.

A piece is too short for the threads of the linear algebra library, which would make the sums depend on the number of
processors, and wait for each other on a busy machine.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.measures import Measures
from fedcervix.core.plan import BatchNorm, check
from fedcervix.models.aggregate import Blocks, is_trained, open_models, rows_of, spans
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
    begun = [bases.index(base) for _, base in updates]
    sums = _Sums(len(updates), len(bases))
    positions = {tensor.name: position for position, tensor in enumerate(layout.tensors)}
    files = [(path, 1.0) for path in (*(update for update, _ in updates), *bases)]
    with open_models(files, layout) as sources, np.errstate(over="ignore", invalid="ignore"):
        blocks = Blocks(layout)
        rooms: dict[np.dtype[Any], NDArray[Any]] = {}
        for position, tensor in enumerate(layout.tensors):
            if not is_trained(tensor, batch_norm, positions):
                continue
            dtype = np.dtype(np.float64 if tensor.dtype == "F64" else np.float32)
            rows = rooms.setdefault(dtype, rows_of(len(sources), dtype))
            for span in spans(tensor, rows.shape[1]):
                found = rows[:, : span.stop - span.start]
                for row, source in zip(found, sources, strict=True):
                    blocks.read_into(row, source, position, span)
                sums.add(found[: len(updates)], found[len(updates) :], begun)
    return tuple(sums.measures(update, base) for update, base in enumerate(begun))


def _dots(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return the inner products of the last axis, of which there is one for each row of `one`, in float64."""
    whole = one.shape[-1] // PIECE * PIECE
    ours, theirs = (array[..., :whole].reshape(*array.shape[:-1], -1, PIECE) for array in (one, other))
    found = np.matmul(ours[..., None, :], theirs[..., None])[..., 0, 0].sum(axis=-1, dtype=np.float64)
    return np.asarray(found + np.einsum("...n,...n->...", one[..., whole:], other[..., whole:]), np.float64)


class _Sums:
    """The sums over the steps so far."""

    def __init__(self, updates: int, bases: int) -> None:
        self._squares, self._inner, self._bases = np.zeros(updates), np.zeros(updates), np.zeros(bases)
        """|d_k|^2, d_k . S, and the squared lengths of the models that the steps begin from"""
        self._all = np.zeros(())
        """|S|^2"""

    def add(self, rows: NDArray[Any], bases: NDArray[Any], begun: Sequence[int]) -> None:
        """Count one block of every update, which becomes that of the steps, and of the models that they begin from."""
        for row, base in zip(rows, begun, strict=True):
            row -= bases[base]
        found = self._products(rows, bases)
        if not all(np.isfinite(sums).all() for sums in found) and rows.dtype != np.float64:
            found = self._products(rows.astype(np.float64), bases.astype(np.float64))
        self._squares, self._inner, self._bases, self._all = (
            sums + more for sums, more in zip((self._squares, self._inner, self._bases, self._all), found, strict=True)
        )

    @staticmethod
    def _products(steps: NDArray[Any], bases: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
        total = np.add.reduce(steps, axis=0)
        return _dots(steps, steps), _dots(steps, total), _dots(bases, bases), _dots(total, total)

    def measures(self, update: int, base: int) -> Measures:
        """Return what follows for one update."""
        square, size = float(self._squares[update]), float(self._bases[base])
        norm, others = _length(square), len(self._squares) - 1
        relative = _finite(norm / _length(size)) if size else None
        if others == 0:
            return Measures(norm, relative)
        inner = float(self._inner[update]) - square
        """d_k . (S - d_k)"""
        rest = _difference(float(self._all) - 2 * inner - square, max(float(self._all), square))
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
