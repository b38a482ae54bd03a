"""Writes down what the agent is doing (`activity`), from what it shows a person.

Rules
1. The agent never waits for this: what it shows changes one value in memory; a thread of its own writes it down. A disk
   that is full or hangs costs a page some lines, never the agent a moment.
2. A change of state is written at once, progress at most once in `WRITE_S`, and something at least once in `BEAT_S`.
3. Lines that could not be written are kept, up to `LINES_MAX`, and are tried again.
4. A process that was killed has said nothing: the next one closes its activity, at the time at which it was last
   heard of.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from fedcervix.core.events import Task, TaskKind
from fedcervix.errors import FedcervixError, IdentityError, StorageError
from fedcervix.runtime.worker_protocol import ErrorParts
from site_agent.federation import shown
from site_agent.federation.activity import (
    BEAT_S,
    Doing,
    ExaminedSite,
    Note,
    State,
    here,
    note,
    read_doing,
    write_doing,
    write_examined,
)
from site_agent.home import SiteHome
from site_agent.worker.disk_full_retry import NO_ROOM

WRITE_S = 1.0
"""from one note of progress to the next, at least"""
LINES_MAX = 10_000
"""lines that wait for room on the disk"""
STOP_S = 2.0
"""how long the end of the agent waits for the last notes"""
STATE_OF: dict[TaskKind, State] = {TaskKind.TRAIN: "train", TaskKind.SCORE: "score"}
"""of a task's work; that of any other task is `work`"""
NO_KEY = "waits for the key of a partner"
TRANSFERS = ("downloading", "uploading")
"""stages"""


def after(doing: Doing, event: shown.Shown, at: float) -> Doing:
    """Return what the agent is doing after it has shown an event at a time."""
    match event:
        case shown.Attached(run):
            return _looks(_online(replace(doing, run=run), at), at)
        case shown.Reconnected():
            return _online(doing, at)
        case shown.Disconnected(error, works):
            cut = replace(_troubled(doing, error, at), connected=False, line_since=at)
            return cut if works else _in_state(cut, "away", at)
        case shown.Trouble(error):
            return _troubled(doing, error, at)
        case _:
            return _at_work(doing, event, at)


def _at_work(doing: Doing, event: shown.Shown, at: float) -> Doing:
    match event:
        case shown.Resumed(run):
            return replace(doing, run=run)
        case shown.Working(task):
            begun = replace(_settled(doing), run=task.run, task=str(task), round=task.round, rest="")
            return _at_stage(_in_state(begun, STATE_OF.get(task.kind, "work"), at), "starting", 0, at)
        case shown.Advanced():
            return _advanced(doing, event, at)
        case shown.TaskFinished():
            return _at_stage(_in_state(_settled(doing), "transfer", at), "reporting", 0, at)
        case shown.Delivered():
            return _idle(_settled(doing), "", at)
        case shown.Resting(reason):
            return _idle(doing, reason, at)
        case shown.Examined():
            return _idle(doing, "", at)
        case shown.AwaitsKeys(names, command):
            return _troubled(_idle(doing, NO_KEY, at), _no_key(names, command), at)
        case shown.Stopping():
            return replace(doing, stage="saving a checkpoint, to stop")
        case _:
            return doing


def _no_key(names: tuple[str, ...], command: str) -> IdentityError:
    return IdentityError(
        f"this site waits, and sends nothing: the coordinator does not tell the key of {', '.join(names)}, pinned here",
        cause="the site has not joined yet, or the coordinator's version is an earlier one",
        next_step=f"to go on without the check, stop the agent, then: {command} {names[0]}",
    )


def _online(doing: Doing, at: float) -> Doing:
    back = replace(doing, connected=True, line_since=doing.line_since if doing.connected else at, in_trouble=False)
    return _in_state(back, "wait", at) if doing.state == "away" else back


def _looks(doing: Doing, at: float) -> Doing:
    """A site that was let in and has nothing to do looks at its images next, which may take minutes to begin."""
    if doing.task or doing.rest:
        return doing
    return _at_stage(_in_state(doing, "check", at), "starting", 0, at)


def _troubled(doing: Doing, error: FedcervixError, at: float) -> Doing:
    return replace(doing, trouble=ErrorParts.of(error), trouble_at=at, in_trouble=True)


def _settled(doing: Doing) -> Doing:
    """Work has gone on, so that its trouble is over; a line that is cut stays cut."""
    return replace(doing, in_trouble=doing.in_trouble and not doing.connected)


def _idle(doing: Doing, rest: str, at: float) -> Doing:
    return _at_stage(_in_state(replace(doing, task="", rest=rest), "wait", at), "", 0, at)


def _in_state(doing: Doing, state: State, at: float) -> Doing:
    return replace(doing, state=state, since=doing.since if doing.state == state else at)


def _at_stage(doing: Doing, stage: str, done: int, at: float) -> Doing:
    if stage == doing.stage:
        return doing
    plain = replace(doing, stage=stage, stage_since=at, stage_from=done)
    return replace(plain, done=done, of=0, unit="", loss=0.0, images_per_s=0.0, heard_at=at)


def _advanced(doing: Doing, event: shown.Advanced, at: float) -> Doing:
    told = event.at
    if told.stage == NO_ROOM.stage:
        state: State = "disk"
    elif told.stage in TRANSFERS:
        state = "transfer"
    else:
        state = STATE_OF.get(event.task.kind, "work") if isinstance(event.task, Task) else "check"
    moved = doing if told.trouble or state == "disk" else _settled(doing)
    moved = _at_stage(_in_state(replace(moved, task=str(event.task)), state, at), told.stage, told.done, at)
    moved = replace(moved, loss=_finite(told.loss), images_per_s=_finite(told.images_per_s))
    return replace(moved, done=told.done, of=told.of, unit=told.unit, heard_at=at)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def lines(before: Doing, now: Doing, event: shown.Shown, at: float) -> Iterator[Note]:
    """Yield the lines of activity that follow from an event."""
    if (before.state, before.run, before.round) != (now.state, now.run, now.round):
        yield Note(at=at, round=now.round, state=now.state)
    if isinstance(event, shown.Advanced) and event.at.epoch and math.isfinite(event.at.loss):
        yield Note(at=at, round=now.round, epoch=event.at.epoch, loss=event.at.loss)


class Notes:
    """One agent's notes; `show` may be called from any thread. `then`: who else is shown what happens."""

    def __init__(self, home: SiteHome, then: shown.Show, *, clock_s: Callable[[], float] = time.time) -> None:
        self._home, self._then, self._clock_s = home, then, clock_s
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, Note | ExaminedSite]] = deque(maxlen=LINES_MAX)
        """run, and what is to be written into its folder"""
        at = clock_s()
        self._doing = Doing(written_at=at, pid=os.getpid(), place=here(), since=at, line_since=at)
        self._has_news = self._urgent = True
        self._closed = False
        self._written_s = 0.0
        """by the monotonic clock"""
        self._close_earlier()
        self._thread = threading.Thread(target=self._write, name="notes", daemon=True)
        self._thread.start()

    def show(self, event: shown.Shown) -> None:
        """Take in one event, and pass it on."""
        at = self._clock_s()
        with self._changed:
            before, self._doing = self._doing, after(self._doing, event, at)
            self._put(*lines(before, self._doing, event, at))
            if isinstance(event, shown.Examined) and event.findings is not None:
                self._put(ExaminedSite.of(event.findings, at))
            if self._doing != before:
                is_step = isinstance(event, shown.Advanced) and before.stage == self._doing.stage
                self._tell(urgent=not is_step)
        self._then(event)

    def end(self, words: str, error: FedcervixError | None = None) -> None:
        """Write down how the agent has ended, and write nothing more."""
        at = self._clock_s()
        with self._changed:
            ended = _in_state(replace(self._doing, ended=words, connected=False, stage="", rest=""), "off", at)
            self._doing = _troubled(ended, error, at) if error else replace(ended, in_trouble=False)
            self._put(Note(at=at, round=ended.round, state="off"))
            self._closed = True
            self._tell(urgent=True)
        self._thread.join(STOP_S)

    def _put(self, *found: Note | ExaminedSite) -> None:
        if self._doing.run:
            self._waiting.extend((self._doing.run, one) for one in found)

    def _tell(self, *, urgent: bool) -> None:
        if urgent or not self._has_news:  # else the thread knows when it is to write
            self._changed.notify()
        self._has_news, self._urgent = True, self._urgent or urgent

    def _close_earlier(self) -> None:
        """An earlier process that was killed stands in the file as if it still worked."""
        with contextlib.suppress(StorageError):
            earlier = read_doing(self._home.doing)
            if earlier is not None and earlier.run and not earlier.ended:
                self._waiting.append((earlier.run, Note(at=earlier.written_at, round=earlier.round, state="off")))

    # --- the thread ---

    def _write(self) -> None:
        """Write what is due, until `end`."""
        closed = False
        while not closed:
            with self._changed:
                while not self._urgent and (pause_s := self._due_s() - time.monotonic()) > 0:
                    self._changed.wait(pause_s)
                self._has_news = self._urgent = False
                self._written_s = time.monotonic()
                doing, closed = replace(self._doing, written_at=self._clock_s()), self._closed
            with contextlib.suppress(StorageError):  # a page then shows what was written last
                write_doing(self._home.doing, doing)
            with contextlib.suppress(StorageError):  # what is left is tried again
                self._write_lines()

    def _due_s(self) -> float:
        return self._written_s + (WRITE_S if self._has_news else BEAT_S)

    def _write_lines(self) -> None:
        """Write what waits. Raises StorageError; what was not written then waits on."""
        while self._waiting:
            run, one = self._waiting[0]
            folder = self._home.run_folder(run)
            if isinstance(one, ExaminedSite):
                write_examined(folder, one)
            elif folder.is_dir():
                note(folder, one)
            self._waiting.popleft()
