"""Printing: every line and every table of all programs is printed here, without control characters.

click and rich print the ESC of a text as it is, and rich reads `[red]` or `:warning:` in it as markup. Here text is
only shown, never interpreted; colours come from styles alone.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from fedcervix.core.events import MOMENT_MAX
from fedcervix.errors import OUTPUT_CLOSED
from fedcervix.printable import printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment


def say(text: str, *, err: bool = False) -> None:
    """Print a text and a line break, to stdout or to stderr. Raises OSError where the stream takes nothing."""
    click.echo(printable_lines(text), err=err)


def console(**options: Any) -> Console:
    """Return a console of rich that prints texts as they are, without control characters.

    `options` are those of `rich.console.Console`. Where its reader closes a pipe, the program ends.
    """
    return _console_class()(markup=False, emoji=False, **options)


def utc(at: float, form: str) -> str:
    """Return a moment, which is given in Unix seconds, in UTC; `?` for 0, which stands for one that is not known."""
    return datetime.fromtimestamp(at, UTC).strftime(form) if 0 < at <= MOMENT_MAX else "?"


@cache
def _console_class() -> type[Console]:
    """Return the class of that console. rich is loaded at the first call: most commands need none."""
    from rich.console import Console
    from rich.segment import Segment

    class Printing(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(printable_lines(text), style)

        def on_broken_pipe(self) -> None:
            sys.exit(OUTPUT_CLOSED)

    return Printing
