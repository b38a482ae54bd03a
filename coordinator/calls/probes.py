"""How fast is a site's line? Bytes of no meaning, down and up, on the way that models take, and in their chunks.

Rules
1. Nothing is stored, and nothing of a run changes.
2. One probe is at most `codec.PROBE_BYTES_MAX` long, and all of a site in a minute at most `BYTES_PER_MIN`: who asks
   for more is told to wait. A newer probe of a site ends the older one.
3. What arrives is hashed, as a model is, so that the time is that of a model.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable

from coordinator.calls.calls import Call, Headers, natural
from coordinator.calls.transfers import Transfers, of_size
from coordinator.calls.work import WorkThreads
from fedcervix.errors import BusyError, RemoteError
from fedcervix.runtime.budgets import Budget
from fedcervix.transport import codec, rpc
from fedcervix.wire import federation_pb2 as wire

MINUTE_S = 60.0
BYTES_PER_MIN = 64 * 2**20
"""of one site, down and up together"""


class Probes:
    """Behaviours of ProbeDown and ProbeUp. Belongs to one event loop."""

    def __init__(
        self,
        work: WorkThreads,
        transfers: Transfers,
        chunk_bytes: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._transfers, self._clock_s = work, transfers, clock_s
        self._chunk = codec.probe_bytes(chunk_bytes)
        self._budgets: dict[str, Budget] = {}

    async def down(self, request: wire.ProbeRequest, call: Call) -> AsyncIterator[Headers | bytes]:
        """Send so many bytes. Raises RemoteError, BusyError."""
        size_bytes = self._taken(call.site, codec.read_probe(request.size_bytes))
        yield Headers({rpc.SIZE_KEY: str(size_bytes)})
        with self._transfers.newest(call.site, "probe", call.task):
            for start in range(0, size_bytes, len(self._chunk)):
                call.insist()
                yield self._chunk[: size_bytes - start]

    async def up(self, chunks: AsyncIterator[bytes], call: Call) -> wire.PushReply:
        """Take in as many bytes as the header announces, and forget them. Raises RemoteError, BusyError."""
        size_bytes = self._taken(call.site, codec.read_probe(natural(call.headers.get(rpc.SIZE_KEY, ""))))
        hasher, arrived = hashlib.sha256(), 0
        with self._transfers.newest(call.site, "probe", call.task):
            async for chunk in of_size(chunks):
                call.insist()
                arrived += len(chunk)
                if arrived > size_bytes:
                    raise RemoteError("more bytes came than the probe has announced")
                await self._work.do(call.serial, hasher.update, chunk)
        return wire.PushReply(size_bytes=arrived)

    def _taken(self, site: str, size_bytes: int) -> int:
        """Count what a site is about to use. Raises BusyError where its minute is used up."""
        budget = self._budgets.setdefault(site, Budget(BYTES_PER_MIN / MINUTE_S, BYTES_PER_MIN))
        if not budget.take(self._clock_s(), size_bytes):
            raise BusyError(
                f"{site} has tried its line too often",
                cause=f"all tries of a minute may have {BYTES_PER_MIN >> 20} MiB together",
                next_step="wait a minute, then repeat the command",
            )
        return size_bytes
