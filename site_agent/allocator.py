"""How the C library hands out memory while a network trains on a CPU.

A step frees its activations and the next one asks for the same again. By default glibc gives blocks above 32 MB back to
the system each time, and the system clears every page anew: measured, 12 to 35 % of a step at large batches.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX"""
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for the next step. Returns whether its C library can do that (glibc).

    The price: the process stays as large as its largest moment, and somewhat larger than that (see docs/benchmarks.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(mallopt(_MMAP_MAX, 0))
