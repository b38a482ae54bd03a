"""Carries messages to one receiver, on a thread of its own: reads what happened, sends, tries again.

Rules
1. Nobody waits for a courier and it holds no lock of anyone: it reads its source by itself, every `LOOK_S` seconds. A
   receiver that is dead, slow or hostile delays only its own messages. The thread ends with the process.
2. A receiver that cannot be reached is left alone for a growing time, at most `PAUSE_MOST_S`. A message that the
   receiver refuses does not hold up the next one. After `give_up_s` from when it happened, a message is given up.
3. The log says what was delivered, what was not, and why: with host, kind and id. Nothing secret is in those.
4. Whatever a source or a receiver raises, the thread goes on: one that ended unheard would tell nobody anything more.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from fedcervix.errors import FedcervixError, RemoteError, StorageError
from fedcervix.notify.notice import Notice
from fedcervix.notify.outbox import Outbox, Place, load, loss_logged, store
from fedcervix.runtime.log import logger
from fedcervix.transport.backoff import Pauses

LOOK_S = 2.0
PAUSE_MOST_S = 900.0
AT_THE_END_S = 0.5


class Receiver(Protocol):
    """Who is told. `send` returns what it said; raises RemoteError where it says no, other FedcervixErrors."""

    @property
    def name(self) -> str:
        """A word for the log and the file: webhook, mail."""

    @property
    def host(self) -> str:
        """Where it is."""

    def check(self) -> None:
        """Raise ConfigError or StorageError where a file that it needs is missing or says nothing."""

    def send(self, notice: Notice) -> str:
        """Send a message."""


class NewsSource(Protocol):
    """What happened."""

    def news(self, place: Place, now_s: float, /) -> tuple[tuple[Notice, ...], Place]:
        """Return what happened after a place, and the place then. Raises FedcervixError."""


class Courier:
    """One receiver's messages. `step` is one look and, where it is time, one try; `start` does that on a thread."""

    def __init__(
        self,
        receiver: Receiver,
        source: NewsSource,
        file: Path,
        *,
        give_up_s: float,
        clock_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receiver, self._source, self._file, self._give_up_s = receiver, source, file, give_up_s
        self._clock_s, self._steady_s = clock_s, steady_s
        self._box = Outbox()
        self._pauses, self._again_s = Pauses(most_s=PAUSE_MOST_S), steady_s()
        self._said, self._delivered = "", 0
        self._ending, self._never = threading.Event(), threading.Event()
        self._ends_s = steady_s()
        self._thread = threading.Thread(target=self._carry, name=f"notify {receiver.name}", daemon=True)

    @property
    def waiting(self) -> int:
        """How many messages are still to be sent."""
        return len(self._box.waiting)

    def start(self) -> None:
        """Begin to carry."""
        self._thread.start()

    def end_within(self, within_s: float) -> None:
        """Have the thread send what there is, and end."""
        self._ends_s = self._steady_s() + within_s
        self._ending.set()

    def join(self) -> None:
        """Wait until the thread has ended, or its time is over. What is left to be sent stays in the file."""
        self._thread.join(max(0.0, self._ends_s - self._steady_s()))

    def _carry(self) -> None:
        while not self._load():
            if self._ending.wait(LOOK_S):
                return
        while not self._ending.is_set():
            self.step()
            self._ending.wait(LOOK_S)
        self._again_s = self._steady_s()
        while True:
            self.step()
            if not self.waiting or self._steady_s() >= self._ends_s:
                return
            self._never.wait(AT_THE_END_S)

    def _load(self) -> bool:
        try:
            self._box = load(self._file)
        except StorageError as error:
            self._say("outbox not read", error)
            return False
        return True

    def once(self) -> int:
        """Load the file, look, try each message once; return how many were delivered. Not beside `start`."""
        before = self._delivered
        if self._load():
            self.step()
        return self._delivered - before

    @property
    def name(self) -> str:
        """Who is told."""
        return self._receiver.name

    def step(self) -> None:
        """Look once, and send what is due."""
        self._look()
        now_s = self._clock_s()
        for old in self._box.too_old(now_s, self._give_up_s):
            logger().warning("notification given up", to=self._receiver.name, id=old.id, kind=old.kind)
            self._change(self._box.without(old.id))
        if self._box.waiting and self._steady_s() >= self._again_s:
            self._send()

    def _look(self) -> None:
        if not self._box.has_room:
            return
        now_s = self._clock_s()
        try:
            notices, place = self._source.news(self._box.place, now_s)
        except Exception as error:  # noqa: BLE001  (rule 4)
            self._say("notifications cannot be read", _explained(error))
            return
        was, box = self._box.place, self._box.with_news(notices, place, now_s)
        if notices or was.seq < 0 or replace(was, seq=place.seq) != place:
            self._change(box)
        else:  # between the two places nothing is told: it does not matter from which of them the next process reads
            self._box = box

    def _send(self) -> None:
        """Try each message once; a receiver that cannot be reached is not tried with the next one."""
        failed = False
        for notice in self._box.waiting:
            try:
                words = self._receiver.send(notice)
            except Exception as error:  # noqa: BLE001  (rule 4)
                self._say("notification not delivered", _explained(error))
                failed = True
                if isinstance(error, FedcervixError) and not isinstance(error, RemoteError):
                    break
            else:
                self._said, self._delivered = "", self._delivered + 1
                logger().info(
                    "notification delivered", to=self._receiver.name, id=notice.id, kind=notice.kind, answer=words
                )
                self._change(self._box.without(notice.id))
        if failed:
            self._again_s = self._steady_s() + self._pauses.next_s()
        else:
            self._pauses.reset()

    def _say(self, what: str, error: FedcervixError) -> None:
        """Log an error, once as long as it stays the same."""
        if self._said != error.what:
            self._said = error.what
            logger().warning(
                what, to=self._receiver.name, what=error.what, cause=error.cause, next_step=error.next_step
            )

    def _change(self, box: Outbox) -> None:
        self._box = box
        with loss_logged(self._file):
            store(self._file, box)


def _explained(error: Exception) -> FedcervixError:
    """Return what was raised as an error of ours; of another one only kind and place: its text may be secret."""
    if isinstance(error, FedcervixError):
        return error
    place = traceback.extract_tb(error.__traceback__)[-1]
    return FedcervixError(
        f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}",
        cause="a bug",
        next_step="report this line; it is tried again",
    )
