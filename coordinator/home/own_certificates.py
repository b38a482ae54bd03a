"""The certificates of the running coordinator, the server's and the operator's: renewed in time, without a restart.

The authority cannot be renewed: every certificate of the federation is from it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from coordinator.home.founding import OWN, renew_self
from coordinator.home.home import Home
from fedcervix.transport import identity, renewal
from fedcervix.transport.rpc import ServerKeys

LOOK_S_MAX = 3600.0
"""a machine's clock may be set: looked at again after this time"""


class OwnCertificates:
    """What lies in keys/, and what the listeners show of it. `renew` and `step_s` belong to one thread."""

    def __init__(self, home: Home) -> None:
        self._home = home
        authority = home.pem("authority.crt")
        self._authority = identity.identify(authority)
        self.server = ServerKeys(authority, home.pem("server.crt"), home.pem("server.key"))
        """what the listeners show"""
        self._own = self._read()

    def _read(self) -> list[identity.Certificate]:
        return [identity.identify(self._home.pem(f"{name}.crt")) for name in OWN]

    def step_s(self, now: datetime) -> float:
        """Renew them where they are due; return how long to wait, in seconds. Raises a FedcervixError."""
        if now >= min(map(renewal.due_at, self._own)):
            renew_self(self._home, now)
            self.server.change(self._home.pem("server.crt"), self._home.pem("server.key"))
            self._own = self._read()
        wait = min(map(renewal.due_at, self._own)) - now
        least_s = min(map(renewal.again_s, self._own))  # near the authority's end they cannot live on
        return min(max(wait, timedelta(seconds=least_s)).total_seconds(), LOOK_S_MAX)

    @property
    def again_s(self) -> float:
        """How long to wait after a try that failed, in seconds."""
        return min(map(renewal.again_s, self._own))

    def warnings(self, now: datetime) -> list[str]:
        """Return what the operator is to know."""
        found = [renewal.warning(one.identity.title, one.not_before, one.not_after, now) for one in self._own]
        return [words for words in (*found, renewal.authority_warning(self._authority, now)) if words]
