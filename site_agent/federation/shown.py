"""What the agent and the commands tell a person, as values. `site_agent.commands.display` puts them into words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedcervix.core.events import Answer, Task
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.instructions import Instruction
from fedcervix.errors import FedcervixError
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.worker.preflight import Findings


@dataclass(frozen=True, slots=True)
class Message:
    """Words, as they are."""

    text: str


@dataclass(frozen=True, slots=True)
class Advanced:
    """How far a piece of work is."""

    task: Task | str
    at: WorkProgress


@dataclass(frozen=True, slots=True)
class Step(Advanced):
    """The same of one of a few steps: each is worth a line."""


@dataclass(frozen=True, slots=True)
class Attached:
    """The coordinator has welcomed this site to a run."""

    run: str
    plan: Plan


@dataclass(frozen=True, slots=True)
class Examined:
    """This site can do what the plan asks."""

    findings: Findings | None


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run continues where the process before this one has left it."""

    run: str
    task: Task | None


@dataclass(frozen=True, slots=True)
class Stopping:
    """Training saves a checkpoint and ends."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The coordinator can be reached again."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The coordinator cannot be reached."""

    error: FedcervixError
    works: bool
    """there is work to do meanwhile"""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something does not work now, and is tried again."""

    error: FedcervixError


@dataclass(frozen=True, slots=True)
class Resting:
    """There is nothing to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class Instructed:
    """The coordinator has said what to do now."""

    instruction: Instruction


@dataclass(frozen=True, slots=True)
class Working:
    """A task begins."""

    task: Task


@dataclass(frozen=True, slots=True)
class TaskFinished:
    """A task is done."""

    task: Task
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Delivered:
    """The coordinator has a task's result."""

    task: Task
    answer: Answer


Shown = (
    Message
    | Advanced
    | Attached
    | Examined
    | Resumed
    | Stopping
    | Reconnected
    | Disconnected
    | Trouble
    | Resting
    | Instructed
    | Working
    | TaskFinished
    | Delivered
)
Show = Callable[[Shown], None]
