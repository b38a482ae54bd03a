"""What the agent and the commands tell a person, as values: `str` gives the words.

`site_agent.commands.display` puts them on the screen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedcervix.core.events import Answer, Task
from fedcervix.core.plan import Plan
from fedcervix.errors import FedcervixError
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.federation.line_probe import LinePace
from site_agent.federation.partners import Partners
from site_agent.worker.preflight import Findings

NEXT_LINE = "\n          "
"""indented by the time of day that stands before the first line"""


UNHIDDEN = f".{NEXT_LINE}If it has, these sums do not hide the updates of this site from it"


class Shown:
    """Something worth telling. Without words it is drawn in another way, or of use to tests alone."""

    def __str__(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Message(Shown):
    """Words, as they are."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Advanced(Shown):
    """How far a piece of work is."""

    task: Task | str
    at: WorkProgress


@dataclass(frozen=True, slots=True)
class Step(Advanced):
    """The same of one of a few steps: each is worth a line."""


@dataclass(frozen=True, slots=True)
class Attached(Shown):
    """The coordinator has welcomed this site to a run."""

    run: str
    plan: Plan

    def __str__(self) -> str:
        plan = self.plan
        run = f"attached to run {self.run}: {plan.mode}, sites {', '.join(plan.sites)}, profile {plan.profile}"
        return f"{run}{NEXT_LINE}the plan is allowed by this site's policy (contract {plan.digest[:12]})"


@dataclass(frozen=True, slots=True)
class Acquainted(Shown):
    """How far this site knows its partners."""

    partners: Partners
    command: str
    """that makes a pin"""
    hides: bool = False
    """the plan hides something from the coordinator"""

    def __str__(self) -> str:
        lines = []
        if self.partners.pinned:
            lines.append(f"pinned: {', '.join(self.partners.pinned)}; the keys are those that were compared")
        if self.partners.unpinned:
            lines.append(f"not pinned: {', '.join(self.partners.unpinned)}; nobody here has compared the keys,")
            lines.append("so the coordinator could have invented these sites" + (UNHIDDEN if self.hides else ""))
            lines.append(f"compare the keys by telephone, then: {self.command} NAME FINGERPRINT")
        return NEXT_LINE.join(lines)


@dataclass(frozen=True, slots=True)
class AwaitsKeys(Shown):
    """The coordinator has not told the key of a partner that is pinned here."""

    names: tuple[str, ...]
    command: str
    """that takes a pin back"""

    def __str__(self) -> str:
        return (
            f"waits, and sends nothing: the coordinator does not tell the key of {', '.join(self.names)}, pinned here."
            f"{NEXT_LINE}The site has not joined yet, or the coordinator's version is an earlier one."
            f"{NEXT_LINE}To go on without the check, stop this agent, then: {self.command} {self.names[0]}"
        )


@dataclass(frozen=True, slots=True)
class Examined(Shown):
    """This site can do what the plan asks."""

    findings: Findings | None

    def __str__(self) -> str:
        found = self.findings.lines() if self.findings else ()
        return NEXT_LINE.join(f"{subject}: {finding}" for subject, finding in found)


@dataclass(frozen=True, slots=True)
class LineTried(Shown):
    """How fast the line to the coordinator is."""

    line: LinePace

    def __str__(self) -> str:
        return f"line: {self.line}"


@dataclass(frozen=True, slots=True)
class Resumed(Shown):
    """A run continues where the process before this one has left it."""

    run: str
    task: Task | None

    def __str__(self) -> str:
        return f"continues run {self.run}" + (f": {self.task}" if self.task else "")


@dataclass(frozen=True, slots=True)
class Stopping(Shown):
    """Training saves a checkpoint and ends."""

    deadline_s: float

    def __str__(self) -> str:
        within = f"within {self.deadline_s:.0f} s"
        return (
            f"stopping: training saves a checkpoint at its next step and ends, {within}. "
            "Press Ctrl-C again to stop immediately."
        )


@dataclass(frozen=True, slots=True)
class Reconnected(Shown):
    """The coordinator can be reached again."""

    def __str__(self) -> str:
        return "connected to the coordinator again"


@dataclass(frozen=True, slots=True)
class Disconnected(Shown):
    """The coordinator cannot be reached."""

    error: FedcervixError
    works: bool
    """there is work to do meanwhile"""

    def __str__(self) -> str:
        return f"{self.error.what}; trying again automatically" + (", work continues meanwhile" if self.works else "")


@dataclass(frozen=True, slots=True)
class Trouble(Shown):
    """Something does not work now, and is tried again."""

    error: FedcervixError

    def __str__(self) -> str:
        return f"{self.error.explain()}{NEXT_LINE}trying again automatically"


@dataclass(frozen=True, slots=True)
class Resting(Shown):
    """There is nothing to do."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Working(Shown):
    """A task begins."""

    task: Task

    def __str__(self) -> str:
        return f"asked to {self.task}"


@dataclass(frozen=True, slots=True)
class TaskFinished(Shown):
    """A task is done."""

    task: Task
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"done: {self.task}" + (f": {NEXT_LINE.join(self.lines)}" if self.lines else "")


@dataclass(frozen=True, slots=True)
class Delivered(Shown):
    """The coordinator has a task's result."""

    task: Task
    answer: Answer


Show = Callable[[Shown], None]
