"""Listens to the coordinator; a line that is cut is opened again, with growing pauses."""

from __future__ import annotations

from collections.abc import Callable

from fedcervix.errors import FedcervixError, IdentityError, LinkError, StorageError
from fedcervix.transport.backoff import Pauses
from site_agent.federation.context import AgentContext
from site_agent.federation.inbox import Broken, ConnectionLost, CoordinatorSaid


class Listener:
    """The Attach stream of one agent."""

    def __init__(self, context: AgentContext, look: Callable[[], object]) -> None:
        self._context, self._look = context, look
        self._pauses = Pauses()
        self.let_in = False
        """this site knows its run: its certificate was accepted before"""

    def run(self) -> None:
        """Listen until the agent ends, or until no other line would be better."""
        while not self._context.stopping.is_set():
            ended = self.listen()
            self._context.inbox.put(ended)
            if isinstance(ended, Broken):
                return
            self._context.stopping.wait(self._pauses.next_s())

    def listen(self) -> ConnectionLost | Broken:
        """Put what the coordinator says into the inbox, until the line ends; return why it did."""
        try:
            for what in self._context.link.attach():
                self._pauses.reset()
                self._context.inbox.put(CoordinatorSaid(what))
            return ConnectionLost(LinkError("the coordinator has closed the connection"))
        except LinkError as error:
            return self._diagnosed(error)
        except StorageError as error:
            return ConnectionLost(error)
        except FedcervixError as error:
            return Broken(error)

    def _diagnosed(self, error: LinkError) -> ConnectionLost | Broken:
        """A site that was never let in may have or meet the wrong certificate, and that time does not mend."""
        if self.let_in:
            return ConnectionLost(error)
        try:
            self._look()
        except IdentityError as found:
            return Broken(found)
        except LinkError as found:
            return ConnectionLost(found)
        return ConnectionLost(error)
