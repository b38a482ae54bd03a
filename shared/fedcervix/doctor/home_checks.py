"""What is measured and decided of a home folder: who may use it, where it lies, and how much room it has."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fedcervix.disk.files import check_writable
from fedcervix.disk.locks import held
from fedcervix.disk.ownership import open_to_others, user_name
from fedcervix.doctor.findings import CheckWarning, Finding
from fedcervix.doctor.machine_checks import named, size
from fedcervix.errors import FullDiskError, StorageError

NETWORK = re.compile(r"nfs\d?|cifs|smb\d?|9p|ceph|glusterfs|lustre|afs|fuse\.(?:sshfs|glusterfs|s3fs|rclone)")
"""types of file systems that lie on another machine"""
FLEETING = ("tmpfs", "ramfs", "overlay")
"""types whose content goes with the machine's or the container's end"""
FILES_MIN = 2000
"""inodes: a run makes some hundred files"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFacts:
    """What is measured of a home folder."""

    folder: Path
    mode: int
    owner: int
    me: int
    """effective user id of this process"""
    replaceable: tuple[Path, str] | None = None
    """(a folder, who else may replace files there)"""
    file_system: str = ""
    """its type; empty where it is not known"""
    free_bytes: int
    free_files: int | None = None
    """inodes; None where the file system has no fixed number"""


def measure_folder(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> FolderFacts:
    """Return the facts of a folder. Raises OSError."""
    found, room = folder.stat(), os.statvfs(folder)
    return FolderFacts(
        folder=folder,
        mode=found.st_mode & 0o7777,
        owner=found.st_uid,
        me=os.geteuid(),
        replaceable=open_to_others(folder),
        file_system=file_system(folder.resolve(), _text(mounts)),
        free_bytes=room.f_bavail * room.f_frsize,
        free_files=room.f_favail if room.f_files else None,
    )


def check_home(folder: Path) -> None:
    """Raise StorageError where nothing can be written in a folder, or its file system has no locks."""
    check_writable(folder / "any")
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file, held(Path(file.name), busy=None):
        pass


def file_system(place: Path, mounts: str) -> str:
    """Return the type of the file system that a path lies on, by the text of /proc/PID/mountinfo (proc(5))."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5:
            continue
        mounted = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        if place.is_relative_to(mounted) and len(mounted.parts) >= best:
            best, kind = len(mounted.parts), after.split()[0]
    return kind


def permissions(facts: FolderFacts) -> Finding:
    """Say who else may read or change what is in a home."""
    folder, owner = facts.folder, user_name(facts.owner)
    if facts.owner != facts.me:
        return CheckWarning(
            f"{folder} belongs to user {owner}, and this command runs as user {user_name(facts.me)}",
            cause="files that this user makes there may be closed to the service",
            next_step=f"run the commands in a shell from: sudo -H -u {owner} bash",
        )
    if facts.replaceable is not None:
        place, who = facts.replaceable
        return CheckWarning(
            f"{who} can replace files in {place}, and so the keys and the configuration of this home",
            cause="a folder that others may write",
            next_step=f"chmod go-w {named(place)}",
        )
    if facts.mode & 0o077:
        return CheckWarning(
            f"other users of this machine may look into {folder} (mode {facts.mode:04o})",
            cause="it was made by hand, or copied",
            next_step=f"chmod 700 {named(folder)}",
        )
    return f"{folder} is {owner}'s alone"


def open_secrets(keys: Path) -> CheckWarning | None:
    """Return a warning where others may read a file in the folder of keys. Certificates are no secret; all else is."""
    found = [
        one for one in sorted(keys.glob("*")) if not {".crt", ".pub"} & {*one.suffixes} and one.stat().st_mode & 0o077
    ]
    if not found:
        return None
    return CheckWarning(
        "other users of this machine may read a secret key",
        cause="it was copied, written by hand, or restored from a backup that keeps no permissions",
        next_step=f"chmod 600 {' '.join(map(named, found))}",
    )


def place(facts: FolderFacts) -> Finding:
    """Say what kind of file system a home lies on."""
    kind = facts.file_system
    if NETWORK.fullmatch(kind):
        return CheckWarning(
            f"{facts.folder} lies on another machine ({kind}): databases and locks depend on the network there",
            cause="the folder is on a network share",
            next_step="put the home on a local disk; images may stay on the share",
        )
    if kind in FLEETING:
        return CheckWarning(
            f"{facts.folder} lies on a file system that is lost with the machine or the container ({kind})",
            cause="no disk or volume is mounted there",
            next_step=f"put the home on a disk, or in a volume: df -hT {named(facts.folder)} shows where it is",
        )
    return f"a local disk ({kind or 'its type is not known'})"


def room(facts: FolderFacts, needed_bytes: int, *, what: str) -> Finding:
    """Compare the free space, and the number of files that may still be made, with what is needed."""
    if facts.free_bytes < needed_bytes:
        return FullDiskError(
            f"{what} needs {size(needed_bytes)} at {facts.folder}; {size(facts.free_bytes)} are free",
            cause="the disk is too small, or something else fills it",
            next_step=f"free some space (df -h {named(facts.folder)}), or move the home folder to a larger disk",
        )
    if facts.free_files is not None and facts.free_files < FILES_MIN:
        return StorageError(
            f"only {facts.free_files:,} more files can be made on the disk of {facts.folder}",
            cause="very many small files use up the disk's list of files (inodes), though it has space",
            next_step=f"delete some of them: df -i {named(facts.folder)} counts them",
        )
    return f"{size(facts.free_bytes)} free; {what} needs {size(needed_bytes)}"


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="surrogateescape")
    except OSError:
        return ""
