"""The average of updates: numbers by hand, exactness, and what it does not depend on."""

import hashlib
import json
import struct
import tracemalloc

import numpy as np
import pytest

from fedcervix.aggregate import BLOCK_ELEMENTS, aggregate, kind
from fedcervix.errors import ModelError, RemoteError, StorageError
from fedcervix.weights import read_layout, read_tensors, write_tensors


@pytest.fixture
def averaged(tmp_path):
    """Average models given as dictionaries; return the tensors."""

    def run(models, weights=None, batch_norm="mean"):
        paths = [tmp_path / f"update-{index}" for index in range(len(models))]
        for path, model in zip(paths, models, strict=True):
            write_tensors(path, model)
        updates = list(zip(paths, weights or [1.0] * len(models), strict=True))
        digest = aggregate(updates, read_layout(paths[0]), tmp_path / "average", batch_norm)
        assert digest == hashlib.sha256((tmp_path / "average").read_bytes()).hexdigest()
        return read_tensors(tmp_path / "average")

    return run


def random_model(seed, elements=BLOCK_ELEMENTS + 17):
    generator = np.random.default_rng(seed)
    return {
        "conv.weight": generator.normal(size=(elements,)).astype(np.float32),
        "bn.running_mean": (100 * generator.normal(size=64)).astype(np.float32),
        "bn.running_var": generator.exponential(size=64).astype(np.float32),
        "bn.num_batches_tracked": np.array(seed + 5, np.int64),
        "half": generator.normal(size=9).astype(np.float16),
    }


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("layer1.0.conv1.weight", "F32", "float"),
        ("bn1.running_mean", "F32", "running_mean"),
        ("running_var", "F16", "running_var"),
        ("bn1.num_batches_tracked", "I64", "counter"),
        ("bn1.num_batches_tracked", "F32", "counter"),
        ("my_running_var", "F32", "float"),
        ("table", "I32", "counter"),
        ("mask", "BOOL", "counter"),
        ("running_mean", "U8", "counter"),
    ],
)
def test_a_tensor_is_typed_by_type_and_last_name(name, dtype, expected):
    assert kind(name, dtype) == expected


def test_two_numbers_by_hand(averaged):
    models = [{"w": np.float32([1, 10])}, {"w": np.float32([2, 40])}]
    np.testing.assert_array_equal(averaged(models)["w"], [1.5, 25])
    # 100 and 200 images: (1 * 100 + 2 * 200) / 300, (10 * 100 + 40 * 200) / 300
    np.testing.assert_array_equal(averaged(models, [100.0, 200.0])["w"], np.float32([5 / 3, 30]))


def test_counters_and_flags_take_the_maximum(averaged):
    big = 2**62 + 1  # a float could not hold it
    models = [
        {"w": np.float32([0]), "n": np.array(3), "b": np.uint8([9, 0]), "m": np.array([True, False, False])},
        {"w": np.float32([0]), "n": np.array(big), "b": np.uint8([1, 5]), "m": np.array([False, True, False])},
    ]
    found = averaged(models)
    assert found["n"] == big
    assert found["n"].shape == ()
    np.testing.assert_array_equal(found["b"], [9, 5])
    np.testing.assert_array_equal(found["m"], [True, True, False])


def test_pooled_variance_is_that_of_all_activations_together(averaged):
    sites = [np.random.default_rng(0).normal(0, 1, 300), np.random.default_rng(1).normal(5, 2, 100)]
    models = [{"bn.running_mean": np.float32([x.mean()]), "bn.running_var": np.float32([x.var()])} for x in sites]
    found = averaged(models, [300.0, 100.0], "pooled-variance")
    together = np.concatenate(sites)
    np.testing.assert_allclose(found["bn.running_mean"], together.mean(), rtol=1e-6)
    np.testing.assert_allclose(found["bn.running_var"], together.var(), rtol=1e-6)


def test_pooled_variance_by_hand(averaged):
    # means 0 and 4, variances 1 and 3: E[var] = 2, spread of the means = 4, E[var + mean^2] - 2^2 = (1 + 19) / 2 - 4
    models = [
        {"bn.running_mean": np.float32([0]), "bn.running_var": np.float32([1])},
        {"bn.running_mean": np.float32([4]), "bn.running_var": np.float32([3])},
    ]
    assert averaged(models, batch_norm="pooled-variance")["bn.running_var"] == 6
    assert averaged(models, batch_norm="mean")["bn.running_var"] == 2


def test_pooled_variance_is_never_negative(averaged):
    models = [{"bn.running_mean": np.float32([0]), "bn.running_var": np.float32([-1e-3])}] * 2
    assert averaged(models, batch_norm="pooled-variance")["bn.running_var"] == 0


def test_pooled_variance_needs_the_mean(averaged, tmp_path):
    with pytest.raises(ModelError, match=r"bn\.running_var has no bn\.running_mean"):
        averaged([{"bn.running_var": np.float32([1])}], batch_norm="pooled-variance")
    assert not (tmp_path / "average").exists()


@pytest.mark.parametrize("rule", ["local-statistics", "local"])
def test_local_rules_average_here_like_mean(averaged, rule):
    models = [random_model(0, 10), random_model(1, 10)]
    ours, theirs = averaged(models, batch_norm=rule), averaged(models, batch_norm="mean")
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


@pytest.mark.parametrize("rule", ["mean", "pooled-variance"])
@pytest.mark.parametrize("weights", [[1.0], [728.0], [1.0, 1.0, 1.0], [728.0, 543.0, 0.1]])
def test_one_update_or_equal_ones_come_out_bit_for_bit(averaged, rule, weights):
    model = random_model(3)
    model["conv.weight"][:5] = [-0.0, 0.0, 1e-45, 3.4028235e38, -1e-38]
    model["bn.running_var"][0] = 0
    found = averaged([model] * len(weights), weights, rule)
    for name, array in model.items():
        assert found[name].tobytes() == array.tobytes(), name


def test_every_block_agrees_with_numpy_in_float64(averaged):
    models, weights = [random_model(seed) for seed in range(3)], [3.0, 1.0, 2.0]
    found = averaged(models, weights)["conv.weight"]
    expected = np.average([model["conv.weight"].astype(np.float64) for model in models], axis=0, weights=weights)
    np.testing.assert_allclose(found, expected, rtol=2**-24, atol=0)
    assert found.dtype == np.float32


def test_the_roster_gives_the_order_not_the_arrival(tmp_path):
    names = ["a", "b", "c"]
    digests = set()
    for arrival in (names, names[::-1]):
        folder = tmp_path / "".join(arrival)
        folder.mkdir()
        for name in arrival:
            write_tensors(folder / name, random_model(ord(name), 100))
        roster = [(folder / name, 1.0) for name in names]
        digests.add(aggregate(roster, read_layout(folder / "a"), folder / "average", "mean"))
    assert len(digests) == 1


def test_an_update_may_keep_its_tensors_in_another_order(tmp_path):
    write_tensors(tmp_path / "base", {"a": np.float32([1, 2]), "b": np.float32([3])})
    header = json.dumps(
        {
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        }
    ).encode()
    (tmp_path / "other").write_bytes(struct.pack("<Q", len(header)) + header + np.float32([5, 3, 6]).tobytes())
    updates = [(tmp_path / "base", 1.0), (tmp_path / "other", 1.0)]
    base = read_layout(tmp_path / "base")
    aggregate(updates, base, tmp_path / "average", "mean")
    found = read_tensors(tmp_path / "average")
    np.testing.assert_array_equal(found["a"], [2, 4])
    np.testing.assert_array_equal(found["b"], [4])
    assert read_layout(tmp_path / "average").header == base.header


def test_an_update_of_another_model_is_refused_and_nothing_written(tmp_path):
    write_tensors(tmp_path / "base", {"a": np.float32([1, 2])})
    write_tensors(tmp_path / "other", {"a": np.float32([1, 2, 3])})
    updates = [(tmp_path / "base", 1.0), (tmp_path / "other", 1.0)]
    with pytest.raises(RemoteError, match=r"a is F32\[3\], not F32\[2\]"):
        aggregate(updates, read_layout(tmp_path / "base"), tmp_path / "average", "mean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "other"]


def test_an_average_that_is_not_finite_is_not_written(averaged, tmp_path):
    models = [{"bn.running_mean": np.float32([mean]), "bn.running_var": np.float32([1])} for mean in (3e38, -3e38)]
    with pytest.raises(RemoteError, match=r"bn\.running_var is not finite"):
        averaged(models, batch_norm="pooled-variance")
    with pytest.raises(RemoteError, match="w is not finite"):
        averaged([{"w": np.float32([np.nan])}])
    assert not (tmp_path / "average").exists()


def test_a_missing_update_is_a_storage_error(tmp_path):
    write_tensors(tmp_path / "base", {"a": np.float32([1])})
    with pytest.raises(StorageError, match="absent"):
        aggregate([(tmp_path / "absent", 1.0)], read_layout(tmp_path / "base"), tmp_path / "average", "mean")


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_weights_are_positive_numbers(averaged, weight):
    with pytest.raises(ValueError, match="positive"):
        averaged([{"w": np.float32([1])}], [weight])


def test_an_average_of_nothing_is_refused(tmp_path):
    write_tensors(tmp_path / "base", {"a": np.float32([1])})
    with pytest.raises(ValueError, match="at least one"):
        aggregate([], read_layout(tmp_path / "base"), tmp_path / "average", "mean")


def test_five_updates_of_10_mb_are_averaged_in_4_mb_of_memory(tmp_path):
    write_tensors(tmp_path / "m", {f"layer{index}": np.ones(2**19, np.float32) for index in range(5)})
    base = read_layout(tmp_path / "m")
    tracemalloc.start()
    aggregate([(tmp_path / "m", 1.0)] * 5, base, tmp_path / "average", "pooled-variance")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20
