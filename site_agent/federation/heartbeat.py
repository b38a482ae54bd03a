"""Reports the progress of the work to the coordinator, so that the site keeps its lease.

Rules
1. At most one report is sent in `PROGRESS_S`; shorter work needs none. The last report is repeated regularly
   (`backoff.SIGN_S`), because one step can take longer than a lease. A site without work reports that it is there.
2. If the worker hangs (see `hang_detection`), nothing is repeated and `on_hung` is called. The lease then runs out.
3. The thread sleeps until there is something new or a repetition is due. It does not poll.
4. A report that cannot be sent is dropped; the next one says more.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fedcervix.errors import FedcervixError, TrainingError
from fedcervix.runtime.worker_protocol import Failure
from fedcervix.transport.backoff import SIGN_S
from fedcervix.transport.codec import Heartbeat, Ping, Progress
from site_agent.worker.hang_detection import FLOOR_S, Silence
from site_agent.worker.worker import WorkFailedError

PROGRESS_S = 1.0
BEAT_S_MIN = 0.25
"""a plan's lease cannot make an agent report more often than this"""


def beat_s(lease_s: float, most_s: float) -> float:
    """Return how often a site shows that it is there, in a run of this lease."""
    return min(max(BEAT_S_MIN, lease_s / 4), most_s)


@dataclass(frozen=True, slots=True)
class Hung:
    """A worker has been silent for too long, at what it had said last."""

    said: Progress
    silence: Silence

    def error(self) -> WorkFailedError:
        """Return what a hung worker is called."""
        silent_min = (self.silence.ends_at_s - self.silence.since_s) / 60
        known = TrainingError(
            f"the training process has not reported for {silent_min:.1f} min; "
            f"in this task its longest pause so far was {self.silence.longest_s:.0f} s",
            cause="a GPU or its driver hangs, or a disk, a network share or another training host does not answer",
            next_step="look at nvidia-smi, and at the system's log (dmesg | tail)",
        )
        return WorkFailedError(Failure.of(known, known, self.said.stage))


class Reporter:
    """One agent's reports of progress. All but `run` may be called from any thread."""

    def __init__(
        self,
        sign: Callable[[Heartbeat], object],
        on_hung: Callable[[Hung], None],
        *,
        floor_s: float = FLOOR_S,
        progress_s: float = PROGRESS_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sign, self._on_hung, self._clock_s = sign, on_hung, clock_s
        self._floor_s, self._progress_s = floor_s, progress_s
        self.beat_s = SIGN_S
        self._changed = threading.Condition()
        self._closed = False
        self._said: Progress | None = None
        self._attached = False
        self._news = False
        self._sent_s = -math.inf
        self._silence: Silence | None = None

    def begin(self, progress: Progress) -> None:
        """Work begins; so far it is the agent's own."""
        with self._changed:
            self._silence, self._sent_s = None, self._clock_s()
            self._put(progress)

    def hand_over(self) -> None:
        """The worker has the work now: from here on it is listened to."""
        with self._changed:
            self._silence = Silence(self._clock_s(), self._floor_s)
            self._changed.notify()

    def heard(self, progress: Progress) -> None:
        """The worker has said how far it is."""
        with self._changed:
            if self._silence is not None:
                self._silence = self._silence.heard(self._clock_s())
            self._put(progress)

    def take_back(self) -> None:
        """The worker is done; what is left is the agent's own again."""
        with self._changed:
            self._silence = None

    def again(self) -> None:
        """Say what was last known once more: a coordinator that was restarted knows nothing of it."""
        with self._changed:
            if self._said is not None:
                self._put(self._said)

    def end(self) -> None:
        """Nothing is being done."""
        with self._changed:
            self._said, self._silence, self._news = None, None, False

    def attached(self) -> None:
        """A coordinator listens: from here on it is told, where nothing is being done, that the site is there."""
        with self._changed:
            self._attached, self._sent_s = True, self._clock_s()
            self._changed.notify()

    def close(self) -> None:
        """Let `run` end."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def run(self) -> None:
        """Send what is due, until `close`."""
        while (due := self._await_due()) is not None:
            if isinstance(due, Hung):
                self._on_hung(due)
                continue
            with contextlib.suppress(FedcervixError):
                self._sign(due)

    def _put(self, progress: Progress) -> None:
        self._said = progress
        if not self._news:  # else its time is set already
            self._news = True
            self._changed.notify()

    def _await_due(self) -> Heartbeat | Hung | None:
        """Return the next report when it is due; None when there will be none."""
        with self._changed:
            while not self._closed and (due_s := self._due_s()) > self._clock_s():
                self._sleep_until(due_s)
            if self._closed:
                return None
            said, silence, now_s = self._said, self._silence, self._clock_s()
            self._news, self._sent_s = False, now_s
            if said is None:
                return Ping()
            if silence is not None and silence.hangs(now_s):
                self._said = self._silence = None
                return Hung(said, silence)
            return said

    def _sleep_until(self, due_s: float) -> None:
        """Sleep until a moment, or until something has changed."""
        self._changed.wait(None if math.isinf(due_s) else max(0.0, due_s - self._clock_s()))
        if self._silence is not None:
            self._silence = self._silence.woke(self._clock_s(), due_s)

    def _due_s(self) -> float:
        """Return when the next report is due, by the clock."""
        if self._said is None:
            return self._sent_s + self.beat_s if self._attached else math.inf
        next_s = self._sent_s + (min(self._progress_s, self.beat_s) if self._news else self.beat_s)
        return next_s if self._silence is None else min(next_s, self._silence.ends_at_s)
