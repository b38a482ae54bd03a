"""A disk that is full, at either role: clear words, nothing corrupt, and it goes on by itself when there is room."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedcervix.disk.reserve import FREE_BYTES_MIN, RESERVE_BYTES
from tests.e2e.chaos.cuts import Ambush
from tests.e2e.chaos.service import Service
from tests.e2e.disks import MayNotMountError, fill, small_disk
from tests.e2e.loopback import federation, until

pytestmark = pytest.mark.timeout(180)

DISK_BYTES = 100 << 20
ROUNDS = {"rounds": 2, "epochs_per_round": 1}

Mount = Callable[[str, int], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Return a maker of small disks, each the home folder of that name in one federation."""
    with contextlib.ExitStack() as stack:

        def make(home: str, size_bytes: int) -> Path:
            try:
                return stack.enter_context(small_disk(tmp_path / "small" / home, size_bytes))
            except MayNotMountError as error:
                pytest.skip(str(error))

        yield make


def test_a_full_disk_at_the_coordinator_costs_time_and_nothing_else(
    mount: Mount, light_right: Callable[..., str]
) -> None:
    disk = mount("coordinator", DISK_BYTES)
    with federation(disk.parent, terms=ROUNDS) as made:
        coordinator = made.coordinate("--mode", "csfssl")
        line = Ambush(made.port, "up", after_bytes=2_000_000)  # in the middle of the first model
        for site in made.sites:
            made.enrol(site)
        made.settle("nhs", port=line.port)
        sites = [made.light(site, "--pace-s", "0.3") for site in made.sites]
        nhs = sites[0]

        until("the first model is half there", lambda: line.silent, seen=made.texts)
        ballast = fill(disk)
        line.speak()
        for words in (
            "cannot write",
            'the coordinator says "the disk is full',
            'the coordinator advises "free some space (df -h ',
        ):
            nhs.says(words)
        nhs.says("no room for a model")  # before a byte is sent again
        nhs.says("trying again automatically")
        assert 'the coordinator says "the disk is (nearly) full' in nhs.text
        assert f'the coordinator advises "free some space (df -h {made.home.blobs})' in nhs.text
        assert '"event": "storage"' in coordinator.text
        assert made.overview()["phase"] == "seeding"  # it still answers
        ballast.unlink()

        nhs.says("asked to score the model of round 1")
        ballast = fill(disk)
        # Journal and registry have a reserve: what is small is taken, and a coordinator that dies now comes back.
        made.until("the reserve is in use", lambda seen: "MiB are left of the reserve" in seen["trouble"])
        coordinator.kill()
        coordinator = made.coordinate()
        made.until("the next round", lambda seen: seen["round"] == 2)
        waiting = re.compile("waiting for room to send a model: [^;]*nhs")  # alts may wait before it
        made.until("its models wait for room", lambda seen: waiting.search(seen["trouble"]))
        ballast.unlink()
        made.until("the reserve is whole again", lambda seen: seen["trouble"] == "")

        made.finish(coordinator, *sites)
        line.close()
        assert made.record()["outcome"] == "OK"
        assert made.result() == light_right("csfssl", **ROUNDS)


MODEL_NUMBERS = 20_000_000
MODEL_BYTES = 4 * MODEL_NUMBERS
"""more than the space that transfers leave free: the last update is still taken, and its average finds no room"""


def test_a_coordinator_that_has_no_room_to_average_says_so_and_averages_when_it_has(mount: Mount) -> None:
    disk = mount("coordinator", 6 * MODEL_BYTES)
    with federation(disk.parent, terms={"rounds": 1}) as made:
        coordinator = made.coordinate("--mode", "csfssl")
        for site in made.sites:
            made.enrol(site)
        ballast = disk / "ballast"
        left_free = FREE_BYTES_MIN + (MODEL_BYTES - FREE_BYTES_MIN) // 2
        ballast.write_bytes(bytes(3 * MODEL_BYTES - left_free - RESERVE_BYTES))
        sites = [made.light(site, "--numbers", str(MODEL_NUMBERS)) for site in made.sites]

        made.until("the trouble is seen", lambda seen: "cannot write" in seen["trouble"])
        trouble = str(made.overview()["trouble"])
        for words in ("likely cause: the disk is full", "next: free some space (df -h "):
            assert words in trouble
        assert made.overview()["phase"] == "aggregating"
        assert not list(made.home.blobs.glob("incoming/.aggregate*"))  # no half of an average is left
        ballast.unlink()
        made.finish(coordinator, *sites)
        assert made.record()["outcome"] == "OK"


def test_a_full_disk_at_a_site_costs_time_and_nothing_else(mount: Mount, light_right: Callable[..., str]) -> None:
    disk = mount("site-nhs", DISK_BYTES)
    with federation(disk.parent, terms=ROUNDS) as made:
        coordinator = made.coordinate("--mode", "csfssl")
        for site in made.sites:
            made.enrol(site)
        diary = made.folder / "diary"
        options = ("--worker", "--pace-s", "0.3", "--diary", str(diary))
        nhs = made.light("nhs", *options)
        alts = made.light("alts", "--pace-s", "1")

        # The worker has trained and cannot write the model: it is kept in memory.
        nhs.says("asked to train in round 1")
        os.kill(alts.pid, signal.SIGSTOP)  # so that there is no average before the disk is full again
        ballast = fill(disk)
        nhs.says("trying again automatically")
        for words in ("cannot write", "likely cause: the disk is full", "next: free some space (df -h "):
            assert words in nhs.text
        made.until("it is told", lambda seen: seen["sites"][0]["stage"] == "waiting for room on the disk")
        assert nhs.running()
        ballast.unlink()

        # A download does not fit; the agent is killed meanwhile, and started again as a service.
        nhs.says("done: train in round 1")
        ballast = fill(disk)
        os.kill(alts.pid, signal.SIGCONT)
        nhs.says("asked to score the model of round 1")
        nhs.says("no room for a model")
        nhs.kill()
        service = Service("nhs", lambda: made.light("nhs", *options))
        _tend(service, "it says so", lambda: "no room for a model" in made.processes[-1].text)
        ballast.unlink()
        _tend(service, "the run is over", lambda: service.over and not coordinator.running())

        made.finish(coordinator, alts)
        assert made.record()["outcome"] == "OK"
        assert made.result() == light_right("csfssl", **ROUNDS)
        assert made.adopted("nhs") == [made.result()]
        steps = [step for step in diary.read_text().splitlines() if "train" in step]
        assert len(steps) == len(set(steps)) == 10  # no training was done twice
        assert "Traceback" not in made.texts()


def _tend(service: Service, what: str, condition: Callable[[], bool]) -> None:
    def tended() -> bool:
        service.tend()
        assert not service.trouble, service.trouble
        return condition()

    until(what, tended, seen=lambda: service.process.text)
