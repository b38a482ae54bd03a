"""One transfer of a kind for each site, its newest: an older one, of a line that was cut, may wait for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc


class Transfers:
    """The calls in progress that move models, by site and kind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[tuple[str, str], grpc.ServicerContext] = {}

    @contextmanager
    def newest(self, site: str, kind: str, context: grpc.ServicerContext) -> Iterator[None]:
        """End the site's older call of this kind, if there is one; whoever opens many holds one waiting thread."""
        key = (site, kind)
        with self._lock:
            older = self._newest.get(key)
            self._newest[key] = context
        if older is not None:
            older.cancel()
        try:
            yield
        finally:
            with self._lock:
                if self._newest.get(key) is context:  # a newer one may have come and gone
                    del self._newest[key]
