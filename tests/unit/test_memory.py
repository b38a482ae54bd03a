"""How much memory may still be taken."""

import os
from pathlib import Path

from site_agent.data.memory import _left, _meminfo, available_bytes


def test_some_of_the_machines_memory_is_available() -> None:
    assert 0 < available_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_machine_says_what_is_available() -> None:
    assert _meminfo("MemTotal:  200 kB\nMemAvailable:     100 kB\n") == 102_400
    assert _meminfo("") is None  # another system


def test_a_limited_service_has_what_its_limit_leaves_where_cached_files_do_not_count(tmp_path: Path) -> None:
    assert _left(tmp_path) is None  # there is no such group
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 100\n")
    assert _left(tmp_path) is None  # there is no limit
    (tmp_path / "memory.max").write_text("1000\n")
    assert _left(tmp_path) == 500
    (tmp_path / "memory.max").write_text("400\n")
    assert _left(tmp_path) == 0
