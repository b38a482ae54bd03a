"""How a command talks and ends: tables, three lines and a documented exit code, never a bare traceback."""

from __future__ import annotations

import sys
import traceback

import click
from rich.console import Console

from fedcervix.errors import FedcervixError

PIPE_COLUMNS = 140
"""width of tables where there is no terminal to ask"""


def stdout_console() -> Console:
    """Return where tables are printed: as wide as the terminal, or wide enough for a log."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_COLUMNS)


def exits(command: click.Command) -> None:
    """Run a command line; print errors of ours as three lines and exit with their code (see errors.EXIT_CODES)."""
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
