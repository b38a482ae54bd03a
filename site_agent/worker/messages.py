"""What the agent asks of its worker, and the results. How they travel: `fedcervix.runtime.worker_protocol`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from fedcervix.core.events import Task
from fedcervix.runtime.typed_json import from_json
from site_agent.store.task_results import TaskResult
from site_agent.worker.preflight import Findings


@dataclass(frozen=True, slots=True)
class Request:
    """A task to do under a plan; without a task, the question what can be known before round 1 (`preflight`)."""

    plan: str
    """in its canonical form; empty: none"""
    task: Task | None = None
    roster: str = ""
    """digest of the run's openings, of which a run with secure sums makes its first model; empty in all others"""


Result = TaskResult | Findings


@dataclass(frozen=True, slots=True)
class _Answer:
    """A result needs no name of its kind: no two kinds have the same fields."""

    result: Result


def result_to_json(result: Result) -> dict[str, object]:
    """Return a result as JSON can hold it."""
    return dataclasses.asdict(result)


def result_from_json(raw: Any) -> Result:
    """Undo `result_to_json`. Raises ValueError on anything else."""
    return from_json(_Answer, {"result": raw}).result
