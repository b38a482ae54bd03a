"""What the benchmarks of a federation compute from what they read, and the models that they move."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks.federations import Processes, Row, intervals_s
from benchmarks.payloads import RESNET50, SMALL, changed
from benchmarks.peers import PACKAGES, PeerMissing, averaged_at, averages, environment, variables
from benchmarks.readings import Reading, anonymous_bytes, cpu_seconds, families, parent_of, readable, use
from benchmarks.scale import no_room
from fedcervix.disk.files import digest_file
from fedcervix.models.weights import differences, read_layout, read_tensors


def test_a_resnet_50_is_as_long_as_its_parameters_and_statistics():
    """23,508,032 parameters without the last layer, 53,120 statistics, in float32."""
    assert RESNET50.size_bytes == 4 * (23_508_032 + 53_120)


def test_an_update_is_its_base_with_one_number_changed(tmp_path):
    SMALL.write(tmp_path / "base")
    digest = changed(tmp_path / "base", tmp_path / "update", 7.0)
    assert digest == digest_file(tmp_path / "update")
    assert differences(read_layout(tmp_path / "update"), read_layout(tmp_path / "base")) == []
    base, update = (read_tensors(tmp_path / name)["weight"] for name in ("base", "update"))
    assert update[0] == 7.0
    assert (update[1:] == base[1:]).all()


def test_what_was_used_is_between_two_moments_and_the_peak_is_of_all_time():
    readings = [
        Reading(1.0, {"coordinator": 1.0, "site": 0.5}, {"coordinator": 90}, 1000),
        Reading(2.0, {"coordinator": 1.5, "site": 0.75}, {"coordinator": 50}, 1600),
        Reading(3.0, {"coordinator": 4.0, "site": 0.75}, {}, 9000),  # the site has ended: it keeps what it used
    ]
    found = use(readings, 1.1, 2.2)
    assert found.cpu_s == {"coordinator": 0.5, "site": 0.25}
    assert found.wire_bytes == 2020  # 3080 of the second moment, 1060 of the first
    assert found.peak_bytes == {"coordinator": 90, "site": 0}


def test_a_process_is_read_from_outside():
    assert cpu_seconds(os.getpid()) > 0
    assert anonymous_bytes(os.getpid()) > 1 << 20


PARENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True).wait()"
CHILD = "import time; print('here', flush=True); time.sleep(60)"


def test_what_a_process_started_is_its_own_and_ends_with_the_block(tmp_path):
    """A session of its own does not hide it."""
    with Processes(tmp_path) as processes:
        process = processes.run("role", sys.executable, "-c", PARENT.format(child=CHILD))
        processes.until("role", lambda: len(processes.said("role")))
        [family] = families(processes.pids()).values()
        [root, child] = family
        assert root == process.pid
        assert parent_of(child) == root
    deadline_s = time.monotonic() + 10
    while readable(anonymous_bytes, (root, child)) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert readable(anonymous_bytes, (root, child)) == []
    assert families({"role": root}) == {"role": []}


def test_a_child_that_has_ended_is_in_its_parents_time(tmp_path):
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
    assert cpu_seconds(os.getpid()) - before >= 0.05


@pytest.mark.parametrize("peer", PACKAGES)
def test_a_framework_that_is_missing_names_the_command_that_installs_it(tmp_path, peer):
    command = f"python -m benchmarks.peers {peer}"
    with pytest.raises(PeerMissing, match=f"{command} FOLDER"):
        environment(peer, None)
    with pytest.raises(PeerMissing, match=f"{command} {tmp_path}"):
        environment(peer, tmp_path)


def test_a_framework_finds_its_own_programs_and_nothing_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "ours")
    found = variables(tmp_path, QUIET="1")
    assert found["PATH"].startswith(f"{tmp_path / 'bin'}:")
    assert found["QUIET"] == "1"
    assert "PYTHONPATH" not in found


def test_averages_are_whole_lines(tmp_path):
    assert averages(tmp_path / "averaged") == []
    (tmp_path / "averaged").write_text("10.5 0.25\n12.25 1.25\n17.")
    assert averages(tmp_path / "averaged") == [(10.5, 0.25), (12.25, 1.25)]


def test_an_average_in_which_an_update_is_missing_is_an_error(tmp_path):
    (tmp_path / "averaged").write_text("10.5 0.25\n12.25 0.75\n")
    with pytest.raises(RuntimeError, match="not one more"):
        averages(tmp_path / "averaged")


def test_a_server_that_ends_before_its_last_average_is_an_error_with_what_it_said(tmp_path):
    (tmp_path / "averaged").write_text("10.5 0.25\n")
    with Processes(tmp_path) as processes:
        processes.run("coordinator", sys.executable, "-c", "print('no more')").wait()
        assert averaged_at(tmp_path / "averaged", 1, processes, "coordinator") == [10.5]
        with pytest.raises(RuntimeError, match="no average after 1 of 2:\nno more"):
            averaged_at(tmp_path / "averaged", 2, processes, "coordinator")


def test_a_round_is_from_one_average_to_the_next():
    assert intervals_s([1.0, 1.5, 3.0]) == pytest.approx([0.5, 1.5])


def test_a_row_for_which_the_disk_has_no_room_says_so():
    row = Row(RESNET50, 64, 4)
    assert row.name == "ResNet-50/64"
    assert no_room(row, 10**9, 200 * 10**9) == ""
    assert no_room(row, 10**9, 50 * 10**9) == "needs 76 GB of disk, 50 GB are free"
