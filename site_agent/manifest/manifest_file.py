"""The manifest as a file: why it cannot be read is said in one place, whoever reads it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from fedcervix.disk.descriptors import check_used_up
from fedcervix.disk.ownership import made_readable
from fedcervix.errors import DataError
from site_agent.manifest.classes import BINARY, Classes
from site_agent.manifest.reading import Manifest, parse
from site_agent.manifest.spreadsheet import decode_text


def read_manifest(
    file: Path, ignore_columns: Collection[str] = (), covariates: Sequence[str] = (), classes: Classes = BINARY
) -> Manifest:
    """Return what a manifest lists; no image is opened. Raises DataError."""
    try:
        content = file.read_bytes()
    except OSError as error:
        check_used_up(f"the manifest {file} cannot be read", error)
        cause, next_step = _unread(file, error)
        raise DataError(
            f"the manifest {file} cannot be read: {error.strerror}", cause=cause, next_step=next_step
        ) from error
    return parse(decode_text(content, file.name), file.name, ignore_columns, covariates, classes)


def _unread(file: Path, error: OSError) -> tuple[str, str]:
    """Return the likely cause and the next step."""
    if isinstance(error, PermissionError):
        return made_readable(file)
    is_folder = isinstance(error, IsADirectoryError)
    return (
        "the path names a folder; the manifest is a file in it"
        if is_folder
        else "the path is wrong, or its disk is not mounted",
        "give the path of the CSV file that lists the images",
    )
