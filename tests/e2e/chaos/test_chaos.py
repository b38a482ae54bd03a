"""A slice of `make chaos`: a few federations, and a network that is cut for seconds instead of minutes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.chaos.campaign import Campaign
from tests.e2e.chaos.cuts import Cut, complaints, cut_all
from tests.e2e.chaos.schedule import KILLS, Blow, Fault, Kind, Schedule, Setting, draw
from tests.e2e.chaos.service import Service
from tests.e2e.chaos.storm import Storm, Story
from tests.e2e.loopback import federation, start

pytestmark = pytest.mark.timeout(180)

CUT_NUMBERS = 3_000_000
"""a model of 12 MB"""


@pytest.mark.parametrize(
    ("mode", "number"),
    [
        ("csfssl", 0),
        pytest.param("ppfssl", 4, marks=pytest.mark.long),
        pytest.param("sealed", 0, marks=pytest.mark.long),
    ],
)
def test_whatever_is_done_to_a_federation_it_ends_as_if_nothing_had_been(
    tmp_path: Path, mode: Kind, number: int
) -> None:
    story = Campaign(tmp_path, seed=0).story(mode, number)
    assert story.kills >= 5


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> list[Cut]:
    # Leases shorter than the cut: the site is given up as silent, and comes back.
    return cut_all(tmp_path_factory.mktemp("cuts"), 5.0, numbers=CUT_NUMBERS, lease_s=2.0, forgets=True)


def test_a_cut_network_costs_neither_a_step_nor_a_byte_that_had_arrived(cuts: list[Cut]) -> None:
    for cut in cuts:
        assert complaints(cut) == [], str(cut)
        assert cut.presence.startswith("silent"), str(cut)
    in_training, in_upload, in_download = cuts
    half = in_training.model_bytes // 2
    assert in_training.before.up < half < in_upload.before.up < in_upload.undisturbed.up
    assert in_training.before.down > half
    assert half < in_download.before.down < in_training.model_bytes


PAUSES = "import signal, sys; signal.signal(15, lambda *_: sys.exit(130)); print('here', flush=True); signal.pause()"


def test_a_freeze_does_not_outlast_the_run(tmp_path: Path) -> None:
    """It may fall in the moment in which a site ends, after all that the coordinator waits for."""
    schedule = Schedule(0, 0, Setting("csfssl", ("nhs",), "light"), lines=False, disks=False, blows=())
    with federation(tmp_path, sites=("nhs",)) as made:
        storm = Storm(made, schedule, {}, Story(schedule))
        site = Service("nhs", lambda: start("nhs", [sys.executable, "-c", PAUSES], tmp_path / "logs"))
        made.processes.append(site.process)
        site.process.says("here")
        storm.services["nhs"] = site
        storm.strike(Blow(0, 0.0, Fault.FREEZE, "nhs", lasts_s=3600.0, way="up"))
        storm.leave()
        assert site.process.popen.returncode == 130


# --- schedules ----------------------------------------------------------------------------------------------------


def test_one_number_is_one_schedule() -> None:
    assert draw(3, 4, "csfssl") == draw(3, 4, "csfssl")
    assert len({draw(seed, number, "csfssl").blows for seed in range(3) for number in range(3)}) == 9


@pytest.mark.parametrize("mode", ["csfssl", "ppfssl", "sealed"])
def test_two_hundred_kills_meet_every_fault_and_role(mode: Kind) -> None:
    schedules = [draw(0, number, mode) for number in range(20)]
    met = {(blow.fault, blow.victim == "coordinator") for schedule in schedules for blow in schedule.blows}
    assert met >= {(fault, False) for fault in Fault} | {(f, True) for f in (Fault.KILL, Fault.FREEZE, Fault.FULL)}
    assert {schedule.setting.work for schedule in schedules} == {"light", "training"}
    kills = sum(blow.fault in KILLS for schedule in schedules for blow in schedule.blows)
    assert kills / sum(len(schedule.blows) for schedule in schedules) > 0.5
