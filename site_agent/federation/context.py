"""What the parts of one agent share: its site, its line, its models, its inbox; and how they try again."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from fedcervix.core.events import Task
from fedcervix.errors import DuplicateAgentError, FedcervixError, LinkError, RemoteError, RunError, StorageError
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.worker_protocol import WorkProgress
from fedcervix.transport.backoff import Pauses
from site_agent.federation import shown
from site_agent.federation.inbox import Inbox
from site_agent.federation.link import Link
from site_agent.federation.site_ledger import SiteLedger
from site_agent.home import SiteHome
from site_agent.store.sum_journal import SumJournal
from site_agent.worker.worker import CancelledError

T = TypeVar("T")

REMOTE_ERRORS_MAX = 3
MENDED_BY_TIME = (LinkError, StorageError, RunError, RemoteError, DuplicateAgentError)
"""DuplicateAgentError: whether this agent is the one too many, the listener is told when it attaches"""


@dataclass(frozen=True)
class AgentContext:
    """One agent's site and connection; `show` is told what is worth telling a person. May be used from any thread."""

    home: SiteHome
    site: str
    link: Link
    show: shown.Show
    inbox: Inbox = field(default_factory=Inbox)
    stopping: threading.Event = field(default_factory=threading.Event)
    """set: the agent has ended, and its threads shall"""
    clock_s: Callable[[], float] = time.time
    """Unix seconds, by this machine's clock"""
    ledger: SiteLedger | None = None
    """None: this agent keeps no ledger"""
    journal: SumJournal | None = None
    """None: this agent takes part in no run that hides something from the coordinator"""

    @functools.cached_property
    def blobs(self) -> BlobStore:
        """The site's models."""
        return BlobStore(self.home.blobs)

    def show_trouble(self, at: WorkProgress) -> None:
        """Show what a progress says that is in the way, if anything is."""
        if at.trouble:
            self.show(shown.Trouble(at.trouble.error()))

    def show_progress(self, task: Task | str, at: WorkProgress) -> None:
        """Show how far a piece of work is."""
        if at.note:
            self.show(shown.Message(at.note))
        self.show_trouble(at)
        self.show(shown.Advanced(task, at))

    def purge(self) -> None:
        """Delete the models that nothing needs any more. It takes as long as a short task."""
        with contextlib.suppress(StorageError):
            self.blobs.purge()

    def pause(self, pause_s: float, cancelled: threading.Event) -> None:
        """Wait before the next try. Raises CancelledError where nobody wants it any more."""
        if cancelled.wait(pause_s) or self.stopping.is_set():
            raise CancelledError

    def again(
        self,
        cancelled: threading.Event,
        attempt: Callable[[], T],
        mends: tuple[type[FedcervixError], ...] = MENDED_BY_TIME,
    ) -> T:
        """Try until it succeeds, with growing pauses; only errors that time may mend are tried again.

        A line comes back, a full disk is emptied, a model that is no longer there is asked for under a new task; bytes
        that arrived wrong are sent once more or twice, but not for ever. Raises CancelledError.
        """
        pauses = Pauses()
        arrived_wrong = 0
        while True:
            try:
                return attempt()
            except mends as error:
                if cancelled.is_set():  # what is no longer wanted may break
                    raise CancelledError from error
                arrived_wrong += isinstance(error, RemoteError)
                if arrived_wrong >= REMOTE_ERRORS_MAX:
                    raise
                if not isinstance(error, LinkError):  # of the line, the listener speaks
                    self.show(shown.Trouble(error))
            self.pause(pauses.next_s(), cancelled)
