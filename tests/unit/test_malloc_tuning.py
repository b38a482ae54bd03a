"""Memory that was freed is used again: by the next step of a training, by the other threads of a coordinator."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PAGES_OF_A_STEP = 4 * 64 * 256
STEPS = """
import resource, sys
import torch
from fedcervix.runtime.malloc_tuning import keep_freed_memory

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

ARENAS = """
import ctypes, os, sys, tempfile, threading
from fedcervix.runtime.malloc_tuning import share_memory_among_threads

if sys.argv[1] == "share":
    assert share_memory_among_threads()
c = ctypes.CDLL(None)
c.malloc.restype = c.fdopen.restype = ctypes.c_void_p
met = threading.Barrier(4)

def take():
    met.wait()
    assert c.malloc(100_000)
    met.wait()

threads = [threading.Thread(target=take) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
with tempfile.TemporaryFile() as file:
    stream = ctypes.c_void_p(c.fdopen(os.dup(file.fileno()), b"w"))
    assert c.malloc_info(0, stream) == 0
    c.fclose(stream)
    file.seek(0)
    print(file.read().count(b"<heap "))
"""


def printed(program: str, mode: str) -> list[int]:
    """Run a program in a fresh process; return the numbers that it prints."""
    command = [sys.executable, "-c", program, mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [int(line) for line in done.stdout.split()]


def pages_cleared(mode: str) -> list[int]:
    """Return how many pages the system made for each of six equal steps, in a fresh process."""
    return printed(STEPS, mode)


needs_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library: memory is handed out its own way"
)


@needs_glibc
def test_memory_that_was_freed_is_not_cleared_again() -> None:
    first, *_, last = pages_cleared("keep")
    assert first > PAGES_OF_A_STEP / 2
    assert last < PAGES_OF_A_STEP / 100
    assert pages_cleared("as it comes")[-1] > PAGES_OF_A_STEP / 2, "the C library does it by itself by now"


@needs_glibc
def test_threads_take_from_one_arena() -> None:
    assert printed(ARENAS, "share") == [1]
    assert printed(ARENAS, "as it comes") > [1], "the C library does it by itself by now"
