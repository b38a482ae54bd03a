"""One event after the other: each is recorded, and then the run advances."""

from __future__ import annotations

from collections.abc import Iterable

from fedcervix.core.events import Answer, Event
from fedcervix.core.rounds.phases import advance
from fedcervix.core.rounds.recording import RECORD
from fedcervix.core.rounds.state import Run
from fedcervix.core.rounds.transitions import close_before_end


def step(run: Run, event: Event) -> tuple[Run, Answer]:
    """Return the state after an event and what to answer to whoever caused it."""
    if run.ended:
        return run, Answer.STALE
    recorded, answer = RECORD[type(event)](run, event)
    return close_before_end(advance(recorded, event.at), event.at), answer


def answer_to(run: Run, event: Event) -> Answer:
    """Return what `step` answers, without the step."""
    return Answer.STALE if run.ended else RECORD[type(event)](run, event)[1]


def replay(run: Run, events: Iterable[Event]) -> Run:
    """Return the state after the journal's events."""
    for event in events:
        run, _ = step(run, event)
    return run
