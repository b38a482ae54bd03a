"""An honest coordinator of secure sums, in one thread: what it journals, and what it asks for again after a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from fedcervix.trust.holder_rules import NotAllowed, Proposal
from fedcervix.trust.sum_closes import ClosedAttempt
from fedcervix.trust.sum_lists import SignedRelease, SumList
from fedcervix.trust.sum_reports import SumReport
from tests.simulation.sum_world import KilledError, Kills, Site, Terms, Vector, added

Answer = TypeVar("Answer")
ASKED_MAX = 20


class StalledError(Exception):
    """A round cannot go on without a site that is away."""


class StoppedError(Exception):
    """The coordinator's process is gone. Its disk is the `Round`."""


@dataclass
class Round:
    """The disk of the coordinator for one round."""

    earlier: tuple[ClosedAttempt, ...] = ()
    reports: dict[str, tuple[SumReport, Vector]] = field(default_factory=dict)
    listed: SumList | None = None
    releases: dict[str, tuple[SignedRelease, Vector]] = field(default_factory=dict)
    total: Vector | None = None


@dataclass
class Coordinator:
    """Runs honest rounds. `away`: sites that do not answer now."""

    homes: Mapping[str, Site]
    run: str
    terms: Terms
    images: Callable[[str], int]
    kills: Kills = field(default_factory=Kills)
    away: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    """holders that the operator has given up"""
    stops_at: set[int] = field(default_factory=set)
    """questions after whose answer its process is gone, counted from 0"""
    asked: int = 0
    published: list[tuple[Proposal, SumList, list[SignedRelease], Vector]] = field(default_factory=list)

    def ask(self, what: Callable[[], Answer]) -> Answer:
        """Ask a site until it answers; a site that was killed has begun again from its disk."""
        for _ in range(ASKED_MAX):
            try:
                answer = what()
            except KilledError:
                continue
            number, self.asked = self.asked, self.asked + 1
            if number in self.stops_at:
                raise StoppedError
            return answer
        raise AssertionError("killed too often")

    def begin(self) -> None:
        openings = [
            self.ask(partial(self.homes[site].open, self.run, self.terms, self.images(site)))
            for site in self.terms.sites
        ]
        assert all(openings)
        for site in self.terms.sites:
            assert self.ask(partial(self.homes[site].join, self.run, openings))

    def base(self) -> str:
        """Return the newest base that a site has derived."""
        return max((home.runs[self.run].bases for home in self.homes.values()), key=len)[-1]

    def proposal(self, disk: Round) -> Proposal:
        views = [home.view(self.run).context for name, home in self.homes.items() if name not in self.away]
        first = max(views, key=lambda context: context.round)
        if not disk.earlier:
            return Proposal(first)
        pins = next(iter(self.homes.values())).pins
        context = disk.earlier[-1].next_context(pins)
        assert context
        return Proposal(context, disk.earlier)

    def round(self, disk: Round | None = None) -> tuple[Vector, SumList]:
        """Return the sum of a round. Raises StalledError while a holder or too many sites are away."""
        disk = disk or Round()
        self.catch_up()
        if disk.total and disk.listed:
            return disk.total, disk.listed
        proposal = self.proposal(disk)
        self._gather(disk, proposal)
        if disk.listed is None:
            reports = tuple(disk.reports[site][0] for site in sorted(disk.reports))
            disk.listed = SumList(proposal.context.digest, reports)
        if self.lost.intersection(proposal.context.holders):
            self._close(disk, proposal)
            disk.reports, disk.listed = {}, None
            return self.round(disk)
        if gone := self.away.intersection(proposal.context.holders):  # who has released cannot close any more
            raise StalledError(gone)
        for holder in proposal.context.holders:
            disk.releases[holder] = allowed(self.ask(partial(self.homes[holder].release, proposal, disk.listed)))
        disk.total = total = self.opened(disk)
        self.published.append((proposal, disk.listed, [release for release, _ in disk.releases.values()], total))
        self.catch_up()
        return total, disk.listed

    def catch_up(self) -> None:
        """Let all sites that are there verify the sums that they have not seen yet."""
        for proposal, listed, releases, total in self.published:
            for site in sorted(set(self.terms.sites) - self.away):
                home = self.homes[site]
                if home.view(self.run).context.round == proposal.context.round:
                    assert self.ask(partial(home.learn, proposal, listed, releases, total))

    def _gather(self, disk: Round, proposal: Proposal) -> None:
        for site in self.terms.sites:
            if disk.listed is None and site not in disk.reports and site not in self.away | self.lost:
                disk.reports[site] = allowed(self.ask(partial(self.homes[site].report, proposal)))

    def _close(self, disk: Round, proposal: Proposal) -> None:
        remaining = tuple(holder for holder in proposal.context.holders if holder not in self.lost)
        closes = [allowed(self.ask(partial(self.homes[holder].close, proposal, remaining))) for holder in remaining]
        disk.earlier = (*disk.earlier, ClosedAttempt(proposal.context, tuple(closes)))

    def opened(self, disk: Round) -> Vector:
        assert disk.listed
        masked = added(disk.reports[site][1] for site in disk.listed.sites)
        return masked.plus(added(masks for _, masks in disk.releases.values()), -1)


def allowed(answer: Answer | NotAllowed | None) -> Answer:
    assert answer is not None
    assert not isinstance(answer, NotAllowed), answer
    return answer
