"""The packed form of a model: fewer bytes over the network, from which the receiver makes the same file again.

A model is rounded where it is made (by a site that has trained, by the coordinator that has averaged), and nowhere
else: `pack` rounds, and the model is *defined* as what `unpack` makes of its packed form. Both ends run the same lines,
so a model arrives with the digest under which it was made.

    bfloat16   every weight is the nearest number of eight significant bits, ties to even
    int8       u = base + dequantised(quantised(trained - base + residual)); both ends hold the base. A block of 256
               differences has one float32 scale, a 127th of its largest magnitude, and a signed byte for each
    exact      in both: running statistics of batch normalisation, counters, and whatever is not float32. They are
               .2 % of the bytes, and a rounded step could make a variance negative

What int8 rounds away is the *residual*; its maker adds it to the next difference (error feedback: Seide et al. 2014,
Karimireddy et al. 2019). So it is delayed, not lost.

A packed form is a safetensors file of plain bytes: `body` holds the tensors one after the other in the model's order,
`header` the model's own header where no base has it already. Of a rounded tensor the body holds blocks of at most
65,536 numbers: in bfloat16 as such, in int8 the block's scales and then its codes.

Rules
1. A packed form from another machine is treated as hostile. Its length must match its header before a byte of it is
   used; received numbers are never divisors; a result that is not a finite number is refused.
2. Nothing is used before the digest of the whole model is correct, and nothing remains if it is not.
3. Memory does not depend on the size of the model: it is looked at in blocks.
4. A multiplication and an addition are two float32 operations, each rounded: every machine comes to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.plan import canonical_json, check
from fedcervix.disk.files import Sink, opened, read_at, writing
from fedcervix.errors import ModelError, RemoteError, StorageError
from fedcervix.json_text import parsed
from fedcervix.models.weights import (
    PREFIX_BYTES,
    Layout,
    Tensor,
    check_same,
    decode,
    encode,
    header_bytes_max,
    kind,
    parse_layout,
    read_layout,
    with_length,
)

Packing = Literal["bfloat16", "int8"]
Float32 = NDArray[np.float32]
Int8 = NDArray[np.int8]

BLOCK_ELEMENTS = 65_536
FLOAT32_BYTES = 4
SCALE_ELEMENTS = 256
"""that share one scale; a block is a whole number of them"""
CODE_MAX = 127
SCALE_MIN = np.finfo(np.float32).tiny
"""A smaller scale counts as zero: not every machine has the numbers below it, and 1e-36 is not missed."""
BFLOAT16_MAX = np.float32(2.0**127 * (2 - 2.0**-7))
"""Rounding to nearest would make an infinity of what lies above it."""
BODY, HEADER, RESIDUAL = "body", "header", "residual"
NATURAL_DIGITS_MAX = 15
FORM_HEADER_BYTES_MAX = 4096
"""of the packed file itself, which names two tensors"""


@dataclass(frozen=True, slots=True)
class Origin:
    """The model to which int8 packs the difference: both ends hold it."""

    digest: str
    path: Path


@dataclass(frozen=True, slots=True)
class Feedback:
    """The file with the residual of the last time (None: there is none yet), and the file to write this time's to."""

    before: Path | None
    after: Path


def is_rounded(tensor: Tensor) -> bool:
    """Say whether a tensor is rounded; all others are sent exactly."""
    return tensor.dtype == "F32" and kind(tensor.name, tensor.dtype) == "float"


# ------------------------------------------------------------------------------------------------ packing


def pack(
    exact: Path, to: Path, packing: Packing, origin: Origin | None = None, feedback: Feedback | None = None
) -> str:
    """Write the packed form of a model that was just made; return the SHA-256 of the file (hexadecimal).

    int8 needs an origin. Without `feedback` what it rounds away is lost. Files are replaced whole or not at all.
    Raises ModelError where a weight is not a finite number, RemoteError where the model has not its origin's tensors,
    StorageError from the disk.
    """
    check((origin is not None) == (packing == "int8"), "int8 packs the difference to an origin, bfloat16 has none")
    found = read_layout(exact)
    layout = read_layout(origin.path) if origin else found
    check_same(found, layout)
    starts = {tensor.name: tensor.start for tensor in found.tensors}
    with (
        opened(exact) as model,
        _rounding(origin, feedback, layout) as rounding,
        writing(to, sole_writer=True) as sink,
        _silent(),
    ):
        sink.write(with_length(_packed_header(layout, packing, origin)))
        for tensor in layout.tensors:
            for span in _spans(tensor):
                raw = _bytes_of(model, starts[tensor.name], tensor, span)
                sink.write(rounding.pack(decode(raw, "F32"), tensor, span) if is_rounded(tensor) else raw)
        if origin is None:
            sink.write(layout.header)
    return sink.digest


def unpack(
    packed: Path,
    to: Path,
    packing: Packing,
    origin: Origin | None = None,
    *,
    digest: str = "",
    like: Layout | None = None,
) -> str:
    """Write the model that a packed form stands for; return its SHA-256, which is `digest` where that is given.

    `packing` and `origin` are what the plan and the task say; a packed form of any other kind is refused. `like`: the
    tensors that the model must have (int8: those of its origin). Raises RemoteError whatever the bytes are,
    StorageError from the disk; then nothing is written.
    """
    check((origin is not None) == (packing == "int8"), "int8 packs the difference to an origin, bfloat16 has none")
    form = _read_form(packed, packing, origin, like)
    if like is not None:
        check_same(form.layout, like)
    with (
        opened(packed) as file,
        _rounding(origin, None, form.layout) as rounding,
        writing(to, sole_writer=True) as sink,
        _silent(),
    ):
        sink.write(with_length(form.layout.header))
        at = form.body_start
        for tensor in form.layout.tensors:
            for span in _spans(tensor):
                raw = memoryview(bytearray(_packed_bytes(tensor, span, packing)))
                read_at(file, at, raw)
                sink.write(rounding.unpack(raw, tensor, span) if is_rounded(tensor) else raw)
                at += len(raw)
        if digest and sink.digest != digest:
            raise _invalid("it does not give the model that was announced")
    return sink.digest


# ------------------------------------------------------------------------------------------------ the file


@dataclass(frozen=True, slots=True)
class _Form:
    """A packed file whose lengths are right: the layout of its model, and where its body begins."""

    layout: Layout
    body_start: int


def _packed_header(layout: Layout, packing: Packing, origin: Origin | None) -> bytes:
    body_bytes = _body_bytes(layout, packing)
    parts = {BODY: body_bytes} | ({} if origin else {HEADER: len(layout.header)})
    more = {"base": origin.digest} if origin else {"model_bytes": str(_model_bytes(layout))}
    entries, start = {}, 0
    for name, size in parts.items():
        entries[name] = {"dtype": "U8", "shape": [size], "data_offsets": [start, start + size]}
        start += size
    return _padded(canonical_json({"__metadata__": {"packing": packing, **more}, **entries}))


def _padded(text: str) -> bytes:
    return text.encode() + b" " * (-len(text.encode()) % 8)


def _read_form(packed: Path, packing: Packing, origin: Origin | None, like: Layout | None) -> _Form:
    """Check everything about a packed file but its numbers. Raises RemoteError, StorageError."""
    outer = read_layout(packed)
    if len(outer.header) > FORM_HEADER_BYTES_MAX:
        raise _invalid("its header is too long")
    said = parsed(outer.header).get("__metadata__", {})
    parts = {tensor.name: tensor for tensor in outer.tensors if tensor.dtype == "U8" and len(tensor.shape) == 1}
    if said.get("packing") != packing or said.get("base", "") != (origin.digest if origin else ""):
        raise _invalid(f"it is not {packing}, or not to the model that was announced")
    if len(outer.tensors) != len(parts) or parts.keys() != ({BODY} if origin else {BODY, HEADER}):
        raise _invalid("it holds other tensors than a packed model does")
    if origin:
        layout = read_layout(origin.path)
    else:
        layout = _inner_layout(packed, parts[HEADER], said.get("model_bytes", ""), header_bytes_max(like))
    if parts[BODY].count != _body_bytes(layout, packing):
        raise _invalid(f"its body has {parts[BODY].count:,} bytes, not {_body_bytes(layout, packing):,}")
    return _Form(layout, parts[BODY].start)


def _inner_layout(packed: Path, header: Tensor, model_bytes: str, bytes_max: int) -> Layout:
    """Read the model's header, which travels with a model that has no origin."""
    if not (model_bytes.isascii() and model_bytes.isdigit() and len(model_bytes) <= NATURAL_DIGITS_MAX):
        raise _invalid("it does not say how long its model is")
    if header.count > bytes_max:
        raise _invalid("its model's header is too long")
    raw = memoryview(bytearray(header.count))
    with opened(packed) as file:
        read_at(file, header.start, raw)
    return parse_layout(bytes(raw), int(model_bytes))


def _model_bytes(layout: Layout) -> int:
    return PREFIX_BYTES + len(layout.header) + sum(tensor.end - tensor.start for tensor in layout.tensors)


def _body_bytes(layout: Layout, packing: Packing) -> int:
    # The whole tensor at once: a span has a whole number of scales, so that the sum over spans is the same.
    return sum(_packed_bytes(tensor, slice(0, tensor.count), packing) for tensor in layout.tensors)


def _packed_bytes(tensor: Tensor, span: slice, packing: Packing) -> int:
    count: int = span.stop - span.start
    if not is_rounded(tensor):
        return count * (tensor.end - tensor.start) // max(1, tensor.count)
    return 2 * count if packing == "bfloat16" else count + FLOAT32_BYTES * _scales_of(count)


def _scales_of(count: int) -> int:
    return -(-count // SCALE_ELEMENTS)


def _spans(tensor: Tensor) -> Iterator[slice]:
    """Cut the elements of a tensor into blocks."""
    for start in range(0, tensor.count, BLOCK_ELEMENTS):
        yield slice(start, min(start + BLOCK_ELEMENTS, tensor.count))


def _bytes_of(file: FileIO, tensor_start: int, tensor: Tensor, span: slice) -> memoryview:
    item_bytes = (tensor.end - tensor.start) // tensor.count
    raw = memoryview(bytearray((span.stop - span.start) * item_bytes))
    read_at(file, tensor_start + span.start * item_bytes, raw)
    return raw


def _invalid(what: str) -> RemoteError:
    return RemoteError(
        f"not the packed form of a model: {what}",
        cause="the two sides run different versions, or it was damaged at its source",
        next_step="install the same version of fedcervix on both sides",
    )


# ------------------------------------------------------------------------------------------------ the numbers


class _Rounding(Protocol):
    """How the blocks of rounded tensors are packed and unpacked, in the order of the model."""

    def pack(self, values: Float32, tensor: Tensor, span: slice) -> bytes | memoryview:
        """Return a block's packed bytes. Raises ModelError."""

    def unpack(self, raw: memoryview, tensor: Tensor, span: slice) -> memoryview:
        """Return the float32 bytes that a packed block stands for. Raises RemoteError."""


def _rounding(origin: Origin | None, feedback: Feedback | None, layout: Layout) -> AbstractContextManager[_Rounding]:
    return nullcontext(_Bfloat16()) if origin is None else _int8(origin, feedback, layout)


class _Bfloat16:
    """Nothing to keep from block to block."""

    def pack(self, values: Float32, tensor: Tensor, _span: slice) -> memoryview:
        """Return a block's packed bytes. Raises ModelError."""
        _insist_finite(values, tensor)
        return encode(np.clip(values, -BFLOAT16_MAX, BFLOAT16_MAX), "BF16", memoryview(bytearray(2 * values.size)))

    def unpack(self, raw: memoryview, tensor: Tensor, _span: slice) -> memoryview:
        """Return the float32 bytes that a packed block stands for. Raises RemoteError."""
        return _received(decode(raw, "BF16"), tensor)


class _Int8:
    """The open files beside the model: its origin, the residual of the last time, and the one that is written."""

    def __init__(self, base: FileIO, before: tuple[FileIO, int] | None, after: Sink | None) -> None:
        self._base, self._after = base, after
        self._before = before[0] if before else None
        self._at = before[1] if before else 0

    def pack(self, values: Float32, tensor: Tensor, span: slice) -> bytes:
        """Return a block's packed bytes, and keep what it rounds away. Raises ModelError."""
        base = self._base_of(tensor, span)
        wanted = values - base
        if self._before is not None:
            wanted += self._residual(values.size)
        _insist_finite(wanted, tensor)
        scales, codes = quantised(wanted)
        if self._after is not None:
            rounded = base + dequantised(scales, codes)
            _insist_finite(rounded, tensor)
            self._after.write(_float32_bytes(wanted - (rounded - base)))
        return bytes(_float32_bytes(scales)) + codes.tobytes()

    def unpack(self, raw: memoryview, tensor: Tensor, span: slice) -> memoryview:
        """Return the float32 bytes that a packed block stands for. Raises RemoteError."""
        scales_bytes = FLOAT32_BYTES * _scales_of(span.stop - span.start)
        scales, codes = decode(raw[:scales_bytes], "F32"), np.frombuffer(raw[scales_bytes:], np.int8)
        if not (scales >= 0).all():  # nor is NaN
            raise _invalid(f"a scale of {tensor.name} is not a positive number")
        return _received(self._base_of(tensor, span) + dequantised(scales, codes), tensor)

    def _base_of(self, tensor: Tensor, span: slice) -> Float32:
        return decode(_bytes_of(self._base, tensor.start, tensor, span), "F32")

    def _residual(self, count: int) -> Float32:
        raw = memoryview(bytearray(count * FLOAT32_BYTES))
        assert self._before is not None
        read_at(self._before, self._at, raw)
        self._at += len(raw)
        return decode(raw, "F32")


@contextmanager
def _int8(origin: Origin, feedback: Feedback | None, layout: Layout) -> Iterator[_Int8]:
    count = sum(tensor.count for tensor in layout.tensors if is_rounded(tensor))
    with ExitStack() as stack:
        before = after = None
        if feedback is not None:
            after = stack.enter_context(writing(feedback.after, sole_writer=True))
            after.write(with_length(_residual_header(count)))
        if feedback is not None and feedback.before is not None:
            before = stack.enter_context(opened(feedback.before)), _residual_start(feedback.before, count)
        yield _Int8(stack.enter_context(opened(origin.path)), before, after)


def _residual_header(count: int) -> bytes:
    entry = {"dtype": "F32", "shape": [count], "data_offsets": [0, FLOAT32_BYTES * count]}
    return _padded(canonical_json({RESIDUAL: entry}))


def _residual_start(file: Path, count: int) -> int:
    """Return where the numbers of a residual begin. Raises StorageError where it is not one of this model."""
    tensors = read_layout(file).tensors
    if [(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors] != [(RESIDUAL, "F32", (count,))]:
        raise StorageError(
            f"{file} is not the rounding remainder of this run's models",
            cause="it was damaged, or replaced",
            next_step="restore it from a backup, or start a new run",
        )
    return tensors[0].start


def quantised(differences: Float32) -> tuple[Float32, Int8]:
    """Return (scales, codes) of finite numbers: one scale for 256 of them, a code from -127 to 127 for each."""
    rows = _rows(differences)
    scales = np.abs(rows).max(axis=1) / np.float32(CODE_MAX)
    scales[scales < SCALE_MIN] = 0
    steps = np.rint(rows / np.where(scales > 0, scales, np.float32(1))[:, None])  # rows without a scale: all below .5
    codes = np.clip(steps, -CODE_MAX, CODE_MAX).astype(np.int8)
    return scales, codes.reshape(-1)[: differences.size]


def dequantised(scales: Float32, codes: Int8) -> Float32:
    """Return scale times code for each code; it is not finite where the product is too large."""
    found: Float32 = _rows(codes.astype(np.float32)) * scales[:, None]
    return found.reshape(-1)[: codes.size]


def _rows(values: Float32) -> Float32:
    """Return a block as rows that share one scale each; the last one is filled up with zeros."""
    short = -values.size % SCALE_ELEMENTS
    return (np.pad(values, (0, short)) if short else values).reshape(-1, SCALE_ELEMENTS)


def _float32_bytes(values: Float32) -> memoryview:
    return encode(values, "F32", memoryview(bytearray(FLOAT32_BYTES * values.size)))


def _silent() -> np.errstate:
    """An overflow is not a warning on the screen but an error: what is not finite is found."""
    return np.errstate(over="ignore", invalid="ignore")


def _received(values: Float32, tensor: Tensor) -> memoryview:
    if not np.isfinite(values).all():
        raise _invalid(f"{tensor.name} would hold values that are not finite numbers")
    return _float32_bytes(values)


def _insist_finite(values: Float32, tensor: Tensor) -> None:
    if not np.isfinite(values).all():
        raise ModelError(
            f"{tensor.name} holds values that are not finite numbers",
            cause="training diverged",
            next_step="see the site's loss of this round; a lower learning rate usually helps",
        )
