"""How far an update may lie from its base: the arithmetic, and the words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcervix.errors import RemoteError
from fedcervix.models.step_norms import COUNTER_STEP_MAX, measure_groups, vet_step
from fedcervix.models.weights import BLOCK_BYTES, FIRST_MAX, read_layout, vet, vet_base, write_tensors

BASE = {
    "conv.weight": np.full(400, 0.1, np.float32),
    "conv.bias": np.zeros(100, np.float32),
    "bn.running_mean": np.zeros(4, np.float32),
    "bn.running_var": np.full(4, 4.0, np.float32),
    "bn.num_batches_tracked": np.array(3, np.int64),
}


def written(folder: Path, name: str, **changes: Any) -> Path:
    state = {**BASE, **{key.replace("__", "."): value for key, value in changes.items()}}
    write_tensors(folder / name, state)
    return folder / name


def steps(folder: Path, **changes: Any) -> dict[str, float]:
    base, update = written(folder, "base"), written(folder, "update", **changes)
    return {group.kind: group.step for group in measure_groups(update, base)}


def test_a_step_is_relative_to_the_size_of_all_numbers_of_its_group(tmp_path: Path) -> None:
    """||base|| is 2 (weights of .1, biases of 0); the weights move by .4 together."""
    assert steps(tmp_path, conv__weight=np.full(400, 0.12, np.float32)) == pytest.approx(
        {"float": 0.2, "running_mean": 0.0, "running_var": 0.0}
    )


def test_running_means_that_begin_at_zero_have_a_floor_and_variances_count_by_their_roots(tmp_path: Path) -> None:
    found = steps(tmp_path, bn__running_mean=np.full(4, 3.0, np.float32), bn__running_var=np.full(4, 36.0, np.float32))
    assert found == pytest.approx({"float": 0.0, "running_mean": 3.0, "running_var": 2.0})


def test_numbers_whose_squares_are_too_large_for_their_type_are_measured_all_the_same(tmp_path: Path) -> None:
    found = steps(tmp_path, conv__bias=np.full(100, 1e30, np.float32))
    assert found["float"] == pytest.approx(1e31 / 2)


def test_a_model_of_many_blocks_is_measured_whole(tmp_path: Path) -> None:
    count = 3 * BLOCK_BYTES // 4 + 1
    for name, value in (("base", 1.0), ("update", 3.0)):
        write_tensors(tmp_path / name, {"w": np.full(count, value, np.float32)})
    assert measure_groups(tmp_path / "update", tmp_path / "base")[0].step == pytest.approx(2.0, rel=1e-4)


def test_an_update_that_lies_too_far_is_refused_and_the_tensor_and_the_numbers_are_named(tmp_path: Path) -> None:
    weight = BASE["conv.weight"].copy()
    weight[7] = 1e6
    base, update = written(tmp_path, "base"), written(tmp_path, "update", conv__weight=weight)
    with pytest.raises(RemoteError) as caught:
        vet_step(update, base, 1000.0)
    for words in (
        "weights and biases moved by 1e+06",
        "5e+05 times their size of 2",
        "1000 times",
        "conv.weight moved",
    ):
        assert words in caught.value.what
    assert vet_step(update, base, 1e6) == pytest.approx(5e5)


def test_a_number_that_is_none_is_infinitely_far(tmp_path: Path) -> None:
    assert steps(tmp_path, conv__bias=np.full(100, math.nan, np.float32))["float"] == math.inf


def test_a_counter_does_not_leap_to_where_it_would_overflow(tmp_path: Path) -> None:
    base = written(tmp_path, "base")
    near = written(tmp_path, "near", bn__num_batches_tracked=np.array(3 + COUNTER_STEP_MAX, np.int64))
    far = written(tmp_path, "far", bn__num_batches_tracked=np.array(2**63 - 1, np.int64))
    assert vet_step(near, base, 1.0) == 0.0
    with pytest.raises(RemoteError, match="num_batches_tracked counts over"):
        vet_step(far, base, 1.0)


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bn__running_var": np.float32([1, 1, -1e6, 1])}, "bn.running_var holds a negative number, -1e+06"),
        ({"bn__num_batches_tracked": np.array(-1, np.int64)}, "num_batches_tracked holds a negative number, -1"),
        ({"bn__running_mean": np.float32([0, math.inf, 0, 0])}, "not finite numbers"),
    ],
)
def test_no_variance_and_no_count_is_negative(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    base, update = written(tmp_path, "base"), written(tmp_path, "update", **changes)
    with pytest.raises(RemoteError) as caught:
        vet(update, read_layout(base))
    assert words in caught.value.what


def test_means_may_be_negative(tmp_path: Path) -> None:
    update = written(tmp_path, "update", bn__running_mean=np.float32([-3, 0, 1, 2]))
    vet(update, read_layout(written(tmp_path, "base")))


def test_a_first_model_has_no_base_so_its_numbers_are_bounded_as_such(tmp_path: Path) -> None:
    vet_base(written(tmp_path, "ordinary"))
    large = written(tmp_path, "large", conv__bias=np.full(100, -2 * FIRST_MAX["float"], np.float32))
    with pytest.raises(RemoteError, match=r"conv.bias holds 2e\+06; in a first model at most 1e\+06"):
        vet_base(large)
