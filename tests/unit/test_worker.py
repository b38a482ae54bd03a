"""What the agent starts to train with: one process, or torch's launcher."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.errors import ConfigError
from fedcervix.runtime.worker_protocol import ErrorParts, ForeignAnswerError, WorkProgress
from site_agent.home import HardwareSection, SiteHome, create
from site_agent.store.task_results import TaskResult, TrainResult
from site_agent.worker.messages import result_to_json
from site_agent.worker.worker import CancelledError, Worker, WorkFailedError, launch, surroundings

ON_THIS_HOST = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
TWO_HOSTS = ("--nnodes=2", "--node-rank=0", "--master-addr=gpu1", "--master-port=29400")


def never() -> int:
    raise AssertionError("nobody asked for the number of GPUs")


def test_one_process_needs_no_launcher() -> None:
    assert HardwareSection().processes == 1
    assert launch(HardwareSection(), never) == []


def test_several_processes_are_started_by_torch_s_launcher_on_this_host() -> None:
    assert launch(HardwareSection(processes=3), never)[:5] == [*ON_THIS_HOST, "--nproc-per-node=3"]


@pytest.mark.parametrize(("gpus", "expected"), [(0, []), (1, []), (4, ["--nproc-per-node=4"])])
def test_no_number_of_processes_is_one_per_gpu(gpus: int, expected: list[str]) -> None:
    assert launch(HardwareSection(processes=0), lambda: gpus)[4:5] == expected


def test_on_the_cpu_nobody_counts_gpus() -> None:
    assert launch(HardwareSection(device="cpu", processes=0), never) == []


def test_several_hosts_are_described_by_their_engineer() -> None:
    found = launch(HardwareSection(processes=1, launcher=TWO_HOSTS), never)
    assert found[:7] == ["-m", "torch.distributed.run", *TWO_HOSTS, "--nproc-per-node=1"]
    assert "--standalone" not in found


@pytest.mark.skipif(not Path("/sys/class/net/lo").exists(), reason="the loopback interface has another name here")
def test_what_processes_on_one_host_say_to_one_another_stays_on_it() -> None:
    alone = surroundings({}, HardwareSection(processes=2))
    assert (alone["GLOO_SOCKET_IFNAME"], alone["NCCL_SOCKET_IFNAME"]) == ("lo", "lo")
    assert "GLOO_SOCKET_IFNAME" not in surroundings({}, HardwareSection(launcher=TWO_HOSTS))


def test_what_the_operator_set_is_kept() -> None:
    given = {"GLOO_SOCKET_IFNAME": "ib0", "OMP_NUM_THREADS": "4", "PATH": "/bin"}
    assert surroundings(given, HardwareSection(processes=2)).items() >= given.items()


@pytest.mark.parametrize("keys", [{"processes": -1}, {"processes": 65}, {"launcher": "--nnodes=2"}])
def test_a_wrong_number_of_processes_is_refused_by_name(tmp_path: Path, keys: dict[str, Any]) -> None:
    [(key, value)] = keys.items()
    home = SiteHome(tmp_path)
    home.config_file.write_text(f"[hardware]\n{key} = {value!r}\n")
    with pytest.raises(ConfigError, match=key):
        home.config()


def test_a_new_home_s_file_names_the_keys(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "home")
    create(home)
    text = home.config_file.read_text()
    uncommented = text.replace("# processes = 1", "processes = 2").replace(
        "# launcher = []", 'launcher = ["--nnodes=2"]'
    )
    home.config_file.write_text(uncommented)
    hardware = home.config().hardware
    assert (hardware.processes, hardware.launcher) == (2, ("--nnodes=2",))


def test_the_launcher_leaves_no_folder_behind() -> None:
    """It would make one in the folder for temporary files at every start, and a killed one never removes it."""
    assert launch(HardwareSection(processes=2), never)[-1] == f"--log-dir={os.devnull}"


# --- workers that die, or have no room ----------------------------------------------------------------------------


PLAN = Plan(mode="csfssl", sites=("nhs",), profile="demo", terms=Terms(rounds=1), recipe=Recipe())
SEED = Task("20300101-000000-csfssl-00000000", TaskKind.SEED, 0, "")


MADE = TrainResult(digest="d", images=1, steps=2, loss=0.5, seconds=0.1, gauges={"unit_std": 0.5}, said=("a line",))
DONE = result_to_json(MADE)


def told(progress: WorkProgress) -> ErrorParts:
    assert progress.trouble is not None
    return progress.trouble


class Site:
    """A site whose worker is a process of the test's own (see tests/e2e/light_worker.py for a whole one)."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, program: str, **options: Any) -> None:
        home = SiteHome(folder / "home")
        create(home)
        (folder / "stand_in.py").write_text(f"import json, os, sys\nDONE = {DONE!r}\n{program}")
        monkeypatch.setenv("PYTHONPATH", str(folder))
        self.folder, self.worker = folder, Worker(home, "nhs", program="stand_in", **options)
        self.progress: list[WorkProgress] = []

    def do(self) -> TaskResult:
        try:
            return self.worker.do(SEED, PLAN, self.progress.append, threading.Event())
        finally:
            self.worker.cancel()


DIES_TWICE = """
lives = sys.argv[1] + "/lives"
with open(lives, "a") as diary:
    diary.write("x")
sys.stdin.readline()
if len(open(lives).read()) <= 2:
    sys.stdout.write('{"progress": {"stage": "half a li')
    sys.stdout.flush()
    os.kill(os.getpid(), 9)
print(json.dumps({"done": DONE}), flush=True)
"""


def test_a_worker_that_is_killed_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, monkeypatch, DIES_TWICE)
    assert site.do() == MADE
    assert [progress.stage for progress in site.progress] == ["starting again"] * 2
    assert "(status -9)" in told(site.progress[0]).what


def test_a_worker_that_is_killed_again_and_again_is_a_task_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path, monkeypatch, DIES_TWICE, deaths_max=1)
    with pytest.raises(WorkFailedError, match="ended by itself") as caught:
        site.do()
    assert "out of memory" in caught.value.cause
    assert len(site.progress) == 1


FULL_ONCE = """
trouble = {"what": "cannot write", "cause": "full", "next_step": "df -h"}
failed = {"kind": "FullDiskError", "stage": "", "trouble": trouble, "exit_code": 8, "trace": ""}
for number, _ in enumerate(sys.stdin):
    print(json.dumps({"failed": failed} if number == 0 else {"done": DONE}), flush=True)
"""


def test_a_worker_without_room_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, monkeypatch, FULL_ONCE)
    assert site.do() == MADE
    assert [progress.trouble for progress in site.progress] == [ErrorParts("cannot write", "full", "df -h")]


ONE_OF_A_TEAM_GONE_ONCE = FULL_ONCE.replace("FullDiskError", "GoneError")


def test_a_team_that_lost_a_process_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, monkeypatch, ONE_OF_A_TEAM_GONE_ONCE)
    assert site.do() == MADE
    assert [progress.stage for progress in site.progress] == ["starting again"]


@pytest.mark.parametrize(
    "line", ["Loading the library ...", '{"done": {"trained": {"digest": "d"}}}', '{"progress": {"stage": 1}}']
)
def test_what_is_no_answer_is_refused_and_its_process_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    site = Site(tmp_path, monkeypatch, f"sys.stdin.readline()\nprint({line!r}, flush=True)\nsys.stdin.readline()\n")
    with pytest.raises(ForeignAnswerError, match="a line that is not an answer") as caught:
        site.do()
    assert caught.value.next_step


# --- ends that meet -----------------------------------------------------------------------------------------------


class Turn:
    """The worker's lock; before somebody gets it for the `number`th time, something happens."""

    def __init__(self, number: int, happens: Callable[[], object]) -> None:
        self._lock, self._left, self._happens = threading.RLock(), number, happens

    def __enter__(self) -> None:
        self._lock.acquire()
        self._left -= 1
        if self._left == 0:
            self._happens()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


ANSWERS = "for _ in sys.stdin:\n    print(json.dumps({'done': DONE}), flush=True)\n"


def test_a_task_that_is_given_up_before_it_was_said_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is there, and the agent kills it before the request is written: that is no bug to be told."""
    site = Site(tmp_path, monkeypatch, ANSWERS)
    monkeypatch.setattr(site.worker, "_lock", Turn(2, site.worker.cancel))
    with pytest.raises(CancelledError):
        site.do()


def test_a_stop_that_meets_the_end_of_the_process_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last word of a team takes seconds, and the person who ends the agent meanwhile gets no traceback."""
    site = Site(tmp_path, monkeypatch, ANSWERS)
    assert site.worker.do(SEED, PLAN, site.progress.append, threading.Event()) == MADE
    monkeypatch.setattr(site.worker, "_lock", Turn(1, site.worker.cancel))
    site.worker.stop()
    site.worker.cancel()
