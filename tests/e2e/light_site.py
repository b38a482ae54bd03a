"""A site without images: the real agent on the real line, with arithmetic in place of training.

    python -m tests.e2e.light_site HOME [--pace-s SECONDS] [--numbers COUNT] [--worker] [--diary FILE]
        [--silence-s S] [--spoils F] [--upgrade-s S] [--ahead-s S] [--dies-at STEP]
        [--images COUNT] [--loss LOSS] [--audited AUC] [--keep FOLDER]

A task takes milliseconds instead of seconds, and no torch is loaded; so a test can kill this process at many moments.
`--ahead-s`: how far its clock is ahead of this machine's. `--dies-at`: `kill -9` at a step of a renewal.
With `--worker` the arithmetic is done by a process of its own, as training is (see light_worker.py).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from fedcervix.core.events import Task
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.instructions import Instruction
from fedcervix.errors import EXIT_OF_OUTCOME, FedcervixError
from fedcervix.runtime.cli_runtime import ends_whole, fail
from fedcervix.runtime.worker_protocol import OnProgress
from fedcervix.transport import codec
from site_agent.commands.display import Display
from site_agent.federation import shown
from site_agent.federation.agent import Agent, Checks, Waits
from site_agent.federation.context import AgentContext
from site_agent.federation.fencing import succeed
from site_agent.federation.link import Books, GrpcLink
from site_agent.federation.listener import UPGRADE_S
from site_agent.federation.renewing import Renewing
from site_agent.federation.site_ledger import SiteLedger
from site_agent.home import SiteHome
from site_agent.store.egress import Egress
from site_agent.store.sum_journal import SumJournal
from site_agent.store.task_results import TaskResult
from site_agent.worker.hang_detection import FLOOR_S
from site_agent.worker.preflight import Findings
from site_agent.worker.worker import CancelledError, Worker
from tests.e2e.light_worker import NUMBERS, LightWork, surroundings


class LightWorker:
    """Stands in for `site_agent.worker.worker.Worker`: works in the agent's own process."""

    def __init__(self, work: LightWork) -> None:
        self._work = work

    def do(
        self,
        task: Task,
        plan: Plan,
        on_progress: OnProgress,
        cancelled: threading.Event,
        *,
        roster: str = "",  # noqa: ARG002
    ) -> TaskResult:
        """Return what a task gave. The first model is the plan's, whatever `roster` says: so the result is known."""

        def wait(pause_s: float) -> None:
            if cancelled.wait(pause_s):
                raise CancelledError

        return self._work.do(task, plan, on_progress, wait)

    def stop(self) -> None:
        """The same."""

    def cancel(self) -> None:
        """Nothing: `do` watches its own event."""


class DyingLink(GrpcLink):
    """A line on which the agent is killed at a step of a renewal."""

    dies_at = ""
    _renewed = False

    def renew(self, request_pem: bytes) -> bytes:
        pem = super().renew(request_pem)
        self._reach("issued")
        return pem

    def use(self, certificate_pem: bytes) -> None:
        self._reach("written")
        super().use(certificate_pem)
        self._renewed = True

    def attach(self) -> Iterator[codec.Welcome | Instruction]:
        for what in super().attach():
            if self._renewed:
                self._reach("welcomed")
            yield what
            if self._renewed:
                self._reach("settled")

    def _reach(self, step: str) -> None:
        if step == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)


def nothing_to_check(*_: object) -> None:
    """Find nothing wrong."""


def found(images: int) -> Findings:
    """Return what an examination finds at a light site."""
    nothing = {"women": images, "unreadable": 0, "shared_pictures": 0, "remarks": (), "cost": None, "details": ""}
    return Findings(images=images, training_images=images, **nothing)  # type: ignore[arg-type]


def in_a_process(work: LightWork) -> Worker:
    """Return the agent's real handle on a worker process that does this work."""
    os.environ.update(surroundings(work))
    return Worker(work.home, work.site, program="tests.e2e.light_worker")


def main() -> None:
    """Run the agent as the command does."""
    options = argparse.ArgumentParser()
    options.add_argument("home", type=Path)
    options.add_argument("--pace-s", type=float, default=0.0)
    options.add_argument("--numbers", type=int, default=NUMBERS)
    options.add_argument("--worker", action="store_true")
    options.add_argument("--diary", default="")
    options.add_argument("--spoils", type=float, default=0.0)
    options.add_argument("--silence-s", type=float, default=FLOOR_S)
    options.add_argument("--upgrade-s", type=float, default=UPGRADE_S)
    options.add_argument("--ahead-s", type=float, default=0.0)
    options.add_argument("--dies-at", default="")
    options.add_argument("--images", type=int, default=10)
    options.add_argument("--loss", type=float, default=1.0)
    options.add_argument("--audited", type=float, default=0.0)
    options.add_argument("--keep", default="")
    given = options.parse_args()
    home, display = SiteHome(given.home), Display()
    site = home.certificate().identity.name
    with home.locked():
        keys = {"authority_pem": "authority.crt", "certificate_pem": home.certificates()[0], "key_pem": "site.key"}
        pems = {part: home.pem(file) for part, file in keys.items()}
        ledger = SiteLedger(home, site)

        def clock_s() -> float:
            return time.time() + float(given.ahead_s)

        address = home.config().link.coordinator
        books = Books(ledger, Egress(home.egress, address, clock_s))
        link = DyingLink(address, claim=succeed(home), clock_s=clock_s, books=books, **pems)
        link.dies_at = given.dies_at
        work = LightWork(
            home,
            site,
            **{
                name: getattr(given, name)
                for name in ("pace_s", "numbers", "diary", "spoils", "images", "loss", "audited", "keep")
            },
        )
        worker = in_a_process(work) if given.worker else LightWorker(work)
        federation = home.certificate().identity.federation
        journal = SumJournal(home)
        context = AgentContext(home, site, link, display.show, clock_s=clock_s, ledger=ledger, journal=journal)
        agent = Agent(
            context,
            worker,  # type: ignore[arg-type]
            federation=federation,
            checks=Checks(nothing_to_check, nothing_to_check, lambda *_: found(given.images)),
            waits=Waits(silence_s=given.silence_s, upgrade_s=given.upgrade_s),
            renewing=Renewing(context),
        )
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=agent.stop).start())
        try:
            leave = agent.run()
        except KeyboardInterrupt:
            sys.exit(130)
        except FedcervixError as error:
            fail(error)
        finally:
            link.close()
    display.show(shown.Message(str(leave)))
    sys.exit(EXIT_OF_OUTCOME[leave.outcome])


if __name__ == "__main__":
    with ends_whole():
        main()
