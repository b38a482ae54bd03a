"""Starts a program that ends when its parent process ends.

    python -m fedcervix.runtime.parent_death PARENT PROGRAM ...

Linux sends it SIGTERM when its parent dies, however that dies. So a study that is killed leaves no federation behind.
On other systems the end of a process's input must do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""of Linux's prctl(2); it outlasts exec"""


def end_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Have this process sent a signal when the one that started it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def main() -> None:
    """Become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    end_with_parent()
    if os.getppid() != parent:
        sys.exit(f"{program[0]}: the process that started it has ended")
    os.execv(program[0], program)  # noqa: S606  (no shell: an argument list of ours)


def leashed(program: list[str]) -> list[str]:
    """Return the command line that starts a program on a leash of this process. Call it from the main thread.

    Linux counts the death of the thread that started it.
    """
    return [sys.executable, "-m", "fedcervix.runtime.parent_death", str(os.getpid()), *program]


if __name__ == "__main__":
    main()
