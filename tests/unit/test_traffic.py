"""What moved in each round: counted by site, kept over restarts, and shown beside what was predicted."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from coordinator.commands.status_view import render
from coordinator.run.results import record
from coordinator.run.status import TRAFFIC_ROUNDS, overview
from coordinator.run.status_document import StatusDocument
from coordinator.run.traffic import RunTraffic, stored
from fedcervix.core.pace import SitePace
from fedcervix.runtime.record import COUNT_MAX, RoundTraffic, SiteTraffic, stored_record
from fedcervix.runtime.typed_json import to_text
from tests.unit.test_changes import events_of, plan, run_of

pytestmark = pytest.mark.timeout(30)

PLAN = plan(2, 3)
FIRST, SECOND = PLAN.sites[:2]
RUN = run_of(PLAN, events_of(PLAN, 1))


def line(number: int, *sites: tuple[str, int, int]) -> RoundTraffic:
    return RoundTraffic(round=number, sites=tuple(SiteTraffic(*one) for one in sites))


def test_a_round_has_what_moved_since_the_one_before_it(tmp_path: Path) -> None:
    traffic = RunTraffic(RUN.run, tmp_path / "paces")
    traffic.moved(FIRST, down_bytes=5)
    traffic.moved(FIRST, down_bytes=5)
    traffic.moved(SECOND, up_bytes=7)
    traffic.keep(1)
    traffic.moved(SECOND, up_bytes=1)
    traffic.keep(2)
    traffic.keep(3)  # nothing moved
    want = (line(1, (FIRST, 10, 0), (SECOND, 0, 7)), line(2, (SECOND, 0, 1)))
    assert traffic.rounds == want
    assert stored(tmp_path / "paces", RUN.run) == want


def test_a_round_in_which_the_coordinator_was_stopped_is_counted_together(tmp_path: Path) -> None:
    for moved_bytes in (5, 6):
        traffic = RunTraffic(RUN.run, tmp_path)
        traffic.moved(FIRST, down_bytes=moved_bytes)
        traffic.keep(1)
    assert traffic.rounds == stored(tmp_path, RUN.run) == (line(1, (FIRST, 11, 0)),)


@pytest.mark.parametrize("torn", ["{", "[]", '{"round": 0, "sites": []}', "\x00"], ids=range(4))
def test_a_line_that_cannot_be_read_costs_that_line(tmp_path: Path, torn: str) -> None:
    traffic = RunTraffic(RUN.run, tmp_path)
    traffic.moved(FIRST, up_bytes=3)
    traffic.keep(1)
    [file] = tmp_path.iterdir()
    file.write_text(f"{torn}\n{file.read_text()}\n{torn}")
    assert stored(tmp_path, RUN.run) == (line(1, (FIRST, 0, 3)),)
    assert stored(tmp_path / "none", RUN.run) == ()


def test_a_disk_that_takes_nothing_hinders_no_round(tmp_path: Path) -> None:
    (tmp_path / "paces").write_text("a file in the place of the folder")
    traffic = RunTraffic(RUN.run, tmp_path / "paces")
    traffic.moved(FIRST, up_bytes=2**50)
    traffic.keep(1)
    assert traffic.rounds == (line(1, (FIRST, 0, COUNT_MAX)),)


def test_the_status_shows_bytes_beside_those_predicted_and_the_record_has_all_rounds() -> None:
    known = dict.fromkeys(PLAN.sites, SitePace(model_bytes=2**20))
    moved = tuple(line(number, (FIRST, 3 * 2**20, 2**20)) for number in range(1, 2 * TRAFFIC_ROUNDS))
    seen = overview(RUN, {}, now=9.0, paces=known, traffic=moved[:1])
    [took] = [words for words in drawn(seen) if "moved" in words or "MiB" in words][-1:]
    assert f"4 MiB ({2 * len(PLAN.sites)} MiB)" in took
    assert len(overview(RUN, {}, now=9.0, traffic=moved).traffic) == TRAFFIC_ROUNDS
    assert stored_record(to_text(record(RUN, traffic=moved)).encode()).traffic == moved


def drawn(seen: StatusDocument) -> list[str]:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as capture:
        console.print(render(seen))
    return capture.get().splitlines()
