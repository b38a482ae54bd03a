"""What a study starts, counts and ends: programs on a leash, counted lines, costs, a cluster's jobs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cervix_study.execution.executors import LocalProcesses, Slurm, died
from cervix_study.execution.resource_usage import UsageMeter, added, descendants, spent_j
from cervix_study.execution.tasks import CellTask, Failed, make, passed_by
from cervix_study.execution.traffic_counter import Relay
from cervix_study.planning.grid import grid
from cervix_study.records import Costs
from cervix_study.study_paths import Places
from fedcervix.errors import ConfigError, StorageError, TrainingError
from tests.unit.study_cases import asked, ground


def until(condition: Callable[[], bool], within_s: float = 20.0) -> bool:
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        threading.Event().wait(0.02)
    return True


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# --- the leash ----------------------------------------------------------------------------------------------------

STARTS_ONE = """
import subprocess, sys
from fedcervix.runtime.parent_death import leashed
popen = subprocess.Popen(leashed([sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]))
print(popen.pid, flush=True)
popen.wait()
"""


def test_what_is_on_a_leash_ends_with_its_parent_however_that_dies() -> None:
    parent = subprocess.Popen([sys.executable, "-c", STARTS_ONE], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    child = int((said - {"up"}).pop())
    assert alive(child)
    parent.kill()
    parent.wait()
    assert until(lambda: not alive(child))


def test_a_leash_of_somebody_who_is_gone_starts_nothing() -> None:
    command = [
        sys.executable,
        "-m",
        "fedcervix.runtime.parent_death",
        "1",
        sys.executable,
        "-c",
        "print('started')",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (done.stdout, "has ended" in done.stderr) == ("", True)


# --- the relay ----------------------------------------------------------------------------------------------------


def echo() -> socket.socket:
    """Return a listener that sends back what it gets, twice."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = listener.accept()
                while data := line.recv(1 << 16):
                    line.sendall(data + data)
                line.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_a_relay_passes_everything_and_counts_both_ways() -> None:
    with echo() as listener:
        relay = Relay(int(listener.getsockname()[1]))
        sent = os.urandom(300_000)
        with socket.create_connection(("127.0.0.1", relay.port)) as line:
            threading.Thread(target=lambda: (line.sendall(sent), line.shutdown(socket.SHUT_WR)), daemon=True).start()
            got = b""
            while data := line.recv(1 << 16):
                got += data
        assert len(got) == 2 * len(sent)
        assert relay.passed_bytes == 3 * len(sent)
        relay.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", relay.port))


def test_a_relay_hangs_up_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = int(nobody.getsockname()[1])
    relay = Relay(port)
    with socket.create_connection(("127.0.0.1", relay.port)) as line:
        assert line.recv(1) == b""
    relay.close()


# --- costs --------------------------------------------------------------------------------------------------------


def test_processes_that_were_waited_for_are_counted() -> None:
    meter = UsageMeter()
    busy = "import time\nwhile time.process_time() < .3: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    costs = meter.costs()
    assert costs.cpu_s > 0.25
    assert costs.seconds > 0.25
    assert costs.wire_bytes is None
    assert costs.peak_memory_bytes is not None
    assert costs.peak_memory_bytes > 1_000_000


def test_a_process_is_looked_at_with_what_it_started() -> None:
    assert os.getpid() in descendants(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    assert until(lambda: child.pid in descendants(os.getpid()))
    child.kill()
    child.wait()


def test_costs_of_an_interrupted_work_add_up() -> None:
    first = Costs(seconds=10, cpu_s=8, wire_bytes=5, wire_bytes_by_site={"a": 5}, peak_memory_bytes=7, interruptions=1)
    then = Costs(seconds=1, cpu_s=1, wire_bytes=3, wire_bytes_by_site={"a": 1, "b": 2}, peak_memory_bytes=9)
    assert added(first, then) == Costs(
        seconds=11,
        cpu_s=9,
        wire_bytes=8,
        wire_bytes_by_site={"a": 6, "b": 2},
        peak_memory_bytes=9,
        energy_j=None,
        interruptions=1,
    )


def test_an_energy_counter_that_ran_over_goes_on(tmp_path: Path) -> None:
    (tmp_path / "max_energy_range_uj").write_text("1000000")
    assert spent_j({tmp_path: 100_000}, {tmp_path: 600_000}) == 0.5
    assert spent_j({tmp_path: 900_000}, {tmp_path: 400_000}) == 0.5
    assert spent_j({}, {}) is None


# --- executors ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lost(tmp_path: Path) -> tuple[Places, CellTask]:
    """Return a planned classifier whose site has no home: making it fails at once."""
    places, cell = Places(tmp_path / "out"), grid(asked(tmp_path), ground())[0]
    places.put_plan(cell)
    return places, make(cell)


@pytest.mark.timeout(180)
def test_a_cluster_s_job_answers_like_a_process_of_this_machine(lost: tuple[Places, CellTask]) -> None:
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    places, task = lost
    told = []
    for executor in (LocalProcesses(places, 1), Slurm(places, 1, {"cluster": "local", "timeout_min": 2}, poll_s=0.1)):
        assert executor.has_room(task)
        executor.begin(task)
        assert not executor.has_room(task)
        told.append(executor.wait())
        executor.close()
    assert all(isinstance(one, Failed) for one in told)
    assert len({one.error.what for one in told if isinstance(one, Failed)}) == 1
    assert "site.toml does not exist" in told[0].error.what


def test_a_machine_without_slurm_is_told_apart_from_one_with(lost: tuple[Places, CellTask]) -> None:
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    places, task = lost
    for options in ({}, {"cluster": "local", "timeout_mim": 2}):
        if options or not shutil.which("srun"):
            with pytest.raises(ConfigError, match="submitit does not take these"):
                Slurm(places, 1, options).begin(task)


def test_a_worker_that_dies_is_told_with_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("line 1\nline 2\n")
    error = died(-signal.SIGKILL, log)
    assert "line 2" in error.what
    assert "out of memory" in error.cause


def test_a_federation_has_room_where_all_its_sites_have(tmp_path: Path) -> None:
    cells = grid(asked(tmp_path, 'starts = ["ssl", "csfssl"]'), ground())
    tasks = {task.cell.start: task for task in map(make, cells) if task.cell.kind == "encoder"}
    assert LocalProcesses(Places(tmp_path), 1).has_room(
        tasks["csfssl"]
    )  # goes alone where there is less room than it has sites
    one_busy = LocalProcesses(Places(tmp_path), 2)
    one_busy._workers.append(Busy(tasks["ssl"]))  # type: ignore[arg-type]
    assert not one_busy.has_room(tasks["csfssl"])
    assert one_busy.has_room(tasks["ssl"])


class Busy:
    """A worker at work."""

    def __init__(self, task: CellTask) -> None:
        self.task = task


def test_only_errors_of_one_cell_are_passed_by() -> None:
    assert passed_by(TrainingError("diverged"))
    assert not passed_by(StorageError("the disk is full"))
