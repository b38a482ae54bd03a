"""The average of updates: numbers by hand, exactness, and what it does not depend on."""

import hashlib
import json
import struct
import tracemalloc

import numpy as np
import pytest

from fedcervix.errors import ModelError, RemoteError, StorageError
from fedcervix.models.aggregate import BLOCK_ELEMENTS, Momentum, aggregate, kind
from fedcervix.models.weights import read_layout, read_tensors, write_tensors


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


# --- server momentum ----------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path):
    """Average the updates of one round after another with server momentum, as a run does; return each round's result.

    `first` is the model that the first round begins with; the weights are 1.
    """

    def run(first, rounds, share=0.5, batch_norm="mean"):
        write_tensors(tmp_path / "0", first)
        found = []
        for number, models in enumerate(rounds, start=1):
            updates = [(tmp_path / f"{number}-{index}", 1.0) for index in range(len(models))]
            for (path, _), model in zip(updates, models, strict=True):
                write_tensors(path, model)
            ends = (tmp_path / f"{number - 1}", tmp_path / f"{number - 2}")
            momentum = Momentum(share, *ends) if number > 1 else None
            aggregate(updates, read_layout(tmp_path / "0"), tmp_path / f"{number}", batch_norm, momentum)
            found.append(read_tensors(tmp_path / f"{number}"))
        return found

    return run


def norm(weight, mean, var, steps):
    return {
        "bn.weight": np.float32([weight]),
        "bn.running_mean": np.float32([mean]),
        "bn.running_var": np.float32([var]),
        "bn.num_batches_tracked": np.array(steps, np.int64),
    }


def test_momentum_by_hand_two_sites_three_rounds(published):
    # From 0: (1 + 3) / 2 = 2; then (3 + 5) / 2 + (2 - 0) / 2 = 5; then (5 + 7) / 2 + (5 - 2) / 2 = 7.5.
    rounds = [[{"w": np.float32([a])}, {"w": np.float32([b])}] for a, b in ((1, 3), (3, 5), (5, 7))]
    found = published({"w": np.float32([0])}, rounds)
    assert [float(tensors["w"][0]) for tensors in found] == [2, 5, 7.5]


def test_momentum_is_that_of_the_paper_kept_as_a_velocity(published):
    """Hsu et al. 2019: v <- beta v + dw, w <- w - v, where dw is by how much the sites' average fell below w."""
    generator = np.random.default_rng(0)
    w, v, beta = np.zeros(5), np.zeros(5), 0.9
    rounds = [[{"w": generator.normal(size=5)} for _ in range(3)] for _ in range(6)]
    found = published({"w": w}, rounds, share=beta)
    for models, tensors in zip(rounds, found, strict=True):
        v = beta * v + (w - np.mean([model["w"] for model in models], axis=0))
        w = w - v
        np.testing.assert_allclose(tensors["w"], w, rtol=0, atol=1e-12)


def test_momentum_moves_weights_and_biases_but_neither_statistics_nor_counters(published):
    first, second = norm(1, 10, 4, 5), norm(3, 2, 1, 9)
    found = published(first, [[first | {"bn.weight": np.float32([2])}, second], [second, second]])[1]
    # The variance went from 4 to 2.5: carried on, 1 + (2.5 - 4) / 2 would be .25, and after a few rounds below zero.
    assert found == second | {"bn.weight": np.float32([3 + (2.5 - 1) / 2])}


def test_momentum_leaves_the_pooled_variance_as_it_is(published):
    sites = [norm(1, 0, 1, 1), norm(1, 4, 3, 1)]
    found = published(norm(0, 50, 90, 0), [sites, sites], batch_norm="pooled-variance")[1]
    assert found == norm(1.5, 2, 6, 1)


def test_momentum_leaves_what_stays_local_alone(published):
    """Under `local` no site goes on from the published batch normalisation: it has no step to carry on."""
    sites = [norm(1, 0, 1, 1) | {"conv.weight": np.float32([1])}] * 2
    first = norm(0, 0, 1, 0) | {"conv.weight": np.float32([0])}
    assert published(first, [sites, sites], batch_norm="local")[1]["bn.weight"] == 1
    assert published(first, [sites, sites], batch_norm="local")[1]["conv.weight"] == 1.5
    assert published(first, [sites, sites], batch_norm="local-statistics")[1]["bn.weight"] == 1.5


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_momentum_goes_through_every_block_and_is_rounded_once(published, dtype):
    elements = 2 * BLOCK_ELEMENTS + 17
    models = [{"w": np.random.default_rng(seed).normal(size=elements).astype(dtype)} for seed in range(5)]
    _, found = published(models[0], [models[1:2], models[2:]], share=0.3)
    mean = sum(model["w"].astype(np.float64) for model in models[2:]) / 3
    step = 0.3 * (models[1]["w"].astype(np.float64) - models[0]["w"].astype(np.float64))
    np.testing.assert_array_equal(found["w"], (mean + step).astype(dtype))


def test_momentum_reads_models_that_keep_their_tensors_in_another_order(tmp_path):
    write_tensors(tmp_path / "base", {"a": np.float32([4]), "b": np.float32([8])})
    header = json.dumps(
        {
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        }
    ).encode()
    (tmp_path / "before").write_bytes(struct.pack("<Q", len(header)) + header + np.float32([6, 2]).tobytes())
    momentum = Momentum(0.5, tmp_path / "base", tmp_path / "before")
    aggregate([(tmp_path / "base", 1.0)], read_layout(tmp_path / "base"), tmp_path / "average", "mean", momentum)
    assert read_tensors(tmp_path / "average") == {"a": 5, "b": 9}


def ramp_model(site):
    ramp = np.arange(1, 70_001) * site
    return {
        "conv.weight": np.float32(1 / ramp),
        "bn.weight": np.float32(1 / ramp[:7]),
        "bn.running_mean": np.float32(ramp[:7] / 3),
        "bn.running_var": np.float32(ramp[:7] / 7),
        "bn.num_batches_tracked": np.array(site, np.int64),
        "half": np.float16(1 / ramp[:9]),
    }


@pytest.mark.parametrize("with_momentum_0", [False, True])
@pytest.mark.parametrize(
    ("rule", "digest"),
    [
        ("mean", "ef8c0edcfb2f6df61e02628443a20725743635bd385c6f8157b7addef2199f94"),
        ("pooled-variance", "3c744a21744f1ae26bced7917fca085a3281d17fa0df1caad9eccdae3a111333"),
    ],
)
def test_the_bits_of_the_plain_mean_change_only_on_purpose(tmp_path, rule, digest, with_momentum_0):
    """Written down before there was server momentum: 0, or none, is the average of the versions before."""
    for site in (1, 2, 3):
        write_tensors(tmp_path / f"{site}", ramp_model(site))
    updates = [(tmp_path / f"{site}", float(site)) for site in (1, 2, 3)]
    momentum = Momentum(0.0, tmp_path / "1", tmp_path / "2") if with_momentum_0 else None
    assert aggregate(updates, read_layout(tmp_path / "1"), tmp_path / "average", rule, momentum) == digest


@pytest.mark.parametrize("share", [-0.1, 1.0, np.nan])
def test_the_share_of_the_last_step_is_a_share(tmp_path, share):
    with pytest.raises(ValueError, match="0 to below 1"):
        Momentum(share, tmp_path / "base", tmp_path / "before")


def test_a_model_that_momentum_needs_and_that_is_gone_is_a_storage_error(tmp_path):
    write_tensors(tmp_path / "base", {"a": np.float32([1])})
    momentum = Momentum(0.5, tmp_path / "base", tmp_path / "absent")
    with pytest.raises(StorageError, match="absent"):
        aggregate([(tmp_path / "base", 1.0)], read_layout(tmp_path / "base"), tmp_path / "average", "mean", momentum)
    assert not (tmp_path / "average").exists()


# --- what is refused ----------------------------------------------------------------------------------------------


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


def test_five_updates_of_10_mb_are_averaged_in_8_mb_of_memory(tmp_path):
    write_tensors(tmp_path / "m", {f"layer{index}": np.ones(2**19, np.float32) for index in range(5)})
    base = read_layout(tmp_path / "m")
    momentum = Momentum(0.5, tmp_path / "m", tmp_path / "m")
    tracemalloc.start()
    aggregate([(tmp_path / "m", 1.0)] * 5, base, tmp_path / "average", "pooled-variance", momentum)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
