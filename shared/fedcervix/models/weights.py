"""Weights files: the safetensors byte layout, the checks before one is used, and how one is written.

    8 bytes     length of the header, little endian
    header      JSON: {"name": {"dtype": "F32", "shape": [64, 9], "data_offsets": [start, end]}, ...} and spaces
    data        the tensors one after the other, little endian, no gaps

Rules
1. A file from another machine is treated as hostile until vetted. Whatever its bytes are, reading gives a value or a
   RemoteError.
2. No memory is allocated before it is known that the file has that many bytes; values are checked in blocks.
3. Never pickle. Only the eight types of `DTYPES` are sent.
4. Equal tensors make equal bytes, and those are the bytes that the safetensors library writes.
5. A file appears under its name whole or not at all, and is written tensor by tensor: see `fedcervix.disk.files`.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.plan import check
from fedcervix.disk.files import opened, read_at, write_parts
from fedcervix.disk.storage import disk
from fedcervix.errors import RemoteError
from fedcervix.json_text import parsed

DTYPES: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: these are its bits, see `decode`
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""The types that can be sent, by their safetensors names, in the order of a file."""

FLOATS = frozenset({"F64", "F32", "BF16", "F16"})

Kind = Literal["float", "counter", "running_mean", "running_var"]

SUFFIX_KINDS: dict[str, Kind] = {
    "num_batches_tracked": "counter",
    "running_mean": "running_mean",
    "running_var": "running_var",
}
NEVER_NEGATIVE = frozenset({"running_var", "num_batches_tracked"})
"""tensors by the last part of their names: a variance is a mean of squares, and a number of batches a count"""
FIRST_MAX: dict[Kind, float] = {"float": 1e6, "running_mean": 1e6, "running_var": 1e12, "counter": 2.0**40}
"""The largest magnitude in a first model, which has no base to be near to: a thousand times what training gives, and a
forward pass through a hundred layers of such numbers, each normalised, is far from the end of float32."""

PREFIX_BYTES = 8
HEADER_BYTES_MAX = 2**20
"""of any file: the largest network of a plan (ResNet-50, 326 tensors) has a header of 42 KB"""
HEADER_SLACK_BYTES = 2**16
"""what the header of an update may have beyond twice its base's: metadata, spaces"""
TENSORS_MAX = 4096
DIMENSIONS_MAX = 16
NAME_CHARACTERS_MAX = 512
BLOCK_BYTES = 2**20
DIFFERENCES_SHOWN = 3

STRUCTURE_MAX = {b"{": 2 * TENSORS_MAX, b"[": 3 * TENSORS_MAX, b",": 20 * TENSORS_MAX}
"""Counted before the header is parsed, so that a megabyte of JSON cannot become a hundred of objects."""

BFLOAT16_EXPONENT = 0x7F80


@dataclass(frozen=True, slots=True)
class Tensor:
    """The place of one tensor: bytes [start, end) of its file, row-major."""

    name: str
    dtype: str
    """a key of `DTYPES`"""
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def count(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a file: its tensors in the order of their bytes, and its header unchanged."""

    tensors: tuple[Tensor, ...]
    header: bytes
    """the JSON with its padding, without the eight bytes of its length"""


# ------------------------------------------------------------------------------------------------ reading the layout


def read_layout(path: Path, like: Layout | None = None) -> Layout:
    """Read and check the header of a weights file. `like`: of the model that it should be, which bounds its length.

    Raises RemoteError if the file is not a valid one, StorageError if it cannot be read.
    """
    with opened(path) as file, disk(path, "read"):
        size = os.fstat(file.fileno()).st_size
        header = bytearray(_header_bytes(file, size, header_bytes_max(like)))
        read_at(file, PREFIX_BYTES, memoryview(header))
    return parse_layout(bytes(header), size, like)


def header_bytes_max(like: Layout | None) -> int:
    """Return how long a header may be: of any file, or of one that has the tensors of `like`."""
    return HEADER_BYTES_MAX if like is None else min(HEADER_BYTES_MAX, 2 * len(like.header) + HEADER_SLACK_BYTES)


def check_header(path: Path) -> None:
    """Check the length of a header, before another library parses it. Raises RemoteError, OSError."""
    with path.open("rb", buffering=0) as file:
        _header_bytes(file, os.fstat(file.fileno()).st_size, HEADER_BYTES_MAX)


def _header_bytes(file: FileIO, size: int, bytes_max: int) -> int:
    """Return the length of a file's header."""
    _insist(size >= PREFIX_BYTES, f"it is {size} bytes long, too short for a header")
    prefix = memoryview(bytearray(PREFIX_BYTES))
    read_at(file, 0, prefix)
    length: int = struct.unpack("<Q", prefix)[0]
    _insist(length <= bytes_max, f"its header claims {length} bytes; at most {bytes_max} are allowed")
    _insist(length <= size - PREFIX_BYTES, f"its header claims {length} bytes, the file has only {size}")
    return length


def parse_layout(header: bytes, file_size: int, like: Layout | None = None) -> Layout:
    """Check a header (without its length prefix) against the size of its file. Raises RemoteError, nothing else.

    A header that is that of `like` needs no parsing: models of a run have the same one as a rule.
    """
    data_start = PREFIX_BYTES + len(header)
    if like is not None and header == like.header:
        _check_cover(like.tensors, data_start, file_size)
        return like
    entries = _parse_json(header)
    metadata = entries.pop("__metadata__", {})
    _insist(
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()),
        "its __metadata__ is not a table of texts",
    )
    _insist(len(entries) <= TENSORS_MAX, f"it names {len(entries)} tensors; at most {TENSORS_MAX} are allowed")
    tensors = sorted(
        (_parse_tensor(name, entry, data_start) for name, entry in entries.items()),
        key=lambda tensor: (tensor.start, tensor.end),
    )
    _check_cover(tensors, data_start, file_size)
    return Layout(tuple(tensors), header)


def _parse_json(header: bytes) -> dict[str, object]:
    _insist(len(header) <= HEADER_BYTES_MAX, f"its header is longer than {HEADER_BYTES_MAX} bytes")
    _insist(header.startswith(b"{"), "its header is not a JSON object")
    for character, count_max in STRUCTURE_MAX.items():
        _insist(header.count(character) <= count_max, f"its header holds too many of {character.decode()!r}")
    try:
        entries = parsed(header.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except ValueError as error:
        raise _invalid(f"its header is not JSON: {str(error)[:80]}") from error
    _insist(isinstance(entries, dict), "its header is not a JSON object")
    return dict(entries)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    entries = dict(pairs)
    _insist(len(entries) == len(pairs), "its header names a key twice")
    return entries


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _parse_tensor(name: str, entry: object, data_start: int) -> Tensor:
    # A name travels on into messages and logs: nothing unprintable, nothing endless.
    _insist(
        0 < len(name) <= NAME_CHARACTERS_MAX and name.isprintable(), "a tensor's name is empty, too long or unprintable"
    )
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _invalid(f"{name}: dtype, shape and data_offsets are expected, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    _insist(isinstance(dtype, str) and dtype in DTYPES, f"{name}: the type is none of {', '.join(DTYPES)}")
    _insist(_naturals(shape) and len(shape) <= DIMENSIONS_MAX, f"{name}: the shape is not a short list of sizes")
    _insist(_naturals(offsets) and len(offsets) == 2, f"{name}: data_offsets is not a start and an end")
    start, end = offsets
    expected_bytes = math.prod(shape) * DTYPES[dtype].itemsize
    _insist(end - start == expected_bytes, f"{name}: its number of bytes does not fit its type and shape")
    return Tensor(name, dtype, tuple(shape), data_start + start, data_start + end)


def _naturals(value: object) -> bool:
    # type(), because True is an int to isinstance; bounded, so that products and sums stay small.
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_cover(tensors: Sequence[Tensor], data_start: int, file_size: int) -> None:
    expected = data_start
    for tensor in tensors:
        _insist(tensor.start == expected, f"{tensor.name}: its bytes overlap others or leave a gap")
        expected = tensor.end
    _insist(expected == file_size, f"its tensors end at byte {expected}, the file at byte {file_size}")


def _insist(ok: bool, what: str) -> None:
    if not ok:
        raise _invalid(what)


def _invalid(what: str) -> RemoteError:
    return RemoteError(
        f"not a valid weights file: {what}",
        cause="the file was cut short, damaged, or made by another program",
        next_step="fetch or export the file again",
    )


def kind(name: str, dtype: str) -> Kind:
    """Say what a tensor holds, from the last part of its name and its type (a key of `DTYPES`)."""
    return SUFFIX_KINDS.get(name.rpartition(".")[2], "float") if dtype in FLOATS else "counter"


# ------------------------------------------------------------------------------------------------ vetting the values


def vet(path: Path, base: Layout) -> None:
    """Check an update before it is averaged: the base's names, shapes and types, and only valid values.

    A float is valid if it is neither NaN nor infinite.
    Raises RemoteError naming the tensor, StorageError if the file cannot be read.
    """
    _check_values(path, vet_layout(path, base))


def vet_layout(path: Path, base: Layout) -> Layout:
    """Check all of `vet` but the values; return what the file holds. Errors as `vet`."""
    layout = read_layout(path, base)
    check_same(layout, base)
    return layout


def vet_base(path: Path) -> None:
    """Check a file that a run may start from: at least one float32 tensor, sound values, none above `FIRST_MAX`.

    Errors as `vet`.
    """
    layout = read_layout(path)
    _insist(any(tensor.dtype == "F32" and tensor.count for tensor in layout.tensors), "it holds no float32 tensor")
    _check_values(path, layout, largest=FIRST_MAX)


def vet_values(path: Path) -> None:
    """Check that a file's values are sound, whatever its tensors are. Errors as `vet`."""
    _check_values(path, read_layout(path))


def check_same(layout: Layout, base: Layout) -> None:
    """Raise RemoteError unless both hold the same names, shapes and types. Their order in the file may differ."""
    found = [] if layout is base else differences(layout, base)
    if found:
        more = f" (and {len(found) - DIFFERENCES_SHOWN} more)" if len(found) > DIFFERENCES_SHOWN else ""
        raise RemoteError(
            f"the update does not fit the base model: {'; '.join(found[:DIFFERENCES_SHOWN])}{more}",
            cause="the site trained another architecture, or another version of the model",
            next_step="compare the site's training contract with the run's",
        )


def differences(layout: Layout, base: Layout) -> list[str]:
    """Describe where the tensors of two files differ in name, shape or type: in the base's order, then new ones."""
    ours = {tensor.name: tensor for tensor in layout.tensors}
    wanted = {tensor.name: tensor for tensor in base.tensors}
    lines = []
    for name, want in wanted.items():
        have = ours.get(name)
        if have is None:
            lines.append(f"{name} is missing")
        elif (have.dtype, have.shape) != (want.dtype, want.shape):
            lines.append(f"{name} is {have.dtype}{list(have.shape)}, not {want.dtype}{list(want.shape)}")
    return lines + [f"{name} is not in the base" for name in ours if name not in wanted]


def _check_values(path: Path, layout: Layout, *, largest: Mapping[Kind, float] | None = None) -> None:
    with opened(path) as file:
        for tensor in layout.tensors:
            most = largest[kind(tensor.name, tensor.dtype)] if largest else math.inf
            for view in blocks(file, tensor):
                if not sound(view, tensor):
                    raise _unsound(tensor, view)
                if most < math.inf and tensor.dtype != "BOOL":
                    _check_size(view, tensor, most)


def _unsound(tensor: Tensor, raw: memoryview) -> RemoteError:
    if _never_negative(tensor) and _is_sound(raw, tensor.dtype):
        return RemoteError(
            f"{tensor.name} holds a negative number, {decode(raw, tensor.dtype).min():.3g}",
            cause="training never gives one: the file was damaged, or made to do harm",
            next_step="ask the site; to exclude it from the run: coordinator revoke SITE",
        )
    return RemoteError(
        f"{tensor.name} holds values that are not finite numbers",
        cause="training diverged, or the file was damaged in transit",
        next_step="see the site's loss of this round; a lower learning rate usually helps",
    )


def _check_size(raw: memoryview, tensor: Tensor, most: float) -> None:
    values = decode(raw, tensor.dtype)
    found = max(float(values.max()), -float(values.min()))
    if found > most:
        raise RemoteError(
            f"{tensor.name} holds {found:.3g}; in a first model at most {most:.3g} is accepted",
            cause="it was not made by training, or its training diverged",
            next_step="use another first model",
        )


def sound(raw: memoryview, tensor: Tensor) -> bool:
    """Return whether numbers of a tensor are ones that a model can have.

    Every float is finite, every truth value 0 or 1, and no variance and no number of batches is negative.
    """
    if not _is_sound(raw, tensor.dtype):
        return False
    return not (_never_negative(tensor) and bool((decode(raw, tensor.dtype) < 0).any()))


def _never_negative(tensor: Tensor) -> bool:
    return tensor.name.rpartition(".")[2] in NEVER_NEGATIVE and tensor.dtype != "BOOL"


def _is_sound(raw: memoryview, dtype: str) -> bool:
    """Say whether no value is NaN or infinite, and whether each BOOL is 0 or 1."""
    if dtype == "BOOL":
        return bool((np.frombuffer(raw, np.uint8) <= 1).all())
    if dtype not in FLOATS:
        return True
    values = np.frombuffer(raw, DTYPES[dtype])
    if dtype == "BF16":
        return bool(((values & BFLOAT16_EXPONENT) != BFLOAT16_EXPONENT).all())
    return bool(np.isfinite(values).all())


# ------------------------------------------------------------------------------------------ numbers from and to bytes


def decode(raw: memoryview, dtype: str) -> NDArray[Any]:
    """Return the values of `raw` as a flat array that shares its memory; BF16 is widened to a new float32 array."""
    values = np.frombuffer(raw, DTYPES[dtype])
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else values


def encode(values: NDArray[Any], dtype: str, out: memoryview) -> memoryview:
    """Write `values` into `out` as `dtype`, rounded to nearest; return the part of `out` that was used.

    Values too large for `dtype` become infinite: `sound` tells.
    """
    stored = DTYPES[dtype]
    view = out[: values.size * stored.itemsize]
    with np.errstate(over="ignore"):
        if dtype == "BF16":
            bits = values.astype(np.float32).view(np.uint32)
            values = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16  # to nearest, ties to even
        np.copyto(np.frombuffer(view, stored), values, casting="unsafe")
    return view


# ------------------------------------------------------------------------------------------------ whole files


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read all tensors of a weights file, by name, in file order; BF16 as float32. Errors as `read_layout`."""
    layout = read_layout(path)
    tensors = {}
    with opened(path) as file:
        for tensor in layout.tensors:
            raw = memoryview(bytearray(tensor.end - tensor.start))
            read_at(file, tensor.start, raw)
            tensors[tensor.name] = decode(raw, tensor.dtype).reshape(tensor.shape)
    return tensors


@dataclass(frozen=True, slots=True)
class Form:
    """What a header says of a tensor that is to be written."""

    dtype: str
    """a key of `DTYPES`"""
    shape: tuple[int, ...]


def file_parts(
    forms: Mapping[str, Form], values: Callable[[str], Iterable[memoryview]], metadata: Mapping[str, str]
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a weights file, a tensor at a time: `values` is asked for those of a tensor in its turn."""
    rank = {dtype: position for position, dtype in enumerate(DTYPES)}
    order = sorted(forms, key=lambda name: (rank[forms[name].dtype], name))
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    start = 0
    for name in order:
        end = start + math.prod(forms[name].shape) * DTYPES[forms[name].dtype].itemsize
        entries[name] = {"dtype": forms[name].dtype, "shape": list(forms[name].shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    yield with_length(text + b" " * (-len(text) % PREFIX_BYTES))
    for name in order:
        yield from values(name)


def with_length(header: bytes) -> bytes:
    """Return a header with its length before it, as it stands in a file."""
    return struct.pack("<Q", len(header)) + header


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> str:
    """Write a weights file, replacing an older one, and return the SHA-256 of its bytes (hexadecimal).

    The types of `DTYPES` but BF16 can be written; another one raises ValueError. A full or read-only disk raises
    StorageError and leaves what was there before.
    """
    forms = {name: Form(_dtype_of(name, array), array.shape) for name, array in tensors.items()}

    def values(name: str) -> Iterator[memoryview]:
        flat = np.ascontiguousarray(tensors[name], DTYPES[forms[name].dtype]).reshape(-1)
        yield flat.view(np.uint8).data

    return write_parts(path, file_parts(forms, values, metadata or {}))


NAMES = {"F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def wide_floats(layout: Layout) -> list[str]:
    """Return which types other than float32 the file's numbers have, by the names that torch gives them."""
    return sorted({NAMES[tensor.dtype] for tensor in layout.tensors if tensor.dtype in NAMES})


def as_float32(path: Path, to: Path) -> str:
    """Write a weights file again with every floating-point tensor as float32; return the SHA-256 of its bytes.

    It is read in blocks. A number beyond float32 becomes infinite: `vet_base` tells. Errors as `read_layout`.
    """
    found = {tensor.name: tensor for tensor in read_layout(path).tensors}
    forms = {name: Form("F32" if t.dtype in FLOATS else t.dtype, t.shape) for name, t in found.items()}
    with opened(path) as file:

        def values(name: str) -> Iterator[memoryview]:
            for raw in blocks(file, found[name]):
                yield _converted(raw, found[name].dtype, forms[name].dtype)

        return write_parts(to, file_parts(forms, values, {}))


def blocks(file: FileIO, tensor: Tensor) -> Iterator[memoryview]:
    """Yield the bytes of a tensor, BLOCK_BYTES at most; the next take their place. Raises StorageError."""
    block = memoryview(bytearray(BLOCK_BYTES))
    for start in range(tensor.start, tensor.end, BLOCK_BYTES):
        view = block[: min(BLOCK_BYTES, tensor.end - start)]
        read_at(file, start, view)
        yield view


def _converted(raw: memoryview, dtype: str, wanted: str) -> memoryview:
    if dtype == wanted:
        return raw
    values = decode(raw, dtype)
    return encode(values, wanted, memoryview(bytearray(values.size * DTYPES[wanted].itemsize)))


def _dtype_of(name: str, array: NDArray[Any]) -> str:
    check(name != "__metadata__", "a tensor cannot be called __metadata__")
    for dtype, stored in DTYPES.items():
        if dtype != "BF16" and array.dtype.newbyteorder("<") == stored:
            return dtype
    raise ValueError(f"{name}: {array.dtype} is not supported; use one of {', '.join(DTYPES)}")
