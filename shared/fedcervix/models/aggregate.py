"""The average of the sites' updates (section II-B), one block of one tensor at a time.

Rules
1. The result depends on the updates, their weights and the roster's order; never on the order of arrival.
2. Memory depends neither on the number of sites nor on the size of the model: every block goes through the same
   buffers.
3. Floats are added up in float64, in roster order, divided by the sum of the weights and rounded once to their own
   type. So one update, or several equal ones, come out bit for bit (float64 tensors: to within their last digits).
4. Counters (integers, truth values) take the maximum: an average would be a number of steps that no site made.
5. The output has the base's header, so equal updates make equal bytes, whoever wrote them.

What is averaged here is what the plan's `BatchNorm` says of the running variance:
    mean               the plain average, as the paper has it
    pooled-variance    the variance of all sites' activations taken together: the mean of the variances *and* the
                       spread of the means, E_k[var_k + mean_k^2] - mean^2
    local-statistics   averaged as in `mean`: a site puts its own running statistics back after it fetched the result
    local              the same, for all tensors of batch normalisation

Server momentum (FedAvgM: Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated
Visual Classification") keeps a velocity, v_t = m v_{t-1} + (w_{t-1} - avg_t), and publishes w_t = w_{t-1} - v_t. As
v_{t-1} is w_{t-2} - w_{t-1}, that is
    w_t = avg_t + m (w_{t-1} - w_{t-2})
with nothing to remember but the two models published last; the sum is made in float64, before the one rounding. It
moves what is trained: weights and biases, those of batch normalisation included unless `local` keeps them at the sites.
Running statistics and counters are observed, not trained, and a variance carried on could become negative: they are
averaged as without it.

Two options limit the effect of one update (`fedcervix.core.measures` has their rules and papers).
    clip            the step of an update is shortened by a factor before it is averaged, in float64. It moves what is
                    trained, as momentum does; running statistics are not shortened
    trimmed mean    of every float, running statistics included, the values of the updates are sorted, as many left out
                    at either end, and the others averaged with equal weights. `pooled-variance` does so with the sites'
                    shares in the variance. Counters take the maximum as ever

A ring's `cycle-average` uses the same function: its updates are the models that the hops of the last cycle handed on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.plan import BatchNorm, check
from fedcervix.disk.files import opened, read_at, writing, written_behind
from fedcervix.errors import ModelError, RemoteError
from fedcervix.models.weights import (
    DTYPES,
    FLOATS,
    Layout,
    Tensor,
    check_same,
    decode,
    encode,
    kind,
    read_layout,
    sound,
    with_length,
)

BLOCK_ELEMENTS = 65_536
ITEM_BYTES_MAX = max(dtype.itemsize for dtype in DTYPES.values())
ROWS_BYTES = 2**22
"""of a block of all updates together, where one is needed"""


@dataclass(frozen=True, slots=True)
class Momentum:
    """The last step of the published model, and the share of it that is added to the average."""

    share: float
    base: Path
    """w_{t-1}: the model that this round began with"""
    before: Path
    """w_{t-2}: the model that the round before began with"""

    def __post_init__(self) -> None:
        check(0 <= self.share < 1, f"the share of the last step is 0 to below 1; found {self.share}")


@dataclass(frozen=True, slots=True)
class Clip:
    """By which factor each update's step is shortened, in the order of the updates."""

    base: Path
    """the model that the round began with"""
    scales: Sequence[float]

    def __post_init__(self) -> None:
        check(all(0 <= scale <= 1 for scale in self.scales), f"a step is scaled by 0 to 1; found {self.scales}")


def aggregate(
    updates: Sequence[tuple[Path, float]],
    base: Layout,
    output: Path,
    batch_norm: BatchNorm,
    momentum: Momentum | None = None,
    *,
    clip: Clip | None = None,
    trimmed: int = 0,
    steps: SeesSteps | None = None,
) -> str:
    """Write the weighted average of `updates` to `output`; return the SHA-256 of the file (hexadecimal).

    `updates` are (vetted file, weight) in roster order; weights are positive and need not sum to one: all 1.0 is 1/K,
    numbers of images are the average by images. `base` is the layout of the model that the round started from.
    `momentum` is None in the first round, which has no step before it. `trimmed`: values that are left out at either
    end; with 0 the average is the mean. `steps` reads the blocks of what is trained, and measures them beside it.

    Raises ValueError for no updates, a weight that is not positive, weights that differ where values are left out, or a
    number of factors or of values left out that does not fit; RemoteError if an update has other tensors than
    the base, or if the average is not finite; ModelError if `pooled-variance` finds a variance without its mean;
    StorageError from the disk. `output` is replaced whole or not at all.
    """
    _check_asked([weight for _, weight in updates], clip, trimmed)
    check(steps is None or not (clip or trimmed), "steps are measured beside a plain mean only")
    # An overflow is not a warning on the operator's screen but an error: `_check` names the tensor.
    silent = np.errstate(over="ignore", invalid="ignore")
    step = [(momentum.base, 1.0), (momentum.before, 1.0)] if momentum else []
    begun = [(clip.base, 1.0)] if clip and min(clip.scales) < 1 else []
    with (
        open_models(updates, base) as sources,
        open_models(step, base) as ends,
        open_models(begun, base) as origins,
        writing(output, sole_writer=True) as sink,
        silent,
    ):
        cut = _Cut(origins[0], clip.scales) if clip and origins else None
        average = _Average(sources, base, ends, cut, trimmed, steps)
        positions = {tensor.name: position for position, tensor in enumerate(base.tensors)}
        sink.write(with_length(base.header))
        with written_behind(sink) as behind:
            for position, tensor in enumerate(base.tensors):
                mean = sibling_mean(tensor, base, positions) if batch_norm == "pooled-variance" else None
                trained = is_trained(tensor, batch_norm, positions)
                share = momentum.share if momentum and trained else 0.0
                for span in spans(tensor, average.block_elements(position, trained=trained)):
                    out = behind.room((span.stop - span.start) * DTYPES[tensor.dtype].itemsize)
                    _check(average.block(position, mean, share, span, out, trained=trained), tensor)
    return sink.digest


def _check_asked(weights: Sequence[float], clip: Clip | None, trimmed: int) -> None:
    check(len(weights) > 0, "an average needs at least one update")
    for weight in weights:
        check(0 < weight < math.inf, f"the weight of an update is a positive number; found {weight}")
    check(0 <= 2 * trimmed < len(weights), f"{trimmed} values at either end cannot be left out of {len(weights)}")
    check(trimmed == 0 or len(set(weights)) == 1, "a trimmed mean has equal weights")
    check(clip is None or len(clip.scales) == len(weights), "each update has its factor")


class SeesSteps(Protocol):
    """Reads a block of all updates, and measures their steps (fedcervix.models.step_similarity)."""

    def block_elements(self, position: int, /) -> int:
        """How many elements of a tensor are read at once."""

    def read(self, updates: Sequence[OpenModel], position: int, span: slice, /) -> NDArray[Any]:
        """Return the block, a row for each update."""

    def count(self) -> None:
        """Measure what was read last, which is of no more use then."""


@dataclass(frozen=True, slots=True)
class OpenModel:
    """One open model: where it keeps each tensor of the base (bytes, by position in the base), and its weight."""

    file: FileIO
    starts: NDArray[np.int64]
    weight: float


@contextmanager
def open_models(updates: Sequence[tuple[Path, float]], base: Layout) -> Iterator[list[OpenModel]]:
    """Open weights files, each with its weight, that hold the tensors of `base`. Raises RemoteError, StorageError."""
    with ExitStack() as stack:
        yield [OpenModel(stack.enter_context(opened(path)), _starts(path, base), weight) for path, weight in updates]


def _starts(path: Path, base: Layout) -> NDArray[np.int64]:
    layout = read_layout(path, base)
    check_same(layout, base)
    starts = {tensor.name: tensor.start for tensor in layout.tensors}
    return np.array([starts[tensor.name] for tensor in base.tensors], np.int64)


def spans(tensor: Tensor, block_elements: int) -> Iterator[slice]:
    """Cut the elements of a tensor into blocks."""
    for first in range(0, tensor.count, block_elements):
        yield slice(first, min(first + block_elements, tensor.count))


def rows_of(models: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return room for one block of so many models, a row for each: no longer than usual, and within bounds."""
    return np.empty((models, max(1, min(BLOCK_ELEMENTS, ROWS_BYTES // (dtype.itemsize * models)))), dtype)


def sibling_mean(tensor: Tensor, base: Layout, positions: dict[str, int]) -> int | None:
    """Find the position of the running mean that belongs to a running variance; None for every other tensor.

    Raises ModelError where a variance has none.
    """
    if kind(tensor.name, tensor.dtype) != "running_var":
        return None
    name = tensor.name.removesuffix("running_var") + "running_mean"
    mean = base.tensors[positions[name]] if name in positions else None
    if mean is None or mean.shape != tensor.shape or mean.dtype not in FLOATS:
        raise ModelError(
            f"{tensor.name} has no {name} of its shape, which pooled-variance needs",
            cause="the model's batch-norm tensors do not have the names that torch gives them",
            next_step='set batch_norm = "mean" in the plan',
        )
    return positions[name]


def is_trained(tensor: Tensor, batch_norm: BatchNorm, positions: dict[str, int]) -> bool:
    """Say whether a tensor is trained, and the sites go on from what is published of it."""
    normalises = tensor.name.rpartition(".")[0] + ".running_mean" in positions
    return kind(tensor.name, tensor.dtype) == "float" and not (batch_norm == "local" and normalises)


def _check(raw: memoryview, tensor: Tensor) -> None:
    if not sound(raw, tensor):
        raise RemoteError(
            f"the average of {tensor.name} is not finite",
            cause="a site sent values near the largest number of their data type",
            next_step="see the sites' losses of this round",
        )


def _shared_out(total: NDArray[np.float64], shares: float) -> NDArray[np.float64]:
    """Divide a sum by the sum of its weights, in place.

    By a power of two the product is exactly the quotient, at a quarter of the time. (Its reciprocal has to be a number:
    that of the smallest ones is infinite.)
    """
    if math.frexp(shares)[0] == 0.5 and shares > 2.0**-1000:
        total *= 1 / shares
    else:
        total /= shares
    return total


class Blocks:
    """Reads a block of one tensor of an open model; the next one takes its place.

    A tensor is named by its position in the base; `span` counts elements.
    """

    def __init__(self, base: Layout) -> None:
        self._tensors = base.tensors
        self._raw = memoryview(bytearray(BLOCK_ELEMENTS * ITEM_BYTES_MAX))

    def read(self, source: OpenModel, position: int, span: slice) -> NDArray[Any]:
        """Return the values. Raises StorageError."""
        dtype = self._tensors[position].dtype
        item_bytes = DTYPES[dtype].itemsize
        view = self._raw[: (span.stop - span.start) * item_bytes]
        read_at(source.file, int(source.starts[position]) + span.start * item_bytes, view)
        return decode(view, dtype)

    def read_into(self, row: NDArray[Any], source: OpenModel, position: int, span: slice) -> None:
        """Read the values into `row`, which may be of a wider type. Raises StorageError."""
        if row.dtype == DTYPES[self._tensors[position].dtype]:
            read_at(source.file, int(source.starts[position]) + span.start * row.itemsize, row.data.cast("B"))
        else:
            row[:] = self.read(source, position, span)


class _Cut:
    """Shortens the steps of updates from `origin`, the open model that they were trained from."""

    def __init__(self, origin: OpenModel, scales: Sequence[float]) -> None:
        self._origin, self._scales = origin, scales
        self._from, self._moved = np.empty((2, BLOCK_ELEMENTS))

    def values(self, blocks: Blocks, index: int, source: OpenModel, position: int, span: slice) -> NDArray[Any]:
        """Return a block of an update with its step shortened; unchanged, to the bit, where the factor is 1."""
        if self._scales[index] == 1:
            return blocks.read(source, position, span)
        begun, moved = self._from[: span.stop - span.start], self._moved[: span.stop - span.start]
        begun[:] = blocks.read(self._origin, position, span)
        np.subtract(blocks.read(source, position, span), begun, out=moved)
        moved *= self._scales[index]
        moved += begun
        return moved


class _Average:
    """The open updates in roster order, and the buffers that every block goes through.

    `ends` are the two ends of the published model's last step, the newer one first; empty where there is no momentum.
    """

    def __init__(
        self,
        sources: list[OpenModel],
        base: Layout,
        ends: list[OpenModel],
        cut: _Cut | None,
        trimmed: int,
        steps: SeesSteps | None,
    ) -> None:
        self._sources, self._ends, self._cut, self._trimmed, self._steps = sources, ends, cut, trimmed, steps
        self._tensors, self._blocks = base.tensors, Blocks(base)
        self._weights_sum = math.fsum(source.weight for source in sources)
        self._rows = rows_of(len(sources), np.dtype(np.float64)) if trimmed else np.empty((0, BLOCK_ELEMENTS))
        self._rounded = memoryview(bytearray(BLOCK_ELEMENTS * ITEM_BYTES_MAX))
        self._sum, self._term, self._centre = np.empty((3, BLOCK_ELEMENTS))

    def block_elements(self, position: int, *, trained: bool) -> int:
        """How many elements of a tensor go through the buffers at once."""
        return self._steps.block_elements(position) if self._steps and trained else int(self._rows.shape[1])

    def block(
        self, position: int, mean: int | None, share: float, span: slice, out: memoryview, *, trained: bool
    ) -> memoryview:
        """Write the bytes of one averaged block into `out`, which they fill, and return it.

        `mean` is the position of the running mean if this is a running variance to be pooled; `share` that of the last
        step which is added to a trained tensor. Steps are shortened where the tensor is `trained`.
        """
        tensor = self._tensors[position]
        if mean is not None:
            return encode(self._pooled_variance(position, mean, span), tensor.dtype, out)
        if kind(tensor.name, tensor.dtype) == "counter":
            return self._maximum(position, span, out)
        average = self._mean(position, span, trained=trained)
        if share > 0:
            average += self._carried(position, share, span)
        return encode(average, tensor.dtype, out)

    def _mean(self, position: int, span: slice, *, trained: bool = False) -> NDArray[np.float64]:
        if self._cut is not None and trained:
            cut = (self._cut.values(self._blocks, i, s, position, span) for i, s in enumerate(self._sources))
            return self._combined(cut, span)
        if self._steps is not None and trained:
            average = self._combined(iter(self._steps.read(self._sources, position, span)), span)
            self._steps.count()
            return average
        return self._combined((self._blocks.read(source, position, span) for source in self._sources), span)

    def _combined(self, updates: Iterator[NDArray[Any]], span: slice) -> NDArray[np.float64]:
        """Combine the values of all updates, in roster order; `updates` may reuse its buffer for the next one."""
        length = span.stop - span.start
        return self._trimmed_mean(updates, length) if self._trimmed else self._weighted_mean(updates, length)

    def _weighted_mean(self, updates: Iterator[NDArray[Any]], length: int) -> NDArray[np.float64]:
        total, term = self._sum[:length], self._term[:length]
        for index, (source, values) in enumerate(zip(self._sources, updates, strict=True)):
            if index == 0:  # not added to zero, or -0.0 would come out as 0.0
                np.multiply(values, source.weight, out=total, dtype=np.float64)
            elif source.weight == 1:
                total += values
            else:
                np.multiply(values, source.weight, out=term, dtype=np.float64)
                total += term
        return _shared_out(total, self._weights_sum)

    def _trimmed_mean(self, updates: Iterator[NDArray[Any]], length: int) -> NDArray[np.float64]:
        rows, total = self._rows[:, :length], self._sum[:length]
        for row, values in zip(rows, updates, strict=True):
            row[:] = values
        rows.sort(axis=0)
        kept = rows[self._trimmed : len(rows) - self._trimmed]
        return _shared_out(np.add.reduce(kept, axis=0, out=total), float(len(kept)))

    def _carried(self, position: int, share: float, span: slice) -> NDArray[np.float64]:
        """Return share * (w_{t-1} - w_{t-2})."""
        term = self._term[: span.stop - span.start]
        newer, older = self._ends
        term[:] = self._blocks.read(newer, position, span)
        term -= self._blocks.read(older, position, span)
        term *= share
        return term

    def _maximum(self, position: int, span: slice, out: memoryview) -> memoryview:
        dtype = self._tensors[position].dtype
        for index, source in enumerate(self._sources):
            values = self._blocks.read(source, position, span)
            encode(values if index == 0 else np.maximum(values, decode(out, dtype)), dtype, out)
        return out

    def _pooled_variance(self, position: int, mean: int, span: slice) -> NDArray[np.float64]:
        """Sum w (var_k + (mean_k - mean)^2) / sum w: the rule above, arranged so that nothing cancels.

        `mean` is the one that is published, rounded to its type: equal updates then have exactly no spread.
        """
        centre = self._centre[: span.stop - span.start]
        mean_dtype = self._tensors[mean].dtype
        centre[:] = decode(encode(self._mean(mean, span), mean_dtype, self._rounded), mean_dtype)
        return self._combined(self._spreads(position, mean, span, centre), span)

    def _spreads(
        self, position: int, mean: int, span: slice, centre: NDArray[np.float64]
    ) -> Iterator[NDArray[np.float64]]:
        """Yield var_k + (mean_k - mean)^2 of each update."""
        term = self._term[: span.stop - span.start]
        for source in self._sources:
            np.subtract(self._blocks.read(source, mean, span), centre, out=term)
            np.square(term, out=term)
            term += np.maximum(self._blocks.read(source, position, span), 0)
            yield term
