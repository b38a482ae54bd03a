"""A site without images: the real agent on the real line, with arithmetic in place of training.

    python light_site.py HOME [--pace-s SECONDS] [--numbers COUNT]

A task takes milliseconds instead of seconds, and no torch is loaded; so a test can kill this process at many moments.
What it "trains" depends on (base, site, round) alone: a federation of such sites has one right result.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fedcervix.blobs import BlobStore
from fedcervix.errors import FedcervixError
from fedcervix.events import Task, TaskKind
from fedcervix.plan import Plan
from fedcervix.process import fail
from fedcervix.rounds import Outcome
from fedcervix.seeds import derive
from fedcervix.weights import read_tensors, write_tensors
from site_agent.agent import Agent
from site_agent.display import Display
from site_agent.home import SiteHome
from site_agent.link import GrpcLink
from site_agent.worker import CancelledError

EXIT_OF = {Outcome.OK: 0, Outcome.DEGRADED: 20, Outcome.ABORTED: 21}
NUMBERS = 700_000
"""of the model: 2.8 MB, three chunks on the wire"""
STEPS = 5


class LightWorker:
    """Stands in for `site_agent.worker.Worker`."""

    def __init__(self, home: SiteHome, site: str, *, pace_s: float = 0.0, numbers: int = NUMBERS) -> None:
        self._home, self._site, self._pace_s, self._numbers = home, site, pace_s, numbers

    def do(
        self, task: Task, plan: Plan, on_progress: Callable[[dict[str, Any]], None], cancelled: threading.Event
    ) -> dict[str, Any]:
        """Return a task's numbers, after a few paced steps."""
        for step in range(STEPS):
            on_progress({"stage": "training", "done": step, "of": STEPS, "unit": "steps", "loss": 1.0})
            if cancelled.wait(self._pace_s):
                raise CancelledError
        if task.kind is TaskKind.SCORE:
            model = read_tensors(BlobStore(self._home.blobs).path(task.base))
            loss = float(np.abs(next(iter(model.values()))).mean()) + 1 / task.round
            return {"loss_sum": 4 * loss, "count": 4, "images": 10, "gauges": {"unit_std": 0.5}}
        state = seed_model(plan, self._numbers) if task.kind is TaskKind.SEED else self._trained(task, plan)
        return {"digest": self._keep(task, state), "images": 10, "steps": STEPS, "loss": 1.0, "seconds": 0.1}

    def cancel(self) -> None:
        """Nothing: `do` watches its own event."""

    def _trained(self, task: Task, plan: Plan) -> dict[str, Any]:
        base = read_tensors(BlobStore(self._home.blobs).path(task.base))
        chance = np.random.default_rng(derive(plan.terms.seed, "light", self._site, task.round))
        moved = {
            name: (values + chance.standard_normal(values.shape).astype(values.dtype))
            for name, values in base.items()
            if values.dtype == np.float32
        }
        counted = {name: values + STEPS for name, values in base.items() if values.dtype == np.int64}
        return {**base, **moved, **counted}

    def _keep(self, task: Task, state: dict[str, Any]) -> str:
        blobs = BlobStore(self._home.blobs)
        making = blobs.scratch(f"light-{task.kind}-{task.round}")
        digest = write_tensors(making, state)
        blobs.adopt(making, digest)
        return digest


def seed_model(plan: Plan, numbers: int) -> dict[str, Any]:
    """Return the first model: one float tensor and one counter."""
    chance = np.random.default_rng(derive(plan.terms.seed, "light-seed"))
    return {"weight": chance.standard_normal(numbers).astype(np.float32), "steps": np.zeros((), np.int64)}


def main() -> None:
    """Run the agent as the command does."""
    options = argparse.ArgumentParser()
    options.add_argument("home", type=Path)
    options.add_argument("--pace-s", type=float, default=0.0)
    options.add_argument("--numbers", type=int, default=NUMBERS)
    given = options.parse_args()
    home, display = SiteHome(given.home), Display()
    site = home.certificate().identity.name
    with home.locked():
        keys = {"authority_pem": "authority.crt", "certificate_pem": "site.crt", "key_pem": "site.key"}
        pems = {part: home.pem(file) for part, file in keys.items()}
        link = GrpcLink(home.config().link.coordinator, **pems)
        worker = LightWorker(home, site, pace_s=given.pace_s, numbers=given.numbers)
        agent = Agent(home, site, link, worker, display.show)  # type: ignore[arg-type]
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=agent.stop).start())
        try:
            leave = agent.run()
        except KeyboardInterrupt:
            sys.exit(130)
        except FedcervixError as error:
            fail(error)
        finally:
            link.close()
    display.show("said", {"text": str(leave)})
    sys.exit(EXIT_OF[leave.outcome])


if __name__ == "__main__":
    main()
