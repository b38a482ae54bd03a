"""Why this user may not use a file, for the three lines of a permission error; and which other users may write."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import stat
from pathlib import Path

from fedcervix.errors import RunError


def denied(path: Path, *, writing: bool = False) -> tuple[str, str]:
    """Return (likely cause, next step) for a file or folder that this user may not use.

    It names the folder or file that blocks the way, its owner, and the user who asks. Nobody is sent to work as root: a
    home that root has made is closed to the account of the service.
    """
    blocking, me = _blocking(path), user_name(os.geteuid())
    try:
        owner = blocking.stat().st_uid
    except OSError:
        return (
            f"user {me} has no permission for {blocking}",
            f"run the command as the user who owns it: ls -ld {blocking}",
        )
    if owner == os.geteuid():
        return (
            f"its owner {me} has no permission to read or write {blocking}, or the file system is read-only",
            f"check its permissions (ls -ld {blocking}), and whether the file system is mounted read-only (mount)",
        )
    cause = f"{blocking} belongs to user {user_name(owner)}; this command runs as user {me}"
    if owner != 0:
        return cause, f"run the same command as {user_name(owner)}, in a shell from: sudo -H -u {user_name(owner)} bash"
    named = shlex.quote(str(path))
    if writing:
        return cause, f"name a folder that user {me} can write, or make it for {me}: sudo install -d -o {me} {named}"
    return cause, f"give user {me} a copy, in a folder of theirs: sudo install -o {me} -m 0600 {named} FOLDER/"


def made_readable(path: Path) -> tuple[str, str]:
    """Return (likely cause, next step) for a manifest or an image that this user may not read.

    It stays where it is: its owner lets the account of this program read it.
    """
    blocking, me = _blocking(path), user_name(os.geteuid())
    grant = f"setfacl -m u:{me}:{'x' if blocking.is_dir() else 'r'} {shlex.quote(str(blocking))}"
    return (
        f"user {me}, who runs this command, has no permission for {blocking}",
        f"let its owner make the files readable for user {me} (with a group, or: {grant})",
    )


def _blocking(path: Path) -> Path:
    """Return the folder on the way that may not be entered, links resolved; else the path itself or its folder."""
    real = Path(os.path.realpath(path))
    effective = os.access in os.supports_effective_ids
    for folder in reversed(real.parents):
        if not os.access(folder, os.X_OK, effective_ids=effective):
            return folder
    return real if os.path.lexists(real) else real.parent


def open_to_others(folder: Path) -> tuple[Path, str] | None:
    """Return (a folder, who else may put another file in the place of one in `folder`); None where nobody may.

    It looks at the folder and at those above it, links resolved. A sticky folder (/tmp) is no danger: there nobody
    replaces the file of another. Nor is a group that has no other member, or root. Access lists are not looked at.
    """
    place = folder.resolve()
    for above in (place, *place.parents):
        if (who := _who_else_writes(above)) is not None:
            return above, who
    owner = place.stat().st_uid
    return None if owner in _trusted() else (place, f"user {user_name(owner)}, who owns the folder,")


def check_private(home: Path, next_step: str) -> None:
    """Raise RunError where another user could replace what a home folder will hold; else make one that is there 0700.

    Raises OSError.
    """
    there = next(place for place in (home, *home.parents) if place.exists())
    if (found := open_to_others(there)) is not None:
        folder, who = found
        raise RunError(
            f"{who} can replace files in {folder}: no home was made there",
            cause="a home holds secret keys and the configuration: nobody else may write to it",
            next_step=f"chmod go-w {shlex.quote(str(folder))}, {next_step}",
        )
    if there == home and home.stat().st_uid == os.geteuid():
        home.chmod(0o700)


def _who_else_writes(folder: Path) -> str | None:
    found = folder.stat()
    if found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & stat.S_IWOTH:
        return "every user of this machine"
    if found.st_mode & stat.S_IWGRP and found.st_gid != 0 and not _is_own_group(found.st_gid):
        return f"group {_group_name(found.st_gid)}"
    return None


def _trusted() -> set[int]:
    """Return whose folder may hold a secret of this user: their own, root's, and that of who called sudo."""
    called = os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""
    return {0, os.geteuid(), *([int(called)] if called.isdecimal() else [])}


def _is_own_group(gid: int) -> bool:
    """Say whether a group is that of one user alone, one of `_trusted`, as many systems make one for each user."""
    users = [known for uid in _trusted() if (known := _user(uid)) is not None]
    with contextlib.suppress(KeyError):
        own = any(user.pw_gid == gid and user.pw_name == grp.getgrgid(gid).gr_name for user in users)
        return own and set(grp.getgrgid(gid).gr_mem) <= {user.pw_name for user in users}
    return False


def _user(uid: int) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid)
    return None


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def user_name(uid: int) -> str:
    """Return a user's name, or its number where it has none (as in many containers)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
