"""Record files of models and classifiers: JSON with a checksum, so that a damaged or edited one is noticed.

The checksum does not prevent forgery. It prevents that a damaged or edited number looks like a measured one.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedcervix.core.formats import UnknownFormat, contents
from fedcervix.disk.files import write_secret
from fedcervix.disk.storage import INSTALL, LATER
from fedcervix.errors import ModelError
from fedcervix.json_text import parsed

CHECKSUM = "checksum"


def write_record(file: Path, record: dict[str, object]) -> None:
    """Write a record with its checksum, whole or not at all (0600). Raises StorageError."""
    plain = parsed(json.dumps(record, allow_nan=False))
    write_secret(file, json.dumps({**plain, CHECKSUM: _checksum(plain)}, indent=1, allow_nan=False).encode())


def read_record(file: Path, *, what: str, next_step: str) -> dict[str, object]:
    """Return a record without its checksum. Raises ModelError, naming `what` and the file, where it is not whole."""
    if not file.parent.is_dir():
        raise ModelError(
            f"there is no {what} {file.parent.name}: {file.parent} is not a folder",
            cause="the name is misspelt, or it was not made yet",
            next_step=next_step,
        )
    try:
        record = parsed(file.read_text("utf-8"))
        contents(f"the {what}", record)
        _check(record)
    except (OSError, ValueError) as error:
        raise damaged(file, error, what=what, next_step=next_step) from error
    return {key: value for key, value in record.items() if key != CHECKSUM}


def _check(record: Any) -> None:
    """Raise ValueError unless a record is the one that was written."""
    if not isinstance(record, dict) or CHECKSUM not in record:
        raise ValueError("no checksum: written by an earlier version, or edited")
    if record[CHECKSUM] != _checksum({key: value for key, value in record.items() if key != CHECKSUM}):
        raise ValueError("it was changed after it was written")


def unknown(what: str, name: str, existing: Sequence[str], *, use: str, make: str) -> ModelError:
    """Return the error for a name of a model or classifier (`what`) that none has.

    `use` is the command with a name that is near in place of NAME, `make` the one that makes it.
    """
    near = difflib.get_close_matches(name, existing, n=1)
    return ModelError(
        f"there is no {what} {name}",
        cause=f"the {what}s here: {', '.join(existing)}" if existing else "none was made here yet",
        next_step=use.replace("NAME", near[0]) if near else make,
    )


def damaged(file: Path, error: Exception, *, what: str, next_step: str) -> ModelError:
    """Return the error for a record that is not valid; one of a later version is called so."""
    if isinstance(error, UnknownFormat):
        return ModelError(f"{file}: {error}", cause=LATER, next_step=INSTALL)
    return ModelError(
        f"{file} is not a valid record of a {what}: {error!s:.200}",
        cause="the file was damaged, edited by hand, or written by another version",
        next_step=next_step,
    )


def _checksum(record: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
