"""The work of a light site: arithmetic in place of training, which takes milliseconds and loads no torch.

    python -m tests.e2e.light_worker HOME SITE

As a process it speaks with the agent as `site_agent.worker.worker_process` does, so that it can be killed by itself.
How fast it works and how large its model is, it is told by the environment: `surroundings` says how.

What it "trains" depends on (base, site, round) alone: a federation of such sites has one right result.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan
from fedcervix.core.seeds import derive
from fedcervix.errors import FedcervixError
from fedcervix.json_text import parsed
from fedcervix.models.blobs import BlobStore
from fedcervix.models.weights import read_tensors, write_tensors
from fedcervix.runtime.typed_json import from_json
from fedcervix.runtime.worker_protocol import Answers, Failure, OnProgress, RequestDone, WorkProgress, requests
from site_agent.home import SiteHome
from site_agent.store.task_results import ScoreResult, TaskResult, TrainResult, UnusableResult
from site_agent.worker.disk_full_retry import with_room
from site_agent.worker.messages import Request, result_to_json
from tests.unit.audit_sheets import sheet

NUMBERS = 700_000
"""of the model: 2.8 MB, three chunks on the wire"""
STEPS = 5
USABLE_MAX = 1e6
"""magnitude of a model's numbers, beyond which its loss counts as infinite"""
PACE, SIZE, DIARY = "LIGHT_PACE_S", "LIGHT_NUMBERS", "LIGHT_DIARY"


@dataclass(frozen=True, slots=True)
class LightWork:
    """What one light site does."""

    home: SiteHome
    site: str
    pace_s: float = 0.0
    numbers: int = NUMBERS
    diary: str = ""
    """a file to which every step is added when it is done; none by default"""
    spoils: float = 0.0
    """a factor of what it trains; with one it is a culprit, which finds every model good"""
    images: int = 10
    """that it says it has"""
    loss: float = 1.0
    """that it says its training had"""
    audited: float = 0.0
    """AUC that an audit of its updates surely finds; 0: no audit"""
    keep: str = ""
    """a folder in which a copy of each model that it makes is kept; none by default"""

    def do(
        self,
        task: Task,
        plan: Plan,
        on_progress: OnProgress,
        wait: Callable[[float], Any] = time.sleep,
    ) -> TaskResult:
        """Return what a task gave, after a few paced steps."""
        for step in range(STEPS):
            on_progress(WorkProgress("training", step, STEPS, "steps", loss=1.0))
            wait(self.pace_s)
            self._note(f"{self.site} {task.kind} {task.round} {step}")
        model = read_tensors(BlobStore(self.home.blobs).path(task.base)) if task.base else {}
        if not self.spoils and any(np.abs(values).max() > USABLE_MAX for values in model.values()):
            return UnusableResult(steps=0, said=(f"  cannot {task}: there is no finite loss",))
        if task.kind is TaskKind.SCORE:
            loss = float(np.abs(next(iter(model.values()))).mean()) + 1 / task.round
            return ScoreResult(loss_sum=4 * loss, count=4, images=self.images, gauges={"unit_std": 0.5})
        state = seed_model(plan, self.numbers) if task.kind is TaskKind.SEED else self._trained(task, plan)
        digest = with_room(lambda: self._keep(task, state), on_progress, wait)
        loss = 0.0 if task.kind is TaskKind.SEED else self.loss
        found = sheet(self.audited) if self.audited and task.kind is TaskKind.TRAIN else None
        return TrainResult(digest=digest, images=self.images, steps=STEPS, loss=loss, seconds=0.1, audit=found)

    def _note(self, words: str) -> None:
        if self.diary:
            with Path(self.diary).open("a") as diary:
                diary.write(f"{words}\n")

    def _trained(self, task: Task, plan: Plan) -> dict[str, Any]:
        base = read_tensors(BlobStore(self.home.blobs).path(task.base))
        chance = np.random.default_rng(derive(plan.terms.seed, "light", self.site, task.round, *_attempt(task)))
        moved = {
            name: (values + chance.standard_normal(values.shape).astype(values.dtype))
            for name, values in base.items()
            if values.dtype == np.float32
        }
        if self.spoils:
            moved = {name: values * np.float32(self.spoils) for name, values in moved.items()}
        moved |= {name: np.abs(values) for name, values in moved.items() if name.endswith("running_var")}
        counted = {name: values + STEPS for name, values in base.items() if values.dtype == np.int64}
        return {**base, **moved, **counted}

    def _keep(self, task: Task, state: dict[str, Any]) -> str:
        blobs = BlobStore(self.home.blobs)
        making = blobs.scratch(f"light-{task.kind}-{task.round}")
        digest = write_tensors(making, state)
        if self.keep:
            shutil.copyfile(making, Path(self.keep) / f"{task.kind}-{task.round}")
        blobs.adopt(making, digest)
        return digest


def _attempt(task: Task) -> list[int]:
    return [task.attempt] if task.attempt > 1 else []


def seed_model(plan: Plan, numbers: int) -> dict[str, Any]:
    """Return the first model: one float tensor and one counter."""
    chance = np.random.default_rng(derive(plan.terms.seed, "light-seed"))
    return {"weight": chance.standard_normal(numbers).astype(np.float32), "steps": np.zeros((), np.int64)}


# --- as a process -------------------------------------------------------------------------------------------------


def surroundings(work: LightWork) -> dict[str, str]:
    """Return the environment in which a process does this work."""
    return {PACE: str(work.pace_s), SIZE: str(work.numbers), DIARY: work.diary}


def main() -> None:
    """Serve tasks until standard input ends."""
    told = os.environ
    home, site = SiteHome(Path(sys.argv[1])), sys.argv[2]
    work = LightWork(home, site, float(told[PACE]), int(told[SIZE]), told[DIARY])
    answers = Answers.on_stdout()
    asked = requests(sys.stdin, on_stop=lambda: os._exit(0), on_end=lambda: os._exit(0))
    while True:
        request = from_json(Request, parsed(asked.get()))
        assert request.task is not None
        try:
            answers.say(RequestDone(result_to_json(work.do(request.task, Plan.parse(request.plan), answers.say))))
        except FedcervixError as error:
            answers.say(Failure.of(error, error, "training"))


if __name__ == "__main__":
    main()
