"""Listens to the coordinator; a line that is cut is opened again, with growing pauses.

Where the two ends run versions that cannot work together, one of them waits for an upgrade: it tries again once in a
while, and does not end.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from fedcervix.errors import FedcervixError, IdentityError, LinkError, StorageError, VersionError
from fedcervix.transport import codec, renewal
from fedcervix.transport.backoff import Pauses
from site_agent.federation import shown
from site_agent.federation.context import AgentContext
from site_agent.federation.inbox import Broken, ConnectionLost, CoordinatorSaid
from site_agent.federation.renewing import Renewing

UPGRADE_S = 60.0
"""from one try to the next, at least, where an upgrade is waited for"""


class Listener:
    """The Attach stream of one agent."""

    def __init__(
        self,
        context: AgentContext,
        look: Callable[[], object],
        upgrade_s: float = UPGRADE_S,
        renewing: Renewing | None = None,
    ) -> None:
        self._context, self._look, self._upgrade_s = context, look, upgrade_s
        self._renewing = renewing
        self._clock_differs = False
        self._chance = random.Random()  # noqa: S311  (so that sites do not come at the same moment: not a secret)
        self._pauses = Pauses(self._chance)
        self.let_in = False
        """this site knows its run: its certificate was accepted before"""

    def run(self) -> None:
        """Listen until the agent ends, or until no other line would be better."""
        while not self._context.stopping.is_set():
            ended = self.listen()
            self._context.inbox.put(ended)
            if isinstance(ended, Broken):
                return
            self._context.stopping.wait(self.pause_s(ended))

    def pause_s(self, lost: ConnectionLost) -> float:
        """Return how long to wait before the next try, in seconds."""
        if isinstance(lost.error, VersionError):
            return self._upgrade_s * self._chance.uniform(1.0, 1.5)
        return self._pauses.next_s()

    def listen(self) -> ConnectionLost | Broken:
        """Put what the coordinator says into the inbox, until the line ends; return why it did."""
        try:
            for what in self._context.link.attach():
                self._pauses.reset()
                if isinstance(what, codec.Welcome):
                    self._welcomed(what)
                self._context.inbox.put(CoordinatorSaid(what))
            return ConnectionLost(LinkError("the coordinator has closed the connection"))
        except (StorageError, VersionError) as error:
            return ConnectionLost(error)
        except LinkError as error:
            return self._diagnosed(error)
        except IdentityError as error:
            if self._renewing and self._renewing.refused():
                return ConnectionLost(LinkError(error.what, cause=error.cause))
            return Broken(error)
        except FedcervixError as error:
            return Broken(error)

    def _welcomed(self, welcome: codec.Welcome) -> None:
        """The certificate in use is good. And the two clocks can be compared, to a second or so."""
        if self._renewing:
            self._renewing.accepted()
        differs = renewal.skew("the coordinator", welcome.at - self._context.clock_s()) if welcome.at else ""
        if differs and not self._clock_differs:
            self._context.show(shown.Message(differs))
        self._clock_differs = bool(differs)

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
