"""Bytes into the weights reader: a value or a RemoteError, nothing else."""

import json
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedcervix.errors import RemoteError
from fedcervix.models.weights import parse_layout, read_layout, read_tensors, vet, vet_base, write_tensors

QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def valid(tmp_path):
    write_tensors(
        tmp_path / "valid",
        {
            "fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
            "bn.steps": np.array(7, np.int64),
            "mask": np.array([True, False]),
        },
        {"made-by": "test"},
    )
    return tmp_path / "valid"


def all_readers(path, base):
    for read in (read_layout, vet_base, read_tensors, lambda path: vet(path, base)):
        try:
            read(path)
        except RemoteError as error:
            error.explain().encode()  # the message can be printed


@QUICK
@given(content=st.binary(max_size=400))
@example(content=struct.pack("<Q", 2) + b"{}")
def test_arbitrary_files(valid, content):
    path = valid.with_name("fuzzed")
    path.write_bytes(content)
    all_readers(path, read_layout(valid))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["F32", "I64"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "BOOL", "I64"]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 24), min_size=2, max_size=2) | JSON,
    }
)


@QUICK
@given(
    entries=st.dictionaries(st.text(max_size=4) | st.just("__metadata__"), ENTRY | JSON, max_size=4), data=st.binary()
)
def test_arbitrary_headers(valid, entries, data):
    header = json.dumps(entries).encode()
    path = valid.with_name("fuzzed")
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    all_readers(path, read_layout(valid))


@QUICK
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4), cut=st.integers(0, 9), tail=st.binary()
)
def test_valid_files_with_bytes_changed_cut_off_or_added(valid, edits, cut, tail):
    content = bytearray(valid.read_bytes())
    for where, byte in edits:
        content[int(where * (len(content) - 1))] = byte
    path = valid.with_name("fuzzed")
    path.write_bytes(bytes(content[: len(content) - cut]) + tail)
    all_readers(path, read_layout(valid))


@QUICK
@given(header=st.binary(max_size=200), file_size=st.integers(0, 2**64))
def test_the_pure_parser(header, file_size):
    for text in (header, b"{" + header + b"}"):
        with suppress(RemoteError):
            assert parse_layout(text, file_size).header == text
