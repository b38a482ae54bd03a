"""What the agent shows: a progress bar on a terminal, plain lines elsewhere.

Much of what an agent shows is caused by its coordinator, so the lines of each kind can be rationed.

Output that cannot be written (a log file on a full disk, a closed pipe) is lost, and the work continues.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO, cast

from rich import progress as bars

from fedcervix.runtime.log import Losable, Ration
from fedcervix.runtime.log_budgets import PAUSE
from fedcervix.runtime.printing import console, say
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.federation import shown

PLAIN_S = 10.0
"""in a log file, at most one progress line in this time"""
PLAIN_REPORTS = 10
"""lines of progress where there is no terminal"""


def echo(text: str, *, err: bool = False) -> None:
    """Print a line as `click.echo` does, or lose it."""
    with contextlib.suppress(OSError):
        say(text, err=err)


class Display:
    """Draws events; may be called from any thread. `ration` is asked before the lines of an event are written."""

    def __init__(self, ration: Ration = lambda _event: {}) -> None:
        self._ration = ration
        self._console = console(file=cast(TextIO, Losable(sys.stderr)), highlight=False)
        self._lock = threading.Lock()
        self._bar: bars.Progress | None = None
        self._row: bars.TaskID | None = None
        self._plain_s = time.monotonic()  # what is done sooner than PLAIN_S needs no line

    def show(self, event: shown.Shown) -> None:
        """Draw one event; some have no words and are for tests alone."""
        with self._lock:
            if isinstance(event, shown.Advanced):
                self._advance(event)
            elif (text := str(event)) and self._may_show(event):
                self._line(text)

    def _may_show(self, event: shown.Shown) -> bool:
        """Say whether an event is worth its lines; what is left out is said."""
        more = self._ration({"site": type(event).__name__})
        left_out = more.get("left_out") if more is not None else None
        if isinstance(left_out, int):
            self._line(f"{left_out:,} messages of this kind were left out")
        elif left_out is not None:
            self._line(f"{left_out}")
        return more is not None and left_out != PAUSE

    def close(self) -> None:
        """Leave the terminal as it was found."""
        with self._lock:
            self._end_bar()

    def _line(self, text: str) -> None:
        self._end_bar()
        self._console.print(f"{time.strftime('%H:%M:%S')}  {text}", soft_wrap=True)

    def _advance(self, event: shown.Advanced) -> None:
        """Move the bar; where there is no terminal, write a line now and then, and one for each step."""
        if self._console.is_terminal:
            self._draw_bar(event)
        elif isinstance(event, shown.Step) or time.monotonic() - self._plain_s >= PLAIN_S:
            self._plain_s = time.monotonic()
            self._line(f"{_described(event)} {_count(event.at)}")

    def _draw_bar(self, event: shown.Advanced) -> None:
        if self._bar is None:
            columns = (
                bars.TextColumn("{task.description}", markup=False),
                bars.BarColumn(),
                bars.TextColumn("{task.fields[count]}"),
                bars.TimeElapsedColumn(),
            )
            self._bar = bars.Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            self._row = self._bar.add_task("", count="")
        assert self._row is not None
        at = event.at
        self._bar.update(
            self._row, description=_described(event), completed=at.done, total=at.of or None, count=_count(at)
        )

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._row = None, None


def _count(at: WorkProgress) -> str:
    of = f"/{at.of:,}" if at.of else ""
    return f"{at.done:,}{of} {at.unit}"


def _described(event: shown.Advanced) -> str:
    at = event.at
    loss = f", loss {at.loss:.3f}" if at.loss else ""
    rate = f", {at.images_per_s:.0f} images/s" if at.images_per_s else ""
    return f"{event.task}: {at.stage}{loss}{rate}"


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function (done, total) that shows progress on stderr: a bar on a terminal, else a few plain lines."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield _plain(what)
        return
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain(what: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done * PLAIN_REPORTS // total != (done - 1) * PLAIN_REPORTS // total:
            say(f"{what}: {done} of {total}", err=True)

    return report
