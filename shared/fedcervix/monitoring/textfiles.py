"""A textfile that is written again and again, until the program is ended.

Rules
1. What goes wrong once is said once, and tried again: a full disk or a coordinator that starts must not end it.
2. A program that is killed leaves its file, and the moment in it at which it was generated grows old: there is an alert
   for that. One that is ended in order takes the file away: nobody shall read for years what was true once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedcervix.errors import FedcervixError
from fedcervix.monitoring.exposition import write_textfile
from fedcervix.runtime.printing import say
from fedcervix.runtime.signals import end_on_signals


def keep_writing(file: Path, read: Callable[[], bytes], every_s: float, stop: threading.Event | None = None) -> None:
    """Write what `read` returns, now and then every `every_s` seconds, until SIGINT or SIGTERM, or `stop` is set.

    Raises the FedcervixError of the first try: before anything was written, somebody is there to read it.
    """
    ends = stop or threading.Event()
    write_textfile(file, read())
    if stop is None:
        end_on_signals(ends.set)
    said = ""
    while not ends.wait(every_s):
        said = _written_again(file, read, said)
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _written_again(file: Path, read: Callable[[], bytes], said: str) -> str:
    """Write the file once more; say what is wrong unless it was said last, and return it."""
    try:
        write_textfile(file, read())
    except FedcervixError as error:
        if error.explain() != said:
            say(f"{file} was not written; it is tried again: {error.explain()}", err=True)
        return error.explain()
    if said:
        say(f"{file} is written again", err=True)
    return ""
