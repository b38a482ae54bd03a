"""What the page reads from the journal: the run's plan, and its events as they are added."""

from __future__ import annotations

from contextlib import closing

from coordinator.home.home import Home
from coordinator.page.timeline import Timeline
from fedcervix.core.plan import Plan
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.page.board import Part

Stamp = tuple[tuple[int, int], ...]


class Journaled:
    """The plan and the timeline of one run. Only events that are new are read."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.run = ""
        self.plan: Plan | None = None
        self.last_at: float | None = None
        """when the newest event was (Unix seconds); None where there is none"""
        self._timeline: Timeline | None = None
        self._after = 0
        self._seen: Stamp = ()

    def stamp(self) -> Stamp:
        """Return what changes whenever the journal does: time and size of its files.

        A reader may make a write-ahead log that is empty: it counts as none.
        """
        files = (self._home.journal, self._home.journal.with_name(f"{self._home.journal.name}-wal"))
        found = []
        for file in files:
            try:
                stat = file.stat()
                found.append((stat.st_mtime_ns if stat.st_size else 0, stat.st_size))
            except OSError:
                found.append((0, 0))
        return tuple(found)

    def timeline(self, run: str) -> Part:
        """Return what the sites of a run did when; empty where this version cannot read it. Raises StorageError."""
        stamp = self.stamp()
        if run != self.run or stamp != self._seen:
            with closing(Journal(self._home.journal, read_only=True)) as journal:
                if run != self.run:
                    self._begin(journal, run)
                self._read_on(journal)
            self._seen = stamp
        return self._timeline.part() if self._timeline else {}

    def _begin(self, journal: Journal, run: str) -> None:
        record = next((one for one in journal.runs() if one.run == run), None)
        self.run, self._after, self.last_at = run, 0, None
        self.plan = record.plan if isinstance(record, RunRecord) else None
        in_turns = bool(self.plan and self.plan.mode_rules.in_turns)
        self._timeline = Timeline(self.plan.sites, in_turns=in_turns) if self.plan else None

    def _read_on(self, journal: Journal) -> None:
        if self._timeline is not None:
            for number, event in journal.numbered(self.run, self._after):
                self._timeline.take(event)
                self._after, self.last_at = number, event.at
