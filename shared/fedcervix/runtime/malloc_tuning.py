"""Settings of the C library's memory allocation: for a site that trains, for a coordinator, and for its page.

A step of training frees its activations and the next one asks for the same again. By default glibc gives blocks above
32 MB back to the system each time, and the system clears every page anew: measured, 12 to 35 % of a step at large
batches.

A coordinator has a thread for every call, and glibc gives threads arenas of their own, each of which stays as large as
its largest moment: measured with eight sites that upload at once, 211 MB in place of 143.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX"""
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for the next step. Returns whether its C library can do that (glibc).

    The price: the process stays as large as its largest moment, and somewhat larger than that (see docs/benchmarks.md).
    """
    return _set(_TRIM_THRESHOLD, _NEVER) and _set(_MMAP_MAX, 0)


def share_memory_among_threads() -> bool:
    """Let all threads take from one arena, so that one uses what another freed. Returns whether it can (glibc).

    To be called before the process has threads: they keep the arenas that they have.
    """
    return _set(_ARENA_MAX, 1)


def give_back_freed_memory() -> bool:
    """Give what this process has freed back to the system. Returns whether there was any (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    return bool(trim and trim(0))


def _set(parameter: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(parameter, value))
