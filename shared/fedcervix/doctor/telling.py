"""What `doctor` prints: a line for each check as it is done, or all of them as JSON; and the archive for support."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from fedcervix import __version__
from fedcervix.disk.storage import disk
from fedcervix.doctor import bundle
from fedcervix.doctor.findings import CheckResult, Row, exit_code, result, summary
from fedcervix.doctor.options import DoctorOptions
from fedcervix.errors import RunError
from fedcervix.runtime.commandline import meant_here
from fedcervix.runtime.printing import say
from fedcervix.runtime.typed_json import to_text


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """What `--json` prints."""

    fedcervix: str
    exit_code: int
    checks: tuple[CheckResult, ...]


def told(rows: Iterable[Row], asked: DoctorOptions) -> tuple[CheckResult, ...]:
    """Print what each check finds, and return it. Where the output is JSON, stdout has nothing else."""
    results = []
    for name, found in rows:
        results.append(result(name, found, meant_here))
        if not asked.as_json:
            say(results[-1].explain())
    if asked.as_json:
        say(to_text(DoctorReport(__version__, exit_code(results), tuple(results)), indent=2))
    return tuple(results)


def ended(results: Sequence[CheckResult], *, again: str, then: str, as_json: bool) -> NoReturn:
    """Print the last line; end with the exit code of the first fault. `again`, `then`: commands for the next step."""
    code = exit_code(results)
    if not as_json:
        words = f"correct the first fault, then: {again}" if code else f"next: {then}"
        say(f"{summary(results)}; {words}", err=bool(code))
    sys.exit(code)


def check_new(asked: DoctorOptions) -> None:
    """Raise RunError where no archive could be written in the end: before all checks, which may take minutes.

    Raises StorageError where the log cannot be read.
    """
    if asked.into is None:
        return
    if asked.into.exists():
        raise bundle.is_there(asked.into)
    if not asked.into.parent.is_dir():
        raise RunError(
            f"{asked.into} cannot be written: {asked.into.parent} is no folder",
            cause="the path is wrong, or the folder was not made yet",
            next_step="name a file in a folder that is there, with --bundle",
        )
    if asked.log is not None:
        with disk(asked.log, "read"), asked.log.open("rb"):
            pass


LOG_BYTES_MAX = 2**22
"""that are read of a log: its end"""


def _end_of(log: Path) -> str:
    with disk(log, "read"), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES_MAX))
        return file.read().decode("utf-8", "replace")


Files = Callable[[], list[bundle.BundleFile]]


def pack(results: Sequence[CheckResult], asked: DoctorOptions, role: str, at: datetime, more: Files) -> None:
    """Print the list of what an archive will hold, then write it, where one was asked for.

    `more`: gives the files that only a role knows. Raises RunError, StorageError.
    """
    if asked.into is None:
        return
    files = [bundle.versions_file(role, at), bundle.checks_file(results, asked.allowed), *more()]
    if asked.log is not None:
        files.append(bundle.log_file(_end_of(asked.log), asked.allowed))
    listed = bundle.manifest(files, asked.allowed)
    say(listed, err=asked.as_json)
    size = bundle.write_bundle(asked.into, files, listed, at)
    say(
        f"wrote {asked.into} ({size:,} bytes, for you alone): look into it before you send it",
        err=asked.as_json,
    )
