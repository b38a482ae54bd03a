"""What the benchmarks of a federation compute from what they read, and the models that they move."""

from __future__ import annotations

import os

import pytest

from benchmarks.federations import Row, intervals_s
from benchmarks.payloads import RESNET50, SMALL, changed
from benchmarks.readings import Reading, anonymous_bytes, cpu_seconds, use
from benchmarks.scale import no_room
from fedcervix.weights import differences, digest_file, read_layout, read_tensors


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


def test_a_round_is_from_one_average_to_the_next():
    assert intervals_s([1.0, 1.5, 3.0]) == pytest.approx([0.5, 1.5])


def test_a_row_for_which_the_disk_has_no_room_says_so():
    row = Row(RESNET50, 64, 4)
    assert row.name == "ResNet-50/64"
    assert no_room(row, 10**9, 200 * 10**9) == ""
    assert no_room(row, 10**9, 50 * 10**9) == "needs 76 GB of disk, 50 GB are free"
