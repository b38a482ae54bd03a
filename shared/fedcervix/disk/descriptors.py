"""The limit of open files and connections of a process, and the error when it is reached.

The system gives the same kind of error as for a missing file, so code that explains file errors asks here first. SQLite
does not even report that: it "cannot open" its file.
"""

from __future__ import annotations

import errno
import os
import resource

from fedcervix.errors import StorageError

RAISE = (
    "stop it and start it again with a higher limit: LimitNOFILE=65536 in its unit, ulimits nofile in its container, "
    "or `ulimit -n 65536`"
)
USED_UP = {
    errno.EMFILE: ("this process has reached its limit of open files and connections", RAISE),
    errno.ENFILE: (
        "this machine has reached its limit of open files and connections",
        "see which programs have them open (lsof -nP), or raise the limit: sysctl fs.file-max",
    ),
}
"""error number -> (likely cause, next step)"""


def raise_limit() -> int:
    """Let this process open as many files and connections as the system allows it; return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS: "unlimited" is more than it allows
        return soft
    return hard


def check_used_up(what: str, error: OSError) -> None:
    """Raise StorageError, which begins with `what`, if this is behind an error.

    Some libraries call every file missing that they cannot open: so it is tried.
    """
    found = USED_UP.get(error.errno or 0) or used_up()
    if found:
        raise StorageError(f"{what}: {error.strerror or error}", cause=found[0], next_step=found[1]) from error


def used_up() -> tuple[str, str] | None:
    """Return (likely cause, next step) where this process cannot open one more file; None where it can."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return USED_UP.get(error.errno or 0)
    return None
