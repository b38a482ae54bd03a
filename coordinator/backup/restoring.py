"""`coordinator restore`: a home of a backup file, complete or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from coordinator.backup.archive import Label, reading
from coordinator.home.home import Home
from fedcervix.disk.files import FOLDER_MODE, aside, make_folder, sync_path
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError

NOT_OURS = ("lost+found",)
"""what a file system makes in its own top folder"""


def restore(home: Home, source: Path) -> Label:
    """Make the home of a backup file, and return what the file says of itself. Raises ConfigError, StorageError."""
    _check_empty(home.folder)
    with reading(source) as archive, _unfinished(home) as folder:
        new, label = Home(folder), archive.label
        files = (new.config_file, new.registry, new.journal)
        folders = (new.key_file(""), new.blobs, new.results, new.decisions, new.paces)
        with disk(home.folder, "write"):
            archive.unpack(folder, files={path.name for path in files}, folders={path.name for path in folders})
        needed = [new.config_file, new.key_file("authority.key"), new.key_file("authority.crt")]
        for path in [*needed, new.journal] if label.run else needed:
            if not path.is_file():
                raise ValueError(f"it has no {path.relative_to(folder)}")
    return label


def _check_empty(folder: Path) -> None:
    with disk(folder, "read"):
        taken = folder.exists() and (not folder.is_dir() or any(one.name not in NOT_OURS for one in folder.iterdir()))
    if taken:
        raise ConfigError(
            f"{folder} is not empty: nothing was restored",
            cause="a backup becomes a home of its own; it is never mixed with what is there",
            next_step="move the folder away, or give another one with --home",
        )


@contextlib.contextmanager
def _unfinished(home: Home) -> Iterator[Path]:
    """Yield a new folder whose content becomes the home's if the block ends well; it goes if the block does not.

    It has a random name, and nobody has made it before: it is no link of another user. Where the home's folder is there
    already, it lies within: that may be the top of a file system, which has no other name.
    """
    there = home.folder.is_dir()
    make_folder(home.folder.parent)
    new = aside(home.folder / "home" if there else home.folder)
    with disk(home.folder, "write"):
        new.mkdir(FOLDER_MODE)
    try:
        yield new
        with disk(home.folder, "write"):
            if there:
                _move_up(new, last=home.config_file.name)
            else:
                new.rename(home.folder)
            sync_path(home.folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _move_up(folder: Path, *, last: str) -> None:
    """Move what a folder holds to the folder above it; without the file `last`, no home is complete. Raises OSError."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
        path.rename(folder.parent / path.name)
        sync_path(folder.parent)
