"""What the agent shows a person: a progress bar on a terminal, plain lines elsewhere.

What cannot be shown (a log file on a full disk, a pipe that nobody reads any more) is lost, and the work goes on.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO, cast

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fedcervix.runtime.log import Losable
from fedcervix.runtime.printing import console, say

PLAIN_S = 10.0
"""in a log file, at most one progress line in this time"""


def echo(text: str, *, err: bool = False) -> None:
    """Print a line as `click.echo` does, or lose it."""
    with contextlib.suppress(OSError):
        say(text, err=err)


class Display:
    """Draws events; may be called from any thread."""

    def __init__(self) -> None:
        self._console = console(file=cast(TextIO, Losable(sys.stderr)), highlight=False)
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._row: TaskID | None = None
        self._plain_s = time.monotonic()  # what is done sooner than PLAIN_S needs no line

    def show(self, what: str, values: dict[str, Any]) -> None:
        """Draw one event."""
        with self._lock:
            self._SHOW.get(what, Display._ignore)(self, values)

    def close(self) -> None:
        """Leave the terminal as it was found."""
        with self._lock:
            self._end_bar()

    def _line(self, text: str) -> None:
        self._end_bar()
        self._console.print(f"{time.strftime('%H:%M:%S')}  {text}", soft_wrap=True)

    def _ignore(self, _values: dict[str, Any]) -> None:
        return

    def _attached(self, values: dict[str, Any]) -> None:
        plan = values["plan"]
        self._line(
            f"attached to run {values['run']}: {plan.mode}, sites {', '.join(plan.sites)}, profile {plan.profile}"
        )
        self._line(f"the plan is allowed by this site's policy (contract {plan.digest[:12]})")

    def _examined(self, values: dict[str, Any]) -> None:
        findings = values["findings"]
        for subject, finding in findings.lines() if findings else ():
            self._line(f"{subject}: {finding}")

    def _resumed(self, values: dict[str, Any]) -> None:
        self._line(f"continues run {values['run']}" + (f": {values['task']}" if values["task"] else ""))

    def _stopping(self, values: dict[str, Any]) -> None:
        within = f"within {values['deadline_s']:.0f} s"
        self._line(
            f"stopping: training saves a checkpoint at its next step and ends, {within}. "
            "Press Ctrl-C again to stop immediately."
        )

    def _said(self, values: dict[str, Any]) -> None:
        self._line(values["text"])

    def _line_up(self, _values: dict[str, Any]) -> None:
        self._line("connected to the coordinator again")

    def _line_down(self, values: dict[str, Any]) -> None:
        works = ", work continues meanwhile" if values["works"] else ""
        self._line(f"{values['error'].what}; trying again automatically{works}")

    def _trouble(self, values: dict[str, Any]) -> None:
        self._line(f"{values['error'].explain()}\n          trying again automatically")

    def _resting(self, values: dict[str, Any]) -> None:
        self._line(values["reason"])

    def _working(self, values: dict[str, Any]) -> None:
        self._line(f"asked to {values['task']}")

    def _finished(self, values: dict[str, Any]) -> None:
        said = "\n          ".join(values["lines"])
        self._line(f"done: {values['task']}" + (f": {said}" if said else ""))

    def _progress(self, values: dict[str, Any]) -> None:
        if self._console.is_terminal:
            self._draw_bar(values)
        elif time.monotonic() - self._plain_s >= PLAIN_S:
            self._plain_s = time.monotonic()
            self._line(f"{_described(values)} {_count(values)}")

    def _step(self, values: dict[str, Any]) -> None:
        """Show one of a few steps: each is a line where there is no terminal."""
        if self._console.is_terminal:
            self._draw_bar(values)
        else:
            self._line(f"{_described(values)} {_count(values)}")

    def _draw_bar(self, values: dict[str, Any]) -> None:
        if self._bar is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[count]}"),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            self._row = self._bar.add_task("", count="")
        assert self._row is not None
        count = (
            f"{values['done']:,}/{values['of']:,} {values['unit']}"
            if values["of"]
            else f"{values['done']:,} {values['unit']}"
        )
        total = values["of"] or None
        self._bar.update(self._row, description=_described(values), completed=values["done"], total=total, count=count)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._row = None, None

    _SHOW: dict[str, Callable[[Display, dict[str, Any]], None]] = {  # noqa: RUF012  (a constant table)
        "attached": _attached,
        "examined": _examined,
        "resumed": _resumed,
        "stopping": _stopping,
        "said": _said,
        "line up": _line_up,
        "line down": _line_down,
        "trouble": _trouble,
        "resting": _resting,
        "working": _working,
        "finished": _finished,
        "progress": _progress,
        "step": _step,
    }


def _count(values: dict[str, Any]) -> str:
    of = f"/{values['of']:,}" if values["of"] else ""
    return f"{values['done']:,}{of} {values['unit']}"


def _described(values: dict[str, Any]) -> str:
    loss = f", loss {values['loss']:.3f}" if values.get("loss") else ""
    rate = f", {values['images_per_s']:.0f} images/s" if values.get("images_per_s") else ""
    return f"{values.get('task', '')}: {values['stage']}{loss}{rate}"
