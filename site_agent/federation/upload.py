"""What leaves of a model is counted each time it leaves. A model that has left whole leaves again after growing pauses.

A coordinator says from which byte it wants a model; a malicious one wants it from the first byte without end.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from fedcervix.errors import StorageError
from fedcervix.transport.backoff import Pauses
from site_agent.federation.accounting import Accounting
from site_agent.federation.context import AgentContext
from site_agent.federation.link import OnBytes

AGAIN_S_MAX = 300.0
"""the longest pause before a model that has left whole leaves again"""


@dataclass(slots=True)
class _Model:
    """One model on its way, over all tries."""

    digest: str
    left_bytes: int = 0
    pauses: Pauses = field(default_factory=lambda: Pauses(most_s=AGAIN_S_MAX))


@dataclass(slots=True)
class _Try:
    """One try. It is called before the first byte leaves, then for each chunk before that leaves."""

    begins: Callable[[int, int], None]
    on_bytes: OnBytes
    start: int = 0
    done: int = 0
    of: int = 0

    def __call__(self, done: int, of: int) -> None:
        if not self.of:
            self.begins(done, of)
            self.start, self.of = done, of
        self.done = done
        self.on_bytes(done, of)


class Uploads:
    """One agent's uploads. It remembers the last model alone: a site delivers one after the other."""

    def __init__(self, context: AgentContext, accounting: Accounting) -> None:
        self._context, self._accounting = context, accounting
        self._model = _Model("")

    def push(self, run: str, digest: str, on_bytes: OnBytes, cancelled: threading.Event) -> None:
        """Bring a model to the coordinator. Raises what `Link.push` raises, PolicyError, StorageError, CancelledError.

        All that the coordinator wants is counted before it leaves; what then did not leave is given back.
        """
        if self._model.digest != digest:
            self._model = _Model(digest)
        model = self._model

        def begins(start: int, of: int) -> None:
            if model.left_bytes >= of:
                self._context.pause(model.pauses.next_s(), cancelled)
            self._accounting.begin_upload(run, of - start)

        one = _Try(begins, on_bytes)
        try:
            self._context.link.push(digest, self._context.blobs, one)
        finally:
            model.left_bytes += one.done - one.start
            if one.of > one.done:
                with contextlib.suppress(StorageError):  # then the count stays too high
                    self._accounting.give_back(one.of - one.done)
