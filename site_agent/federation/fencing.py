"""Which process of this site's agent this is. The coordinator listens to one; see docs/wire.md.

Rules
1. Each process draws a token and writes it down before it says it; so the next one knows whom it succeeds.
2. A copied home folder succeeds nobody: the number that the file system gives the folder stands beside the tokens. Or
   agents on a home folder and on its copy would take turns in fencing each other out.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from fedcervix.core.formats import contents
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import disk, read_kept
from fedcervix.errors import FullDiskError
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json, to_text
from fedcervix.transport.codec import SUCCEEDS_MAX, InstanceClaim
from site_agent.home import SiteHome

FILE_BYTES = 1024
"""of the file, filled up with blanks: more than all tokens take"""


@dataclass(frozen=True, slots=True)
class _Known:
    """The file: the inode number of the home folder, and the processes that have acted for the site, newest first."""

    folder: int
    instances: tuple[str, ...]


def succeed(home: SiteHome) -> InstanceClaim:
    """Return this process's claim to act for the site. The home folder is locked. Raises StorageError."""
    next_step = f"rm {home.instances}; the coordinator accepts this agent when the earlier one has disconnected"
    token, folder = secrets.token_hex(16), home.folder.stat().st_ino

    def claimed(content: bytes) -> InstanceClaim:
        known = from_json(_Known, contents("the list of processes", parsed(content)), extra="ignore")
        return InstanceClaim(token, known.instances if known.folder == folder else ())

    claim = read_kept(home.instances, claimed, missing=InstanceClaim(token), next_step=next_step)
    known = _Known(folder, (claim.instance, *claim.succeeds)[:SUCCEEDS_MAX])
    _write(home.instances, to_text(known).encode())
    return claim


def _write(path: Path, known: bytes) -> None:
    """Write whole; on a full disk in place, where a file of this length needs no room that it does not have.

    Where there was no file yet it stays unwritten: the process after this one then has to wait for a lease.
    """
    data = known.ljust(FILE_BYTES)
    try:
        write_whole(path, data)
    except FullDiskError:
        if path.exists():
            with disk(path, "write"), path.open("r+b", buffering=0) as file:
                file.write(data)
                os.fsync(file.fileno())
