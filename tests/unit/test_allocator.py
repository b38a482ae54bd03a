"""Memory that a training step frees is there for the next one, without the system clearing it again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PAGES_OF_A_STEP = 4 * 64 * 256
STEPS = """
import resource, sys
import torch
from site_agent.allocator import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step(depth):  # activations of 64 MB, kept on the way in and freed on the way out
    if depth:
        activation = torch.ones(64 << 20, dtype=torch.uint8)
        step(depth - 1)
        del activation

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(6):
    before = faults()
    step(4)
    print(faults() - before)
"""


def pages_cleared(mode: str) -> list[int]:
    """Return how many pages the system made for each of six equal steps, in a fresh process."""
    command = [sys.executable, "-c", STEPS, mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: memory is handed out its own way")
def test_memory_that_was_freed_is_not_cleared_again() -> None:
    first, *_, last = pages_cleared("keep")
    assert first > PAGES_OF_A_STEP / 2
    assert last < PAGES_OF_A_STEP / 100
    assert pages_cleared("as it comes")[-1] > PAGES_OF_A_STEP / 2, "the C library does it by itself by now"
