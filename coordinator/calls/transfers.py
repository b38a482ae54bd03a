"""One transfer of a kind for each site, its newest: an older one, of a line that was cut, may wait for long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Protocol

from fedcervix.errors import RemoteError
from fedcervix.transport import rpc

SUPERSEDED = "a newer transfer has begun"
"""what an older one is cancelled with"""


class Cancels(Protocol):
    """A call's task, as far as it is needed here."""

    def cancel(self, why: str, /) -> object:
        """End it."""


class Transfers:
    """The calls in progress that move models, by site and kind. Belongs to one event loop."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], Cancels] = {}

    @contextmanager
    def newest(self, site: str, kind: str, call: Cancels) -> Iterator[None]:
        """End the site's older call of this kind, if there is one: whoever opens many holds one."""
        key = (site, kind)
        older = self._newest.get(key)
        self._newest[key] = call
        if older is not None:
            older.cancel(SUPERSEDED)
        try:
            yield
        finally:
            if self._newest.get(key) is call:  # a newer one may have come and gone
                del self._newest[key]


async def of_size(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the messages of a model. Raises RemoteError where another one follows a short one: each costs as much."""
    short = False
    async for chunk in chunks:
        if short:
            raise RemoteError(f"of a model, only the last message has fewer than {rpc.CHUNK_BYTES_AGAIN:,} bytes")
        short = len(chunk) < rpc.CHUNK_BYTES_AGAIN
        yield chunk
