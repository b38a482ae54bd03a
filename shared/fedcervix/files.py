"""How small files are written: whole or not at all, and secrets readable by their owner alone."""

from __future__ import annotations

import os
from pathlib import Path

from fedcervix.weights import disk


def write_whole(path: Path, data: bytes, *, mode: int = 0o644, sync: bool = True) -> None:
    """Write a file so that, whatever happens, either the old or the new content is there. Raises StorageError.

    Without `sync` a killed process changes nothing of that; a machine that loses its power within seconds may leave the
    old content, or on some file systems an empty file or one of zero bytes.
    """
    making = path.with_name(f".{path.name}.{os.getpid()}")
    with disk(path, "write"):
        try:
            descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as out:
                out.write(data)
                out.flush()
                if sync:
                    os.fsync(out.fileno())
            making.replace(path)
        except OSError:
            making.unlink(missing_ok=True)
            raise


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read (0600). Raises StorageError."""
    write_whole(path, data, mode=0o600)
