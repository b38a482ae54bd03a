"""How a command talks and ends: tables, three lines and a documented exit code, never a bare traceback."""

from __future__ import annotations

import atexit
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console

from fedcervix.errors import FedcervixError
from fedcervix.files import keep_private

PIPE_COLUMNS = 140
"""width of tables where there is no terminal to ask"""


def stdout_console() -> Console:
    """Return where tables are printed: as wide as the terminal, or wide enough for a log."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_COLUMNS)


def exits(command: click.Command) -> None:
    """Run a command line; print errors of ours as three lines and exit with their code (see errors.EXIT_CODES)."""
    keep_private()
    with ends_whole():
        _run(command)


@contextmanager
def ends_whole() -> Iterator[None]:
    """Let this process, whose whole program stands within, end before the interpreter is taken apart.

    The agent and gRPC leave daemon threads behind. One that begins while the interpreter ends reads memory that was
    freed: under Python 3.11.2 (CPython issue 108987) a process that had done all its work then died of SIGSEGV. What is
    registered with `atexit` within is still called, and other threads are waited for.
    """
    ending = _Ending()
    atexit.register(ending.now)  # the first one in is the last one called
    try:
        yield
    except SystemExit as done:
        ending.status = 0 if done.code is None else done.code
        raise
    ending.status = 0


class _Ending:
    status: object = None
    """what `sys.exit` was given; None while the program runs, and where it ended otherwise"""

    def now(self) -> None:
        if not isinstance(self.status, int):
            return  # the interpreter has something to say
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # it was closed before the program began
                    stream.flush()
        except (OSError, ValueError):
            return  # the same
        os._exit(self.status)


def _run(command: click.Command) -> None:
    try:
        command(standalone_mode=False)
    except FedcervixError as error:
        fail(error)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(wrong.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # noqa: BLE001  (the last line of defence of a process)
        traceback.print_exc()
        fail(FedcervixError("this should not happen", cause="a bug", next_step="report the lines above"))


def fail(error: FedcervixError) -> None:
    """Print an error's three lines and exit with its code."""
    click.echo(f"error: {error.explain()}", err=True)
    sys.exit(error.exit_code)
