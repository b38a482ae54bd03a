"""The site's mirror image of `rounds`: what one site should be doing, as a function of what it was told and has done.

Rules
1. What the coordinator wants is one value (`instruction`), replaced whenever it says something new.
2. A finished result is kept until the coordinator has answered; training through a network loss needs no extra case.
3. `duty` says what to do *now*: work, deliver, or nothing. The loop around it compares that with what is running.

So "instructed twice", "answer lost", "restarted in the middle" all end in the same place: ask `duty` again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedcervix.events import ModelAdopted, ScoreReported, Task, UpdateStored
from fedcervix.rounds import Instruction, Leave, Stand

Result = UpdateStored | ScoreReported | ModelAdopted
"""A finished task, in the words in which it is reported (`at`: when it was finished, by the site's clock)."""


@dataclass(frozen=True, slots=True)
class Work:
    """Do this task."""

    task: Task


@dataclass(frozen=True, slots=True)
class Deliver:
    """Tell the coordinator of this finished task (and upload the model it made)."""

    result: Result


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """The run is over for this site."""

    leave: Leave


Duty = Work | Deliver | Rest | Done


NOT_ATTACHED = Stand("not attached yet")


@dataclass(frozen=True, slots=True)
class Session:
    """What a site knows of its run."""

    site: str
    instruction: Instruction = NOT_ATTACHED
    result: Result | None = None
    """the last finished task, until it is acknowledged"""
    settled: Task | None = None
    """the instructed task, once it needs nothing more from this site"""


def instructed(session: Session, instruction: Instruction) -> Session:
    """The coordinator has said what it wants. A task that it comes back to is wanted anew: its result came too late."""
    settled = session.settled if instruction == session.instruction else None
    return replace(session, instruction=instruction, settled=settled)


def finished(session: Session, result: Result) -> Session:
    """The site has done a task."""
    return replace(session, result=result)


def answered(session: Session, task: Task) -> Session:
    """The coordinator has answered the result of a task; whatever it said, it need not be told again."""
    if session.result is None or session.result.task != task:
        return session
    return replace(session, result=None, settled=task)


def duty(session: Session) -> Duty:
    """Return what the site should be doing now."""
    match session.instruction:
        case Leave() as leave:
            return Done(leave)
        case Task() as task if session.result is not None and session.result.task == task:
            return Deliver(session.result)
        case Task() as task if session.settled == task:
            return Rest(f"told the coordinator: {task}, done")
        case Task() as task:
            return Work(task)
        case Stand(reason):
            return Deliver(session.result) if session.result is not None else Rest(reason)
