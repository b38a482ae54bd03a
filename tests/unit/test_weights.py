"""Weights files: the layout, what is refused, what is written. The safetensors library is the independent witness."""

import errno
import hashlib
import json
import os
import struct
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import safetensors.numpy

from fedcervix.disk.files import digest_file, write_parts
from fedcervix.errors import FullDiskError, RemoteError, StorageError
from fedcervix.models.weights import (
    HEADER_BYTES_MAX,
    TENSORS_MAX,
    Form,
    Layout,
    Tensor,
    decode,
    differences,
    encode,
    file_parts,
    parse_layout,
    read_layout,
    read_tensors,
    vet,
    vet_base,
    write_tensors,
)


def file_of(path, entries, data=b""):
    """Write a file by hand: header as given (a table or bytes), then data."""
    header = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.fixture
def model():
    return {
        "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "bn.running_mean": np.array([1.5, -2.5], np.float32),
        "bn.num_batches_tracked": np.array(7, np.int64),
    }


@pytest.fixture
def base(tmp_path, model):
    write_tensors(tmp_path / "base.safetensors", model)
    return read_layout(tmp_path / "base.safetensors")


def test_the_layout_gives_absolute_offsets_in_file_order(tmp_path):
    path = file_of(tmp_path / "m", {"b": entry(offsets=(8, 12)), "a": entry("I64", (), (0, 8))}, bytes(12))
    layout = read_layout(path)
    start = 8 + len(layout.header)
    assert layout.tensors == (
        Tensor("a", "I64", (), start, start + 8),
        Tensor("b", "F32", (1,), start + 8, start + 12),
    )
    assert layout.tensors[0].count == 1


MIXED = {
    "z.half": np.ones((3,), np.float16),
    "é.weight": np.arange(4, dtype=np.float32),
    "a.flag": np.array([True, False, True]),
    "steps": np.array(3, np.int64),
    "double": np.ones((2, 2)),
    "int": np.array([1, -1], np.int32),
    "byte": np.arange(5, dtype=np.uint8),
    "empty": np.zeros((0, 4), np.float32),
    'quote"\\': np.float32([1]),
}


@pytest.mark.parametrize("metadata", [None, {"made-by": "Åsa"}])
def test_a_written_file_is_byte_for_byte_that_of_the_safetensors_library(tmp_path, metadata):
    digest = write_tensors(tmp_path / "ours", MIXED, metadata)
    safetensors.numpy.save_file(MIXED, tmp_path / "theirs", metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert digest == hashlib.sha256((tmp_path / "theirs").read_bytes()).hexdigest() == digest_file(tmp_path / "ours")


def test_what_the_library_writes_is_read_back_with_types_shapes_and_values(tmp_path):
    safetensors.numpy.save_file(MIXED, tmp_path / "m")
    found = read_tensors(tmp_path / "m")
    assert found.keys() == MIXED.keys()
    for name, array in MIXED.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_the_order_of_the_mapping_and_of_memory_does_not_change_the_bytes(tmp_path, model):
    turned = {name: np.array(model[name], order="F") for name in reversed(model)}
    foreign = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in model.items()}
    digests = {write_tensors(tmp_path / "m", tensors) for tensors in (model, turned, foreign)}
    assert len(digests) == 1


def test_bfloat16_is_widened_exactly_and_rounded_to_even(tmp_path):
    bits = np.array([0x3F80, 0xC040, 0x0001], "<u2")  # 1, -3, the smallest subnormal
    path = file_of(tmp_path / "m", {"x": entry("BF16", (3,), (0, 6))}, bits.tobytes())
    np.testing.assert_array_equal(read_tensors(path)["x"], np.float32([1, -3, 2.0**-133]))
    out = memoryview(bytearray(6))
    # 1 + 2^-8 lies midway between 1 and 1 + 2^-7; 1 + 3 * 2^-8 midway between 1 + 2^-7 and 1 + 2^-6
    encode(np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-12]), "BF16", out)
    np.testing.assert_array_equal(decode(out, "BF16"), [1, 1 + 2.0**-6, 1 + 2.0**-7])


def test_types_that_do_not_travel_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="uint16 is not supported"):
        write_tensors(tmp_path / "m", {"x": np.zeros(1, np.uint16)})
    with pytest.raises(ValueError, match="__metadata__"):
        write_tensors(tmp_path / "m", {"__metadata__": np.zeros(1, np.float32)})
    assert not list(tmp_path.iterdir())


INVALID_HEADERS = {
    "not JSON": b"{...",
    "not an object": b"[1]",
    "not UTF-8": b'{"\xff":1}',
    "too deep": b'{"a":' + b"[" * 200_000,
    "too many brackets": b'{"a":[' + b"[]," * 300_001,
    "NaN": b'{"a":NaN}',
    "a number of 5000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "name twice": b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
    b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    "entry is a list": {"a": []},
    "unknown key": {"a": entry() | {"device": "cuda"}},
    "key missing": {"a": {"dtype": "F32", "shape": [1]}},
    "unknown type": {"a": entry("F8_E4M3", (4,))},
    "type is a list": {"a": entry(["F32"])},
    "negative size": {"a": entry(shape=(-1, -1))},
    "size is a truth value": {"a": entry(shape=(True,))},
    "size is a fraction": {"a": entry(shape=(1.0,))},
    "size overflows": {"a": entry(shape=(2**62, 2**62))},
    "shape is a number": {"a": entry() | {"shape": 1}},
    "17 dimensions": {"a": entry(shape=(1,) * 17)},
    "one offset": {"a": entry(offsets=(4,))},
    "offsets reversed": {"a": entry(offsets=(4, 0))},
    "length is not that of the shape": {"a": entry(shape=(2,))},
    "gap": {"a": entry(offsets=(0, 4)), "b": entry(offsets=(5, 9))},
    "overlap": {"a": entry(offsets=(0, 4)), "b": entry(offsets=(0, 4))},
    "does not start at 0": {"a": entry(offsets=(4, 8))},
    "empty name": {"": entry()},
    "endless name": {"a" * 513: entry()},
    "unprintable name": {"a\nb": entry()},
    "lone surrogate": b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    "metadata is a list": {"__metadata__": [], "a": entry()},
    "metadata holds a number": {"__metadata__": {"a": 1}, "a": entry()},
}


@pytest.mark.parametrize("why", INVALID_HEADERS)
def test_an_invalid_header_is_a_remote_error(why):
    header = INVALID_HEADERS[why]
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    with pytest.raises(RemoteError, match="not a valid weights file"):
        parse_layout(header, 8 + len(header) + 4)


def test_the_same_entry_is_accepted_when_nothing_is_wrong_with_it():
    header = json.dumps({"__metadata__": {"a": "b"}, "a": entry()}).encode()
    assert isinstance(parse_layout(header, 8 + len(header) + 4), Layout)


def test_more_tensors_than_allowed_are_refused():
    text = ",".join(f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(TENSORS_MAX + 1))
    header = b"{" + text.encode() + b"}"
    with pytest.raises(RemoteError, match=f"{TENSORS_MAX + 1} tensors"):
        parse_layout(header, 8 + len(header))


def long_header(header_bytes: int) -> bytes:
    """Return a header of empty tensors, about as long as this, as an attacker would write it."""
    entries, text = [], 2
    while text < header_bytes:
        entries.append(f'"{len(entries)}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')
        text += len(entries[-1]) + 1
    return b"{" + ",".join(entries).encode() + b"}"


def test_a_header_that_no_model_of_the_run_has_is_not_even_read(tmp_path, base):
    """One of 13.7 MB took 1.6 s of CPU and 562 MB of memory."""
    for header_bytes in (2**17, 2**21, 14 * 2**20):
        header = long_header(header_bytes)
        (tmp_path / "update").write_bytes(struct.pack("<Q", len(header)) + header)
        tracemalloc.start()
        with pytest.raises(RemoteError, match="header claims"):
            vet(tmp_path / "update", base)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**18


def test_the_longest_header_of_a_first_model_costs_little_memory(tmp_path):
    header = long_header(HEADER_BYTES_MAX - 100)
    (tmp_path / "model").write_bytes(struct.pack("<Q", len(header)) + header)
    tracemalloc.start()
    with pytest.raises(RemoteError):
        vet_base(tmp_path / "model")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20


def test_an_update_may_have_words_of_its_own_beside_the_base_s_tensors(tmp_path, model, base):
    write_tensors(tmp_path / "update", model, {"made-by": "x" * 10_000})
    vet(tmp_path / "update", base)


@pytest.mark.parametrize("size", [0, 7, 8, 20, -1])
def test_a_file_cut_anywhere_is_refused(tmp_path, model, size):
    write_tensors(tmp_path / "m", model)
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:size])
    with pytest.raises(RemoteError):
        read_layout(tmp_path / "m")


def test_bytes_after_the_last_tensor_are_refused(tmp_path, model):
    write_tensors(tmp_path / "m", model)
    with (tmp_path / "m").open("ab") as file:
        file.write(b"x")
    with pytest.raises(RemoteError, match="tensors end at byte"):
        read_layout(tmp_path / "m")


@pytest.mark.parametrize("claim", [2**24 + 1, 2**63, 2**64 - 1])
def test_a_claimed_header_length_costs_no_memory(tmp_path, claim):
    (tmp_path / "m").write_bytes(struct.pack("<Q", claim) + b"{}")
    with (tmp_path / "m").open("r+b") as file:
        file.truncate(2**33)  # sparse: as long as some of the claims
    tracemalloc.start()
    with pytest.raises(RemoteError, match="claims"):
        read_layout(tmp_path / "m")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_file_that_is_not_there_is_a_storage_error(tmp_path):
    for read in (read_layout, digest_file, read_tensors):
        with pytest.raises(StorageError, match="cannot read"):
            read(tmp_path / "absent")


def test_an_update_like_the_base_passes_in_whatever_order_its_tensors_lie(tmp_path, base):
    shuffled = {
        "bn.running_mean": entry(shape=(2,), offsets=(0, 8)),
        "bn.num_batches_tracked": entry("I64", (), (8, 16)),
        "fc.weight": entry(shape=(2, 3), offsets=(16, 40)),
    }
    vet(file_of(tmp_path / "update", shuffled, bytes(40)), base)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fc.weight", None, "fc.weight is missing"),
        ("fc.weight", np.zeros((3, 2), np.float32), r"fc.weight is F32\[3, 2\], not F32\[2, 3\]"),
        ("fc.weight", np.zeros((2, 3), np.float16), r"fc.weight is F16\[2, 3\], not F32\[2, 3\]"),
        ("more", np.zeros(1, np.float32), "more is not in the base"),
        ("fc.weight", np.full((2, 3), np.nan, np.float32), "fc.weight holds values that are not finite"),
        ("bn.running_mean", np.array([0, -np.inf], np.float32), "bn.running_mean holds values"),
    ],
)
def test_a_wrong_update_is_refused_and_its_tensor_named(tmp_path, base, model, name, value, message):
    update = {**model, name: value} if value is not None else {key: model[key] for key in model if key != name}
    write_tensors(tmp_path / "update", update)
    with pytest.raises(RemoteError, match=message) as refused:
        vet(tmp_path / "update", base)
    assert refused.value.next_step


def test_only_the_first_differences_are_named(tmp_path, base, model):
    write_tensors(tmp_path / "update", {f"x{i}": np.zeros(1, np.float32) for i in range(4)})
    assert len(differences(read_layout(tmp_path / "update"), base)) == 7
    with pytest.raises(RemoteError, match=r"\(and 4 more\)"):
        vet(tmp_path / "update", base)


@pytest.mark.parametrize("position", [0, 2**18 - 1, 2**18, 600_000, 699_999])
def test_one_bad_value_is_found_in_any_block(tmp_path, position):
    values = np.zeros(700_000, np.float32)
    values[position] = np.inf
    write_tensors(tmp_path / "m", {"x": values})
    with pytest.raises(RemoteError, match="x holds"):
        vet_base(tmp_path / "m")


@pytest.mark.parametrize(
    ("dtype", "raw"),
    [("F16", "007c"), ("BF16", "807f"), ("BF16", "c0ff"), ("F64", "000000000000f07f"), ("BOOL", "02")],
)
def test_bad_values_of_every_type_are_found(tmp_path, dtype, raw):
    data = bytes.fromhex(raw)
    entries = {"ok": entry(), "x": entry(dtype, (1,), (4, 4 + len(data)))}
    with pytest.raises(RemoteError, match="x holds"):
        vet_base(file_of(tmp_path / "m", entries, bytes(4) + data))


def test_a_base_needs_float32(tmp_path):
    write_tensors(tmp_path / "m", {"x": np.zeros(3, np.float16)})
    with pytest.raises(RemoteError, match="no float32 tensor"):
        vet_base(tmp_path / "m")


def test_vetting_50_mb_takes_3_mb_of_memory(tmp_path):
    write_tensors(tmp_path / "m", {f"x{i}": np.zeros(2**20, np.float32) for i in range(12)})
    base = read_layout(tmp_path / "m")
    tracemalloc.start()
    vet(tmp_path / "m", base)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2**20


def test_writing_replaces_the_older_file_and_leaves_nothing_else(tmp_path, model):
    (tmp_path / "m").write_bytes(b"old")
    (tmp_path / ".m.part").write_bytes(b"left by a crash")
    write_tensors(tmp_path / "m", model)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert read_layout(tmp_path / "m").tensors


def test_a_full_disk_is_said_to_be_full_and_keeps_the_older_file(tmp_path):
    def until_the_disk_is_full(_name: str) -> Iterator[memoryview]:
        yield memoryview(bytes(8))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "m").write_bytes(b"old")
    with pytest.raises(FullDiskError, match=os.strerror(errno.ENOSPC)) as failed:
        write_parts(tmp_path / "m", file_parts({"x": Form("F32", (4,))}, until_the_disk_is_full, {}))
    assert failed.value.cause == "the disk is full"
    assert "free some space" in failed.value.next_step
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m").read_bytes() == b"old"


def test_a_missing_folder_is_a_storage_error(tmp_path, model):
    with pytest.raises(StorageError, match="cannot write"):
        write_tensors(tmp_path / "absent" / "m", model)
