"""Build sdist and wheel so that everyone who builds one commit gets the same bytes.

Rules
1. What is built is a commit, never the folder in which somebody works: files that git does not know never get in.
2. The time in the archives is the commit's, or `SOURCE_DATE_EPOCH` where that is set.
3. No network: hatchling is called as it is installed. Its version stands in the wheel, so `deploy/constraints/dev.txt`
   is part of what makes two builds equal.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from fedcervix.errors import ConfigError
from tools.programs import ROOT, run

FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""how an archive of ours is unpacked; Pythons before 3.11.4 have no filters"""


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S607


def moment_s() -> int:
    """Return the time that the release's archives hold, in seconds since 1970."""
    return int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct"))


def export(folder: Path) -> None:
    """Write the files of the last commit into a folder.

    Raises:
        ConfigError: files of the checkout differ from the commit.

    """
    if changed := _git("status", "--porcelain").decode().splitlines():
        raise ConfigError(
            f"{len(changed)} files are not as in the last commit, the first is {changed[0][3:]}",
            cause="a release is made of a commit, so that others can build the same",
            next_step="commit them, or put them aside: git stash --include-untracked",
        )
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "HEAD"))) as archive:
        archive.extractall(folder, **FILTER)  # noqa: S202 (a commit of ours)


def build(source: Path, to: Path, epoch_s: int) -> Path:
    """Build sdist and wheel of the tree `source` into the folder `to`; return the wheel."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(to.absolute())]
    run(command, source, silent=True, SOURCE_DATE_EPOCH=str(epoch_s))
    [wheel] = to.glob("*.whl")
    return wheel


def pack(folder: Path, archive: Path, epoch_s: int) -> None:
    """Write a folder into a tar archive below its own name: in order, without owners, all of one time."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        entry.mtime = epoch_s
        return entry

    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as packed:
        packed.add(folder, arcname=folder.name, filter=plain)  # tarfile adds the entries of a folder in order
