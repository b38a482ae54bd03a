"""What sites have measured, kept beside a run: what stands once the run has begun, what a damaged file costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from coordinator.commands.status_view import render
from coordinator.run import paces
from coordinator.run.paces import Paces
from coordinator.run.prediction import prediction, prediction_status, words_of
from coordinator.run.results import record
from coordinator.run.status import overview
from fedcervix.core.pace import SitePace, pace_key
from fedcervix.errors import StorageError
from fedcervix.runtime.pace_lines import PaceLine, pace_text, parse_pace
from fedcervix.runtime.record import stored_record
from fedcervix.runtime.typed_json import to_text
from tests.unit.test_changes import events_of, plan, run_of, sent

pytestmark = pytest.mark.timeout(30)

PACE = SitePace(steps=3, step_low_s=1.0, step_high_s=2.0, model_bytes=1000)
SLOW = dataclasses.replace(PACE, step_low_s=50.0, step_high_s=60.0)
PLAN = plan(2, 3)
RUN = run_of(PLAN, iter(()))
FIRST = RUN.plan.sites[0]


def test_what_was_said_before_the_first_round_stands(tmp_path: Path) -> None:
    kept = Paces(RUN.run, tmp_path / "paces")
    kept.note(RUN, FIRST, SLOW, 1.0)
    kept.note(RUN, FIRST, PACE, 2.0)
    begun = run_of(PLAN, events_of(PLAN, 1))
    assert begun.rounds
    kept.note(begun, FIRST, SLOW, 3.0)
    kept.note(begun, PLAN.sites[1], SLOW, 3.0)
    assert kept.known == {FIRST: PACE, PLAN.sites[1]: SLOW}
    assert Paces(RUN.run, tmp_path / "paces").known == kept.known


def test_the_newest_of_each_site_counts_with_a_recipe_that_costs_the_same(tmp_path: Path) -> None:
    for at, (run, pace) in enumerate(
        [("20260101-000000-csfssl-aaaaaaaa", SLOW), ("20260102-000000-csfssl-bbbbbbbb", PACE)]
    ):
        Paces(run, tmp_path).note(dataclasses.replace(RUN, run=run), FIRST, pace, float(at))
    key = pace_key(PLAN.recipe)
    assert paces.newest(tmp_path, PLAN.sites, key)[FIRST].pace == PACE
    assert paces.newest(tmp_path, PLAN.sites, "0" * 64) == {}
    assert paces.newest(tmp_path, ["another"], key) == {}
    assert paces.newest(tmp_path / "none", PLAN.sites, key) == {}


def test_a_site_that_measures_again_and_again_makes_no_file_each_time(tmp_path: Path) -> None:
    kept, file = Paces(RUN.run, tmp_path), tmp_path / f"{RUN.run}.json"
    written = set()
    for number in range(100):
        kept.note(RUN, FIRST, dataclasses.replace(PACE, steps=number), 1.0)
        written.add(file.read_bytes())
    assert len(written) <= 1 + paces.AGAIN_BURST
    kept.note(RUN, FIRST, SLOW, 1.0 + 1 / paces.AGAIN_PER_S)
    assert kept.known[FIRST] == SLOW


@pytest.mark.parametrize("text", ["", "[]", '{"format":1,"sites":[{"site":"a"}]}', '{"format":99}'], ids=range(4))
def test_a_damaged_file_costs_the_prediction_and_not_the_run(tmp_path: Path, text: str) -> None:
    (tmp_path / f"{RUN.run}.json").write_text(text)
    assert paces.known(tmp_path, RUN.run) == {}
    assert Paces(RUN.run, tmp_path).known == {}
    with pytest.raises(StorageError, match=r"\.json"):
        paces.stored(tmp_path / f"{RUN.run}.json")


def test_a_disk_that_takes_nothing_hinders_no_site(tmp_path: Path) -> None:
    (tmp_path / "paces").write_text("a file in the place of the folder")
    kept = Paces(RUN.run, tmp_path / "paces")
    kept.note(RUN, FIRST, PACE, 1.0)
    assert kept.known == {FIRST: PACE}


def test_a_site_hands_its_measures_over_as_text() -> None:
    line = PaceLine(site=FIRST, at=5.0, pace_key="0" * 64, pace=PACE)
    assert parse_pace(pace_text(line).encode()) == line
    for wrong in (
        "{}",
        "[]",
        pace_text(line).replace('"steps": 3', '"steps": -3'),
        pace_text(line).replace("1.0", "NaN"),
    ):
        with pytest.raises(ValueError):
            parse_pace(wrong.encode())


# --- in the status and in the record ------------------------------------------------------------------------------


def test_without_measures_there_is_a_prediction_only_once_rounds_have_ended() -> None:
    assert prediction(RUN, {}) is None
    assert prediction_status(RUN, {}, 0.0) is None


def test_the_time_left_is_first_by_the_measures() -> None:
    found = prediction_status(RUN, dict.fromkeys(PLAN.sites, PACE), 0.0)
    assert found is not None
    assert found.left_from == "measured"
    assert found.round_low_s is not None
    assert found.left_low_s is not None
    assert found.left_high_s is not None
    assert found.left_low_s <= found.left_high_s
    assert "a round takes" in words_of(found, PLAN.rounds_max)
    to_text(found)


def test_who_watches_is_sent_the_prediction_when_it_changes() -> None:
    before = overview(RUN, {}, now=1.0)
    known = dict.fromkeys(PLAN.sites, PACE)
    after = overview(RUN, {}, now=2.0, paces=known)
    assert before.prediction is None
    assert sent(before, after) == after
    later = overview(RUN, {}, now=3.0, paces={**known, FIRST: SLOW})
    assert sent(after, later) == later


def test_a_straggler_is_named_with_its_cure_and_what_is_not_measured_is_said() -> None:
    found = prediction(RUN, {PLAN.sites[0]: PACE, PLAN.sites[1]: SLOW})
    assert found is not None
    assert [bool(one.straggler) for one in found.sites] == [False, True]
    alone = prediction(RUN, {FIRST: PACE})
    assert alone is not None
    assert PLAN.sites[1] in words_of(alone, PLAN.rounds_max)


LEAST = SitePace(step_low_s=1e-300, step_high_s=1e-300, down_low=1e-300, down_high=1e18, up_low=1e-300, up_high=1.0)
MOST = SitePace(
    steps=10**9,
    step_low_s=1e9,
    step_high_s=1e9,
    task_s=1e9,
    score_low_s=1e9,
    score_high_s=1e9,
    decode_low_s=1e9,
    decode_high_s=1e9,
    down_low=1.0,
    down_high=1.0,
    up_low=1.0,
    up_high=1.0,
    model_bytes=2**38,
    packed_bytes=2**38,
    vector_s=1e9,
    mask_s=1e9,
    sum_s=1e9,
)


@pytest.mark.parametrize("pace", [LEAST, MOST], ids=["least", "most"])
def test_whatever_a_site_has_said_the_record_can_be_read_and_the_status_be_sent(pace: SitePace) -> None:
    for known in ({FIRST: pace, PLAN.sites[1]: PACE}, dict.fromkeys(PLAN.sites, pace)):
        done = run_of(PLAN, events_of(PLAN, 1))
        found = stored_record(to_text(record(done, paces=known)).encode())
        assert found.prediction == prediction(done, known)
        to_text(overview(done, {}, now=9.0, paces=known))
        render(overview(done, {}, now=9.0, paces=known))
