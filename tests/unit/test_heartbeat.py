"""Reports of progress: not too many, never too few, and none for a worker that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fedcervix.core.events import Task, TaskKind
from fedcervix.errors import LinkError
from fedcervix.transport.codec import Ping, Progress
from site_agent.federation.heartbeat import Hung, Reporter

TASK = Task("run", TaskKind.TRAIN, 1, "a" * 64)
WAIT_S = 60.0


def progress(done: int) -> Progress:
    return Progress(TASK, "training", done, 100, "steps", 1.0, 2.0)


class Heard:
    """What the coordinator hears, and when; what the agent hears of a hung worker."""

    def __init__(self) -> None:
        self.told: list[tuple[float, Progress]] = []
        self.at_rest: list[Ping] = []
        self.hung: list[Hung] = []
        self.fails = False
        self._changed = threading.Condition()

    def report(self, said: Progress | Ping) -> None:
        with self._changed:
            if isinstance(said, Ping):
                self.at_rest.append(said)
            else:
                self.told.append((time.monotonic(), said))
            self._changed.notify_all()
        if self.fails:
            raise LinkError("cut")

    def on_hung(self, hung: Hung) -> None:
        with self._changed:
            self.hung.append(hung)
            self._changed.notify_all()

    def until(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_S), (self.told, self.hung)

    @property
    def done(self) -> list[int]:
        return [said.done for _, said in self.told]


@pytest.fixture
def heard() -> Heard:
    return Heard()


Start = Callable[..., Reporter]


@pytest.fixture
def start(heard: Heard) -> Iterator[Start]:
    """Return a starter of reporters, which end with the test."""
    started: list[tuple[Reporter, threading.Thread]] = []

    def make(*, beat_s: float, **options: Any) -> Reporter:
        reporter = Reporter(heard.report, heard.on_hung, **options)
        reporter.beat_s = beat_s
        thread = threading.Thread(target=reporter.run)
        thread.start()
        started.append((reporter, thread))
        return reporter

    yield make
    for reporter, thread in started:
        reporter.close()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_what_was_last_said_is_repeated_beat_by_beat(heard: Heard, start: Start) -> None:
    reporter = start(beat_s=0.02, progress_s=0.01)
    reporter.begin(progress(1))
    heard.until(lambda: len(heard.told) >= 4)
    reporter.heard(progress(2))
    heard.until(lambda: heard.done.count(2) >= 2)
    assert heard.done == sorted(heard.done)


def test_however_much_news_there_is_reports_keep_their_distance_and_say_the_latest(heard: Heard, start: Start) -> None:
    reporter = start(beat_s=100.0, progress_s=0.1)
    reporter.begin(progress(0))
    number = 0
    while len(heard.told) < 4:
        number += 1
        reporter.heard(progress(number))
    gaps = [later - earlier for (earlier, _), (later, _) in zip(heard.told, heard.told[1:], strict=False)]
    assert min(gaps) > 0.09
    assert heard.done == sorted(set(heard.done))
    assert heard.done[-1] > 10


def test_a_task_that_is_done_within_the_distance_needs_no_report(heard: Heard, start: Start) -> None:
    reporter = start(beat_s=100.0, progress_s=0.2)
    for _ in range(50):
        reporter.begin(progress(0))
        reporter.heard(progress(1))
        reporter.end()
    reporter.begin(progress(2))
    heard.until(lambda: heard.told)
    assert heard.done == [2]


def test_where_nothing_is_done_nothing_is_said(heard: Heard, start: Start) -> None:
    reporter = start(beat_s=0.01, progress_s=0.01)
    reporter.begin(progress(1))
    heard.until(lambda: heard.told)
    reporter.end()
    count = len(heard.told)
    reporter.begin(progress(2))
    heard.until(lambda: 2 in heard.done)
    assert heard.done[count + 1 :].count(1) == 0


def test_at_rest_a_site_says_that_it_is_there_and_at_work_how_far_it_is(heard: Heard, start: Start) -> None:
    reporter = start(beat_s=0.01, progress_s=0.01)
    reporter.attached()
    heard.until(lambda: len(heard.at_rest) >= 3)
    reporter.begin(progress(1))
    heard.until(lambda: heard.told)
    count = len(heard.at_rest)
    heard.until(lambda: len(heard.told) >= 5)
    assert len(heard.at_rest) <= count + 1
    reporter.end()
    heard.until(lambda: len(heard.at_rest) >= count + 3)


def test_a_report_that_is_lost_costs_nothing_but_itself(heard: Heard, start: Start) -> None:
    heard.fails = True
    reporter = start(beat_s=0.02, progress_s=0.01)
    reporter.begin(progress(1))
    heard.until(lambda: len(heard.told) >= 3)


def test_a_worker_that_hangs_is_vouched_for_no_longer(heard: Heard, start: Start) -> None:
    reporter = start(beat_s=0.01, progress_s=0.01, floor_s=0.15)
    reporter.begin(progress(0))
    reporter.hand_over()
    reporter.heard(progress(7))
    heard.until(lambda: heard.hung)
    [hung] = heard.hung
    assert (hung.said.done, hung.silence.floor_s) == (7, 0.15)
    count = len(heard.told)
    reporter.begin(progress(8))
    heard.until(lambda: 8 in heard.done)
    assert 7 not in heard.done[count:], "it was vouched for after all"
    assert len(heard.hung) == 1


def test_a_machine_that_stood_still_does_not_make_its_worker_a_hung_one(heard: Heard, start: Start) -> None:
    ahead_s = [0.0]
    reporter = start(beat_s=0.05, progress_s=0.01, floor_s=60.0, clock_s=lambda: time.monotonic() + ahead_s[0])
    reporter.begin(progress(0))
    reporter.hand_over()
    reporter.heard(progress(7))
    heard.until(lambda: 7 in heard.done)
    ahead_s[0] = 3600.0
    count = len(heard.told)
    heard.until(lambda: len(heard.told) > count + 3)
    assert heard.hung == []


def test_what_the_agent_does_itself_does_not_hang(heard: Heard, start: Start) -> None:
    """A model that comes over a slow line: its bytes are signs of life, or the line is cut."""
    reporter = start(beat_s=0.01, progress_s=0.01, floor_s=0.02)
    reporter.begin(progress(0))
    heard.until(lambda: len(heard.told) >= 10)
    assert heard.hung == []
