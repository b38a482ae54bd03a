"""A vector of whole numbers as a file: a site's update in fixed point, masked or not; a holder's release; a sum.

All four have one form, which follows from the layout of the model. It is a safetensors file with four tensors:

    statistics  I64  running means and variances, in the model's order
    numbers     I32  the steps of all other floating-point tensors
    counters    U8   the model's other tensors, as they are: they travel in the open
    tag         U8   8 bytes: the tag of the sum, below 2^61 - 1

Its metadata name the format, and the SHA-256 of the model's header. Masked words stand for numbers modulo 2^64 and
2^32; of a sum, and of a vector that is not masked, they are signed. A release has zeros for counters.

Rules
1. The header of such a file is known to the last byte before the file is opened. Another one is refused unread.
2. Memory does not depend on the size of the model: a block is at most 512 KiB, and the counters 1 MiB.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcervix.disk.files import opened, read_at, writing, written_behind
from fedcervix.disk.storage import disk
from fedcervix.errors import ModelError, RemoteError
from fedcervix.models.aggregate import spans
from fedcervix.models.weights import (
    DTYPES,
    PREFIX_BYTES,
    Form,
    Layout,
    Tensor,
    file_parts,
    kind,
    parse_layout,
    with_length,
)
from fedcervix.trust.mask_streams import Lane
from fedcervix.trust.sum_tag import check_tag

FORMAT = "1"
TAG_BYTES = 8
BLOCK_WORDS = 2**16
COUNTERS_BYTES_MAX = 2**20
WORDS: Mapping[Lane, np.dtype[Any]] = {Lane.STATISTICS: np.dtype("<i8"), Lane.NUMBERS: np.dtype("<i4")}
"""the lanes of many words, in the order of the file"""
UNSIGNED: Mapping[Lane, np.dtype[Any]] = {Lane.STATISTICS: np.dtype("<u8"), Lane.NUMBERS: np.dtype("<u4")}
PARTS = {"float": "numbers", "running_mean": "statistics", "running_var": "statistics", "counter": "counters"}

Words = NDArray[Any]


@dataclass(frozen=True, slots=True)
class VectorForm:
    """The form of the vectors that belong to a model."""

    model: Layout
    layout: Layout
    """of the vector's own file"""
    places: Mapping[str, int]
    """tensor of the model -> where it begins in its part: words, of counters bytes"""

    @property
    def digest(self) -> str:
        """SHA-256 of the header of these vectors: it stands for model layout, lanes and format."""
        return hashlib.sha256(self.layout.header).hexdigest()

    @property
    def bytes(self) -> int:
        """Length of such a file."""
        return self.layout.tensors[-1].end

    def part(self, name: str) -> Tensor:
        """Return the place of a part in the file."""
        return next(part for part in self.layout.tensors if part.name == name)

    def tensors(self, name: str) -> list[tuple[int, Tensor]]:
        """Return the tensors of the model that a part holds, each with its position in the model."""
        return [(at, tensor) for at, tensor in enumerate(self.model.tensors) if part_of(tensor) == name]


@dataclass(frozen=True, slots=True)
class Tail:
    """What stands behind the words of a vector."""

    counters: bytes
    tag: int


def part_of(tensor: Tensor) -> str:
    """Return the part of a vector that holds a tensor of the model."""
    return PARTS[kind(tensor.name, tensor.dtype)]


def lane_part(lane: Lane) -> str:
    """Return the name of the part that holds a lane's words."""
    return lane.value.decode()


def vector_form(model: Layout) -> VectorForm:
    """Return the form of the vectors of a model. Raises ModelError where its counters are longer than 1 MiB."""
    lengths = dict.fromkeys(("statistics", "numbers", "counters"), 0)
    places = {}
    for tensor in model.tensors:
        part = part_of(tensor)
        places[tensor.name] = lengths[part]
        lengths[part] += tensor.end - tensor.start if part == "counters" else tensor.count
    if lengths["counters"] > COUNTERS_BYTES_MAX:
        raise ModelError(
            f"the model holds {lengths['counters']:,} bytes of whole numbers; secure sums take {COUNTERS_BYTES_MAX:,}",
            cause="it is not a network of this project: it has tables of integers",
            next_step="use another first model, or a plan without secure_sum",
        )
    forms = {
        "statistics": Form("I64", (lengths["statistics"],)),
        "numbers": Form("I32", (lengths["numbers"],)),
        "counters": Form("U8", (lengths["counters"],)),
        "tag": Form("U8", (TAG_BYTES,)),
    }
    metadata = {"format": FORMAT, "layout": hashlib.sha256(model.header).hexdigest()}
    header = bytes(next(file_parts(forms, lambda _: (), metadata)))[PREFIX_BYTES:]
    data_bytes = sum(DTYPES[form.dtype].itemsize * math.prod(form.shape) for form in forms.values())
    return VectorForm(model, parse_layout(header, PREFIX_BYTES + len(header) + data_bytes), places)


# ------------------------------------------------------------------------------------------------ writing


def write_vector(
    form: VectorForm,
    to: Path,
    words: Iterator[Words],
    tail: Callable[[], Tail],
    hasher: hashlib._Hash | None = None,
    *,
    sync: bool = True,
) -> str:
    """Write a vector from its words, block by block; return the SHA-256 of the file (hexadecimal), or what `hasher` is.

    `tail` is asked when all words were taken. A block may be overwritten by the next one. The file is replaced whole or
    not at all; without `sync` a power cut may take it. Raises StorageError, and what `words` and `tail` raise.
    """
    with writing(to, sync=sync, sole_writer=True, hasher=hasher) as sink:
        sink.write(with_length(form.layout.header))
        with written_behind(sink) as behind:
            for block in words:
                np.copyto(np.frombuffer(behind.room(block.nbytes), block.dtype), block)
        rest = tail()
        sink.write(rest.counters + rest.tag.to_bytes(TAG_BYTES, "little"))
    return sink.digest


# ------------------------------------------------------------------------------------------------ reading


class OpenVector:
    """An open vector file whose form is known to be right."""

    def __init__(self, file: FileIO, form: VectorForm) -> None:
        self._file, self._form = file, form
        self._parts = {part.name: part for part in form.layout.tensors}

    def read(self, lane: Lane, first: int, into: Words) -> None:
        """Fill `into`, of the lane's type, with words from number `first` on. Raises StorageError."""
        start = self._parts[lane_part(lane)].start + first * into.itemsize
        read_at(self._file, start, into.view(np.uint8).data)

    def tail(self) -> Tail:
        """Return counters and tag. Raises RemoteError where the tag is none, StorageError."""
        counters, tag = (self._whole(self._parts[name]) for name in ("counters", "tag"))
        try:
            return Tail(counters, check_tag(int.from_bytes(tag, "little")))
        except ValueError as error:
            raise not_a_vector(str(error)) from error

    def _whole(self, part: Tensor) -> bytes:
        raw = bytearray(part.end - part.start)
        read_at(self._file, part.start, memoryview(raw))
        return bytes(raw)


@contextmanager
def open_vectors(paths: Sequence[Path], form: VectorForm) -> Iterator[list[OpenVector]]:
    """Open vectors of one form. Raises RemoteError where one has another form, StorageError."""
    with ExitStack() as stack:
        yield [OpenVector(_of_form(stack.enter_context(opened(path)), form), form) for path in paths]


def _of_form(file: FileIO, form: VectorForm) -> FileIO:
    wanted = with_length(form.layout.header)
    with disk(str(file.name), "read"):
        size = os.fstat(file.fileno()).st_size
    if size != form.bytes:
        raise not_a_vector(f"it is {size:,} bytes long, not {form.bytes:,}")
    found = bytearray(len(wanted))
    read_at(file, 0, memoryview(found))
    if found != wanted:
        raise not_a_vector("its header is that of another model, or of none")
    return file


def not_a_vector(what: str) -> RemoteError:
    """Return the error for a vector that is not of the form it must have."""
    return RemoteError(
        f"not a vector of this run's model: {what}",
        cause="the two sides run different versions, or it was damaged at its source",
        next_step="install the same version of fedcervix on both sides",
    )


def blocks_of(form: VectorForm, lane: Lane) -> Iterator[slice]:
    """Cut a lane into blocks of words."""
    yield from spans(form.part(lane_part(lane)), BLOCK_WORDS)


def counter_in(form: VectorForm, tensor: Tensor, counters: bytes) -> memoryview:
    """Return the bytes of one counter from those of all."""
    start = form.places[tensor.name]
    return memoryview(counters)[start : start + tensor.end - tensor.start]
