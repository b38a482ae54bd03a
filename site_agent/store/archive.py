"""How a model or a classifier is stored, and where the earlier one goes.

Nothing is overwritten: what stood in a folder is moved below history/, under its own path and the time it was made.
A folder is filled beside its place and renamed into it, so that it is there whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fedcervix.disk.files import digest_file, sync_path
from fedcervix.disk.storage import disk

HISTORY = "history"
STAMP = "%Y%m%dT%H%M%SZ"


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def install(home: Path, place: Path, fill: Callable[[Path], str], weights: str) -> None:
    """Fill a new folder and put it at `place`, below `home`; the earlier one goes into the history.

    `fill` writes a file named `weights`, among others, and returns its digest. An earlier folder with the same weights
    is not kept. Raises StorageError; the earlier one then stands at its place or in the history.
    """
    making = place.with_name(f".{place.name}.making")
    with disk(place, "write"):
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700, parents=True)
        digest = fill(making)
        same = (place / weights).exists() and digest_file(place / weights) == digest
        earlier = retire(home, place) if place.exists() else None
        making.rename(place)
        sync_path(place.parent)
        if earlier and same:
            shutil.rmtree(earlier)


def retire(home: Path, place: Path) -> Path:
    """Move a file or folder into the history; return where it is now. Raises StorageError."""
    with disk(place, "write"):
        made = datetime.fromtimestamp(place.stat().st_mtime, UTC)
        earlier = home / HISTORY / place.relative_to(home)
        target = _free(earlier.with_name(f"{earlier.stem}-{made.strftime(STAMP)}{earlier.suffix}"))
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.rename(target)
    return target


def _free(path: Path) -> Path:
    """Return the path, or with a number where it is taken."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def entries(folder: Path, record: str) -> list[Path]:
    """Return the folders below that hold a record, without those that are being filled; sorted by path."""
    found = (file.parent for file in folder.glob(f"**/{record}"))
    return sorted(place for place in found if not any(p.startswith(".") for p in place.relative_to(folder).parts))
