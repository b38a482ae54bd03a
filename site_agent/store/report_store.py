"""The folders of the site's reports: one for each time that `evaluate` ran. None is ever overwritten.

    reports/20261129-172755-csfssl/   report.html, clinical.html, results.json, predictions.csv, women.csv
    reports/latest                    a link to the newest one

Rules
1. A report appears whole or not at all: it is written into a hidden folder, which is then renamed.
2. Folders are 0700 and files 0600, whatever the umask: they hold images and name patients.
3. The names begin with the time in UTC. `latest` is for people; programs ask `newest`, which needs no link.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import re
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from fedcervix.disk.files import FOLDER_MODE, in_place_of, write_secret
from fedcervix.disk.storage import disk

PAGE_FILE = "report.html"
CLINICAL_FILE = "clinical.html"
RESULTS_FILE = "results.json"
PREDICTIONS_FILE = "predictions.csv"
WOMEN_FILE = "women.csv"
LATEST = "latest"

FOLDER = re.compile(r"\d{8}-\d{6}-.+")
TIME_CHARS = len("20261129-172755")
MAKING = ".making-"
TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
"""what a system says where a folder of that name exists already"""
SAME_SECOND_MAX = 1000
"""reports of one name within one second"""


def publish(reports: Path, name: str, now: datetime, files: Mapping[str, bytes]) -> Path:
    """Write a report's files (name -> content) into a new folder; return it. `now` is in UTC. Raises StorageError."""
    with disk(reports, "write"):
        reports.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        reports.chmod(FOLDER_MODE)
        making = Path(tempfile.mkdtemp(prefix=MAKING, dir=reports))  # 0700
    try:
        for file, content in files.items():
            write_secret(making / file, content)
        with disk(reports, "write"):
            folder = _rename(making, reports / f"{now:%Y%m%d-%H%M%S}-{name}")
    finally:
        shutil.rmtree(making, ignore_errors=True)  # what was renamed is not there any more
    _point(reports / LATEST, folder.name)
    return folder


def all_reports(reports: Path) -> list[Path]:
    """Return the folders of all reports, oldest first."""
    found = reports.iterdir() if reports.is_dir() else iter(())
    folders = [folder for folder in found if FOLDER.fullmatch(folder.name) and folder.is_dir()]
    return sorted(folders, key=lambda folder: (folder.name[:TIME_CHARS], folder.stat().st_mtime_ns))


def newest(reports: Path) -> Path | None:
    """Return the folder of the newest report."""
    return next(reversed(all_reports(reports)), None)


def _rename(making: Path, wanted: Path) -> Path:
    """Rename a folder to a name that is free: the wanted one, or with a number behind it. Raises OSError."""
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            return making.rename(folder)
        except OSError as error:
            if error.errno not in TAKEN or number == SAME_SECOND_MAX:
                raise
    raise AssertionError


def _point(link: Path, target: str) -> None:
    """Let the link name the newest report. A file system without links goes without."""
    if link.exists() and not link.is_symlink():
        return  # someone's own file
    with contextlib.suppress(OSError), in_place_of(link) as new:
        new.symlink_to(target, target_is_directory=True)
