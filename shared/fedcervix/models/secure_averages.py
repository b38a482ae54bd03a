"""The average that a sum stands for: made by the coordinator, and by every site that checked the sum.

Counters are those of the sum. A running variance is averaged as the plan's `BatchNorm` says: with `pooled-variance`
from the averages of var + mean^2 and of the mean, by all other rules as it is. Server momentum is added to the
average of what is trained, as in `aggregate`. A trimmed mean and clipping need the single updates: there is none here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.plan import BatchNorm, check
from fedcervix.disk.files import writing, written_behind
from fedcervix.errors import RemoteError
from fedcervix.models.aggregate import (
    BLOCK_ELEMENTS,
    Blocks,
    Momentum,
    OpenModel,
    is_trained,
    open_models,
    spans,
)
from fedcervix.models.secure_updates import pooled, step_bound
from fedcervix.models.secure_vectors import (
    WORDS,
    OpenVector,
    VectorForm,
    Words,
    counter_in,
    open_vectors,
    part_of,
    vector_form,
)
from fedcervix.models.weights import DTYPES, Tensor, encode, read_layout, sound, with_length
from fedcervix.trust import fixed_point
from fedcervix.trust.fixed_point import OutOfRangeError, Share
from fedcervix.trust.mask_streams import Lane


@dataclass(frozen=True, slots=True)
class Summed:
    """What a sum is the sum of."""

    share: Share
    """of all its sites together"""
    sites: int

    def __post_init__(self) -> None:
        check(self.sites > 0, f"a sum has at least one site; found {self.sites}")


@dataclass(frozen=True, slots=True)
class SumAverage:
    """What is known of an average that was derived from a sum."""

    digest: str
    """SHA-256 of the model (hexadecimal)"""
    norm: float
    """Euclidean, of the average step of what is trained, without server momentum"""


def derive(
    total: Path,
    base: Path,
    to: Path,
    of: Summed,
    batch_norm: BatchNorm,
    momentum: Momentum | None = None,
    *,
    round_: int,
) -> SumAverage:
    """Write the average that a round's checked sum stands for.

    It has the header of the base. Raises RemoteError where the sum gives no model, ModelError where `pooled-variance`
    finds a variance without its mean, StorageError.
    """
    form = vector_form(read_layout(base))
    ends = [(momentum.base, 1.0), (momentum.before, 1.0)] if momentum else []
    with (
        open_vectors([total], form) as [vector],
        open_models([(base, 1.0), *ends], form.model) as models,
        writing(to, sole_writer=True) as sink,
        np.errstate(over="ignore", invalid="ignore"),
    ):
        carried = momentum.share if momentum else 0.0
        average = _Derived(form, vector, models, of, batch_norm, carried, round_)
        sink.write(with_length(form.model.header))
        with written_behind(sink) as behind:
            for position, tensor in enumerate(form.model.tensors):
                fill = average.filling(position, tensor)
                for span in spans(tensor, BLOCK_ELEMENTS):
                    out = behind.room((span.stop - span.start) * DTYPES[tensor.dtype].itemsize)
                    fill(span, out)
                    if not sound(out, tensor):
                        raise _no_model(tensor, "it holds numbers that no model has")
    return SumAverage(sink.digest, math.sqrt(average.square))


def _no_model(tensor: Tensor, why: object) -> RemoteError:
    return RemoteError(
        f"the sum of this round gives no average of {tensor.name}: {why}",
        cause="a site sent numbers that training does not make",
        next_step="see the sites' losses of this round",
    )


Fill = Callable[[slice, memoryview], None]
"""Writes the averaged elements of a span into the room for their bytes. Raises RemoteError, StorageError."""


class _Derived:
    """The open files, and the buffers that every block goes through. `models`: the base, then the ends of a step."""

    def __init__(
        self,
        form: VectorForm,
        vector: OpenVector,
        models: list[OpenModel],
        of: Summed,
        batch_norm: BatchNorm,
        carried: float,
        round_: int,
    ) -> None:
        self._form, self._vector, self._of, self._round = form, vector, of, round_
        self._origin, *self._ends = models
        self._batch_norm, self._carried = batch_norm, carried
        self._positions = {tensor.name: position for position, tensor in enumerate(form.model.tensors)}
        self._means = pooled(form.model, batch_norm)
        self._counters = vector.tail().counters
        self._blocks = Blocks(form.model)
        self.square = 0.0
        """of the norm of the average step so far"""

    def filling(self, position: int, tensor: Tensor) -> Fill:
        """Return what fills the blocks of one tensor. Raises RemoteError, StorageError."""
        return {"counters": self._counted, "statistics": self._observed, "numbers": self._trained}[part_of(tensor)](
            position, tensor
        )

    def _counted(self, _position: int, tensor: Tensor) -> Fill:
        raw, item_bytes = counter_in(self._form, tensor, self._counters), DTYPES[tensor.dtype].itemsize

        def fill(span: slice, out: memoryview) -> None:
            out[:] = raw[span.start * item_bytes : span.stop * item_bytes]

        return fill

    def _observed(self, position: int, tensor: Tensor) -> Fill:
        mean = self._means.get(position)

        def fill(span: slice, out: memoryview) -> None:
            found = self._averaged(tensor, span)
            if mean is not None:
                means = self._averaged(self._form.model.tensors[mean], span)
                found = _pooled_variances(found, means, self._of, tensor)
            encode(found, tensor.dtype, out)

        return fill

    def _trained(self, position: int, tensor: Tensor) -> Fill:
        within = step_bound(self._blocks, self._origin, position, tensor, self._round)
        carried = self._carried if is_trained(tensor, self._batch_norm, self._positions) else 0.0

        def fill(span: slice, out: memoryview) -> None:
            base = self._blocks.read(self._origin, position, span)
            found = fixed_point.averaged_steps(self._words(Lane.NUMBERS, tensor, span), base, within, self._of.share)
            moved = found - base
            self.square += float(np.einsum("n,n->", moved, moved))
            if carried > 0:
                found += self._last_step(position, span) * carried
            encode(found, tensor.dtype, out)

        return fill

    def _words(self, lane: Lane, tensor: Tensor, span: slice) -> Words:
        words = np.empty(span.stop - span.start, WORDS[lane])
        self._vector.read(lane, self._form.places[tensor.name] + span.start, words)
        return words

    def _averaged(self, tensor: Tensor, span: slice) -> NDArray[np.float64]:
        return fixed_point.averaged_statistics(self._words(Lane.STATISTICS, tensor, span), self._of.share)

    def _last_step(self, position: int, span: slice) -> NDArray[np.float64]:
        newer, older = self._ends
        step = self._blocks.read(newer, position, span).astype(np.float64)
        step -= self._blocks.read(older, position, span)
        return step


def _pooled_variances(
    moments: NDArray[np.float64], means: NDArray[np.float64], of: Summed, tensor: Tensor
) -> NDArray[np.float64]:
    try:
        return fixed_point.pooled_variances(moments, means, of.sites, of.share)
    except OutOfRangeError as error:
        raise _no_model(tensor, error) from error
