"""One site that trains in no time: the real agent on the real line, whose updates lie ready before it connects.

    python -m benchmarks.light_agent HOME MODEL ROUNDS

An update is MODEL with one number changed, another one for each site and round: durable files of their own, hashed by
whoever made them, as a trainer leaves them. So a round moves and averages, and makes nothing.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path

from benchmarks.payloads import changed
from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.worker_protocol import OnProgress
from site_agent.federation.agent import Agent, Checks
from site_agent.federation.context import AgentContext
from site_agent.federation.fencing import succeed
from site_agent.federation.link import Books, GrpcLink
from site_agent.federation.site_ledger import SiteLedger
from site_agent.home import SiteHome
from site_agent.store.sum_journal import SumJournal
from site_agent.store.task_results import ScoreResult, TaskResult, TrainResult
from site_agent.worker.preflight import Findings

FOUND = Findings(
    images=1,
    training_images=1,
    women=1,
    unreadable=0,
    shared_pictures=0,
    remarks=(),
    cost=None,
    details="",
)
PEMS = {"authority_pem": "authority.crt", "certificate_pem": "site.crt", "key_pem": "site.key"}


class LightWorker:
    """Stands in for `site_agent.worker.worker.Worker`: a round's update is there, to be given its name."""

    def __init__(self, home: SiteHome, number: int, model: Path, rounds: int) -> None:
        self._blobs = BlobStore(home.blobs)
        self._made: list[tuple[Path, str]] = []
        for round_ in range(rounds):
            made = home.folder / f"update-{round_}"
            # Small, as a secure sum takes it, and such that no average of sites is the next update of one of them.
            self._made.append((made, changed(model, made, number**1.5 / 64 + 1 / (round_ + 3))))

    def do(
        self, task: Task, _plan: Plan, _on_progress: OnProgress, _cancelled: threading.Event, **_: str
    ) -> TaskResult:
        """Return what a task gave."""
        if task.kind is TaskKind.SCORE:
            return ScoreResult(loss_sum=1 / task.round, count=1, images=1, gauges={})
        made, digest = self._made[task.round - 1]
        self._blobs.adopt(made, digest)
        return TrainResult(digest=digest, images=1, steps=1, loss=1.0, seconds=0.1)

    def stop(self) -> None:
        """Nothing: no task takes long."""

    def cancel(self) -> None:
        """The same."""


def line(home: SiteHome, ledger: SiteLedger | None = None) -> GrpcLink:
    """Return a line as the agent has it."""
    pems = {part: home.pem(file) for part, file in PEMS.items()}
    return GrpcLink(home.config().link.coordinator, claim=succeed(home), books=Books(ledger), **pems)


def main() -> None:
    """Run one agent until its run is over."""
    home, model, rounds = SiteHome(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
    who = home.certificate().identity
    site = who.name
    worker = LightWorker(home, int(site.removeprefix("site")) + 1, model, rounds)
    secure = bool(home.config().policy.first_model)
    ledger, journal = (SiteLedger(home, site), SumJournal(home)) if secure else (None, None)
    with home.locked(), contextlib.closing(line(home, ledger)) as link:
        agent = Agent(
            AgentContext(home, site, link, lambda _event: None, ledger=ledger, journal=journal),
            worker,  # type: ignore[arg-type]
            federation=who.federation,
            checks=Checks(plan=lambda *_: FOUND),
        )
        print(agent.run())


if __name__ == "__main__":
    main()
