"""What leaves of a model is counted each time it leaves. A model that has left whole leaves again after growing pauses.

A coordinator says from which byte it wants a model; a malicious one wants it from the first byte without end.
"""

from __future__ import annotations

import contextlib
import threading

from fedcervix.core.events import Task
from fedcervix.errors import StorageError
from fedcervix.transport.backoff import Pauses
from site_agent.federation.accounting import Accounting
from site_agent.federation.context import AgentContext
from site_agent.federation.link import OnBytes

AGAIN_S_MAX = 300.0
"""the longest pause before a model that has left whole leaves again"""


class Uploads:
    """One agent's uploads. It remembers the last model alone: a site delivers one after the other."""

    def __init__(self, context: AgentContext, accounting: Accounting) -> None:
        self._context, self._accounting = context, accounting
        self._digest, self._left_bytes, self._pauses = "", 0, Pauses(most_s=AGAIN_S_MAX)

    def push(self, task: Task, digest: str, on_bytes: OnBytes, cancelled: threading.Event) -> None:
        """Bring a model to the coordinator. Raises what `Link.push` raises, PolicyError, StorageError, CancelledError.

        All that the coordinator wants is counted before it leaves; what then did not leave is given back.
        """
        if self._digest != digest:
            self._digest, self._left_bytes, self._pauses = digest, 0, Pauses(most_s=AGAIN_S_MAX)
        start_bytes = done_bytes = size_bytes = 0

        def leaving(done: int, of: int) -> None:
            nonlocal start_bytes, done_bytes, size_bytes
            if not size_bytes:  # nothing has left yet
                if self._left_bytes >= of:
                    self._context.pause(self._pauses.next_s(), cancelled)
                self._accounting.begin_upload(task.run, of - done)
                start_bytes, size_bytes = done, of
            done_bytes = done
            on_bytes(done, of)

        try:
            self._context.link.push(digest, self._context.blobs, leaving, task=task)
        finally:
            self._left_bytes += done_bytes - start_bytes
            if size_bytes > done_bytes:
                with contextlib.suppress(StorageError):  # then the count stays too high
                    self._accounting.give_back(size_bytes - done_bytes)
