"""How many useless bytes may arrive: frames without meaning, cancelled calls, texts beyond their bounds.

The library answers PING and similar frames itself, and neither counts nor limits them: 4 MB of them a second on eight
connections of one certificate made honest calls take 0.4 s (measured). The system counts the bytes of a connection, and
the coordinator counts the bytes that it has used. The difference is limited for each certificate; a connection without
a call may bring only few bytes.

An honest agent stays far below: its connections carry models, short calls, and a few bytes for each part of a model
that it fetches, and what has arrived of a model and is not read yet is no more than it may send ahead. That may come
before its call is known: a busy event loop sees the call later than the system counts the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

BYTES_PER_S, BURST_BYTES = 64 << 10, 8 << 20
"""in a second, and at once: rpc.WINDOW_BYTES_MAX, a message in part and a whole one that waits to be read, frames"""
CALL_BYTES = 1024
"""of a call's headers"""
PER_TAKEN, PER_SENT = 1.25, 0.05
"""that may arrive for each byte of a message that was taken (frames, TLS), and for each that was sent"""
STRANGER_BYTES = 256 << 10
"""of a connection without a call: a handshake and a request have a third of it at most"""
CERTIFICATES_MAX = 4096


class Traffic(NamedTuple):
    """Bytes of a connection since it was made."""

    received: int
    sent: int


NO_TRAFFIC = Traffic(0, 0)


def useless(before: Traffic, now: Traffic, taken: int) -> float:
    """Return the number of useless bytes since the last look; negative if more could have arrived."""
    return (now.received - before.received) - PER_TAKEN * taken - PER_SENT * (now.sent - before.sent)


@dataclass(slots=True)
class Overhead:
    """The useless bytes of each certificate. Not thread-safe."""

    _left: dict[str, tuple[float, float]] = field(default_factory=dict)
    """by serial: bytes that may still come, and when that was so"""

    def over(self, found: Mapping[str, float], now_s: float) -> frozenset[str]:
        """Count what the connections of certificates have brought since the last look; return whose was too much."""
        return frozenset(serial for serial, count in found.items() if self._count(serial, count, now_s))

    def _count(self, serial: str, count: float, now_s: float) -> bool:
        before, at_s = self._left.pop(serial, (float(BURST_BYTES), now_s))
        left = min(before + (now_s - at_s) * BYTES_PER_S - count, float(BURST_BYTES))
        # Its connections are closed where it was too much, and it begins anew: what an honest agent sends ahead on its
        # next connection is no flood. Whoever floods again and again is slowed (coordinator.limits.throttle).
        self._left[serial] = left if left >= 0 else float(BURST_BYTES), now_s  # last in the table: counted last
        if len(self._left) > CERTIFICATES_MAX:
            del self._left[next(iter(self._left))]
        return left < 0
