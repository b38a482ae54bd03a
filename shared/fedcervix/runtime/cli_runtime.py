"""How a command prints and ends: tables, errors of three lines and a documented exit code, never a bare traceback.

Rules
1. Files are read and written as UTF-8, and what is printed has the terminal's encoding. A character that the terminal
   does not have is replaced, so printing never fails.
2. A FedcervixError is three lines and its exit code. So is a wrong command line, and a file that cannot be used. A
   missing package is one line: the command that installs it.
3. Printed text has no control characters from outside (`fedcervix.runtime.printing`).
4. If the reader closes the output (`| head`), the program ends without a message.
"""

from __future__ import annotations

import atexit
import codecs
import io
import locale
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from fedcervix.disk.files import keep_private
from fedcervix.disk.storage import known
from fedcervix.errors import INTERRUPTED, OUTPUT_CLOSED, CommandLineError, FedcervixError
from fedcervix.extras import lacking
from fedcervix.printable import printable_lines
from fedcervix.runtime.printing import console, say

if TYPE_CHECKING:
    from rich.console import Console

PIPE_COLUMNS = 140
"""width of tables where there is no terminal to ask"""
PLAIN = {"–": "-", "—": "-", "−": "-", "‑": "-", "…": "...", "“": '"', "”": '"', "’": "'", "≤": "<=", "≥": ">="}
"""replaces a character that a terminal's encoding does not have"""


def stdout_console() -> Console:
    """Return where tables are printed: as wide as the terminal, or wide enough for a log."""
    tables = console()
    return tables if tables.is_terminal else console(width=PIPE_COLUMNS)


def exits(command: click.Command) -> None:
    """Run a command line; print errors of ours as three lines and exit with their code (see errors.EXIT_CODES)."""
    _use_utf8()
    _print_anything()
    _log_printable()
    keep_private()
    with ends_whole():
        _run(command)


def _use_utf8() -> None:
    """Start this program again in Python's UTF-8 mode where the locale would have it read files as something else.

    It is what Python does for the locales C and POSIX, and from version 3.15 on for all (PEP 540, PEP 686): manifests,
    recipes and the names in them are UTF-8, whatever the terminal is. Processes that this one starts inherit it.
    """
    if not sys.flags.utf8_mode and not _is_utf8(locale.getencoding()):
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  (ourselves)


def _print_anything() -> None:
    """Let the standard streams replace what they cannot encode; they have the encoding that the terminal has."""
    codecs.register_error("plain", _in_plain_characters)
    terminal = locale.getencoding()
    foreign = not _is_utf8(terminal) and codecs.lookup(terminal).name != "ascii"  # C says ASCII, and shows UTF-8
    encoding = terminal if foreign and "PYTHONIOENCODING" not in os.environ else None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=encoding or stream.encoding, errors="plain")


def _log_printable() -> None:
    """Let libraries that log, and threads that end by an error, print no control characters either."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Printable())
    threading.excepthook = _thread_ended


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return printable_lines(super().format(record))


def _thread_ended(found: threading.ExceptHookArgs) -> None:
    if found.exc_type is SystemExit:
        return
    trace = "".join(traceback.format_exception(found.exc_type, found.exc_value, found.exc_traceback))
    with suppress(OSError):
        say(f"error in thread {found.thread.name if found.thread else '?'}:\n{trace}", err=True)


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding does not have: a hyphen for a dash, and a number for what has no like."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    plain = (PLAIN.get(character, character.encode("ascii", "backslashreplace").decode()) for character in found)
    return "".join(plain), error.end


@contextmanager
def ends_whole() -> Iterator[None]:
    """Let this process, whose whole program stands within, end before the interpreter is taken apart.

    The agent and gRPC leave daemon threads behind. One that begins while the interpreter ends reads memory that was
    freed: under Python 3.11.2 (CPython issue 108987) a process that had done all its work then died of SIGSEGV. What is
    registered with `atexit` within is still called, and other threads are waited for.
    """
    status: object = None  # what `sys.exit` was given; None while the program runs, and where it ended otherwise

    def end() -> None:
        if not isinstance(status, int):
            return  # the interpreter has something to say
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # it was closed before the program began
                    stream.flush()
        except BrokenPipeError:
            os._exit(status or OUTPUT_CLOSED)
        except (OSError, ValueError):
            return  # the same
        os._exit(status)

    atexit.register(end)  # the first one in is the last one called
    try:
        yield
    except SystemExit as done:
        status = 0 if done.code is None else done.code
        raise
    status = 0


def _run(command: click.Command) -> None:
    stdout = sys.stdout
    try:
        command(standalone_mode=False)
    except FedcervixError as error:
        fail(error)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as wrong:
        fail(_misused(command, wrong))
    except SystemExit:
        if sys.stdout is not stdout:  # click puts another one there when nobody reads what is printed
            sys.exit(OUTPUT_CLOSED)
        raise
    except Exception as error:  # noqa: BLE001  (the last line of defence of a process)
        _fail_of(error)


MISUSES: tuple[tuple[type[click.ClickException], str], ...] = (
    (click.NoSuchOption, "the option is misspelt, or belongs to another command"),
    (click.MissingParameter, "this command cannot work without it"),
    (click.BadParameter, "the value is misspelt, or this command does not take it"),
    (click.ClickException, "a word is misspelt, stands twice, or is one too many"),
)
"""what click complains of, and the likely cause: the first that fits"""


def _misused(command: click.Command, wrong: click.ClickException) -> CommandLineError:
    """Return click's complaint in the form of our errors."""
    context, asked = getattr(wrong, "ctx", None), command.name or ""
    if context is not None:  # `python -m site_agent` is called by its name, too
        asked += context.command_path.removeprefix(context.find_root().command_path)
    cause = next(cause for kind, cause in MISUSES if isinstance(wrong, kind))
    return CommandLineError(wrong.format_message().removesuffix("."), cause=cause, next_step=f"{asked} --help")


def _fail_of(error: Exception) -> None:
    """Print an error that is not ours, and exit."""
    if isinstance(error, ImportError) and (missing := lacking(error)):
        fail(missing)
    if isinstance(error, OSError) and error.filename is not None:
        fail(known(error, str(error.filename), "use"))
    say("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
    fail(FedcervixError("this should not happen", cause="a bug", next_step="report the lines above"))


def fail(error: FedcervixError) -> None:
    """Print an error's three lines and exit with its code."""
    say(f"error: {error.explain()}", err=True)
    sys.exit(error.exit_code)
