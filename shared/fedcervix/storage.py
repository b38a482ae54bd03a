"""What the operating system says of a disk, as errors of ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from fedcervix.errors import FullDiskError, StorageError
from fedcervix.ownership import denied

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk(path: Path | str, verb: Literal["read", "write", "use"]) -> Iterator[None]:
    """Translate an OSError into a StorageError that says what to do: a FullDiskError where there is no room."""
    try:
        yield
    except OSError as error:
        what = f"cannot {verb} {path}: {error.strerror or error}"
        if error.errno in FULL:
            raise FullDiskError(
                what,
                cause="the disk is full",
                next_step=f"free some space (df -h {Path(path).parent}); nothing was lost",
            ) from error
        if isinstance(error, PermissionError):
            cause, next_step = denied(Path(error.filename if isinstance(error.filename, str) else path))
            raise StorageError(what, cause=cause, next_step=next_step) from error
        raise StorageError(
            what,
            cause="the file or its folder is missing, or the disk does not answer",
            next_step=f"check the path: ls -ld {path}",
        ) from error
