"""How SIGINT and SIGTERM end a process: the first one in order, a second one at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from fedcervix.errors import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def heard_by(handler: Callable[[int, Any], object]) -> None:
    """Have both signals call this."""
    for number in SIGNALS:
        signal.signal(number, handler)


def end_on_signals(in_order: Callable[[], object], *, at_once: Callable[[], object] = lambda: None) -> None:
    """Call `in_order` on a thread at the first signal; at a second one call `at_once`, and end the process."""

    def second(_number: int, _frame: object) -> None:
        at_once()
        os._exit(INTERRUPTED)

    def first(_number: int, _frame: object) -> None:
        heard_by(second)
        threading.Thread(target=in_order, name="stop").start()

    heard_by(first)
