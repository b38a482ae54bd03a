"""Keys and certificates as files: one that is missing, empty or damaged is named before a library meets it.

An empty file of authorities would mean "those of the system" to the libraries of TLS, and a damaged key a line that
cannot be made.
"""

from __future__ import annotations

from pathlib import Path

from fedcervix.disk.storage import damaged, disk
from fedcervix.errors import ConfigError, IdentityError
from fedcervix.transport.identity import identify, public_key


def read_pem(file: Path, *, needed: str, next_step: str) -> bytes:
    """Return the key (*.key) or certificate in a file; `needed` says for what, where there is none.

    Raises ConfigError where it is missing, StorageError where it cannot be read or is damaged.
    """
    with disk(file, "read"):
        try:
            content = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            cause = "it was deleted, or the home folder was restored in part"
            raise ConfigError(f"{file} is missing: {needed}", cause=cause, next_step=next_step) from error
    try:
        (public_key if ".key" in file.name else identify)(content)
    except IdentityError as error:
        raise damaged(file, error.what, next_step=next_step) from error
    return content
