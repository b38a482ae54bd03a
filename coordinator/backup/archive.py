"""The form of a backup file: a tar archive that says first what it is, and last what its checksums are.

1. `backup.json`: format, software, moment, federation, and how the last run stood (`Label`).
2. The files of the home, under their paths in it. Nothing else: no folder, no link.
3. `SHA256SUMS`: the checksums of the label and of each of these files, as `sha256sum --check` reads them. A file that
   was cut off lacks them.

Every `tar` can unpack it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from io import FileIO
from pathlib import Path, PurePosixPath

from fedcervix.core.events import ROUND_MAX, RUN_NAME
from fedcervix.core.formats import KEY, UnknownFormat, contents
from fedcervix.core.plan import SITE_NAME, check
from fedcervix.core.rounds.state import Outcome
from fedcervix.disk.files import FILE_MODE, FOLDER_MODE, Sink, opened, replacing
from fedcervix.disk.storage import later
from fedcervix.errors import StorageError
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json

FORMAT = 1
LABEL, SUMS = "backup.json", "SHA256SUMS"
SOFTWARE = re.compile(r"fedcervix [0-9A-Za-z.+-]{1,40}")
COPY_BYTES = 2**20
LABEL_BYTES_MAX = 64 * 2**10
SUMS_BYTES_MAX = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a backup file says of itself."""

    software: str
    made_at: str
    """ISO 8601, UTC"""
    federation: str
    run: str = ""
    """the last run; empty where none had begun"""
    round: int = 0
    """the rounds of it that had begun"""
    outcome: str = ""
    """of it; empty where it had not ended"""

    def __post_init__(self) -> None:
        check(SOFTWARE.fullmatch(self.software) is not None, "its software is no name and version")
        check(SITE_NAME.fullmatch(self.federation) is not None, "its federation is no name")
        check(not self.run or RUN_NAME.fullmatch(self.run) is not None, "its run is no name")
        check(0 <= self.round <= ROUND_MAX, f"its round is 0 to {ROUND_MAX}")
        check(not self.outcome or self.outcome in {*Outcome}, "its outcome is none that a run has")
        datetime.fromisoformat(self.made_at)


class Writer:
    """Adds files to an archive; `close` completes it."""

    def __init__(self, out: Sink, label: Label) -> None:
        self._out = out
        self._made_at = datetime.fromisoformat(label.made_at).timestamp()
        self._sums: list[str] = []
        said = json.dumps({KEY: FORMAT, **dataclasses.asdict(label)}, indent=2, allow_nan=False).encode()
        self._add(LABEL, said)
        self._note(LABEL, hashlib.sha256(said).hexdigest())

    def add(self, name: str, file: FileIO) -> None:
        """Add an open file under its path in the home. Raises OSError."""
        size_bytes, copied_bytes, sha256 = os.fstat(file.fileno()).st_size, 0, hashlib.sha256()
        self._begin(name, size_bytes)
        while data := file.read(min(COPY_BYTES, size_bytes - copied_bytes)):
            sha256.update(data)
            self._out.write(data)
            copied_bytes += len(data)
        if copied_bytes < size_bytes:
            raise OSError(errno.EIO, "the file became shorter while it was read", name)
        self._pad(size_bytes)
        self._note(name, sha256.hexdigest())

    def close(self) -> None:
        """Add the checksums; the archive is complete. Raises OSError."""
        self._add(SUMS, "".join(self._sums).encode())
        self._out.write(bytes(2 * tarfile.BLOCKSIZE))

    def _note(self, name: str, digest: str) -> None:
        self._sums.append(f"{digest}  {name}\n")

    def _add(self, name: str, data: bytes) -> None:
        self._begin(name, len(data))
        self._out.write(data)
        self._pad(len(data))

    def _begin(self, name: str, size_bytes: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size_bytes, FILE_MODE, self._made_at
        self._out.write(entry.tobuf(tarfile.PAX_FORMAT))

    def _pad(self, size_bytes: int) -> None:
        self._out.write(bytes(-size_bytes % tarfile.BLOCKSIZE))


@dataclass(frozen=True, slots=True)
class Reader:
    """An open backup file, behind its label."""

    label: Label
    _tar: tarfile.TarFile
    _label_digest: str

    def unpack(self, folder: Path, *, files: set[str], folders: set[str]) -> None:
        """Write the files of the archive into a folder, and compare all checksums.

        `files` and `folders`: names that may stand at its top. Raises OSError, ValueError.
        """
        tar, found = self._tar, {LABEL: self._label_digest}
        while (entry := tar.next()) is not None and entry.name != SUMS:
            parts = PurePosixPath(entry.name).parts
            there = entry.name in files or (len(parts) > 1 and parts[0] in folders and ".." not in parts)
            if not (there and entry.type == tarfile.REGTYPE) or entry.name in found:
                raise ValueError(
                    f"it holds {entry.name[:200]!r}, which is no file of a coordinator's home, or is there twice"
                )
            found[entry.name] = _write(tar, entry, folder)
        if entry is None:
            raise ValueError("it is incomplete: its checksums are missing")
        lines = _whole(tar, entry, SUMS_BYTES_MAX).decode().splitlines()
        said = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        wrong = [name for name in {**found, **said} if found.get(name) != said.get(name)]
        if wrong:
            raise ValueError(f"its file {wrong[0][:200]!r} does not have its checksum")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Open a backup file. Raises StorageError, also for a ValueError of the block."""
    with opened(path) as file, _understood(path), tarfile.open(fileobj=file, mode="r|", bufsize=COPY_BYTES) as tar:
        first = tar.next()
        if first is None or first.name != LABEL:
            raise ValueError("it does not begin as a backup does")
        said = _whole(tar, first, LABEL_BYTES_MAX)
        label = from_json(Label, contents("the backup", parsed(said), FORMAT))
        yield Reader(label, tar, hashlib.sha256(said).hexdigest())


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> str:
    """Write a file of the archive below a folder; return its checksum. Raises OSError."""
    *above, name = PurePosixPath(entry.name).parts
    for part in above:
        folder = folder / part
        folder.mkdir(FOLDER_MODE, exist_ok=True)
    source = tar.extractfile(entry)
    assert source is not None
    with replacing(folder / name, sole_writer=True) as out:
        while data := source.read(COPY_BYTES):
            out.write(data)
    return out.digest


def _whole(tar: tarfile.TarFile, entry: tarfile.TarInfo, bytes_max: int) -> bytes:
    source = tar.extractfile(entry)
    if source is None or entry.size > bytes_max:
        raise ValueError(f"its {entry.name} is no file of at most {bytes_max} bytes")
    return source.read()


@contextlib.contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Translate what is wrong with the content of a backup file."""
    try:
        yield
    except UnknownFormat as error:
        raise later(path, error) from error
    except (tarfile.TarError, EOFError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"{path} is not a complete backup of a coordinator: {error}",
            cause="it is another file, it was damaged or cut off when it was copied, or a later version wrote it",
            next_step="copy it again, or use another backup; a later version's backup needs that version",
        ) from error
