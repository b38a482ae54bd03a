"""How many of a site's reports are saved, so that no site fills the journal.

Most events change a run once: an update, a score or an adoption counts once for each site and round, and that a site is
silent takes the length of a lease. A failure or a refusal changes something each time it is reported, and then the site
may report once more that it is ready. So failures and refusals have an allowance: a number for each round and each run,
and a rate. A report above the allowance is set aside: it is answered like a repeated one, so an agent continues; it is
counted, and logged once a minute.

All other reports are not counted. A site that has failed often can still deliver its results.

What a run's journal holds of one site at most: 1,000 failures and refusals of up to 3.4 KB, as many times that it is
ready again, an update, a score and an adoption for each round, and two lines of 100 bytes for each lease.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedcervix.core.events import Event, SiteFailed, SiteRefused
from fedcervix.runtime.budgets import Budget

OF_RUN_MAX = 1_000
OF_ROUND_MAX = 100
"""also in one burst: an agent that comes back reports this many old failures"""
PER_S = 0.1
LINES_PER_S = 1 / 60

COUNTED = (SiteFailed, SiteRefused)
"""reports that a site can repeat without limit, each with a change of the run's state"""


@dataclass(slots=True)
class Allowance:
    """What is written down of one site, and what was set aside since the coordinator was started."""

    of_run: int = 0
    of_round: int = 0
    round: int = 0
    rate: Budget = field(default_factory=lambda: Budget(PER_S, OF_ROUND_MAX))
    lines: Budget = field(default_factory=lambda: Budget(LINES_PER_S, 1))
    set_aside: int = 0

    def count(self, round_: int) -> None:
        """Note one that is written down."""
        self.of_round = self.of_round + 1 if round_ == self.round else 1
        self.round, self.of_run = round_, self.of_run + 1

    def has_room(self, round_: int, now_s: float) -> bool:
        """Say whether one more is written down."""
        of_round = self.of_round if round_ == self.round else 0
        return self.of_run < OF_RUN_MAX and of_round < OF_ROUND_MAX and self.rate.take(now_s)


class Allowances:
    """Of all sites of a run. Not thread-safe: the engine holds its lock."""

    def __init__(self, sites: tuple[str, ...]) -> None:
        self._sites = {site: Allowance() for site in sites}

    def count(self, event: Event, round_: int) -> None:
        """Note an event that is in the journal."""
        if isinstance(event, COUNTED):
            self._sites[event.site].count(round_)

    def allow(self, event: Event, round_: int, now_s: float) -> bool:
        """Say whether an event is written down; one that is not is set aside."""
        if not isinstance(event, COUNTED):
            return True
        site = self._sites[event.site]
        allowed = site.has_room(round_, now_s)
        site.set_aside += not allowed
        return allowed

    def set_aside(self, site: str) -> int:
        """Return how many reports of a site were set aside since the coordinator was started."""
        return self._sites[site].set_aside

    def may_log(self, site: str, now_s: float) -> bool:
        """Say whether the log takes one more line on what was set aside of a site."""
        return self._sites[site].lines.take(now_s)
