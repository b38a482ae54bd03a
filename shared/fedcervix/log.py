"""Logs: one event per thing that happened, values as keys. Console on a terminal, JSON lines otherwise.

Nothing that may not leave a hospital is ever a key: `FORBIDDEN_KEYS` are dropped, whoever passes them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

FORBIDDEN_KEYS = frozenset({"patient", "patients", "image", "path", "file", "label", "pixels"})


def _drop_forbidden(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in FORBIDDEN_KEYS & event.keys():
        del event[key]
    return event


def configure(*, verbose: bool = False) -> None:
    """Set the process's logging up; called once, by the command line."""
    console = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _drop_forbidden,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def logger(**context: Any) -> structlog.typing.FilteringBoundLogger:
    """Return a logger with run, round, site, ... bound to every event."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger().bind(**context)
    return log
