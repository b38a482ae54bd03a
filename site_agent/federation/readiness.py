"""A site says that it is ready once it knows that it can do what the plan asks. That is found out beside the loop.

It is one examination and one report at a time (`Inbox.start_alone`): what is done for a run ends when the agent leaves
it, so another run does not wait.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from fedcervix.core.pace import SitePace
from fedcervix.core.plan import Plan
from fedcervix.errors import DuplicateAgentError, FedcervixError, LinkError, PolicyError, StorageError
from fedcervix.runtime.worker_protocol import OnProgress, WorkProgress
from fedcervix.transport import codec
from fedcervix.trust.sum_roster import Opening
from site_agent.federation import shown
from site_agent.federation.context import AgentContext
from site_agent.federation.failures import Failures
from site_agent.federation.inbox import Broken, Participation
from site_agent.federation.line_probe import LinePace
from site_agent.worker.preflight import Findings
from site_agent.worker.worker import CancelledError

Examine = Callable[[Plan, OnProgress, threading.Event], Findings | None]
TryLine = Callable[[], LinePace | None]


class Readiness:
    """Which plans are known to be feasible here."""

    def __init__(self, context: AgentContext, failures: Failures, examine: Examine, probe: TryLine) -> None:
        self._context, self._failures, self._examine, self._probe = context, failures, examine, probe
        self._examined: set[str] = set()
        """runs whose plan is known to be feasible here"""
        self._images = 0
        """that a round trains with; a run that has been opened keeps its number"""
        self._paces: dict[str, SitePace] = {}
        """what was measured for the plan of a run, by its name"""

    def has_worked(self, run: str) -> None:
        """This site has worked for a run before: its plan is feasible here."""
        self._examined.add(run)

    def get_ready(self, run: Participation) -> None:
        """Find out whether this site can do what the plan asks, and only then say that it is ready."""
        while run.run not in self._examined:
            if run.over.is_set():
                return
            try:
                findings = self._examine(run.plan, self._on_examining, run.over)
            except CancelledError:  # the process was killed because of work that is no longer wanted
                continue
            except FedcervixError as error:
                self._broken(run, error)
                return
            self._examined.add(run.run)
            self._images = findings.training_images if findings else 0
            self._context.show(shown.Examined(findings))
            if findings and findings.cost and (line := self._probe()):
                self._paces[run.run] = line.of(findings.cost.pace)
                self._context.show(shown.LineTried(line))
        self._tell_ready(run)

    def _on_examining(self, at: WorkProgress) -> None:
        self._context.show_progress("before round 1", at)

    def _tell_ready(self, run: Participation) -> None:
        """Accept the plan, and make good what an earlier process could not tell."""
        with contextlib.suppress(FedcervixError):
            self._failures.tell(late=True)
        link = self._context.link
        try:
            ready = codec.Ready(run.run, run.plan.digest, self._opening(run), self._paces.get(run.run))
            self._context.again(run.over, lambda: link.report(ready), (LinkError, StorageError, DuplicateAgentError))
        except CancelledError:
            return
        except FedcervixError as error:
            self._broken(run, error)

    def _opening(self, run: Participation) -> Opening | None:
        """Return what this site opens the run with. Raises PolicyError, which the coordinator is told."""
        if (hides := run.secure or run.sealed) is None:
            return None
        try:
            return hides.opening(self._images)
        except PolicyError as error:
            with contextlib.suppress(FedcervixError):
                self._context.link.report(codec.Refusal(run.run, error.what))
            raise

    def _broken(self, run: Participation, error: FedcervixError) -> None:
        if not run.over.is_set():
            self._context.inbox.put(Broken(error))
