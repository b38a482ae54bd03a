"""Alarms of steps: what raises one, what does not, and that nothing else follows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from coordinator.alarms.alarm_sources import new_alarms
from coordinator.alarms.unusual_steps import unusual_steps
from coordinator.commands.status_view import render
from coordinator.run.status import ledger_line, overview
from fedcervix.core.alarms import Alarm
from fedcervix.core.events import Masked, Task, TaskKind, UpdateStored
from fedcervix.core.measures import Measures
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.state import Round, Run, begin
from fedcervix.models.step_similarity import measure_steps
from fedcervix.models.weights import read_layout, write_tensors
from fedcervix.trust.sum_reports import three_digits

NAMES = ("ada", "bob", "cyd", "dan", "eva")
BASE, MODEL = "b" * 64, "d" * 64


def run_of(rounds: Sequence[Sequence[Measures]], **terms: object) -> Run:
    """Return a run with these measures of its first sites in each round."""
    sites = NAMES[: max(len(one) for one in rounds)]
    plan = Plan(mode="csfssl", sites=sites, profile="paper", terms=Terms(**terms), recipe=Recipe())  # type: ignore[arg-type]
    done = tuple(
        Round(
            number,
            BASE,
            0.0,
            updates(number, sites[: len(one)]),
            measures=tuple(zip(sites, one, strict=False)),
            candidate=MODEL,
        )
        for number, one in enumerate(rounds, 1)
    )
    return replace(begin("run", plan, base=BASE, at=0.0), rounds=done)


def updates(number: int, sites: Sequence[str]) -> tuple[UpdateStored, ...]:
    task = Task("run", TaskKind.TRAIN, number, BASE)
    return tuple(UpdateStored(site, task, f"{index:064x}", 10, 7, 0.5, 1.0, 0.0) for index, site in enumerate(sites))


def found(run: Run, number: int) -> list[tuple[str, str]]:
    return [(alarm.site, alarm.what) for alarm in unusual_steps(run, run.rounds[number - 1])]


def steps(*norms: float, cosine: float = 0.5) -> list[Measures]:
    return [Measures(norm, 0.1, cosine, norm) for norm in norms]


def honest(rounds: int, sites: int = 5, seed: int = 0) -> list[list[Measures]]:
    """Return long steps in the first rounds, sites that differ, and noise."""
    chance = np.random.default_rng(seed)
    apart = chance.normal(0, 0.3, sites)
    return [
        steps(*np.exp(1.5 * np.exp(-t / 3) + apart + chance.normal(0, 0.05, sites)).tolist(), cosine=0.3)
        for t in range(rounds)
    ]


# --- beside the other sites ------------------------------------------------------------------------------------------


def test_a_long_step_is_unusual_beside_four_others_and_not_beside_three() -> None:
    assert found(run_of([steps(1.0, 1.1, 0.9, 1.2, 100.0)]), 1) == [("eva", "norm"), ("eva", "distance")]
    assert found(run_of([steps(1.0, 1.1, 0.9, 100.0)]), 1) == []


def test_an_alarm_says_what_and_how_far() -> None:
    run = run_of([steps(1.0, 1.1, 0.9, 1.2, 100.0)])
    (first, _) = unusual_steps(run, run.rounds[0])
    assert (first.site, first.round, first.what) == ("eva", 1, "norm")
    assert first.words.startswith("the length of its step is 100; ")
    assert first.words.endswith(" is usual for the other sites in this round")


def test_equal_steps_and_steps_that_differ_by_rounding_are_usual() -> None:
    same = [steps(1.0, 1.0, 1.0, 1.0, 1.0 + 1e-9)] * 8
    assert all(found(run_of(same), number) == [] for number in range(1, 9))


def test_a_step_of_length_0_is_unusual() -> None:
    none = Measures(0.0, 0.0, None, 1.0)
    assert found(run_of([[*steps(1.0, 1.1, 0.9, 1.2), none]]), 1) == [("eva", "norm")]


# --- beside its own earlier rounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "alarms"), [(4, []), (5, [("ada", "norm"), ("ada", "distance")])])
def test_a_site_is_compared_with_itself_from_five_earlier_rounds(before: int, alarms: list[tuple[str, str]]) -> None:
    rounds = [steps(1.0, 1.1)] * before + [steps(50.0, 1.1)]
    assert found(run_of(rounds), before + 1) == alarms


def test_a_round_in_which_all_steps_are_longer_is_usual() -> None:
    rounds = [*honest(10, sites=3), steps(*[5 * one.norm for one in honest(10, sites=3)[-1]], cosine=0.3)]
    assert found(run_of(rounds), 11) == []


def test_a_step_that_turns_round_is_unusual() -> None:
    rounds = honest(10)
    rounds.append([*rounds[-1][:4], replace(rounds[-1][4], cosine=-0.5)])
    assert ("eva", "cosine") in found(run_of(rounds), 11)


@pytest.mark.parametrize("factor", [10.0, -1.0])
def test_whose_step_is_ten_times_as_long_or_turned_round_is_named_after_seven_rounds(factor: float) -> None:
    """TRUST 10, line 7, in 100 federations of five sites: what strays is judged by how far all of them strayed.

    Cosines as phantoms have them: benchmarks/alarms.py.
    """
    chance, named = np.random.default_rng(1), 0
    for seed in range(100):
        rounds = [
            [replace(one, cosine=float(chance.normal(0.1, 0.015))) for one in round_] for round_ in honest(8, seed=seed)
        ]
        last = rounds[-1][4]
        assert last.cosine is not None
        rounds[-1][4] = replace(last, norm=abs(factor) * last.norm, cosine=float(np.copysign(last.cosine, factor)))
        named += "eva" in dict(found(run_of(rounds), 8))
    assert named == 100


@pytest.mark.parametrize("rounds", [5, 12, 20])
def test_a_step_that_turns_round_is_named_though_it_pulls_the_others_down(rounds: int) -> None:
    """Cosines as five phantom sites have them: .09, with a standard deviation of .03."""
    for seed in range(40):
        chance = np.random.default_rng(seed)
        told = [[Measures(1.0, 0.1, c, 1.0) for c in chance.normal(0.1, 0.025, 5)] for _ in range(rounds)]
        last = chance.normal(0.02, 0.025, 5)
        last[2] = -0.09
        run = run_of([*told, [Measures(1.0, 0.1, c, 1.0) for c in last]])
        assert found(run, rounds + 1) == [("cyd", "cosine")]


def test_where_steps_share_no_direction_a_cosine_below_0_says_nothing() -> None:
    chance, alarms = np.random.default_rng(3), 0
    rounds = [[Measures(1.0, 0.1, c, 1.0) for c in chance.normal(0.01, 0.03, 5)] for _ in range(200)]
    run = run_of(rounds)
    alarms = sum(len(found(run, number)) for number in range(6, 201))
    assert alarms <= 5


def test_an_honest_federation_raises_hardly_any_alarm() -> None:
    """Five runs of 40 rounds and five sites: 1,000 honest updates, of which one of 370 may raise an alarm."""
    runs = [run_of(honest(40, seed=seed)) for seed in range(5)]
    assert sum(len(found(run, number)) for run in runs for number in range(1, 41)) <= 10


def test_where_nothing_was_measured_there_is_no_alarm() -> None:
    assert found(run_of([[], [], [], steps(1.0)]), 1) == []


def test_the_hops_of_a_ring_are_compared_too() -> None:
    run = run_of([steps(1.0, 1.0)] * 6)
    hop = replace(updates(7, ["ada"])[0], measures=Measures(90.0, 0.1))
    ring = replace(run, rounds=(*run.rounds, Round(7, BASE, 0.0, (hop,), candidate=MODEL)))
    assert found(ring, 7) == [("ada", "norm")]


@pytest.mark.parametrize("here", [1, 2, 3, 4])
def test_a_round_in_which_sites_are_still_to_come_raises_no_alarm(here: int) -> None:
    """Its median is not that of all sites. The round is judged when it has its model."""
    run = run_of(honest(9))
    last = run.rounds[-1]
    begun = replace(last, candidate="", measures=last.measures[:here])
    partly = replace(run, rounds=(*run.rounds[:-1], begun))
    assert found(partly, 9) == found(run, 9) == []
    assert new_alarms(partly, replace(run, rounds=(*run.rounds[:-1], last))) == ()


@pytest.mark.parametrize(("factor", "alarms"), [(1.0, []), (10.0, [("ada", "norm")])])
def test_masked_updates_are_compared_by_the_lengths_that_sites_have_signed(
    factor: float, alarms: list[tuple[str, str]]
) -> None:
    rounds = []
    for number, measured in enumerate(honest(9), 1):
        norms = [one.norm * (factor if at == 0 and number == 9 else 1) for at, one in enumerate(measured)]
        masked = [Masked(BASE, three_digits(norm), "", "aa") for norm in norms]
        sent = zip(updates(number, NAMES), masked, strict=True)
        stored = tuple(replace(update, masked=of) for update, of in sent)
        rounds.append(Round(number, BASE, 0.0, stored, candidate=MODEL))
    run = replace(run_of(honest(9)), rounds=tuple(rounds))
    assert found(run, 9) == alarms


# --- where it is shown ------------------------------------------------------------------------------------------------


def test_of_five_sites_one_with_a_step_100_times_as_long_raises_an_alarm(tmp_path: Path) -> None:
    """Whatever the plan does about it: what is measured is the step as it was sent."""
    base = np.random.default_rng(9).normal(size=1000)
    write_tensors(tmp_path / "base", {"w": base.astype(np.float32)})
    for index in range(5):
        step = 0.1 * np.random.default_rng(index).normal(size=1000) * (100 if index == 4 else 1)
        write_tensors(tmp_path / f"{index}", {"w": (base + step).astype(np.float32)})
    paths = [(tmp_path / f"{index}", tmp_path / "base") for index in range(5)]
    measures = measure_steps(paths, read_layout(tmp_path / "base"), "mean")
    for terms in ({}, {"clip": 2.0}, {"aggregation": "trimmed-mean"}):
        run = run_of([measures], **terms)
        line = ledger_line(run, run.rounds[0])
        assert [(one.site, one.what) for one in line.alarms] == [("eva", "norm")]
        assert [one.site for one in line.contributions] == list(NAMES)


def test_the_ledger_has_the_measures_and_what_was_done_about_them() -> None:
    run = run_of([[*steps(1.0, 1.0, 1.0, 1.0), Measures(100.0, 0.2, -0.5, 101.23456789)]], clip=2.0)
    last = ledger_line(run, run.rounds[0]).contributions[-1]
    shown = {name: getattr(last, name) for name in ("norm", "relative", "cosine", "distance", "clipped")}
    assert shown == {"norm": 100, "relative": 0.2, "cosine": -0.5, "distance": 101.235, "clipped": 0.02}
    assert ledger_line(run, run.rounds[0]).contributions[0].clipped is None
    trims = run_of([steps(*[1.0] * 5)], aggregation="trimmed-mean")
    assert ledger_line(trims, trims.rounds[0]).trimmed == 1


def test_the_ledger_of_a_round_that_was_not_measured_says_so() -> None:
    run = run_of([steps(1.0, 1.0)])
    bare = replace(run, rounds=(replace(run.rounds[0], measures=()),))
    line = ledger_line(bare, bare.rounds[0])
    assert (line.contributions[0].norm, line.alarms, line.trimmed) == (None, (), 0)


def test_the_screen_shows_the_alarms_of_a_site_and_kind_in_one_row() -> None:
    run = run_of([steps(1.0, 1.1, 0.9, 1.2, 100.0), steps(1.0, 1.1, 0.9, 1.2, 200.0)])
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render(overview(run, {}, now=0.0)))
    text = console.export_text()
    assert text.count("the length of its step is") == 1
    assert "1, 2" in text
    assert "the length of its step is 200" in text


def test_an_alarm_is_new_once() -> None:
    before = run_of([steps(1.0, 1.1, 0.9, 1.2, 100.0)])
    bare = replace(before, rounds=(replace(before.rounds[0], measures=()),))
    assert {alarm.what for alarm in new_alarms(bare, before)} == {"norm", "distance"}
    scored = replace(before, rounds=(replace(before.rounds[0], ended_at=5.0), Round(2, BASE, 5.0)))
    assert new_alarms(before, scored) == ()
    assert all(isinstance(alarm, Alarm) for alarm in new_alarms(bare, scored))
    assert len(new_alarms(bare, scored)) == 2
