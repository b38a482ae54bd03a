"""A site's update as a vector in fixed point: what is masked, and then added up with those of the other sites.

A running variance is sent as the plan's `BatchNorm` says: with `pooled-variance` var + mean^2 in its place, by all
other rules as it is. `fedcervix.trust.fixed_point` has the arithmetic.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedcervix.core.plan import BatchNorm
from fedcervix.disk.files import read_at
from fedcervix.errors import ModelError, RemoteError
from fedcervix.models.aggregate import BLOCK_ELEMENTS, Blocks, OpenModel, open_models, sibling_mean, spans
from fedcervix.models.secure_vectors import Tail, VectorForm, Words, vector_form, write_vector
from fedcervix.models.weights import Layout, Tensor, read_layout
from fedcervix.trust import fixed_point
from fedcervix.trust.fixed_point import OutOfRangeError, Share
from fedcervix.trust.mask_streams import MaskSecret
from fedcervix.trust.sum_tag import SumTag

OUT_OF_RANGE = "the update is out of range for a secure sum"
"""all that the coordinator learns of it"""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What is known of a vector that was written."""

    digest: str
    """SHA-256 of its bytes (hexadecimal), or what was asked for in its place"""
    norm: float
    """Euclidean, of the step of what is trained"""


def quantise(
    update: Path,
    base: Path,
    to: Path,
    share: Share,
    batch_norm: BatchNorm,
    tag: MaskSecret,
    hasher: hashlib._Hash | None = None,
    *,
    round_: int,
) -> Quantised:
    """Write the vector of a vetted update in fixed point, not masked. It is read once and deleted: it is not synced.

    `tag` is the secret of the round's tag; `hasher` hashes the vector in place of SHA-256. Raises ModelError where a
    number is out of range or `pooled-variance` finds a variance without its mean, RemoteError where the update has
    other tensors than its base, or the base has numbers that are too large, StorageError.
    """
    form = vector_form(read_layout(base))
    found = SumTag(tag)
    with (
        open_models([(update, 1.0), (base, 1.0)], form.model) as (ours, origin),
        np.errstate(over="ignore", invalid="ignore"),
    ):
        site = _Quantised(form, ours, origin, share, batch_norm, round_)

        def words() -> Iterator[Words]:
            for block in site.words():
                found.add(block)
                yield block

        digest = write_vector(form, to, words(), lambda: Tail(counters_of(form, ours), found.value), hasher, sync=False)
    return Quantised(digest, math.sqrt(site.square))


class _Quantised:
    """The words of one site's vector, in the order of the file."""

    def __init__(
        self,
        form: VectorForm,
        update: OpenModel,
        base: OpenModel,
        share: Share,
        batch_norm: BatchNorm,
        round_: int,
    ) -> None:
        self._form, self._update, self._base, self._share, self._round = form, update, base, share, round_
        self._ours, self._theirs = Blocks(form.model), Blocks(form.model)
        self._means = pooled(form.model, batch_norm)
        self.square = 0.0
        """of the norm of all steps so far"""

    def words(self) -> Iterator[Words]:
        for part, one in (("statistics", self._statistics), ("numbers", self._steps)):
            for position, tensor in self._form.tensors(part):
                try:
                    yield from one(position, tensor)
                except OutOfRangeError as error:
                    raise _out_of_range(tensor, error) from error

    def _statistics(self, position: int, tensor: Tensor) -> Iterator[Words]:
        mean = self._means.get(position)
        for span in spans(tensor, BLOCK_ELEMENTS):
            values = self._ours.read(self._update, position, span)
            if mean is not None:
                values = fixed_point.second_moments(values, self._theirs.read(self._update, mean, span))
            yield fixed_point.quantised_statistics(values, self._share)

    def _steps(self, position: int, tensor: Tensor) -> Iterator[Words]:
        within = step_bound(self._theirs, self._base, position, tensor, self._round)
        for span in spans(tensor, BLOCK_ELEMENTS):
            base = self._theirs.read(self._base, position, span)
            moved = fixed_point.steps_of(self._ours.read(self._update, position, span), base, within)
            self.square += float(np.einsum("n,n->", moved, moved))
            yield fixed_point.quantised_steps(moved, self._share, within)


def pooled(model: Layout, batch_norm: BatchNorm) -> dict[int, int]:
    """Return the positions of running variances that are pooled, each with that of its mean. Raises ModelError."""
    if batch_norm != "pooled-variance":
        return {}
    positions = {tensor.name: position for position, tensor in enumerate(model.tensors)}
    means = {position: sibling_mean(tensor, model, positions) for position, tensor in enumerate(model.tensors)}
    return {position: mean for position, mean in means.items() if mean is not None}


def step_bound(blocks: Blocks, base: OpenModel, position: int, tensor: Tensor, round_: int) -> float:
    """Return B of a tensor in a round.

    Raises RemoteError where the base has numbers that are too large, StorageError.
    """
    found = [fixed_point.largest(blocks.read(base, position, span)) for span in spans(tensor, BLOCK_ELEMENTS)]
    try:
        return fixed_point.bound(float(np.max([0.0, *found])), round_)
    except OutOfRangeError as error:
        raise RemoteError(
            f"{tensor.name} of the model of this round has numbers that are too large for a secure sum: {error}",
            cause="the first model was not made by training, or training diverged",
            next_step="use another first model, or a plan without secure_sum",
        ) from error


def check_base(base: Path) -> None:
    """Raise RemoteError where the updates of a first model could not be summed, ModelError for tables of integers."""
    form = vector_form(read_layout(base))
    with open_models([(base, 1.0)], form.model) as [origin]:
        for position, tensor in form.tensors("numbers"):
            step_bound(Blocks(form.model), origin, position, tensor, round_=1)


def _out_of_range(tensor: Tensor, why: OutOfRangeError) -> ModelError:
    # The first two parts travel to the coordinator, the next step does not: it may name the tensor.
    return ModelError(
        OUT_OF_RANGE,
        cause="training diverged, or its first steps were too large: a high learning rate, small batches",
        next_step="agree with the coordinator's operator on a plan with a smaller lr, larger batch_images or some "
        f"warmup_epochs. {tensor.name} holds {why}",
    )


def counters_of(form: VectorForm, model: OpenModel) -> bytes:
    """Return the bytes of a model's counters, one tensor after the other. Raises StorageError."""
    parts = []
    for position, tensor in form.tensors("counters"):
        raw = bytearray(tensor.end - tensor.start)
        read_at(model.file, int(model.starts[position]), memoryview(raw))
        parts.append(bytes(raw))
    return b"".join(parts)
