"""The registry in memory: to decide whether a certificate may connect, nothing waits for the disk.

Before a call is admitted, the file is checked again if the last check is older than `LOOK_S`, or if the certificate is
not known: it may have been issued since. So a change by another process takes effect within that time. While the file
cannot be read, no call is admitted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from coordinator.home.registry import Registry, Roll
from fedcervix.errors import StorageError

LOOK_S = 0.5
ANSWER_S = 10.0
"""for the disk"""


class RegistryReader:
    """The registry's roll. Belongs to one event loop; reads the file on a thread of its own."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._roll: Roll | None = None
        self._mark: object = None
        self._writes = registry.writes
        """of this process, before the last look"""
        self._looked_s = float("-inf")
        self._look: asyncio.Task[None] | None = None
        self._trouble: StorageError | None = None
        self._listeners: list[Callable[[Roll], None]] = []

    def on_change(self, tell: Callable[[Roll], None]) -> None:
        """Have `tell` called with each new roll."""
        self._listeners.append(tell)

    @property
    def roll(self) -> Roll:
        """The roll as it was at the last look. Raises StorageError where that could not be read."""
        if self._roll is None or self._trouble is not None:
            raise self._trouble or StorageError("the registry was not read yet")
        return self._roll

    async def current(self, serial: str) -> Roll:
        """Return the roll, by which to decide about a certificate. Raises StorageError."""
        if self._roll is None or serial not in self._roll or self._registry.writes != self._writes:
            await self.look_anew()
        elif asyncio.get_running_loop().time() - self._looked_s > LOOK_S:
            await self.look()
        return self.roll

    async def look(self) -> None:
        """Look at the file; all who ask meanwhile share one look. Raises StorageError."""
        if self._look is None:
            self._look = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(ANSWER_S):
                await asyncio.shield(self._look)
        except TimeoutError as error:
            raise StorageError(
                f"the registry was not read within {ANSWER_S:.0f} s",
                cause="its disk does not answer",
                next_step="look at the system's log (dmesg | tail)",
            ) from error

    async def put_in_force(self, serial: str) -> None:
        """A renewed certificate is used for the first time. Raises StorageError: then both go on being valid."""
        now = datetime.now(UTC)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._registry.put_in_force, serial, now)
        await self.look_anew()

    async def shut_out(self, site: str) -> None:
        """Refuse a site from now on, even if its revocation could not be saved. Raises StorageError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._registry.shut_out, site)
        await self.look_anew()

    async def look_anew(self) -> None:
        """Look at the file as it is now: a look that is under way may have begun before it was written."""
        await self.look()
        await self.look()

    async def _read(self) -> None:
        loop, before, writes = asyncio.get_running_loop(), self._roll, self._registry.writes
        try:
            self._mark, self._roll = await loop.run_in_executor(self._thread, self._fresh, self._mark, before)
            self._trouble, self._writes = None, writes
        except StorageError as error:
            self._trouble = error
        finally:
            self._looked_s, self._look = loop.time(), None
        if self._roll is not None and self._roll is not before:
            for tell in self._listeners:
                tell(self._roll)

    def _fresh(self, mark: object, roll: Roll | None) -> tuple[object, Roll]:
        """Return the file's mark and what it holds, read only where the mark is another one. Raises StorageError."""
        now = self._registry.mark()
        return (now, roll) if roll is not None and now == mark else (now, self._registry.roll())

    def close(self) -> None:
        """Look no more."""
        self._thread.shutdown()
