"""What the groups of a process (cgroups, version 1 and 2) leave it."""

from __future__ import annotations

import os
from pathlib import Path

from fedcervix.runtime.cgroups import GroupLimits, group_limits


def made(root: Path, groups: str, files: dict[str, str]) -> GroupLimits:
    """Return the limits that a machine with these files states."""
    for name, text in {"proc/7/cgroup": groups, **{f"sys/fs/cgroup/{n}": t for n, t in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return group_limits(7, root)


def test_without_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert group_limits(7, tmp_path) == GroupLimits()
    assert made(
        tmp_path, "0::/a\n", {"a/memory.max": "max\n", "a/memory.current": "1\n", "a/cpu.max": "max 100000\n"}
    ) == (GroupLimits())


def test_the_lowest_limit_of_a_group_and_those_above_it_counts(tmp_path: Path) -> None:
    found = made(
        tmp_path,
        "0::/a.slice/b.service\n",
        {
            "a.slice/memory.max": "2000\n",
            "a.slice/memory.current": "1900\n",
            "a.slice/pids.max": "10\n",
            "a.slice/pids.current": "12\n",
            "a.slice/b.service/memory.max": "1000\n",
            "a.slice/b.service/memory.current": "600\n",
            "a.slice/b.service/memory.stat": "anon 500\ninactive_file 100\n",
            "a.slice/b.service/cpu.max": "150000 100000\n",
        },
    )
    assert found == GroupLimits(1000, 100, 1.5, 0)


def test_version_1_is_read_too_where_no_limit_is_a_very_large_number(tmp_path: Path) -> None:
    groups = "4:cpu,cpuacct:/docker/ab\n3:memory:/docker/ab\n2:pids:/docker/ab\n"
    files = {  # a container sees its own group as the root
        "memory/memory.limit_in_bytes": "1000\n",
        "memory/memory.usage_in_bytes": "600\n",
        "memory/memory.stat": "cache 100\ntotal_inactive_file 100\n",
        "cpu/cpu.cfs_quota_us": "200000\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "pids/pids.max": "100\n",
        "pids/pids.current": "40\n",
    }
    assert made(tmp_path, groups, files) == GroupLimits(1000, 500, 2.0, 60)
    free = {
        "memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        "cpu/cpu.cfs_quota_us": "-1\n",
        "pids/pids.max": "max\n",
    }
    assert made(tmp_path, groups, free) == GroupLimits()


def test_a_group_outside_of_what_a_container_sees_is_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/memory.max").parent.mkdir(parents=True)
    (tmp_path / "sys/fs/memory.max").write_text("1\n")
    (tmp_path / "sys/fs/memory.current").write_text("1\n")
    assert made(tmp_path, "0::/../other\n", {}) == GroupLimits()


def test_this_process_can_be_asked() -> None:
    found = group_limits(os.getpid())
    assert found.processors is None or found.processors > 0
