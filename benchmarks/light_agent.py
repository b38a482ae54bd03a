"""One site that trains in no time: the real agent on the real line, whose update is its base with one number changed.

python benchmarks/light_agent.py HOME
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.payloads import changed
from fedcervix.blobs import BlobStore
from fedcervix.events import Task, TaskKind
from fedcervix.plan import Plan
from site_agent.agent import Agent
from site_agent.home import SiteHome
from site_agent.instances import succeed
from site_agent.link import GrpcLink

PEMS = {"authority_pem": "authority.crt", "certificate_pem": "site.crt", "key_pem": "site.key"}


class LightWorker:
    """Stands in for `site_agent.worker.Worker`: durable files as from a real one, and next to no arithmetic."""

    def __init__(self, blobs: BlobStore, site: str) -> None:
        self._blobs, self._site = blobs, site

    def do(
        self, task: Task, plan: Plan, _on_progress: Callable[[dict[str, Any]], None], _cancelled: threading.Event
    ) -> dict[str, Any]:
        """Return a task's numbers."""
        if task.kind is TaskKind.SCORE:
            return {"loss_sum": 1 / task.round, "count": 1, "images": 1, "gauges": {}}
        making = self._blobs.scratch(f"light-{task.round}")
        digest = changed(self._blobs.path(task.base), making, plan.sites.index(self._site) + 1 / task.round)
        self._blobs.adopt(making, digest)
        return {"digest": digest, "images": 1, "steps": 1, "loss": 1.0, "seconds": 0.1}

    def cancel(self) -> None:
        """Nothing: no task takes long."""


def line(home: SiteHome) -> GrpcLink:
    """Return a line as the agent has it."""
    pems = {part: home.pem(file) for part, file in PEMS.items()}
    return GrpcLink(home.config().link.coordinator, claim=succeed(home), **pems)


def main() -> None:
    """Run one agent until its run is over."""
    home = SiteHome(Path(sys.argv[1]))
    site = home.certificate().identity.name
    with home.locked(), contextlib.closing(line(home)) as link:
        worker = LightWorker(BlobStore(home.blobs), site)
        agent = Agent(home, site, link, worker, lambda _what, _values: None)  # type: ignore[arg-type]
        print(agent.run())


if __name__ == "__main__":
    main()
