"""The streams of all browsers: each gets the whole board, then what has changed, as server-sent events.

Rules
1. A change is computed and written as text once, for all browsers together.
2. Changes that come within `CALM_S` are one.
3. A browser that reads too slowly misses changes; then it gets the whole again. So a stream holds at most `BEHIND_MAX`
   messages, which all streams share.
4. When nothing changes, a beat is sent: the browser knows by it that this process lives.
5. When the process is to end, all streams end at once: an open stream would hold the server back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping

from fedcervix.page.board import Board, Part, difference

CALM_S = 0.25
BEAT_S = 5.0
BEHIND_MAX = 40
"""messages: ten seconds of changes"""
STREAMS_MAX = 100
BEAT = b"event: beat\ndata: {}\n\n"


def message(event: str, value: Mapping[str, object]) -> bytes:
    """Return a server-sent event. Raises ValueError where a number in it is not finite."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"event: {event}\ndata: {text}\n\n".encode(errors="replace")  # json.dumps leaves no line break in it


class _Stream:
    """What one browser is still to be sent."""

    def __init__(self, first: bytes) -> None:
        self.waiting: deque[bytes] = deque([first])
        self.filled = asyncio.Event()
        self.filled.set()

    def add(self, one: bytes) -> None:
        self.waiting.append(one)
        self.filled.set()


class Fanout:
    """All streams of one board, on one event loop."""

    def __init__(self, board: Board, *, calm_s: float = CALM_S, beat_s: float = BEAT_S) -> None:
        self._board, self._calm_s, self._beat_s = board, calm_s, beat_s
        self._shown: Mapping[str, Part] = {}
        self._whole: bytes | None = None
        self._streams: set[_Stream] = set()
        self._rung, self._stop = asyncio.Event(), asyncio.Event()

    @property
    def streams(self) -> int:
        """How many browsers are told."""
        return len(self._streams)

    async def run(self) -> None:
        """Tell all streams of changes, until the end."""
        loop = asyncio.get_running_loop()

        def ring() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who listens
                loop.call_soon_threadsafe(self._rung.set)

        self._board.on_change(ring)
        while not self._stop.is_set():
            self._tell()
            await self._rung.wait()
            self._rung.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._calm_s):
                    await self._stop.wait()

    def end(self) -> None:
        """End all streams. On the event loop."""
        self._stop.set()
        self._rung.set()
        for stream in self._streams:
            stream.filled.set()

    def _tell(self) -> None:
        now = self._board.parts()
        change = difference(self._shown, now)
        if not change:
            return
        self._shown, self._whole = now, None
        if self._streams:
            patch = message("patch", change)
            for stream in self._streams:
                if len(stream.waiting) >= BEHIND_MAX:
                    stream.waiting.clear()
                    stream.add(self.whole())
                else:
                    stream.add(patch)

    def whole(self) -> bytes:
        """Return the event that holds everything as the streams were told it."""
        if self._whole is None:
            self._whole = message("whole", self._shown)
        return self._whole

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the events of one browser."""
        stream = _Stream(self.whole())
        self._streams.add(stream)
        try:
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._beat_s):
                        await stream.filled.wait()
                stream.filled.clear()
                if not stream.waiting and not self._stop.is_set():
                    yield BEAT
                while stream.waiting and not self._stop.is_set():
                    yield stream.waiting.popleft()
        finally:
            self._streams.discard(stream)
