"""The site's mirror image of `rounds`: what one site should be doing, as a function of what it was told and has done.

Rules
1. What the coordinator wants is one value (`instruction`), replaced whenever it says something new.
2. A finished result is kept until the coordinator has answered; training through a network loss needs no extra case.
3. `next_action` says what to do *now*: work, deliver, or nothing. The loop around it compares that with what is
   running. While the coordinator is away, nothing is done that needs it; work whose model is here goes on.
4. What outlives the process is one value too (`persistent_state`): the task that is not settled yet, and the result
   that is not acknowledged. A process that begins with it (`resumed`) goes on at once, whether the coordinator is there
   or not; when the line is up, what the coordinator says replaces it as ever. Of a task that was settled nothing is
   kept: if the coordinator asks for it after a restart, it wants it anew.

So "instructed twice", "answer lost", "restarted in the middle" all end in the same place: ask `next_action` again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fedcervix.core.events import (
    BoxesStored,
    CloseSigned,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
    Rewrapped,
    ScoreReported,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.rounds.instructions import Finish, Idle, Instruction

Result = (
    UpdateStored | ScoreReported | ModelUnusable | ModelAdopted | BoxesStored | ReleaseStored | CloseSigned | Rewrapped
)
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

    leave: Finish


Action = Work | Deliver | Rest | Done


NOT_ATTACHED = Idle("not attached yet")


@dataclass(frozen=True, slots=True)
class Session:
    """What a site knows of its run."""

    site: str
    instruction: Instruction = NOT_ATTACHED
    result: Result | None = None
    """the last finished task, until it is acknowledged"""
    settled: Task | None = None
    """the instructed task, once it needs nothing more from this site"""
    away: bool = True
    """the coordinator cannot be heard"""


# --- what outlives the process ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PersistentState:
    """What a site keeps of its session on its disk."""

    task: Task | None = None
    """what it was asked to do and has not settled yet"""
    result: Result | None = None
    """the last finished task, until it is acknowledged"""


def persistent_state(session: Session) -> PersistentState:
    """Return what must outlive the process: nothing once the run is over."""
    wanted = session.instruction
    if isinstance(wanted, Finish):
        return PersistentState()
    return PersistentState(wanted if isinstance(wanted, Task) and wanted != session.settled else None, session.result)


def resumed(site: str, kept: PersistentState) -> Session:
    """Return the session of a process that begins with what an earlier one has kept."""
    return Session(site, instruction=kept.task or NOT_ATTACHED, result=kept.result)


# --- what happens -------------------------------------------------------------------------------------------------


def attached(session: Session) -> Session:
    """The line is up. A settled task that is asked for on it is wanted anew: its result came too late."""
    if session.settled is not None and session.settled == session.instruction:
        session = replace(session, instruction=Idle(_told(session.settled)), settled=None)
    return replace(session, away=False)


def cut(session: Session) -> Session:
    """The line is down."""
    return replace(session, away=True)


def forgotten(session: Session) -> Session:
    """A kept task has failed before the coordinator was heard: it is done again if it is asked for again."""
    return replace(session, instruction=NOT_ATTACHED)


def instructed(session: Session, instruction: Instruction) -> Session:
    """The coordinator has said what it wants. A task that it comes back to is wanted anew: its result came too late."""
    settled = session.settled if instruction == session.instruction else None
    return replace(session, instruction=instruction, settled=settled, away=False)


def finished(session: Session, result: Result) -> Session:
    """The site has done a task."""
    return replace(session, result=result)


def answered(session: Session, task: Task) -> Session:
    """The coordinator has answered the result of a task; whatever it said, it need not be told again."""
    if session.result is None or session.result.task != task:
        return session
    return replace(session, result=None, settled=task)


# --- what should be done now --------------------------------------------------------------------------------------


def next_action(session: Session, has: Callable[[str], bool]) -> Action:
    """Return what the site should be doing now; `has` says whether a model (its digest) is here."""
    match session.instruction:
        case Finish() as leave:
            return Done(leave)
        case Task() as task if session.settled == task:
            return Rest(_told(task))
        case Task() as task if session.result is None or session.result.task != task:
            here = not session.away or not task.base or has(task.base)
            return (
                Work(task) if here else Rest(f"cannot {task}: the coordinator, which has the model, cannot be reached")
            )
    if session.result is None:
        return Rest(str(session.instruction))
    return Rest(_waiting(session.result.task)) if session.away else Deliver(session.result)


def _told(task: Task) -> str:
    return f"the coordinator has the result: {task}"


def _waiting(task: Task) -> str:
    saved = _GIVES[task.kind].format(task.round)
    return f"the coordinator cannot be reached; {saved} is saved and will be sent on reconnect"


_GIVES = {
    TaskKind.SEED: "the first model",
    TaskKind.TRAIN: "the result of round {}",
    TaskKind.SCORE: "the score of round {}",
    TaskKind.ADOPT: "the adoption of round {}'s model",
    TaskKind.REWRAP: "the key of round {}'s model",
    TaskKind.BOX: "what the other sites need of this one",
    TaskKind.RELEASE: "the masks of round {}",
    TaskKind.CLOSE: "the word that closes an attempt at round {}",
}
