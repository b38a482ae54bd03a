"""`coordinator restore`: a home of a backup file, complete or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from coordinator.backup.archive import Label, reading, unpack
from coordinator.home.home import Home
from fedcervix.disk.files import FOLDER_MODE, aside, make_folder, sync_path
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError


def restore(home: Home, source: Path) -> Label:
    """Make the home of a backup file, and return what the file says of itself. Raises ConfigError, StorageError."""
    _check_empty(home.folder)
    allowed = (home.config_file, home.key_file(""), home.registry, home.journal, home.blobs, home.results)
    with reading(source) as (label, archive), _unfinished(home.folder) as folder:
        unpack(archive, folder, allowed=frozenset(path.name for path in allowed))
    return label


def _check_empty(folder: Path) -> None:
    with disk(folder, "read"):
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken:
        raise ConfigError(
            f"{folder} is not empty: nothing was restored",
            cause="a backup becomes a home of its own; it is never mixed with what is there",
            next_step="move the folder away, or give another one with --home",
        )


@contextlib.contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`, which takes its place if the block ends well, and goes if it does not.

    Its name is random, and nobody has made it before: it is no link of another user.
    """
    make_folder(folder.parent)
    new = aside(folder)
    with disk(folder, "write"):
        new.mkdir(FOLDER_MODE)
    try:
        yield new
        with disk(folder, "write"):
            new.rename(folder)
            sync_path(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
