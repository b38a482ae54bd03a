"""How a worker process and the process that started it speak: lines of JSON on its standard input and output.

A line to the worker is a request, or "stop". A line from it is one of these:

    {"progress": {...}}   now and then: how far it is
    {"done": ...}         what the request gave
    {"failed": {...}}     what broke
    {"stopped": {...}}    it was asked to stop, and ends: kept (whether training stands in a checkpoint)

Rules
1. On both sides these are values with types; they become JSON, and are read from it, here alone. Anything else that a
   worker says is refused.
2. What a library prints goes to standard error, so that it cannot break the protocol.
3. A worker does not outlive the process that started it: its input ends with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import Queue
from typing import Any, NoReturn, Self, TextIO

from fedcervix.errors import FedcervixError, TrainingError
from fedcervix.json_text import parsed
from fedcervix.printable import quoted
from fedcervix.runtime.typed_json import from_json

PROGRESS_S = 0.25
"""at most one progress line of a stage in this time"""
STOP_LINE = "stop\n"


@dataclass(frozen=True, slots=True)
class ErrorParts:
    """An error in its three parts."""

    what: str
    cause: str
    next_step: str

    @classmethod
    def of(cls, error: FedcervixError) -> ErrorParts:
        """Return what an error says."""
        return ErrorParts(error.what, error.cause, error.next_step)

    def error(self, kind: type[FedcervixError] = FedcervixError) -> FedcervixError:
        """Return the error that says this."""
        return kind(self.what, cause=self.cause, next_step=self.next_step)


@dataclass(frozen=True, slots=True)
class WorkProgress:
    """How far a piece of work is."""

    stage: str
    done: int = 0
    of: int = 0
    """0: not known"""
    unit: str = ""
    loss: float = 0.0
    images_per_s: float = 0.0
    note: str = ""
    """a line for a person"""
    trouble: ErrorParts | None = None
    """what is in the way"""
    epoch: int = 0
    """of the run: it has just ended, with this loss; 0: none has"""


OnProgress = Callable[[WorkProgress], None]


@dataclass(frozen=True, slots=True)
class RequestDone:
    """What a request gave. Its type is between the two programs; to a worker it is what JSON can hold."""

    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What broke in a worker."""

    kind: str
    """name of the error's class"""
    stage: str
    trouble: ErrorParts
    exit_code: int
    trace: str

    @classmethod
    def of(cls, error: Exception, known: FedcervixError, stage: str) -> Self:
        """Return what is told of an error, which `known` puts into words."""
        trace = "".join(traceback.format_exception(error))
        kind, trouble = type(known).__name__, ErrorParts.of(known)
        return cls(kind=kind, stage=stage, trouble=trouble, exit_code=known.exit_code, trace=trace)


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """The worker was asked to stop, and ends."""

    kept: bool
    """training stands in a checkpoint"""


Answer = WorkProgress | RequestDone | Failure | WorkerStopped
_KINDS: dict[str, type[WorkProgress] | type[Failure] | type[WorkerStopped]] = {
    "progress": WorkProgress,
    "failed": Failure,
    "stopped": WorkerStopped,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_line(answer: Answer) -> str:
    """Return an answer as a line. A loss may be NaN: it ends the training, and is told as such."""
    if isinstance(answer, RequestDone):
        return json.dumps({"done": answer.result}) + "\n"
    return json.dumps({_NAMES[type(answer)]: dataclasses.asdict(answer)}) + "\n"


class ForeignAnswerError(TrainingError):
    """A worker process said what is no answer."""


def from_line(line: str, read: Callable[[Any], Any]) -> Answer:
    """Undo `to_line`; `read` makes a result of what JSON can hold, or raises ValueError. Raises ForeignAnswerError."""
    try:
        [(name, raw)] = parsed(line).items()
        return RequestDone(read(raw)) if name == "done" else from_json(_KINDS[name], raw)
    except (ValueError, KeyError, AttributeError) as error:
        raise ForeignAnswerError(
            f"a worker process wrote a line that is not an answer ({error}): {quoted(line[:200])}",
            cause="the installation holds files of two versions, or a library has written to the worker's output",
            next_step="install again, and start again to continue",
        ) from error


# --- the side that asks -------------------------------------------------------------------------------------------


def ask(process: subprocess.Popen[str], request: Any) -> None:
    """Give a worker a request. Raises BrokenPipeError where it has ended."""
    tell(process, json.dumps(request, allow_nan=False) + "\n")


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Write a line to a worker. Raises BrokenPipeError where it has ended, or its input was closed because it shall."""
    assert process.stdin is not None
    if process.stdin.closed:
        raise BrokenPipeError(errno.EPIPE, "its input is closed")
    process.stdin.write(line)
    process.stdin.flush()


def answers(process: subprocess.Popen[str], read: Callable[[Any], Any]) -> Iterator[Answer]:
    """Yield what a worker says, until it has ended; `read` as for `from_line`. Raises ForeignAnswerError."""
    assert process.stdout is not None
    for line in process.stdout:
        if not line.endswith("\n"):  # it was killed while it spoke
            return
        yield from_line(line, read)


# --- the worker's side --------------------------------------------------------------------------------------------


class Answers:
    """A worker's end of its standard output: whole lines, from whichever thread."""

    def __init__(self, lines: TextIO, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._lines, self._clock_s, self._lock = lines, clock_s, threading.RLock()
        self.stage, self._said_s = "starting", 0.0

    @classmethod
    def on_stdout(cls) -> Self:
        """Take standard output for the answers; what else is printed there goes to standard error."""
        lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(lines)

    def begin(self, stage: str) -> None:
        """Note what is done from here on."""
        self.stage, self._said_s = stage, 0.0

    def progress(self, progress: WorkProgress) -> None:
        """Tell how far it is, unless that was told just now.

        A stage's first and last lines and the end of each epoch are always told.
        """
        now_s = self._clock_s()
        is_minor = progress.stage == self.stage and progress.done != progress.of and not progress.epoch
        if is_minor and now_s - self._said_s < PROGRESS_S:
            return
        self.stage, self._said_s = progress.stage, now_s
        self.say(progress)

    def say(self, answer: Answer) -> None:
        """Answer."""
        with self._lock, contextlib.suppress(BrokenPipeError):  # nobody listens: this process is about to end
            self._lines.write(to_line(answer))
            self._lines.flush()

    def last(self, answer: Answer, *, status: int = 1) -> NoReturn:
        """Answer and end the process: nothing is said after this."""
        with self._lock:
            try:
                self.say(answer)
            finally:
                os._exit(status)


def requests(lines: Iterable[str], *, on_stop: Callable[[], object], on_end: Callable[[], object]) -> Queue[str]:
    """Return a queue of the requests that come in; a thread reads them.

    `on_stop` is called for the line "stop", `on_end` when the input ends: also while a request is worked on.
    """
    asked: Queue[str] = Queue()

    def read() -> None:
        for line in lines:
            if line == STOP_LINE:
                on_stop()
            else:
                asked.put(line)
        on_end()

    threading.Thread(target=read, daemon=True, name="input").start()
    return asked
