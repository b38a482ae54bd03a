"""What a courier reads: the journal, by a connection of its own; and what is wrong now.

Nothing here takes the engine's lock: `run` and `trouble` are read as they stand. An event is known by its number in the
journal. What is of no event (a run's beginning and end, certificates, trouble) is remembered in the `Place`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from coordinator.alarms.alarm_sources import alarms
from coordinator.home.founding import OWN
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from coordinator.notify import notices
from coordinator.run import results
from fedcervix.core.events import Event
from fedcervix.core.rounds.state import Run
from fedcervix.disk.journal import READ_AT_ONCE, Journal
from fedcervix.errors import FedcervixError
from fedcervix.notify.notice import Notice
from fedcervix.notify.outbox import SAID_MAX, Place
from fedcervix.notify.settings import Kind
from fedcervix.runtime.log import logger
from fedcervix.transport import identity, renewal

CERTIFICATES_S = 3600.0
"""between two looks at them"""
Row = tuple[int, str, Event]
"""number, run, event"""


class Happenings:
    """The source of one courier. Belongs to its thread."""

    def __init__(
        self, home: Home, kinds: Sequence[Kind], begun_at: float, run: Callable[[], Run], trouble: Callable[[], str]
    ) -> None:
        self._home, self._kinds, self._begun_at, self._run, self._trouble = home, kinds, begun_at, run, trouble
        self._federation = home.config().federation.name
        self._journal: Journal | None = None
        self._certificates_s = float("-inf")
        """when they were looked at"""

    def news(self, place: Place, now_s: float) -> tuple[tuple[Notice, ...], Place]:
        """Return what happened after a place, and the place then; from the journal's end on where there is none yet.

        Raises StorageError.
        """
        if self._journal is None:
            self._journal = Journal(self._home.journal, read_only=True)
        journal, run = self._journal, self._run()
        if place.seq < 0:
            known, said = self._known(journal, run, now_s) if run.ended else (place.run, place.said)
            place = replace(place, seq=journal.last_seq(), run=known, said=said)
            after_round = _ended_rounds(run)
        else:
            after_round = place.round if place.run == run.run else 0
        rows = journal.after(place.seq, READ_AT_ONCE)
        found = [*self._began(place, run), *self._events(rows, run), *self._ended(journal, rows, run, now_s)]
        found += self._alarms(run, after_round)
        found += self._certificates(now_s)
        place = replace(place, seq=rows[-1][0] if rows else place.seq, run=run.run, round=_ended_rounds(run))
        troubled, place = self._in_trouble(place, run, now_s)
        found += troubled
        told = tuple(one for one in found if one.kind in self._kinds and one.id not in place.said)
        once = [one.id for one in told if one.kind in ("ended", "certificate")]
        return told, replace(place, said=(*place.said, *once)[-SAID_MAX:])

    def _known(self, journal: Journal, run: Run, now_s: float) -> tuple[str, tuple[str, ...]]:
        """Return run and messages of a place for a run that has ended already: it is no news."""
        return run.run, tuple(one.id for one in self._ended(journal, (), run, now_s))

    def _began(self, place: Place, run: Run) -> Iterator[Notice]:
        if place.run != run.run:
            yield notices.began(self._federation, run, self._begun_at)

    def _events(self, rows: Sequence[Row], run: Run) -> Iterator[Notice]:
        for seq, name, event in rows:
            notice = notices.happened(self._federation, name, seq, event, run if name == run.run else None)
            if notice is not None:
                yield notice

    def _ended(self, journal: Journal, rows: Sequence[Row], run: Run, now_s: float) -> Iterator[Notice]:
        """Yield the end of the run in progress, and of runs before it of whose end nobody was told."""
        last = {name: (seq, event.at) for seq, name, event in rows}
        if run.outcome:
            seq = journal.last_seq(run.run)
            number, at = last.get(run.run, (seq, now_s))
            at = at if number == seq else now_s
            end = notices.RunEnd(run.outcome, len(run.rounds), run.reason)
            yield notices.ended(self._federation, run.run, end, seq, at)
        for name, (seq, at) in last.items():
            if name != run.run and seq == journal.last_seq(name) and results.is_stored(self._home.results, name):
                record = results.read(self._home.results, name)
                if record.outcome:
                    end = notices.RunEnd(record.outcome, len(record.ledger), record.reason)
                    yield notices.ended(self._federation, name, end, seq, at)

    def _alarms(self, run: Run, after_round: int) -> Iterator[Notice]:
        """Yield the alarms of the rounds that have ended since, but those that the round before had, too."""
        for round_ in run.rounds[after_round : _ended_rounds(run)] if "alarm" in self._kinds else ():
            before = run.rounds[: round_.number - 1][-1:]
            known = {(one.site, one.what) for earlier in before for one in alarms(run, earlier)}
            if new := [one for one in alarms(run, round_) if (one.site, one.what) not in known]:
                yield notices.alarmed(self._federation, run.run, round_, new)

    def _certificates(self, now_s: float) -> Iterator[Notice]:
        if "certificate" not in self._kinds or now_s - self._certificates_s < CERTIFICATES_S:
            return
        self._certificates_s = now_s
        for words in _warnings(self._home, self._run().plan.sites, datetime.fromtimestamp(now_s, UTC)):
            yield notices.certificate(self._federation, words, now_s)

    def _in_trouble(self, place: Place, run: Run, now_s: float) -> tuple[list[Notice], Place]:
        """Return the message where trouble has begun, or another one has."""
        words = self._trouble().partition("\n")[0]
        digest = notices.digest(notices.without_numbers(words)) if words else ""
        if digest == place.trouble:
            return [], place
        found = [notices.trouble(self._federation, run.run, place.seq, words, now_s)] if words else []
        return found, replace(place, trouble=digest)


def _ended_rounds(run: Run) -> int:
    """Return how many rounds get no more alarms: scores of the last one may still come in."""
    return len(run.rounds) if run.ended else max(0, len(run.rounds) - 1)


def _warnings(home: Home, sites: Sequence[str], now: datetime) -> list[str]:
    """Return the words for certificates that should have been renewed. What cannot be read is logged."""
    try:
        own = [identity.identify(home.pem(f"{name}.crt")) for name in OWN]
        found = [renewal.warning(one.identity.title, one.not_before, one.not_after, now) for one in own]
        found.append(renewal.authority_warning(identity.identify(home.pem("authority.crt")), now))
        roll = Registry(home.registry, contextlib.nullcontext).roll()
    except FedcervixError as error:
        logger().warning("certificates not looked at", what=error.what)
        return []
    return [words for words in (*found, *roll.warnings(sites, now)) if words]
