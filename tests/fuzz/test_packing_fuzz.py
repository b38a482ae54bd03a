"""Bytes into the reader of packed models: the announced model or a RemoteError, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedcervix.disk.files import digest_file
from fedcervix.errors import RemoteError
from fedcervix.models.quantization import Origin, Packing, pack, unpack
from fedcervix.models.weights import read_tensors, write_tensors

QUICK = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DIGEST = "b" * 64
PACKINGS: tuple[Packing, ...] = ("bfloat16", "int8")

pytestmark = pytest.mark.filterwarnings("error")


class Receiver:
    """Who holds the base, and is sent whatever it may be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = {"fc.weight": np.linspace(-1, 1, 300, dtype=np.float32), "bn.num_batches_tracked": np.array(7)}
        write_tensors(folder / "base", base)
        write_tensors(folder / "exact", base | {"fc.weight": base["fc.weight"] * np.float32(1.01)})
        self.origins = {"bfloat16": None, "int8": Origin(DIGEST, folder / "base")}
        self.valid: dict[Packing, bytes] = {}
        self.right: dict[Packing, str] = {}
        for packing in PACKINGS:
            pack(folder / "exact", folder / packing, packing, self.origins[packing])
            self.valid[packing] = (folder / packing).read_bytes()
            self.right[packing] = unpack(folder / packing, folder / "model", packing, self.origins[packing])
        (folder / "model").unlink()

    def is_sent(self, content: bytes) -> None:
        """Take the bytes for either packing, with and without an announced digest."""
        fuzzed, model = self.folder / "fuzzed", self.folder / "model"
        fuzzed.write_bytes(content)
        for packing in PACKINGS:
            for announced in ("", self.right[packing]):
                try:
                    found = unpack(fuzzed, model, packing, self.origins[packing], digest=announced)
                except RemoteError as error:
                    error.explain().encode()  # the message can be printed
                else:
                    assert announced in ("", found)
                    assert found == digest_file(model)
                    assert all(np.isfinite(values).all() for values in read_tensors(model).values())
                    model.unlink()
                assert not list(self.folder.glob("model*"))


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path)


def shortest(content: bytes) -> tuple[str, bytes]:
    """Return header and data of a weights file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end].decode(), content[end:]


def file_of(header: str, data: bytes) -> bytes:
    return len(header.encode()).to_bytes(8, "little") + header.encode() + data


@QUICK
@given(content=st.binary(max_size=400))
def test_arbitrary_files(receiver: Receiver, content: bytes) -> None:
    receiver.is_sent(content)


@QUICK
@given(
    packing=st.sampled_from(PACKINGS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 9),
    tail=st.binary(max_size=9),
)
def test_valid_files_with_bytes_changed_cut_off_or_added(
    receiver: Receiver, packing: Packing, edits: list[tuple[float, int]], cut: int, tail: bytes
) -> None:
    data = bytearray(receiver.valid[packing])
    for where, byte in edits:
        data[int(where * (len(data) - 1))] = byte
    receiver.is_sent(bytes(data[: len(data) - cut]) + tail)


@QUICK
@given(packing=st.sampled_from(PACKINGS), body=st.binary(min_size=320, max_size=320), where=st.floats(0, 1))
def test_numbers_of_any_bits(receiver: Receiver, packing: Packing, body: bytes, where: float) -> None:
    """Scales, codes and bfloat16 that nobody would send, in files that are otherwise in order."""
    header, data = shortest(receiver.valid[packing])
    at = int(where * (len(data) - len(body)))
    receiver.is_sent(file_of(header, data[:at] + body + data[at + len(body) :]))


NAMES = st.sampled_from(["body", "header", "codes", "fc.weight"])
SIZES = st.integers(-1, 700) | st.sampled_from([2**31, 2**62, 2**63])
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "BF16"]),
        "shape": st.lists(SIZES, max_size=2),
        "data_offsets": st.lists(SIZES, min_size=2, max_size=2),
    }
)
METADATA = st.dictionaries(
    st.sampled_from(["packing", "base", "model_bytes"]),
    st.sampled_from(["bfloat16", "int8", DIGEST, "", "1360", "-1", "0", "9" * 15, "9" * 99, "¹"]) | st.integers(),
)


@QUICK
@given(entries=st.dictionaries(NAMES, ENTRY, max_size=3), metadata=METADATA, data=st.binary(max_size=700))
def test_headers_of_any_content(receiver: Receiver, entries: dict[str, object], metadata: dict, data: bytes) -> None:
    receiver.is_sent(file_of(json.dumps({"__metadata__": metadata, **entries}), data))


@QUICK
@given(inner=st.binary(max_size=120), length=st.integers(0, 2000), body=st.integers(0, 700))
def test_inner_headers_of_any_content(receiver: Receiver, inner: bytes, length: int, body: int) -> None:
    """The model's own header, which travels with a model that has no base."""
    entries = {
        "__metadata__": {"packing": "bfloat16", "model_bytes": str(length)},
        "body": {"dtype": "U8", "shape": [body], "data_offsets": [0, body]},
        "header": {"dtype": "U8", "shape": [len(inner)], "data_offsets": [body, body + len(inner)]},
    }
    receiver.is_sent(file_of(json.dumps(entries), bytes(body) + inner))


@QUICK
@given(shape=st.lists(SIZES, max_size=3), end=SIZES, length=SIZES, body=st.integers(0, 700))
def test_inner_headers_that_ask_for_more_than_there_is(
    receiver: Receiver, shape: list[int], end: int, length: int, body: int
) -> None:
    inner = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    entries = {
        "__metadata__": {"packing": "bfloat16", "model_bytes": str(length)},
        "body": {"dtype": "U8", "shape": [body], "data_offsets": [0, body]},
        "header": {"dtype": "U8", "shape": [len(inner)], "data_offsets": [body, body + len(inner)]},
    }
    receiver.is_sent(file_of(json.dumps(entries), bytes(body) + inner))
