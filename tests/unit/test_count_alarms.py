"""A number of images that changes, or that would be nearly the whole average, is shown to a person."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.alarms.alarm_sources import alarms, new_alarms
from fedcervix.core.events import AggregateStored
from fedcervix.core.rounds.coordinator_work import capped, weights
from fedcervix.core.rounds.state import Run
from tests.unit.test_rounds import A, B, C, after, all_scored, all_trained, attached, digest, fresh, scored, trained

BY_IMAGES = {"average": "by-images"}


def one_round(images: dict[str, int], run: Run | None = None, scored_as: dict[str, int] | None = None) -> Run:
    run = run or after(fresh(**BY_IMAGES), *attached(A, B, C))
    for site, count in images.items():
        run = after(run, trained(run, site, images=count))
    run = all_trained(run, ())
    for site, count in (scored_as or images).items():
        run = after(run, scored(run, site, images=count))
    return run


def said(run: Run, number: int) -> list[str]:
    return [str(alarm) for alarm in alarms(run, run.rounds[number - 1])]


def test_numbers_that_stay_as_they_were_raise_no_alarm() -> None:
    counts = {A: 100, B: 200, C: 10}
    run = one_round(counts, one_round(counts))
    assert said(run, 1) == said(run, 2) == []


def test_what_one_event_raises_is_what_was_not_there_before_it() -> None:
    """It is found by looking at what the event has changed alone."""
    run = after(fresh(**BY_IMAGES), *attached(A, B, C))
    for counts in ({A: 100, B: 100, C: 100}, {A: 150, B: 100, C: 99_999_999}):
        reports = [lambda run, s=site, n=images: trained(run, s, images=n) for site, images in counts.items()]
        reports += [lambda run: AggregateStored(run.current.number, digest(f"average{run.current.number}"), 0.0)]
        reports += [lambda run, s=site: scored(run, s, images=7) for site in counts]
        for report in reports:
            before, run = run, after(run, report(run))
            old = [alarm for round_ in before.rounds[-1:] for alarm in alarms(before, round_)]
            now = [alarm for round_ in run.rounds[len(before.rounds) - 1 :] for alarm in alarms(run, round_)]
            assert set(new_alarms(before, run)) == set(now) - set(old)
    assert {alarm.what for alarm in alarms(run, run.rounds[1])} == {"images", "share"}


@pytest.mark.parametrize("images", [150, 90])
def test_a_number_that_changed_between_rounds_is_an_alarm(images: int) -> None:
    run = one_round({A: 100, B: images, C: 100}, one_round({A: 100, B: 100, C: 100}))
    assert said(run, 1) == []
    assert said(run, 2) == [f"round 2, bob: it reports {images} training images; in round 1 it reported 100"]
    assert run.rounds[1].has(B), "it counts all the same"


def test_a_number_that_is_another_one_with_the_score_is_an_alarm() -> None:
    run = one_round({A: 100, B: 100, C: 100}, scored_as={A: 100, B: 100, C: 9000})
    assert said(run, 1) == ["round 1, cleo: it reports 9,000 training images; in round 1 it reported 100"]


def test_a_share_that_was_limited_is_an_alarm() -> None:
    run = one_round({A: 99_999_999, B: 100, C: 100})
    [line] = said(run, 1)
    assert line == "round 1, ada: its 99,999,999 images would be 1.0000 of the average; share_max limits it"
    assert max(weights(run.plan, run.rounds[0])) / sum(weights(run.plan, run.rounds[0])) == pytest.approx(0.9)


def test_an_average_of_equal_weights_has_no_shares_to_limit() -> None:
    run = after(fresh(), *attached(A, B, C))
    run = all_scored(all_trained(after(run, replace(trained(run, A), images=99_999_999)), (B, C)), {})
    assert said(run, 1) == []


# --- the limit of a share -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[100.0, 200.0, 50.0], [5.0, 95.0], [1.0], [1.0, 1e8], [10.0, 0.6, 0.6]])
def test_two_sites_and_honest_shares_are_left_as_they_are(counts: list[float]) -> None:
    assert capped(counts, 0.9) == counts


@pytest.mark.parametrize(
    ("counts", "share_max", "found"),
    [
        ([1e8, 100.0, 200.0], 0.9, [2700.0, 100.0, 200.0]),
        ([100.0, 1e8, 100.0], 0.5, [100.0, 200.0, 100.0]),
        ([1e8, 1e7, 100.0, 100.0], 0.4, [400.0, 400.0, 100.0, 100.0]),
        ([1e8, 1.0, 1.0], 0.2, [1.0, 1.0, 1.0]),
        ([3.0, 1.0, 1.0], 1.0, [3.0, 1.0, 1.0]),
    ],
)
def test_what_is_too_large_is_made_smaller_and_nothing_else(
    counts: list[float], share_max: float, found: list[float]
) -> None:
    assert capped(counts, share_max) == pytest.approx(found)
