"""Values that are checked while a model arrives: never more lenient than `vet`, whatever the messages' lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcervix.errors import RemoteError
from fedcervix.models.step_norms import Group, Meter, measure_groups
from fedcervix.models.stream_validation import Arriving
from fedcervix.models.weights import read_layout, vet, write_tensors

TENSORS = {
    "steps": np.array(7, np.int64),
    "wide": np.linspace(-1, 1, 300),
    "a": np.linspace(-1, 1, 1000, dtype=np.float32),
    "b": np.ones((3, 5), np.float32),
    "empty": np.empty((0, 4), np.float32),
    "half": np.ones(7, np.float16),
    "mask": np.array([True, False]),
}


def written(folder: Path, **changed: object) -> bytes:
    write_tensors(folder / "model", {**TENSORS, **changed})  # type: ignore[dict-item]
    return (folder / "model").read_bytes()


def arrived(data: bytes, lengths: list[int], *, size_bytes: int | None = None) -> bool:
    """Let data arrive in messages of these lengths, the last one over and over."""
    seen = Arriving(len(data) if size_bytes is None else size_bytes)
    messages, at = [], 0
    while at < len(data):
        length = lengths[min(len(messages), len(lengths) - 1)]
        messages.append(data[at : at + length])
        at += length
    for message in messages:
        seen.see(message)
    return seen.sound


@pytest.mark.parametrize("length", [8, 64, 1024, 65536])
def test_a_good_model_is_sound_in_messages_that_cut_no_number(tmp_path: Path, length: int) -> None:
    data = written(tmp_path, half=np.ones(8, np.float16))
    assert arrived(data, [length])


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=8), data=st.data())
def test_whatever_is_called_sound_passes_vet(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("model")
    raw = bytearray(written(folder))
    base = read_layout(folder / "model")
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=3)):
        raw[place] = data.draw(st.integers(0, 255))
    (folder / "model").write_bytes(raw)
    if arrived(bytes(raw), lengths):
        vet(folder / "model", read_layout(folder / "model"))
        assert len(read_layout(folder / "model").tensors) == len(base.tensors)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1, 499, 998, 999])
@pytest.mark.parametrize("length", [4, 12, 128, 1 << 20])
def test_no_number_slips_through_between_messages(tmp_path: Path, place: int, value: float, length: int) -> None:
    bad = TENSORS["a"].copy()
    bad[place] = value
    data = written(tmp_path, a=bad)
    assert not arrived(data, [length])
    with pytest.raises(RemoteError, match="a holds values that are not finite"):
        vet(tmp_path / "model", read_layout(tmp_path / "model"))


def test_a_model_of_which_only_a_part_went_by_is_not_sound(tmp_path: Path) -> None:
    data = written(tmp_path)
    assert not arrived(data[:-8], [64], size_bytes=len(data))
    assert not arrived(data[64:], [64], size_bytes=len(data))
    assert not arrived(b"", [1], size_bytes=0)
    assert not arrived(data + b"\0" * 8, [64], size_bytes=len(data))


@pytest.mark.parametrize("head", [b"\0" * 8, b"\xff" * 8, (2**20).to_bytes(8, "little"), b"\x02" + b"\0" * 7 + b"[]"])
def test_a_header_that_is_none_is_left_to_vet(head: bytes) -> None:
    assert not arrived(head + b"\0" * 4096, [512])


def test_a_negative_variance_is_left_to_vet_as_well(tmp_path: Path) -> None:
    assert arrived(written(tmp_path, running_var=np.ones(8, np.float32)), [64])
    assert not arrived(written(tmp_path, running_var=np.float32([1, 1, 1, 1, 1, 1, 1, -1e6])), [64])


# --- how far it moved -------------------------------------------------------------------------------------------------

EVEN = {**TENSORS, "half": np.linspace(-1, 1, 8, dtype=np.float16), "running_var": np.full(4, 2, np.float32)}
"""no number of these is cut by messages of whole multiples of 8 bytes"""
LATER = {name: values + 1 if values.dtype.kind == "f" else values for name, values in EVEN.items()}


def arriving(folder: Path, update: dict[str, np.ndarray]) -> tuple[Arriving, bytes]:
    """Return what looks at an update as it arrives, and the update's bytes; `base` and `update` lie in the folder."""
    write_tensors(folder / "base", EVEN)
    write_tensors(folder / "update", update)
    data = (folder / "update").read_bytes()
    return Arriving(len(data), meter=Meter(folder / "base")), data


def figures(groups: tuple[Group, ...]) -> list[tuple[object, ...]]:
    return [(one.kind, one.count, one.farthest, pytest.approx(one.moved), pytest.approx(one.base)) for one in groups]


@pytest.mark.parametrize("length", [8, 64, 1000, 1 << 20])
@pytest.mark.parametrize("turned", [False, True], ids=["as the base", "other order"])
def test_what_arrives_is_measured_as_the_file_would_be(tmp_path: Path, length: int, turned: bool) -> None:
    """A part that was not counted would let an update pass that lies too far."""
    seen, data = arriving(tmp_path, dict(reversed(LATER.items())) if turned else LATER)
    for at in range(0, len(data), length):
        seen.see(data[at : at + length])
    assert seen.sound
    moved = seen.moved()
    assert moved is not None
    assert moved[0] == tmp_path / "base"
    found = measure_groups(tmp_path / "update", tmp_path / "base")
    assert [(g.kind, g.count, g.farthest, g.moved, g.base) for g in moved[1]] == figures(found)
    assert all(group.moved > 0 for group in found if group.count)
    seen.close()


@pytest.mark.parametrize("length", [8, 64, 1 << 20])
@pytest.mark.parametrize(
    ("name", "value"),
    [("a", np.nan), ("wide", np.inf), ("half", -np.inf), ("running_var", -1.0), ("running_var", np.nan)],
)
def test_what_is_measured_is_never_sound_where_vet_refuses_it(
    tmp_path: Path, name: str, value: float, length: int
) -> None:
    """A finite distance stands for finite numbers: also where the base holds the same bad number, there is none."""
    bad = np.array(EVEN[name])
    bad.reshape(-1)[-1] = value
    seen, data = arriving(tmp_path, {**EVEN, name: bad})
    for base in ("base", "update"):
        seen = Arriving(len(data), read_layout(tmp_path / "base"), Meter(tmp_path / base))
        for at in range(0, len(data), length):
            seen.see(data[at : at + length])
        assert not seen.sound
        seen.close()
    with pytest.raises(RemoteError):
        vet(tmp_path / "update", read_layout(tmp_path / "base"))


def test_the_header_of_the_base_does_not_stand_for_the_length_of_the_file(tmp_path: Path) -> None:
    data, like = written(tmp_path), read_layout(tmp_path / "model")
    for longer in (data + b"\0" * 8, data[:-8]):
        seen = Arriving(len(longer), like)
        seen.see(longer)
        assert not seen.sound
    seen = Arriving(len(data), like)
    seen.see(data)
    assert seen.sound


@pytest.mark.parametrize("gone", ["base", "closed"])
def test_what_cannot_be_measured_on_arrival_is_measured_later(tmp_path: Path, gone: str) -> None:
    seen, data = arriving(tmp_path, LATER)
    seen.see(data[:512])
    if gone == "base":  # the next round has begun
        (tmp_path / "base").unlink()
    else:
        seen.close()
    seen.see(data[512:])
    assert seen.sound
    assert seen.moved() is None
    seen.close()


def test_a_base_is_opened_when_it_is_needed_and_closed_at_the_end(tmp_path: Path) -> None:
    seen, data = arriving(tmp_path, LATER)
    (tmp_path / "base").unlink()
    seen.see(data)  # there is none any more: a descriptor of it would have been kept
    assert seen.moved() is None
