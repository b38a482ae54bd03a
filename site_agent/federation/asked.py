"""What a coordinator has asked of this site in a run, and what the site has answered: it is asked once.

Rules
1. What is begun is written down before the work, and what is answered before a byte of the answer leaves.
2. The base of a trained model stands: once the site has answered `train` in a round, no other model is trained in that
   round. An honest coordinator never asks for it: its round begins with one model, and in a ring a site that has
   answered is never asked again in that cycle. `seed` has no base.
   Nor does it ever adopt a second model in a run.
3. A round may be scored again with another model: the coordinator averages again without a site that was revoked.
4. Work that is begun anew is bounded (`again_max`): after its answer, or from another base. A process that is killed
   and goes on with the same task begins nothing anew. Work that the coordinator takes away before its answer counts
   when it is begun again, however often that is: against the site's policy, not against this bound. An honest
   coordinator asks anew only where it was restored from a backup, or where the memory of this site was lost on a full
   disk.

The file has a line for each change, and is only appended to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan
from fedcervix.disk.files import append_line
from fedcervix.disk.storage import disk

AGAIN_MAX = 8
FILE = "asked.jsonl"
OF_A_ROUND = (TaskKind.SCORE, TaskKind.REWRAP)
"""kinds of work whose repetitions count for each round by itself"""
ONE_BASE = (TaskKind.TRAIN, TaskKind.SEED)
"""kinds of work of which a model leaves the site"""

Change = Literal["begun", "answered", "unusable", "withdrawn"]
Key = tuple[str, int]
"""kind of work and round"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of one kind of work in one round."""

    base: str
    tries: int = 0
    """times that it was begun anew"""
    open: bool = False
    """begun, and not answered since"""
    answered: bool = False
    unusable: int = 0
    """times that this site could not train from the model, and said so: no model has left it"""
    withdrawn: int = 0
    """times that the coordinator took it away while it was under way"""


Turns = Mapping[Key, Turn]


def key(task: Task) -> Key:
    """Return under what a task is written down."""
    return str(task.kind), task.round


def begun(turn: Turn | None, base: str) -> Turn:
    """The work begins, or goes on in a new process."""
    if turn is None:
        return Turn(base, 1, open=True)
    if turn.open and turn.base == base:
        return turn
    return replace(turn, base=base, tries=turn.tries + 1, open=True)


def answered(turn: Turn | None, base: str) -> Turn:
    """The answer is about to leave."""
    return replace(turn or Turn(base, 1), base=base, open=False, answered=True)


def unusable(turn: Turn | None, base: str) -> Turn:
    """The site is about to say that it cannot train from this model; said again, it is the same word."""
    turn = turn or Turn(base, 1, open=True)
    return replace(turn, open=False, unusable=turn.unusable + 1) if turn.open and turn.base == base else turn


def withdrawn(turn: Turn | None, base: str) -> Turn:
    """The coordinator wants something else before the work is done."""
    turn = turn or Turn(base, 1, open=True)
    return replace(turn, open=False, withdrawn=turn.withdrawn + 1) if turn.open and turn.base == base else turn


def is_replacement(turn: Turn | None) -> bool:
    """Say whether work that begins now takes the place of work that gave nothing: each try was unusable, or taken away.

    In a ring the model of the site before can be such that nobody can train from it. That is not this site's doing.
    """
    return turn is not None and not turn.open and not turn.answered and turn.unusable + turn.withdrawn == turn.tries


CHANGES = {"begun": begun, "answered": answered, "unusable": unusable, "withdrawn": withdrawn}


def again_max(plan: Plan) -> int:
    """Return how often work may be begun anew: a revoked neighbour can change the model that a site is asked for."""
    return AGAIN_MAX + len(plan.sites)


def objection(turns: Turns, task: Task, plan: Plan) -> str:
    """Return why a task is not begun; empty where it may be."""
    turn = turns.get(key(task))
    adopted = {other.base for (kind, _), other in turns.items() if kind == TaskKind.ADOPT}
    if task.kind is TaskKind.ADOPT and adopted - {task.base}:
        return f"this site has adopted model {min(adopted)[:12]} in this run; it is asked to adopt {task.base[:12]}"
    if turn is None or begun(turn, task.base) == turn:
        return ""
    if turn.answered and turn.base != task.base and task.kind in ONE_BASE:
        return (
            f"this site has answered '{task}' from model {turn.base[:12]}; "
            f"it is asked again, from model {task.base[:12]}"
        )
    again, most = _again(turns, task, plan), again_max(plan)
    return f"asked to {task} once more, after {again} repetitions; at most {most} are done" if again >= most else ""


def _again(turns: Turns, task: Task, plan: Plan) -> int:
    """Return the repetitions so far: of scores and keys those of the round, else those of the run."""
    within = [turn for (kind, round_), turn in turns.items() if kind == task.kind and _counts(task, round_)]
    return sum(max(0, turn.tries - 1 - turn.withdrawn - min(turn.unusable, len(plan.sites))) for turn in within)


def _counts(task: Task, round_: int) -> bool:
    return task.kind not in OF_A_ROUND or round_ == task.round


# --- the file -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """The file in a run's folder."""

    folder: Path

    def turns(self) -> Turns:
        """Return what was asked and answered; a line that was torn is left out. Raises StorageError."""
        found: dict[Key, Turn] = {}
        file = self.folder / FILE
        with disk(file, "read"):
            lines = file.read_bytes().splitlines() if file.exists() else []
        for change, kind, round_, base in filter(None, map(_line, lines)):
            found[kind, round_] = CHANGES[change](found.get((kind, round_)), base)
        return found

    def note(self, change: Change, task: Task) -> None:
        """Write down what becomes of a task; where a model leaves, the disk has it. Raises StorageError."""
        line = json.dumps([change, str(task.kind), task.round, task.base], allow_nan=False)
        append_line(self.folder / FILE, line, sync=change == "answered" and task.kind in ONE_BASE)


_LINE = TypeAdapter(tuple[Change, str, int, str])
"""change, kind, round, base"""


def _line(content: bytes) -> tuple[Change, str, int, str] | None:
    try:
        return _LINE.validate_json(content, strict=True)
    except ValueError:
        return None
