"""Logs: one event per thing that happened, values as keys. Console on a terminal, JSON lines otherwise.

If a line cannot be written, only this line is lost: the code that logs gets no error.

What is logged has no control characters in it: neither values, keys nor events (`fedcervix.printable`).

No line is longer than `LINE_CHARS_MAX`, whatever is quoted in it. `ration` can limit the number of lines: the
coordinator does this for each site.

Data that may not leave a hospital is never a key: `FORBIDDEN_KEYS` are always dropped.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, cast

from fedcervix.printable import printable, printable_values, shortened

if TYPE_CHECKING:
    import structlog
    from structlog.typing import EventDict

FORBIDDEN_KEYS = frozenset({"patient", "patients", "image", "path", "file", "label", "pixels"})


def _allowed(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Drop what is forbidden, and take control characters out of all texts."""
    return {printable(str(key)): printable_values(value) for key, value in event.items() if key not in FORBIDDEN_KEYS}


LINE_CHARS_MAX = 2000
VALUE_CHARS_MAX = (700, 200, 50, 10)
"""of one value in a line; the next less where the line would be too long"""
KEY_CHARS_MAX = 40

Render: TypeAlias = "Callable[[Any, str, EventDict], Any]"


def _bounded(render: Render) -> Render:
    """Return a renderer of lines that are not too long."""

    def line(logger: Any, method: str, event: EventDict) -> str:
        found = ""
        for chars_max in VALUE_CHARS_MAX:
            short = {shortened(key, KEY_CHARS_MAX): _cut(value, chars_max) for key, value in event.items()}
            found = str(render(logger, method, short))
            if len(found) <= LINE_CHARS_MAX:
                return found
        return found[:LINE_CHARS_MAX]

    return line


def _cut(value: Any, chars_max: int) -> Any:
    match value:
        case str():
            return shortened(value, chars_max)
        case dict() | list() if len(words := repr(value)) > chars_max:
            return shortened(words, chars_max)
        case _:
            return value


Ration = Callable[[Mapping[str, object]], Mapping[str, object] | None]
"""asked before a line is written: what else stands in it; None: it is left out"""


def ration(asks: Ration | None) -> None:
    """Have each line asked for before it is written; None: all are."""
    _Wanted.asks = asks


def _rationed(_logger: Any, _method: str, event: EventDict) -> EventDict:
    import structlog

    if _Wanted.asks is not None:
        more = _Wanted.asks(event)
        if more is None:
            raise structlog.DropEvent
        event.update(more)
    return event


class Losable:
    """A text stream that loses what it cannot write: its disk is full, or its reader has gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or let it be."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Wanted:
    verbose: bool | None = None
    """what a command line asked for and was not set up yet; None where there is nothing to set up"""
    asks: Ration | None = None
    """who rations the lines"""


def configure(*, verbose: bool = False) -> None:
    """Have the process's logging set up when something is logged; called once, by the command line.

    Most commands log nothing, and structlog takes a tenth of a second to load.
    """
    _Wanted.verbose = verbose


def _set_up(*, verbose: bool) -> None:
    import structlog

    console = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _allowed,
            structlog.processors.add_log_level,
            _rationed,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
            _bounded(renderer),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, Losable(sys.stderr))),
        cache_logger_on_first_use=False,
    )


def logger(**context: Any) -> structlog.typing.FilteringBoundLogger:
    """Return a logger with run, round, site, ... bound to every event."""
    import structlog

    if _Wanted.verbose is not None:
        _set_up(verbose=_Wanted.verbose)
        _Wanted.verbose = None
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger().bind(**context)
    return log
