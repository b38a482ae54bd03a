"""What the agent shows: a progress bar on a terminal, plain lines elsewhere.

Much of what an agent shows is caused by its coordinator, so the lines of each kind can be rationed.

Output that cannot be written (a log file on a full disk, a closed pipe) is lost, and the work continues.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO, cast

from rich import progress as bars

from fedcervix.runtime.log import Losable, Ration
from fedcervix.runtime.log_budgets import PAUSE
from fedcervix.runtime.printing import console, say
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.federation import shown

PLAIN_S = 10.0
"""in a log file, at most one progress line in this time"""


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
        """Draw one event; some are for tests and logs alone."""
        with self._lock:
            draw = self._SHOW.get(type(event))
            if draw is not None and (isinstance(event, shown.Advanced) or self._may_show(event)):
                draw(self, event)

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

    def _attached(self, event: shown.Attached) -> None:
        plan = event.plan
        self._line(f"attached to run {event.run}: {plan.mode}, sites {', '.join(plan.sites)}, profile {plan.profile}")
        self._line(f"the plan is allowed by this site's policy (contract {plan.digest[:12]})")

    def _examined(self, event: shown.Examined) -> None:
        for subject, finding in event.findings.lines() if event.findings else ():
            self._line(f"{subject}: {finding}")

    def _resumed(self, event: shown.Resumed) -> None:
        self._line(f"continues run {event.run}" + (f": {event.task}" if event.task else ""))

    def _stopping(self, event: shown.Stopping) -> None:
        within = f"within {event.deadline_s:.0f} s"
        self._line(
            f"stopping: training saves a checkpoint at its next step and ends, {within}. "
            "Press Ctrl-C again to stop immediately."
        )

    def _message(self, event: shown.Message) -> None:
        self._line(event.text)

    def _reconnected(self, _event: shown.Reconnected) -> None:
        self._line("connected to the coordinator again")

    def _disconnected(self, event: shown.Disconnected) -> None:
        works = ", work continues meanwhile" if event.works else ""
        self._line(f"{event.error.what}; trying again automatically{works}")

    def _trouble(self, event: shown.Trouble) -> None:
        self._line(f"{event.error.explain()}\n          trying again automatically")

    def _resting(self, event: shown.Resting) -> None:
        self._line(event.reason)

    def _working(self, event: shown.Working) -> None:
        self._line(f"asked to {event.task}")

    def _finished(self, event: shown.TaskFinished) -> None:
        said = "\n          ".join(event.lines)
        self._line(f"done: {event.task}" + (f": {said}" if said else ""))

    def _advanced(self, event: shown.Advanced) -> None:
        if self._console.is_terminal:
            self._draw_bar(event)
        elif time.monotonic() - self._plain_s >= PLAIN_S:
            self._plain_s = time.monotonic()
            self._line(f"{_described(event)} {_count(event.at)}")

    def _step(self, event: shown.Step) -> None:
        """Show one of a few steps: each is a line where there is no terminal."""
        if self._console.is_terminal:
            self._draw_bar(event)
        else:
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

    _SHOW: dict[type, Callable[[Display, Any], None]] = {  # noqa: RUF012  (a constant table)
        shown.Attached: _attached,
        shown.Examined: _examined,
        shown.Resumed: _resumed,
        shown.Stopping: _stopping,
        shown.Message: _message,
        shown.Reconnected: _reconnected,
        shown.Disconnected: _disconnected,
        shown.Trouble: _trouble,
        shown.Resting: _resting,
        shown.Working: _working,
        shown.TaskFinished: _finished,
        shown.Advanced: _advanced,
        shown.Step: _step,
    }


def _count(at: WorkProgress) -> str:
    of = f"/{at.of:,}" if at.of else ""
    return f"{at.done:,}{of} {at.unit}"


def _described(event: shown.Advanced) -> str:
    at = event.at
    loss = f", loss {at.loss:.3f}" if at.loss else ""
    rate = f", {at.images_per_s:.0f} images/s" if at.images_per_s else ""
    return f"{event.task}: {at.stage}{loss}{rate}"
