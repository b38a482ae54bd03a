"""The options of `doctor`, which are the same in both programs. Loaded for `--help`, so it imports nothing slow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from fedcervix.runtime.commandline import ANY_PATH, Function


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """What was typed behind `doctor`."""

    as_json: bool = False
    into: Path | None = None
    """the archive to write"""
    log: Path | None = None
    allowed: tuple[str, ...] = ()
    """words that may stand in the archive"""

    def __post_init__(self) -> None:
        if self.into is None and (self.log is not None or self.allowed):
            raise click.UsageError("--log and --allow belong to --bundle")


def doctor_options(function: Function) -> Function:
    """Give a command the options of `doctor`."""
    for option in (
        click.option(
            "--allow",
            "allowed",
            multiple=True,
            metavar="WORD",
            help="With --bundle: a text that may stand in the archive, such as the name of a site. May be repeated.",
        ),
        click.option("--log", type=ANY_PATH, help="With --bundle: a file with the log, for its last lines."),
        click.option("--bundle", "into", type=ANY_PATH, help="Also write an archive for support: a new ZIP file."),
        click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON."),
    ):
        function = option(function)
    return function
