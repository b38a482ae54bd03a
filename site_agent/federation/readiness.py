"""A site says that it is ready once it knows that it can do what the plan asks. That is found out beside the loop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from fedcervix.core.plan import Plan
from fedcervix.errors import DuplicateAgentError, FedcervixError, LinkError, StorageError
from fedcervix.runtime.worker_protocol import OnProgress, WorkProgress
from fedcervix.transport import codec
from site_agent.federation import shown
from site_agent.federation.context import AgentContext
from site_agent.federation.failures import Failures
from site_agent.federation.inbox import Broken, Participation
from site_agent.worker.preflight import Findings
from site_agent.worker.worker import CancelledError

Examine = Callable[[Plan, OnProgress, threading.Event], Findings | None]


class Readiness:
    """Which plans are known to be feasible here."""

    def __init__(self, context: AgentContext, failures: Failures, examine: Examine) -> None:
        self._context, self._failures, self._examine = context, failures, examine
        self._examining = threading.Lock()
        self._examined: set[str] = set()
        """runs whose plan is known to be feasible here"""

    def has_worked(self, run: str) -> None:
        """This site has worked for a run before: its plan is feasible here."""
        self._examined.add(run)

    def get_ready(self, run: Participation) -> None:
        """Find out whether this site can do what the plan asks, and only then say that it is ready."""
        with self._examining:  # a line that was cut meanwhile and comes back waits for the same answer
            while run.run not in self._examined:
                if run.over.is_set():
                    return
                try:
                    findings = self._examine(run.plan, self._on_examining, run.over)
                except CancelledError:  # the process was killed because of work that is no longer wanted
                    continue
                except FedcervixError as error:
                    if not run.over.is_set():
                        self._context.inbox.put(Broken(error))
                    return
                self._examined.add(run.run)
                self._context.show(shown.Examined(findings))
        self._tell_ready(codec.Ready(run.run, run.plan.digest))

    def _on_examining(self, at: WorkProgress) -> None:
        self._context.show_progress("before round 1", at)

    def _tell_ready(self, ready: codec.Ready) -> None:
        """Accept the plan, and make good what an earlier process could not tell."""
        with contextlib.suppress(FedcervixError):
            self._failures.tell(late=True)
        context = self._context
        try:
            context.again(
                context.stopping, lambda: context.link.report(ready), (LinkError, StorageError, DuplicateAgentError)
            )
        except CancelledError:
            return
        except FedcervixError as error:
            context.inbox.put(Broken(error))
