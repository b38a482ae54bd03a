"""What a site, or who watches, is told as it changes: on the event loop, where no thread waits.

Rules
1. The engine rings a bell at every change, from whatever thread. Rings that come close together are one.
2. Work, and that a run is over, is told at once. Why a site has to stand by changes with every word of every other
   site: that is told at most once in `CALM_S`, or the cost of a round would grow with the square of the sites.
3. A newer stream of a site ends the older one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fedcervix.core.rounds.instructions import Idle, Instruction, instruction
from fedcervix.core.rounds.state import Presence, Run

if TYPE_CHECKING:  # with `cryptography`, which `coordinator status` does not need
    from fedcervix.trust.fingerprints import SiteKeys

CALM_S = 1.0
"""from one reason why a site stands by to the next"""
PICTURE_S = 1.0
"""after which whoever watches is shown how things stand though nothing was journaled: progress is not"""


@dataclass(eq=False, slots=True)
class Stream:
    """One open Attach of a site's agent."""

    site: str
    instance: str
    closed: bool = False


def news(run: Run, site: str, last: Instruction | None) -> Instruction | None:
    """Return what a site is to be told that was told `last`; None where nothing is new, or where it is silent."""
    if not (run.ended or run.site(site).presence in (Presence.PRESENT, Presence.REVOKED)):
        return None
    now = instruction(run, site)
    return None if now == last else now


class Bell:
    """Wakes coroutines of one event loop, from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = False
        self._rung = asyncio.Event()
        self.count = 0
        """of rings that were heard: who was busy sees by it that one was missed"""

    def ring(self) -> None:
        """Let everybody look again, soon. From any thread."""
        if not self._due:
            self._due = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who listens
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._due = False  # before anybody looks: a change from now on rings again
        self.count += 1
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    async def wait(self, most_s: float | None = None) -> None:
        """Wait for the next ring; for so long at most."""
        rung = self._rung
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await rung.wait()


@dataclass(frozen=True, slots=True)
class KeysChanged:
    """The keys of the run's sites are others than this stream was told: the welcome is due once more."""


class RosterKeys:
    """The keys of the run's sites, as one stream is told them. `look` returns the same object while none changes."""

    def __init__(self, look: Callable[[], SiteKeys]) -> None:
        self._look, self.keys = look, look()

    def changed(self) -> bool:
        """Say whether they are others by now; then `keys` has those."""
        before, self.keys = self.keys, self._look()
        return self.keys is not before


class Tells(Protocol):
    """What streams need of the engine; none of it waits."""

    @property
    def run(self) -> Run:
        """The state as it stands."""

    @property
    def stopping(self) -> bool:
        """Whether the process is to end."""

    def listens(self, stream: Stream) -> bool:
        """Say whether a stream is its site's newest one, and open."""


async def instructions(
    engine: Tells,
    stream: Stream,
    bell: Bell,
    may_listen: Callable[[], None],
    roster: RosterKeys,
    *,
    calm_s: float = CALM_S,
) -> AsyncIterator[Instruction | KeysChanged]:
    """Yield what a site should be doing, each time that changes, until its stream, the run or the process ends.

    A change of the roster comes before what follows from it.

    `may_listen` raises what ends the stream at once.
    """
    last: Instruction | None = None
    clock_s, told_s = asyncio.get_running_loop().time, 0.0
    while engine.listens(stream):
        may_listen()
        if roster.changed():
            yield KeysChanged()
        now = news(engine.run, stream.site, last)
        if now is None:
            if engine.stopping or engine.run.ended:
                return
            await bell.wait()
        elif isinstance(now, Idle) and isinstance(last, Idle) and (left_s := told_s + calm_s - clock_s()) > 0:
            await bell.wait(left_s)
        else:
            yield (last := now)
            told_s = clock_s()


async def looks(engine: Tells, bell: Bell) -> AsyncIterator[None]:
    """Yield at once, then each time that something has changed or a second has passed; and when the process ends."""
    while not engine.stopping:
        seen = bell.count
        yield
        if bell.count == seen and not engine.stopping:
            await bell.wait(PICTURE_S)
    yield
