"""A sum of which nobody sees the summands, file by file.

    quantise    update, base           -> vector    a site: fixed point, and its tag (`secure_updates`)
    mask        vector, secrets        -> vector    a site: what it uploads
    release     secrets                -> vector    a holder: the sum of its masks of the sites that take part
    open_sum    vectors, releases      -> sum       the coordinator: the masks cancel exactly
    check_sum   sum                                 a site: form, range and tag, before it uses the sum
    derive      sum, base              -> model     both (`secure_averages`)

`secure_vectors` has the form of the files. Everything is a function of its inputs: done again after a kill it gives the
same bytes, and the order of the sites does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fedcervix.core.plan import check
from fedcervix.errors import RemoteError
from fedcervix.models.aggregate import open_models
from fedcervix.models.secure_updates import counters_of
from fedcervix.models.secure_vectors import (
    BLOCK_WORDS,
    UNSIGNED,
    WORDS,
    OpenVector,
    Tail,
    VectorForm,
    Words,
    blocks_of,
    counter_in,
    not_a_vector,
    open_vectors,
    vector_form,
    write_vector,
)
from fedcervix.models.step_norms import COUNTER_STEP_MAX
from fedcervix.models.weights import DTYPES, Layout, Tensor, decode, read_layout, sound
from fedcervix.trust import fixed_point
from fedcervix.trust.fixed_point import OutOfRangeError
from fedcervix.trust.mask_streams import Lane, MaskSecret, MaskStream
from fedcervix.trust.sum_tag import MODULUS, SumTag, mask_number

CHECKS: dict[Lane, Callable[[Words, int], None]] = {
    Lane.STATISTICS: lambda words, _: fixed_point.check_statistics(words),
    Lane.NUMBERS: fixed_point.check_steps,
}


def mask(vector: Path, to: Path, model: Layout, secrets: Sequence[MaskSecret]) -> str:
    """Write a vector with one mask for each secret added; return its SHA-256 (hexadecimal).

    Raises RemoteError where `vector` is not one of `model`, StorageError.
    """
    return _combined(vector_form(model), to, [vector], [], secrets)


def release(to: Path, model: Layout, secrets: Sequence[MaskSecret]) -> str:
    """Write the sum of one mask for each secret, which a holder releases; return its SHA-256 (hexadecimal).

    Raises StorageError.
    """
    return _combined(vector_form(model), to, [], [], secrets)


def open_sum(masked: Sequence[Path], releases: Sequence[Path], to: Path, model: Layout) -> str:
    """Write the sum of masked vectors without their masks; return its SHA-256 (hexadecimal).

    Raises ValueError for no vectors; RemoteError where one is not a vector of `model`, or where the sum is not one
    that the sites can have: then a release is wrong, or belongs to other sites; StorageError.
    """
    check(len(masked) > 0, "a sum needs at least one vector")
    return _combined(vector_form(model), to, masked, releases, [], guard_sites=len(masked))


def _combined(
    form: VectorForm,
    to: Path,
    added: Sequence[Path],
    subtracted: Sequence[Path],
    secrets: Sequence[MaskSecret],
    guard_sites: int = 0,
) -> str:
    with open_vectors(added, form) as ours, open_vectors(subtracted, form) as theirs:

        def words() -> Iterator[Words]:
            for lane in WORDS:
                for block in _lane(form, lane, ours, theirs, secrets):
                    if guard_sites:
                        _guard(lane, block, guard_sites)
                    yield block

        def tail() -> Tail:
            tails = [vector.tail() for vector in ours]
            tag = sum(one.tag for one in tails) - sum(vector.tail().tag for vector in theirs)
            tag += sum(map(mask_number, secrets))
            return Tail(_largest_counters(form, [one.counters for one in tails]), tag % MODULUS)

        return write_vector(form, to, words(), tail)


def _lane(
    form: VectorForm, lane: Lane, added: list[OpenVector], subtracted: list[OpenVector], secrets: Sequence[MaskSecret]
) -> Iterator[Words]:
    streams = [MaskStream(secret.key(lane)) for secret in secrets]
    total_room, term_room = np.empty((2, BLOCK_WORDS), UNSIGNED[lane])
    for span in blocks_of(form, lane):
        total, term = (room[: span.stop - span.start] for room in (total_room, term_room))
        total[:] = 0
        for vectors, combine in ((added, np.add), (subtracted, np.subtract)):
            for vector in vectors:
                vector.read(lane, span.start, term)
                combine(total, term, out=total)
        for stream in streams:
            stream.add_to(total)
        yield total.view(WORDS[lane])


def _guard(lane: Lane, block: Words, sites: int) -> None:
    try:
        CHECKS[lane](block, sites)
    except OutOfRangeError as error:
        raise RemoteError(
            f"the masks of this round do not cancel, or a site sent false numbers: {error}",
            cause="a release is not that of these sites, or an upload was not made by training",
            next_step="see which sites and holders took part in this round",
        ) from error


def _largest_counters(form: VectorForm, found: Sequence[bytes]) -> bytes:
    if not found:
        return bytes(form.part("counters").count)
    parts = []
    for _, tensor in form.tensors("counters"):
        values = [decode(counter_in(form, tensor, raw), tensor.dtype) for raw in found]
        parts.append(np.maximum.reduce(values).astype(DTYPES[tensor.dtype]).tobytes())
    return b"".join(parts)


def vet_vector(path: Path, base: Path) -> None:
    """Check all of a vector that is not masked: its form, its counters, and that its tag is one.

    Raises RemoteError, StorageError.
    """
    form = vector_form(read_layout(base))
    with open_vectors([path], form) as [vector], open_models([(base, 1.0)], form.model) as [origin]:
        ours, theirs = vector.tail().counters, counters_of(form, origin)
    for _, tensor in form.tensors("counters"):
        raw, before = counter_in(form, tensor, ours), counter_in(form, tensor, theirs)
        if not sound(raw, tensor) or _leaps(raw, before, tensor):
            raise not_a_vector(f"{tensor.name} is no count that goes on from the base")


def _leaps(ours: memoryview, base: memoryview, tensor: Tensor) -> bool:
    now, before = (decode(raw, tensor.dtype).astype(np.float64) for raw in (ours, base))
    return bool((now - before > COUNTER_STEP_MAX).any())


def check_sum(total: Path, base: Path, sites: int, tag: MaskSecret) -> None:
    """Check a sum before its model is derived: its form, its range, and by the tag that all summands are in it.

    Raises RemoteError where it is refused, StorageError.
    """
    vet_vector(total, base)
    form, found = vector_form(read_layout(base)), SumTag(tag)
    with open_vectors([total], form) as [vector]:
        for lane, dtype in WORDS.items():
            room = np.empty(BLOCK_WORDS, dtype)
            for span in blocks_of(form, lane):
                block = room[: span.stop - span.start]
                vector.read(lane, span.start, block)
                _guard(lane, block, sites)
                found.add(block)
        if found.value != vector.tail().tag:
            raise _not_the_sum()


def _not_the_sum() -> RemoteError:
    return RemoteError(
        "the sum of this round is not that of the sites' updates",
        cause="the coordinator changed it, left a site out, or a site sent a false tag",
        next_step="do not go on with this run; tell the other sites, and compare what each of them received",
    )
