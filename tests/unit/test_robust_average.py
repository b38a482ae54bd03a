"""Steps that are measured and shortened, and the trimmed mean: against plain numpy, and what one update can do."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedcervix.core.measures import Measures, clip_scales, trimmed_per_side
from fedcervix.core.plan import BatchNorm, Terms
from fedcervix.models.aggregate import BLOCK_ELEMENTS, Clip, Momentum, aggregate
from fedcervix.models.step_similarity import measure_steps, steps_from
from fedcervix.models.weights import read_layout, read_tensors, write_tensors

Model = dict[str, NDArray[Any]]
BASE: Model = {
    "conv.weight": np.random.default_rng(99).normal(size=BLOCK_ELEMENTS + 17).astype(np.float32),
    "bn.weight": np.ones(5, np.float32),
    "bn.running_mean": np.zeros(5, np.float32),
    "bn.running_var": np.ones(5, np.float32),
    "bn.num_batches_tracked": np.array(3, np.int64),
}
TRAINED = ("conv.weight", "bn.weight")


def update(seed: int, scale: float = 1.0, base: Model = BASE) -> Model:
    chance = np.random.default_rng(seed)
    step = {name: (0.1 * scale * chance.normal(size=base[name].shape)).astype(np.float32) for name in TRAINED}
    return {
        **{name: base[name] + step[name] for name in TRAINED},
        "bn.running_mean": chance.normal(size=5).astype(np.float32),
        "bn.running_var": chance.exponential(size=5).astype(np.float32),
        "bn.num_batches_tracked": np.array(seed, np.int64),
    }


Round = Callable[..., tuple[Model, tuple[Measures, ...]]]


@pytest.fixture
def averaged(tmp_path: Path) -> Round:
    """Measure and average models as a coordinator does; return the average and the measures.

    Read once for both, the updates give the same, to the bit.
    """

    def run(
        models: Sequence[Model],
        *,
        base: Model = BASE,
        weights: Sequence[float] = (),
        clip: float = 0.0,
        trimmed: int = 0,
        batch_norm: BatchNorm = "mean",
        momentum: Momentum | None = None,
    ) -> tuple[Model, tuple[Measures, ...]]:
        write_tensors(tmp_path / "base", base)
        paths = [tmp_path / f"update-{index}" for index in range(len(models))]
        for path, model in zip(paths, models, strict=True):
            write_tensors(path, model)
        layout = read_layout(tmp_path / "base")
        measures = measure_steps([(path, tmp_path / "base") for path in paths], layout, batch_norm)
        scales = clip_scales([found.norm for found in measures], clip)
        updates = list(zip(paths, weights or [1.0] * len(paths), strict=True))
        shorter = Clip(tmp_path / "base", scales) if scales else None
        out = tmp_path / "average"
        digest = aggregate(updates, layout, out, batch_norm, momentum, clip=shorter, trimmed=trimmed)
        if not clip and not trimmed:
            with steps_from(tmp_path / "base", layout, len(updates)) as steps:
                again = aggregate(updates, layout, out, batch_norm, momentum, steps=steps)
                assert (again, steps.measures()) == (digest, measures)
        return read_tensors(out), measures

    return run


def steps(models: Sequence[Model], base: Model = BASE, names: Sequence[str] = TRAINED) -> NDArray[np.float64]:
    """Return the steps of what is trained, a row for each model."""
    return np.array([np.concatenate([m[n].astype(np.float64) - base[n] for n in names], axis=None) for m in models])


# --- what is measured -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 8])
def test_measures_are_those_of_numpy(averaged: Round, count: int) -> None:
    models = [update(seed, scale=1 + seed) for seed in range(count)]
    found, moved = averaged(models)[1], steps(models)
    size = np.linalg.norm(np.concatenate([BASE[name] for name in TRAINED], axis=None).astype(np.float64))
    for index, one in enumerate(found):
        others = np.delete(moved, index, axis=0).mean(axis=0)
        norm = np.linalg.norm(moved[index])
        cosine = moved[index] @ others / norm / np.linalg.norm(others)
        distance = np.linalg.norm(moved[index] - others)
        np.testing.assert_allclose((one.norm, one.relative), (norm, norm / size), rtol=1e-6)
        np.testing.assert_allclose((one.cosine, one.distance), (cosine, distance), rtol=1e-5, atol=1e-6)


def test_one_update_has_no_others(averaged: Round) -> None:
    (found,) = averaged([update(1)])[1]
    assert (found.cosine, found.distance) == (None, None)
    assert found.norm > 0


def test_equal_updates_lie_at_no_distance_and_the_base_has_no_direction(averaged: Round) -> None:
    found = averaged([update(1), update(1), BASE])[1]
    assert [one.distance for one in averaged([update(1)] * 3)[1]] == [0, 0, 0]
    assert (found[2].norm, found[2].cosine) == (0, None)


def test_running_statistics_are_not_measured_and_what_stays_local_is_not_either(averaged: Round) -> None:
    models = [update(seed) for seed in range(3)]
    far = [{**model, "bn.running_mean": np.full(5, 1e6, np.float32)} for model in models]
    assert averaged(far)[1] == averaged(models)[1]
    local = averaged(models, batch_norm="local")[1]
    np.testing.assert_allclose(
        [one.norm for one in local], np.linalg.norm(steps(models, names=("conv.weight",)), axis=1), rtol=1e-6
    )


def test_steps_of_any_size_are_measured(averaged: Round) -> None:
    """An outlier a billion times as long leaves the others' figures right; what only rounding tells is None."""
    models = [update(1), update(2), update(3, scale=1e9)]
    found = averaged(models)[1]
    assert (found[2].cosine, found[2].distance) == (None, pytest.approx(found[2].norm))
    assert found[0].norm == pytest.approx(np.linalg.norm(steps(models)[0]))
    wide = {"w": np.array([1e300, -1e300])}
    (first, _) = averaged([wide, {"w": -wide["w"]}], base={"w": np.zeros(2)})[1]
    assert (first.norm > 1e300, first.relative) == (True, None)


def test_the_hop_of_a_ring_is_measured_beside_the_one_before(tmp_path: Path) -> None:
    models = [BASE, update(1), update(2, base=update(1))]
    for index, model in enumerate(models):
        write_tensors(tmp_path / f"{index}", model)
    hops = [(tmp_path / "2", tmp_path / "1"), (tmp_path / "1", tmp_path / "0")]
    found = measure_steps(hops, read_layout(tmp_path / "0"), "mean")[0]
    this, before = steps([models[2]], models[1])[0], steps([models[1]])[0]
    np.testing.assert_allclose(found.norm, np.linalg.norm(this), rtol=1e-6)
    np.testing.assert_allclose(found.cosine, this @ before / np.linalg.norm(this) / np.linalg.norm(before), atol=1e-6)


# --- clipping -------------------------------------------------------------------------------------------------------


def test_a_clipped_average_is_that_of_numpy(averaged: Round) -> None:
    models, weights = [update(seed, scale=1 + 10 * (seed == 4)) for seed in range(5)], [1.0, 2.0, 3.0, 4.0, 5.0]
    found, measures = averaged(models, weights=weights, clip=2.0)
    norms = [one.norm for one in measures]
    scales = np.minimum(1, 2 * np.median(norms) / norms)
    assert list(scales < 1) == [False, False, False, False, True]
    shortened = steps(models) * scales[:, None]
    start = np.concatenate([BASE[name] for name in TRAINED], axis=None).astype(np.float64)
    expected = np.average(start + shortened, axis=0, weights=weights)
    np.testing.assert_allclose(
        np.concatenate([found[name] for name in TRAINED], axis=None), expected, rtol=0, atol=1e-6
    )
    statistics = np.average([model["bn.running_mean"] for model in models], axis=0, weights=weights)
    np.testing.assert_allclose(found["bn.running_mean"], statistics, rtol=1e-6)


def test_where_no_step_is_too_long_clipping_changes_no_bit(averaged: Round) -> None:
    models = [update(seed) for seed in range(4)]
    plain, clipped = averaged(models)[0], averaged(models, clip=3.0)[0]
    assert all(plain[name].tobytes() == clipped[name].tobytes() for name in BASE)


def test_of_two_updates_none_is_clipped() -> None:
    assert clip_scales([1.0, 100.0], 2.0) == []
    assert clip_scales([1.0, 1.0, 100.0], 0.0) == []
    assert clip_scales([1.0, 1.0, 100.0], 2.0) == [1.0, 1.0, pytest.approx(0.02, rel=1e-5)]


def test_a_factor_does_not_depend_on_the_last_digits_of_a_norm() -> None:
    norm = np.nextafter(100.0, 101.0)
    assert clip_scales([1.0, 1.0, 100.0], 2.5) == clip_scales([1.0, 1.0, float(norm)], 2.5)


# --- the trimmed mean -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "trimmed"), [(3, 1), (5, 1), (5, 2), (8, 1), (9, 3)])
def test_a_trimmed_mean_is_that_of_numpy(averaged: Round, count: int, trimmed: int) -> None:
    models = [update(seed) for seed in range(count)]
    found = averaged(models, trimmed=trimmed)[0]
    for name in (*TRAINED, "bn.running_mean", "bn.running_var"):
        values = np.sort([model[name].astype(np.float64) for model in models], axis=0)[trimmed : count - trimmed]
        np.testing.assert_array_equal(found[name], values.mean(axis=0).astype(np.float32))
    assert found["bn.num_batches_tracked"] == count - 1


def test_the_pooled_variance_is_trimmed_by_the_sites_shares_in_it(averaged: Round) -> None:
    models = [update(seed) for seed in range(5)]
    found = averaged(models, trimmed=1, batch_norm="pooled-variance")[0]
    centre = found["bn.running_mean"].astype(np.float64)
    shares = [model["bn.running_var"] + (model["bn.running_mean"] - centre) ** 2 for model in models]
    np.testing.assert_allclose(found["bn.running_var"], np.sort(shares, axis=0)[1:-1].mean(axis=0), rtol=1e-6)


def test_the_last_step_is_carried_on_after_trimming(averaged: Round, tmp_path: Path) -> None:
    models = [update(seed) for seed in range(5)]
    plain = averaged(models, trimmed=1)[0]
    write_tensors(tmp_path / "before", update(7))
    moved = averaged(models, trimmed=1, momentum=Momentum(0.5, tmp_path / "base", tmp_path / "before"))[0]
    expected = plain["bn.weight"] + 0.5 * (BASE["bn.weight"] - update(7)["bn.weight"])
    np.testing.assert_allclose(moved["bn.weight"], expected, rtol=1e-6)
    np.testing.assert_array_equal(moved["bn.running_mean"], plain["bn.running_mean"])


def test_equal_updates_come_out_bit_for_bit(averaged: Round) -> None:
    found = averaged([update(1)] * 5, trimmed=1, clip=1.0)[0]
    assert all(found[name].tobytes() == update(1)[name].tobytes() for name in BASE)


@pytest.mark.parametrize(
    ("aggregation", "trim", "updates", "trimmed"),
    [
        ("mean", 0.2, 5, 0),
        ("trimmed-mean", 0.2, 5, 1),
        ("trimmed-mean", 0.01, 5, 1),
        ("trimmed-mean", 0.3, 10, 3),
        ("trimmed-mean", 0.1, 30, 3),
        ("trimmed-mean", 0.49, 100, 49),
        ("trimmed-mean", 0.4, 4, 1),
        ("trimmed-mean", 0.2, 3, 1),
        ("trimmed-mean", 0.2, 2, 0),
        ("trimmed-mean", 0.2, 1, 0),
    ],
)
def test_how_many_values_are_left_out(aggregation: Any, trim: float, updates: int, trimmed: int) -> None:
    assert trimmed_per_side(Terms(aggregation=aggregation, trim=trim), updates) == trimmed


def test_what_does_not_fit_is_refused(averaged: Round) -> None:
    with pytest.raises(ValueError, match="1 values at either end cannot be left out of 2"):
        averaged([update(1), update(2)], trimmed=1)
    with pytest.raises(ValueError, match="equal weights"):
        averaged([update(1)] * 3, weights=[1.0, 2.0, 3.0], trimmed=1)
    with pytest.raises(ValueError, match="0 to 1"):
        Clip(Path("base"), [1.5])


numbers = st.floats(-1e3, 1e3, width=32)


@settings(deadline=None, max_examples=12)
@given(
    honest=st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=4, max_size=7),
    wild=st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=3, max_size=3),
    data=st.data(),
)
def test_one_update_of_any_size_does_not_leave_the_honest_ones_range(
    tmp_path_factory: pytest.TempPathFactory, honest: list[list[float]], wild: list[float], data: st.DataObject
) -> None:
    """And the order of the updates does not matter."""
    folder = tmp_path_factory.mktemp("average")
    found = set()
    for order in ([*honest, wild], data.draw(st.permutations([*honest, wild]))):
        for index, values in enumerate(order):
            write_tensors(folder / f"{index}", {"w": np.float32(values)})
        updates = [(folder / f"{index}", 1.0) for index in range(len(order))]
        aggregate(updates, read_layout(folder / "0"), folder / "out", "mean", trimmed=1)
        average = read_tensors(folder / "out")["w"]
        assert (np.min(honest, axis=0) <= average).all()
        assert (average <= np.max(honest, axis=0)).all()
        found.add((average + np.float32(0)).tobytes())  # which of 0.0 and -0.0 comes first is nobody's concern
    assert len(found) == 1


def test_memory_stays_in_its_bound_however_many_updates_there_are(tmp_path: Path) -> None:
    write_tensors(tmp_path / "m", {f"layer{index}": np.ones(2**18, np.float32) for index in range(5)})
    write_tensors(tmp_path / "base", {f"layer{index}": np.zeros(2**18, np.float32) for index in range(5)})
    layout, paths = read_layout(tmp_path / "base"), [tmp_path / "m"] * 16
    tracemalloc.start()
    measure_steps([(path, tmp_path / "base") for path in paths], layout, "mean")
    clip = Clip(tmp_path / "base", [0.5] * 16)
    updates = [(path, 1.0) for path in paths]
    aggregate(updates, layout, tmp_path / "out", "mean", clip=clip, trimmed=3)
    with steps_from(tmp_path / "base", layout, len(paths)) as steps:
        aggregate(updates, layout, tmp_path / "out", "mean", steps=steps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20


# --- one site that pulls too far -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "moved_at_least", "moved_at_most"),
    [({}, 18, 22), ({"clip": 2.0}, 0, 0.7), ({"trimmed": 1}, 0, 0.7), ({"clip": 2.0, "trimmed": 1}, 0, 0.7)],
    ids=["mean", "clip", "trimmed-mean", "both"],
)
def test_of_five_sites_one_with_a_step_100_times_as_long(
    averaged: Round, rule: dict[str, Any], moved_at_least: float, moved_at_most: float
) -> None:
    """How far the result lies from the mean of the four honest ones, in lengths of an honest step."""
    models = [update(seed, scale=100.0 if seed == 4 else 1.0) for seed in range(5)]
    found = averaged(models, **rule)[0]
    away = np.linalg.norm(steps([found])[0] - steps(models[:4]).mean(axis=0)) / np.linalg.norm(steps(models)[0])
    assert moved_at_least <= away <= moved_at_most
