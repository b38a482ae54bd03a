"""How much memory may still be taken."""

import os

from site_agent.data.memory import _meminfo, available_bytes


def test_some_of_the_machines_memory_is_available() -> None:
    assert 0 < available_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_machine_says_what_is_available() -> None:
    assert _meminfo("MemTotal:  200 kB\nMemAvailable:     100 kB\n") == 102_400
    assert _meminfo("") is None  # another system
