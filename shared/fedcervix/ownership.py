"""Why this user may not use a file: who owns it, and who asks. For the three lines of a permission error."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def denied(path: Path) -> tuple[str, str]:
    """Return (likely cause, next step) for a file or folder that this user may not use.

    It names the folder or file that blocks the way, its owner, and the user who asks.
    """
    blocking, me = _blocking(path), user_name(os.geteuid())
    try:
        owner = user_name(blocking.stat().st_uid)
    except OSError:
        return f"user {me} may not use {blocking}", f"run the command as the user who owns it: ls -ld {blocking}"
    if owner == me:
        return (
            f"its owner {me} may not read or write {blocking}, or the file system is read-only",
            f"check its permissions (ls -ld {blocking}), and whether the file system is mounted read-only (mount)",
        )
    return (
        f"{blocking} belongs to user {owner}; this command runs as user {me}",
        f"run the same command as {owner}, in a shell from: sudo -H -u {owner} bash",
    )


def _blocking(path: Path) -> Path:
    """Return the folder on the way that may not be entered; where all may be, the path itself or its folder."""
    absolute = path.absolute()
    effective = os.access in os.supports_effective_ids
    for folder in reversed(absolute.parents):
        if not os.access(folder, os.X_OK, effective_ids=effective):
            return folder
    return absolute if absolute.exists() else absolute.parent


def user_name(uid: int) -> str:
    """Return a user's name, or its number where it has none (as in many containers)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
