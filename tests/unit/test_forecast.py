"""What a run is predicted to take, with numbers that a reader can check."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from fedcervix.core.forecast import (
    AVERAGED_BYTES_PER_S,
    BETWEEN_S,
    forecast,
    left_s,
    moved,
    seen,
)
from fedcervix.core.pace import NOTHING, SLOWS_NOTHING, SitePace, Span, pace_key, rounded
from fedcervix.core.plan import ClassifierRecipe, Plan, Recipe, Terms
from fedcervix.runtime.quantities import durations

pytestmark = pytest.mark.timeout(20)

MODEL = 1_000_000
PACE = SitePace(
    steps=10,
    step_low_s=1.0,
    step_high_s=2.0,
    task_s=0.5,
    score_low_s=3.0,
    score_high_s=4.0,
    down_low=1e5,
    down_high=2e5,
    up_low=5e4,
    up_high=1e5,
    model_bytes=MODEL,
)


def plan(mode: str = "csfssl", sites: int = 3, **terms: Any) -> Plan:
    names = tuple(f"site-{number}" for number in range(sites))
    return Plan(
        mode=mode,  # type: ignore[arg-type]
        sites=names,
        profile="demo",
        terms=Terms(**{"rounds": 20, "epochs_per_round": 2, **terms}),
        recipe=Recipe(epochs_max=100),
    )


def same(planned: Plan, **changed: object) -> dict[str, SitePace]:
    pace = dataclasses.replace(PACE, **changed)  # type: ignore[arg-type]
    return dict.fromkeys(planned.sites, pace)


def test_where_all_train_at_once_a_round_is_the_slowest_site() -> None:
    planned = plan()
    slow = dataclasses.replace(PACE, steps=20)
    found = forecast(planned, {**same(planned), "site-1": slow}).round
    assert found is not None
    # two epochs of 20 steps, half a second, 10 to 20 s up; 5 to 10 s down, 3 to 4 s to score
    averaging = Span(3 * MODEL / AVERAGED_BYTES_PER_S.high, 3 * MODEL / AVERAGED_BYTES_PER_S.low)
    want = Span(40 + 0.5 + 10 + 5 + 3, 80 + 0.5 + 20 + 10 + 4) + averaging + BETWEEN_S
    assert (found.low, found.high) == pytest.approx((want.low, want.high))


def test_in_a_ring_a_round_is_the_sum_of_the_hops() -> None:
    planned = plan("ppfssl")
    found = forecast(planned, same(planned)).round
    assert found is not None
    # the first hop has the model, two fetch it; then those fetch the result that have not made it, and all score
    hops = Span(3 * (20 + 0.5 + 10) + 2 * 5, 3 * (40 + 0.5 + 20) + 2 * 10)
    want = hops + BETWEEN_S.times(3) + Span(5 + 3, 10 + 4)
    assert (found.low, found.high) == pytest.approx((want.low, want.high))


def test_masks_take_time_at_every_site_then_at_the_holders_and_sums_are_checked_before_a_score() -> None:
    planned = plan(sites=4, secure_sum=True, holders=("site-0", "site-1"))
    timed = {"vector_s": 0.25, "mask_s": 8.0, "sum_s": 64.0, "packed_bytes": 2 * MODEL}
    sums = forecast(planned, same(planned, **timed))
    found, want = sums.round, forecast(planned, same(planned, packed_bytes=2 * MODEL)).round
    assert found is not None
    assert want is not None
    # a mask for each of two holders; then a holder has masks of four sites; each of the last two terms at one site
    assert found.low - want.low == pytest.approx(0.25 + 2 * 8 + 4 * 8 + 64)
    assert found.high - want.high == pytest.approx(0.25 + 2 * 8 + 4 * 8 + 64)
    [holder, _, other, _] = sums.sites
    assert (holder.up_bytes, other.up_bytes) == (4 * MODEL, 2 * MODEL)
    assert holder.release == Span(4 * 8 + 20, 4 * 8 + 40)
    assert other.release == NOTHING


def test_a_whole_run_is_a_range_from_early_stopping_to_all_rounds() -> None:
    planned = plan(patience_rounds=4)
    found = forecast(planned, same(planned, decode_low_s=7.0, decode_high_s=9.0))
    assert found.round is not None
    assert found.run is not None
    assert (found.rounds_least, found.rounds_most) == (5, 20)
    assert found.before == Span(7 + 5, 9 + 10)
    assert found.run.low == pytest.approx(5 * found.round.low + 12)
    assert found.run.high == pytest.approx(20 * found.round.high + 19)


@pytest.mark.parametrize(
    ("mode", "terms", "packed", "want"),
    [
        ("csfssl", {}, 0, [(0, MODEL, MODEL)] * 3),
        ("csfssl", {"compression": "bfloat16"}, 500, [(0, 500, 500)] * 3),
        ("ppfssl", {}, 0, [(0, MODEL, MODEL), (MODEL, MODEL, MODEL), (MODEL, 0, MODEL)]),
        ("ppfssl", {"compression": "bfloat16"}, 500, [(0, 500, 500), (500, 500, 500), (500, 0, 500)]),
        ("ppfssl", {"compression": "int8"}, 500, [(0, MODEL, 500), (500, 500, 500), (MODEL, 0, 500)]),
        ("ppfssl", {"ring_result": "cycle-average"}, 0, [(0, MODEL, MODEL)] + [(MODEL, MODEL, MODEL)] * 2),
    ],
    ids=["star", "star-bfloat16", "ring", "ring-bfloat16", "ring-int8", "ring-average"],
)
def test_bytes_are_those_of_the_models_that_travel(
    mode: str, terms: dict[str, Any], packed: int, want: list[tuple[int, int, int]]
) -> None:
    planned = plan(mode, **terms)
    pace = dataclasses.replace(PACE, packed_bytes=packed)
    found = [moved(planned, site, pace) for site in planned.sites]
    assert [(train, score, up) for (train, score), up in found] == want


def test_what_was_not_measured_is_said_and_gives_no_range() -> None:
    planned = plan()
    assert forecast(planned, {}).round is None
    assert forecast(planned, {}).run is None
    paces = same(planned)
    del paces["site-2"]
    assert forecast(planned, paces).unmeasured == ("site-2",)
    assert forecast(planned, same(planned, step_low_s=0.0, step_high_s=0.0)).round is None
    without_line = forecast(planned, same(planned, down_low=0.0, down_high=0.0)).sites[0]
    assert without_line.down == NOTHING
    assert without_line.down_bytes == MODEL


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"steps": 200}, "epochs_per_round"),
        ({"step_low_s": 20.0, "step_high_s": 40.0}, "device"),
        ({"up_low": 50.0, "up_high": 100.0}, "compression"),
    ],
    ids=["images", "processor", "line"],
)
def test_a_site_that_takes_three_times_as_long_is_named_with_its_cure(changed: dict[str, float], words: str) -> None:
    planned = plan()
    slow = dataclasses.replace(PACE, **changed)  # type: ignore[arg-type]
    said = [one.straggles for one in forecast(planned, {**same(planned), "site-1": slow}).sites]
    assert said[0] == said[2] == ""
    assert said[1].startswith("site-1 takes ")
    assert words in said[1]


def test_of_two_sites_the_slower_one_is_compared_with_the_other() -> None:
    planned = plan(sites=2)
    slow = dataclasses.replace(PACE, steps=100)
    assert [bool(one.straggles) for one in forecast(planned, {"site-0": PACE, "site-1": slow}).sites] == [False, True]


def test_nobody_waits_for_a_site_that_takes_no_time() -> None:
    planned = plan()
    quick = {site: dataclasses.replace(PACE, steps=1, step_low_s=1e-3, step_high_s=2e-3, score_low_s=0.0,
             score_high_s=0.0, task_s=0.0, down_low=1e9, down_high=1e9, up_low=1e9, up_high=1e9)
             for site in planned.sites}  # fmt: skip
    quick["site-1"] = dataclasses.replace(quick["site-1"], steps=100)
    assert not any(one.straggles for one in forecast(planned, quick).sites)


def test_every_option_that_a_cure_names_is_on_the_page_of_options() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    source = (Path(__file__).parents[2] / "shared" / "fedcervix" / "core" / "forecast.py").read_text()
    named = set(re.findall(r"\b(?:epochs_per_round|batch_images|image_px|architecture|compression|device)\b", source))
    assert len(named) == 6
    assert all(f"`{name}`" in page for name in named)


# --- afterwards ---------------------------------------------------------------------------------------------------


def test_before_the_second_round_has_ended_the_measures_say_what_is_left() -> None:
    planned = plan(patience_rounds=4)
    found = forecast(planned, same(planned))
    assert found.round is not None
    left = left_s(found, [], 10.0, 0)
    assert left is not None
    assert left.low == pytest.approx(5 * found.round.low + found.before.low - 10)
    assert left.high == pytest.approx(20 * found.round.high + found.before.high - 10)


def test_from_the_second_round_on_the_rounds_say_it() -> None:
    planned = plan(patience_rounds=4)
    found = forecast(planned, same(planned))
    left = left_s(found, [999.0, 10.0, 12.0], 5.0, idle_rounds=1)
    assert left is not None
    assert (left.low, left.high) == pytest.approx((9.0 * 3 - 5, 13.2 * 17 - 5))
    assert left_s(forecast(planned, {}), [999.0, 10.0], 0.0, 0) is not None
    assert left_s(forecast(planned, {}), [999.0], 0.0, 0) is None


def test_the_time_that_is_left_is_never_below_nothing() -> None:
    planned = plan()
    left = left_s(forecast(planned, same(planned)), [1.0] * 20, 1e6, 3)
    assert left == NOTHING
    assert seen([5.0]) is None


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"step_low_s": 3.0}, {"steps": -1}, {"down_low": float("nan")}, {"up_low": 2e5}, {"memory_bytes": 2**61}],
    ids=["ends-swapped", "negative", "nan", "line-swapped", "too-many"],
)
def test_a_pace_that_cannot_be_is_not_built(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        dataclasses.replace(PACE, **wrong)  # type: ignore[arg-type]


def test_recipes_that_cost_the_same_have_one_key_and_others_another() -> None:
    recipe = Recipe()
    cheap = dataclasses.replace(recipe, lr=0.5, epochs_max=7, classifier=ClassifierRecipe(lr=0.2))
    assert pace_key(cheap) == pace_key(recipe)
    others: list[dict[str, Any]] = [
        {"batch_images": 16},
        {"image_px": 96},
        {"architecture": "resnet18"},
        {"roi": "detector"},
    ]
    assert len({pace_key(recipe), *(pace_key(dataclasses.replace(recipe, **other)) for other in others)}) == 5
    assert {field.name for field in dataclasses.fields(Recipe)} >= set(SLOWS_NOTHING)


def test_three_digits_are_kept() -> None:
    assert [rounded(value) for value in (0.0, 123456.0, 0.00123456)] == [0.0, 123000.0, 0.00123]


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (Span(720.0, 900.0), "12 to 15 min"),
        (Span(720.0, 8640.0), "12 min to 2.4 h"),
        (Span(0.0, 9.0), "0 to 9.0 s"),
        (Span(3.0, 3.01), "about 3.0 s"),
        (Span(0.005, 0.02), "5.0 to 20 ms"),
        (Span(3e5, 9e5), "3.5 to 10 days"),
    ],
    ids=["minutes", "two-units", "from-nothing", "equal", "milliseconds", "days"],
)
def test_a_range_is_read_at_a_glance(span: Span, words: str) -> None:
    assert durations(span) == words
