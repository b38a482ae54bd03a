"""The packed form: what is rounded and how, that both ends come to the same bytes, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.payloads import RESNET50
from fedcervix.disk.files import digest_file
from fedcervix.errors import ModelError, RemoteError, StorageError
from fedcervix.models.quantization import Feedback, Origin, Packing, dequantised, pack, quantised, unpack
from fedcervix.models.weights import read_layout, read_tensors, write_tensors

DIGEST = "b" * 64
Model = dict[str, Any]

BLOCK = 65_536


def model_of(*weights: float, seen: int = 7) -> Model:
    return {
        "fc.weight": np.float32(weights),
        "bn.running_mean": np.float32([1 / 3, -1e-9]),
        "bn.running_var": np.float32([1e-40, 2 / 3]),
        "bn.num_batches_tracked": np.array(seen, np.int64),
    }


class Ends:
    """A maker and a receiver that both hold the base."""

    def __init__(self, folder: Path, packing: Packing, base: Model) -> None:
        self.folder, self.packing, self.packed = folder, packing, folder / "packed"
        write_tensors(folder / "base", base)
        self.origin = Origin(DIGEST, folder / "base") if packing == "int8" else None

    def send(self, model: Model, feedback: Feedback | None = None) -> Model:
        """Return the model that arrives."""
        write_tensors(self.folder / "exact", model)
        assert pack(self.folder / "exact", self.packed, self.packing, self.origin, feedback) == digest_file(self.packed)
        arrived = self.folder / "arrived"
        digest = unpack(self.packed, arrived, self.packing, self.origin)
        assert digest == digest_file(arrived)
        assert unpack(self.packed, self.folder / "again", self.packing, self.origin, digest=digest) == digest
        return read_tensors(arrived)


@pytest.fixture
def bfloat16(tmp_path: Path) -> Ends:
    return Ends(tmp_path, "bfloat16", {})


def int8(folder: Path, base: Model) -> Ends:
    return Ends(folder, "int8", base)


# --- bfloat16 -----------------------------------------------------------------------------------------------------


def test_bfloat16_is_the_nearest_number_of_eight_bits_ties_to_even(bfloat16: Ends) -> None:
    ulp = 2.0**-7
    asked = [1.0, 1 + ulp, 1 + 0.4 * ulp, 1 + 0.5 * ulp, 1 + 0.51 * ulp, 1 + 1.5 * ulp, -(1 + 0.6 * ulp), 0.0, -0.0]
    right = [1.0, 1 + ulp, 1.0, 1.0, 1 + ulp, 1 + 2 * ulp, -(1 + ulp), 0.0, -0.0]
    arrived = bfloat16.send(model_of(*asked))["fc.weight"]
    assert arrived.tolist() == right
    assert np.signbit(arrived).tolist() == np.signbit(right).tolist()


def test_bfloat16_makes_no_infinity_of_a_finite_number(bfloat16: Ends) -> None:
    greatest = float(np.finfo(np.float32).max)
    arrived = bfloat16.send(model_of(greatest, -greatest))["fc.weight"]
    assert np.isfinite(arrived).all()
    assert arrived.tolist() == pytest.approx([greatest, -greatest], rel=2.0**-7)


def test_a_model_that_was_rounded_to_bfloat16_stays_as_it_is(bfloat16: Ends) -> None:
    once = bfloat16.send(model_of(0.1, 1 / 3, 1e-39))
    assert same(bfloat16.send(once), once)


def same(one: Model, other: Model) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


# --- int8 ---------------------------------------------------------------------------------------------------------


def test_int8_by_hand(tmp_path: Path) -> None:
    """The largest difference is 127 sixteenths: so the scale is a sixteenth, and what lies between is rounded."""
    base, steps = [10.0, 20.0, 30.0, 40.0], [127 / 16, -3 / 16, 0.4 / 16, 1.6 / 16]
    arrived = int8(tmp_path, model_of(*base)).send(model_of(*np.add(base, steps)))
    assert arrived["fc.weight"].tolist() == [10 + 127 / 16, 20 - 3 / 16, 30.0, 40 + 2 / 16]


def test_a_block_without_a_difference_is_its_base(tmp_path: Path) -> None:
    base = model_of(0.1, 1e30, -1e-40, 0.0)
    assert same(int8(tmp_path, base).send(base), base)


def test_every_256_numbers_have_a_scale_of_their_own() -> None:
    differences = np.repeat(np.float32([1000, 1, 0, 1e-3]), 256)[:-100]
    scales, codes = quantised(differences)
    assert scales.tolist() == np.float32([1000 / 127, 1 / 127, 0, 1e-3 / 127]).tolist()
    assert set(codes.tolist()) == {127, 0}
    assert dequantised(scales, codes) == pytest.approx(differences, rel=1e-6)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 2e-36, 1e-30, 1.0, 1e30, 3e38])
def test_differences_of_any_size_stay_finite_and_near(size: float) -> None:
    differences = (np.random.default_rng(0).uniform(-1, 1, 1000) * size).astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        scales, codes = quantised(differences)
        found = dequantised(scales, codes)
    assert np.isfinite(scales).all()
    assert np.abs(codes).max() <= 127
    error = np.abs(found.astype(np.float64) - differences).max()
    assert error <= np.abs(differences).max() / 253 or error < 1e-35


def test_int8_is_what_a_loop_over_single_numbers_gives(tmp_path: Path) -> None:
    """Tensors longer than a block, and of odd lengths, in the same order at both ends."""
    chance = np.random.default_rng(3)
    shapes = {"a.weight": (BLOCK + 300,), "b.bias": (1,), "c.weight": (3, 5, 37), "d.weight": (256,)}
    base = {name: chance.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    trained = {name: values + np.float32(0.01) * values[::-1] for name, values in base.items()}
    arrived = int8(tmp_path, base).send(trained)
    for name in shapes:
        flat, start = trained[name].reshape(-1), base[name].reshape(-1)
        for at in range(0, flat.size, 256):
            block = flat[at : at + 256] - start[at : at + 256]
            scale = np.abs(block).max() / np.float32(127)
            right = [b + np.float32(round(float(d / scale))) * scale for b, d in zip(start[at:], block, strict=False)]
            assert arrived[name].reshape(-1)[at : at + 256].tolist() == [float(value) for value in right]


# --- error feedback -----------------------------------------------------------------------------------------------


def residual_of(file: Path) -> np.ndarray:
    return read_tensors(file)["residual"]


def test_what_is_rounded_away_is_kept_to_be_added_the_next_time(tmp_path: Path) -> None:
    """A difference of .4 steps is lost in the first round; twice as much makes .8 in the second, and a whole step."""
    step, base = 1 / 16, model_of(1.0, 1.0)
    trained = model_of(1 + 127 * step, 1 + 0.4 * step)
    ends, first, second = int8(tmp_path, base), tmp_path / "first", tmp_path / "second"
    assert ends.send(trained, Feedback(None, first))["fc.weight"][1] == 1.0
    assert residual_of(first).tolist() == pytest.approx([0.0, 0.4 * step], abs=1e-7)
    assert ends.send(trained, Feedback(first, second))["fc.weight"][1] == 1 + step
    assert residual_of(second).tolist() == pytest.approx([0.0, -0.2 * step], abs=1e-7)


def test_nothing_is_lost_over_many_rounds(tmp_path: Path) -> None:
    """What arrived, and the residual, make up what was sent; without feedback they drift apart."""
    chance = np.random.default_rng(5)
    kept, lost, wanted = np.zeros((3, 600))
    (tmp_path / "alone").mkdir()
    before: Path | None = None
    for round_ in range(30):
        step = chance.laplace(size=600).astype(np.float32) ** 3 + np.float32(0.01)
        wanted += step
        after = tmp_path / f"residual-{round_}"
        ends, alone = int8(tmp_path, {"w": np.zeros(600, np.float32)}), tmp_path / "alone"
        kept += ends.send({"w": step}, Feedback(before, after))["w"]
        lost += int8(alone, {"w": np.zeros(600, np.float32)}).send({"w": step})["w"]
        before = after
    assert before is not None
    assert np.abs(kept + residual_of(before) - wanted).max() < 1e-3
    assert np.abs(lost - wanted).max() > 5 * np.abs(kept - wanted).max()


def test_the_same_residual_gives_the_same_bits_again(tmp_path: Path) -> None:
    base, trained = model_of(0.3, 0.7), model_of(0.35, 0.6)
    ends, first = int8(tmp_path, base), tmp_path / "first"
    ends.send(trained, Feedback(None, first))
    found = []
    for again in ("second", "third"):
        ends.send(trained, Feedback(first, tmp_path / again))
        found.append((digest_file(ends.packed), digest_file(tmp_path / again)))
    assert found[0] == found[1]


def test_a_residual_of_another_model_is_refused(tmp_path: Path) -> None:
    ends = int8(tmp_path, model_of(1.0, 2.0))
    write_tensors(tmp_path / "other", {"residual": np.zeros(3, np.float32)})
    with pytest.raises(StorageError, match="is not the rounding"):
        ends.send(model_of(1.0, 2.5), Feedback(tmp_path / "other", tmp_path / "after"))


# --- both ---------------------------------------------------------------------------------------------------------

PACKINGS = ["bfloat16", "int8"]


@pytest.mark.parametrize("packing", PACKINGS)
def test_running_statistics_counters_and_other_types_arrive_exactly(tmp_path: Path, packing: Packing) -> None:
    more = {"table": np.arange(5, dtype=np.float64) / 3, "mask": np.array([True, False]), "none": np.empty((0, 4))}
    base, model = model_of(1.0, 2.0) | more, model_of(1.1, 2.2, seen=99) | more
    model["bn.running_var"] = np.float32([1e-42, 5 / 7])
    arrived = Ends(tmp_path, packing, base).send(model)
    assert arrived.keys() == model.keys()
    for name in model.keys() - {"fc.weight"}:
        assert arrived[name].tobytes() == model[name].tobytes()


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_header_of_another_program_arrives_as_it_was(tmp_path: Path, packing: Packing) -> None:
    """Order, spaces and metadata belong to the bytes that a digest stands for."""
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}
    header = json.dumps({"a": entry, "__metadata__": {"by": "x"}, "b": {**entry, "data_offsets": [0, 4]}}).encode()
    foreign = len(header).to_bytes(8, "little") + header + np.float32([1.0, 2.0]).tobytes()
    ends = Ends(tmp_path, packing, {})
    (tmp_path / "base").write_bytes(foreign)
    (tmp_path / "exact").write_bytes(foreign)
    pack(tmp_path / "exact", ends.packed, packing, ends.origin)
    unpack(ends.packed, tmp_path / "arrived", packing, ends.origin)
    assert (tmp_path / "arrived").read_bytes() == foreign


SHARE_MAX = {"bfloat16": 0.51, "int8": 0.27}


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_bytes_of_a_resnet50(tmp_path: Path, packing: Packing) -> None:
    RESNET50.write(tmp_path / "base")
    origin = Origin(DIGEST, tmp_path / "base") if packing == "int8" else None
    pack(tmp_path / "base", tmp_path / "packed", packing, origin)
    share = (tmp_path / "packed").stat().st_size / (tmp_path / "base").stat().st_size
    assert SHARE_MAX[packing] - 0.02 < share <= SHARE_MAX[packing]


@pytest.mark.parametrize("packing", PACKINGS)
def test_memory_does_not_depend_on_the_model(tmp_path: Path, packing: Packing) -> None:
    write_tensors(tmp_path / "base", {"w": np.zeros(6_000_000, np.float32)})
    origin = Origin(DIGEST, tmp_path / "base") if packing == "int8" else None
    tracemalloc.start()
    try:
        pack(tmp_path / "base", tmp_path / "packed", packing, origin, Feedback(None, tmp_path / "left"))
        unpack(tmp_path / "packed", tmp_path / "model", packing, origin)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_that_diverged_is_not_packed(tmp_path: Path, packing: Packing, value: float) -> None:
    """Rounding would hide it: some NaNs round to a zero."""
    write_tensors(tmp_path / "base", model_of(1.0, 2.0))
    model = model_of(1.0, value)
    model["fc.weight"].view(np.uint32)[1] |= 0x7FFF if np.isnan(value) else 0
    write_tensors(tmp_path / "exact", model)
    origin = Origin(DIGEST, tmp_path / "base") if packing == "int8" else None
    with pytest.raises(ModelError, match=r"fc\.weight holds values that are not finite"):
        pack(tmp_path / "exact", tmp_path / "packed", packing, origin, Feedback(None, tmp_path / "left"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["base", "exact"]


def test_a_model_with_other_tensors_than_its_base_is_not_packed(tmp_path: Path) -> None:
    ends = int8(tmp_path, model_of(1.0, 2.0))
    with pytest.raises(RemoteError, match="does not fit the base model"):
        ends.send(model_of(1.0, 2.0, 3.0))


# --- what is refused ----------------------------------------------------------------------------------------------


def packed(folder: Path, packing: Packing) -> Ends:
    ends = Ends(folder, packing, model_of(1.0, 2.0))
    ends.send(model_of(1.5, 2.5))
    (folder / "arrived").unlink()
    return ends


def refused(ends: Ends, why: str, **more: Any) -> None:
    with pytest.raises(RemoteError, match=why):
        unpack(ends.packed, ends.folder / "arrived", ends.packing, ends.origin, **more)
    assert not list(ends.folder.glob("arrived*"))


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_model_is_only_what_was_announced(tmp_path: Path, packing: Packing) -> None:
    refused(packed(tmp_path, packing), "does not give the model that was announced", digest="a" * 64)


def test_a_packed_form_of_another_kind_or_to_another_base_is_refused(tmp_path: Path) -> None:
    ends = packed(tmp_path, "int8")
    ends.packing, origin, ends.origin = "bfloat16", ends.origin, None
    refused(ends, "it is not bfloat16")
    assert origin is not None
    ends.packing, ends.origin = "int8", Origin("c" * 64, origin.path)
    refused(ends, "or not to the model that was announced")


def test_a_model_with_other_tensors_is_refused_before_it_is_written(tmp_path: Path) -> None:
    ends = packed(tmp_path, "bfloat16")
    write_tensors(tmp_path / "wanted", model_of(1.0, 2.0, 3.0))
    refused(ends, "does not fit the base model", like=read_layout(tmp_path / "wanted"))


def rewrite(ends: Ends, old: bytes, new: bytes) -> None:
    content = ends.packed.read_bytes()
    assert content.count(old) == 1
    ends.packed.write_bytes(content.replace(old, new))


def test_a_length_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    ends = packed(tmp_path, "int8")
    write_tensors(tmp_path / "base", model_of(*range(1000)))
    refused(ends, "its body has")


@pytest.mark.parametrize("length", ["99999", "1", "-8", "1e3", "", "9" * 40])
def test_a_false_length_of_the_model_is_refused(tmp_path: Path, length: str) -> None:
    ends = packed(tmp_path, "bfloat16")
    old = f'"model_bytes":"{(tmp_path / "exact").stat().st_size}"'
    new = f'"model_bytes":"{length}"'
    content = ends.packed.read_bytes()
    header_bytes = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + header_bytes].rstrip().replace(old.encode(), new.encode())
    ends.packed.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + header_bytes :])
    refused(ends, "does not say how long|bytes overlap|its tensors end at byte")


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0, 3e38])
def test_a_scale_that_gives_no_finite_numbers_is_refused(tmp_path: Path, scale: float) -> None:
    ends = packed(tmp_path, "int8")
    rewrite(ends, np.float32(0.5 / 127).tobytes(), np.float32(scale).tobytes())
    refused(ends, "is not a positive number|not finite")


def test_bits_of_bfloat16_that_are_no_finite_number_are_refused(tmp_path: Path) -> None:
    ends = packed(tmp_path, "bfloat16")
    rewrite(ends, bytes.fromhex("c03f2040"), bytes.fromhex("807f2040"))
    refused(ends, "not finite")
