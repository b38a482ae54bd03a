"""The thread that fills the board: one Watch of the running coordinator, and its journal while there is none.

All browsers together cost the coordinator this one Watch. While the coordinator is away, the journal is read again only
when its file has changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

from coordinator.home.home import Home
from coordinator.page.attention import Attention, unread
from coordinator.page.home_parts import EndedRuns, certificates, ends, model_bytes
from coordinator.page.journaled import Journaled, Stamp
from coordinator.page.status_parts import StatusContext, StatusParts
from coordinator.run import history
from coordinator.run.status_document import StatusDocument
from fedcervix.errors import FedcervixError
from fedcervix.page.board import Board, Part
from fedcervix.runtime.malloc_tuning import give_back_freed_memory
from fedcervix.transport.backoff import Pauses

HOME_S = 60.0
"""from one look at certificates and ended runs to the next"""
JOURNAL_S = 2.0
"""from one look into the journal, while the coordinator runs, to the next"""

Watched = Callable[[Home, StatusDocument | None], Iterator[StatusDocument]]
"""yields what the running coordinator reports; nothing where none runs (`coordinator.commands.operator.watched`)"""


class Watching:
    """Fills a board with what becomes known of a home."""

    def __init__(self, home: Home, board: Board, watched: Watched) -> None:
        self._home, self._board, self._watched = home, board, watched
        self.document: StatusDocument | None = None
        """the newest"""
        self.answers = False
        """the running coordinator has told it"""
        self._parts, self._journaled, self._runs = StatusParts(), Journaled(home), EndedRuns(home)
        self._certificates: Part = {}
        self._unread: tuple[Attention, ...] = ()
        self._timeline: Part = {}
        self._home_at = self._journal_at = 0.0
        self._state: tuple[object, ...] = ()
        self._stamp: Stamp = ()

    def __call__(self, stop: threading.Event) -> None:
        """Fill the board until `stop` is set."""
        pauses = Pauses()
        while not stop.is_set():
            try:
                for document in self._watched(self._home, self.document):
                    pauses.reset()
                    self.answers = True
                    self.show(document)
                    if stop.is_set():
                        return
                self.answers = False
                self._show_journal()
            except FedcervixError as error:
                self.answers = False
                self._show_error(error)
            stop.wait(pauses.next_s())

    def show(self, document: StatusDocument, source: str = "") -> None:
        """Show a document; `source`: why it is not from a running coordinator. Raises a FedcervixError."""
        before, self.document = self._state, document
        presences = tuple(site.presence for site in document.sites)
        self._state = (document.run, document.phase, document.round, document.outcome, presences)
        is_new = before != self._state
        looks = is_new or document.now - self._home_at > HOME_S or not self._is_recorded(document)
        if looks:
            self._look_at_certificates(document.now)
        if is_new or document.now - self._journal_at > JOURNAL_S or source:
            self._journal_at = document.now
            self._timeline = self._journaled.timeline(document.run)
        around = StatusContext(
            plan=self._journaled.plan,
            model_bytes=model_bytes(self._home, _newest_model(document)),
            certificates=ends(self._certificates),
            source=source,
            wrote_at=self._journaled.last_at,
            unread=self._unread,
        )
        parts: Mapping[str, Part] = self._parts.of(document, around)
        self._board.put(**parts, timeline=self._timeline, certificates=self._certificates)
        if looks:
            self._look_at_runs()
        if is_new:
            give_back_freed_memory()  # of a first document, which is large: 18 MB of 118 at 64 sites and 200 rounds

    def _look_at_certificates(self, now: float) -> None:
        """Read who has a certificate. What cannot be read is a thing to look at, and hides nothing of the run."""
        self._home_at, self._unread = now, ()
        try:
            self._certificates = certificates(self._home)
        except FedcervixError as error:
            self._unread = (unread("Certificates and keys cannot be read", error),)

    def _look_at_runs(self) -> None:
        """Read which runs have ended: after the rest is shown, because fifty large records take a while."""
        try:
            self._board.put(runs=self._runs.part())
        except FedcervixError as error:
            self._unread = (*self._unread, unread("The folder of ended runs cannot be read", error))

    def _show_journal(self) -> None:
        """Show what the journal says; nothing where it says what it said the last time."""
        stamp = self._journaled.stamp()
        if stamp != self._stamp or not self._is_away() or not self._is_recorded(self.document):
            document = history.stands(self._home)
            self.show(document, "" if document.outcome else document.trouble)
            self._stamp = stamp

    def _is_recorded(self, document: StatusDocument | None) -> bool:
        """Say whether an ended run stands among the ended runs."""
        return document is None or document.outcome is None or self._runs.has(document.run)

    def _is_away(self) -> bool:
        source = self._board.parts().get("source", {})
        return bool(source.get("away")) or bool(self.document and self.document.outcome)

    def _show_error(self, error: FedcervixError) -> None:
        """Say why nothing can be shown, or nothing new."""
        self._stamp = ()  # what the journal says is shown again once it is known, also where it says the same
        what = {"00": {"level": "bad", "what": error.what, "why": error.cause, "do": error.next_step}}
        source: Part = {"away": error.what}
        words: Part = {"level": "bad", "words": "There is no news of the run", "more": error.what}
        if self.document is None:
            words = {"level": "warn", "words": "Nothing to show yet", "more": error.what}
        self._board.put(attention=what, source=source, headline=words)


def _newest_model(document: StatusDocument) -> str:
    line = document.ledger[-1] if document.ledger else None
    return (line.model or line.base) if line else ""
