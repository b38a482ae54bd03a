"""What the agent asks of its worker, and the results. How they travel: `fedcervix.runtime.worker_protocol`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from fedcervix.core.events import Task
from fedcervix.runtime.typed_json import from_json
from site_agent.store.task_results import ScoreResult, TaskResult, TrainResult, UnusableResult
from site_agent.worker.preflight import Findings


@dataclass(frozen=True, slots=True)
class Request:
    """A task to do under a plan; without a task, the question what can be known before round 1 (`preflight`)."""

    plan: str
    """in its canonical form; empty: none"""
    task: Task | None = None


Result = TaskResult | Findings
_KINDS: dict[str, type[Result]] = {
    "trained": TrainResult,
    "scored": ScoreResult,
    "unusable": UnusableResult,
    "findings": Findings,
}


def result_to_json(result: Result) -> dict[str, object]:
    """Return a result as JSON can hold it."""
    name = next(name for name, kind in _KINDS.items() if isinstance(result, kind))
    return {name: dataclasses.asdict(result)}


def result_from_json(raw: Any) -> Result:
    """Undo `result_to_json`. Raises ValueError on anything else."""
    if not isinstance(raw, dict) or len(raw) != 1 or not raw.keys() <= _KINDS.keys():
        raise ValueError(f"a result is one of {', '.join(_KINDS)}")
    [(name, values)] = raw.items()
    return from_json(_KINDS[name], values)
