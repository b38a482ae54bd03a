"""What breaks at a site is told: at once, or as soon as the coordinator can be reached, by whichever process then runs.

Rules
1. A failure is written down before it is told; what was told is crossed out (see `incidents`).
2. An agent that ends because of it tries for a bounded time. What could not be told, the next agent tells, before it
   says that it is ready, and as something that is past: its site goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace

from fedcervix.core.events import SiteFailed
from fedcervix.errors import FedcervixError, LinkError, RemoteError, StorageError
from fedcervix.runtime.log import logger
from fedcervix.transport.backoff import Pauses
from site_agent.federation import incidents
from site_agent.federation.link import Link
from site_agent.home import SiteHome

TELL_S = 10.0


class Failures:
    """One agent's reports of failures."""

    def __init__(self, home: SiteHome, site: str, link: Link, *, tell_s: float = TELL_S) -> None:
        self._home, self._site, self._link, self._tell_s = home, site, link, tell_s
        self._unwritten: tuple[SiteFailed, ...] = ()
        self.hurry = threading.Event()
        """set: whoever waits shall wait no longer"""

    def record(self, error: FedcervixError, *, goes_on: bool = False) -> SiteFailed:
        """Write a failure down; return what of it may be told. `goes_on`: the site goes on by itself."""
        failure = incidents.record(self._home, self._site, error, at=time.time(), goes_on=goes_on)
        self._unwritten = (failure,)
        logger(site=self._site).error("failed", incident=failure.incident, stage=failure.stage, kind=failure.kind)
        return failure

    def tell_soon(self) -> bool:
        """Tell what broke as soon as the line allows, within a bounded time; returns whether that succeeded."""
        pauses = Pauses()
        ends_s = time.monotonic() + self._tell_s
        while True:
            try:
                self.tell()
            except (LinkError, StorageError):
                pause_s = min(pauses.next_s(), ends_s - time.monotonic())
                if pause_s <= 0 or self.hurry.wait(pause_s):
                    return False
            except FedcervixError:
                return False
            else:
                return True

    def tell(self, *, late: bool = False) -> None:
        """Tell what was not told yet, oldest first. `late`: by a process that takes part again. Raises LinkError..."""
        known = {failure.incident: failure for failure in (*incidents.untold(self._home), *self._unwritten)}
        for failure in known.values():
            with contextlib.suppress(RemoteError):  # it cannot be told: the account is here
                self._link.report(replace(failure, goes_on=True) if late else failure)
            incidents.told(self._home, failure)
        self._unwritten = ()
