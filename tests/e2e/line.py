"""A line between a site and its coordinator that does as it is told: cut, silent, or with a bit turned round.

It passes encrypted bytes on and cannot read them. `up` is towards the coordinator, `down` towards the site.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Way = Literal["up", "down"]

PIECE_BYTES = 65_536
HELD_BYTES = 128 << 10
"""what a socket of this line may hold of either way: what is under way when a line falls silent is lost with it"""


@dataclass(eq=False)
class Connection:
    """One connection of a site, and the one to the coordinator that goes with it."""

    near: socket.socket
    far: socket.socket
    passed: Counter[Way] = field(default_factory=Counter)
    """bytes, by way"""

    def hang_up(self) -> None:
        for side in (self.near, self.far):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()


class Line:
    """A port on loopback behind which another one lies. Thread-safe."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._to_flip: list[Way] = []
        self._speaks = threading.Event()
        self._speaks.set()
        self._closed = False
        self.passed: Counter[Way] = Counter()
        """bytes, by way, of all connections"""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    # --- what it can be told ---

    def cut(self) -> None:
        """End every connection, as a firewall does; a new one may be made at once."""
        for connection in self._now():
            connection.hang_up()

    def silence(self) -> None:
        """Let nothing pass any more, either way; nobody is told, every socket stays open."""
        self._speaks.clear()

    def speak(self) -> None:
        """Let everything pass again."""
        self._speaks.set()

    @property
    def silent(self) -> bool:
        """Say whether nothing passes."""
        return not self._speaks.is_set()

    def flip(self, way: Way) -> None:
        """Turn one bit round in the next bytes that pass this way."""
        with self._lock:
            self._to_flip.append(way)

    def close(self) -> None:
        """End everything."""
        self._closed = True
        self._speaks.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    # --- passing on ---

    def meddle(self, connection: Connection, way: Way, data: bytes) -> bytes | None:
        """Return what is passed on in place of `data`; None ends the connection."""
        del connection  # what to do does not depend on it, here
        with self._lock:
            if way not in self._to_flip:
                return data
            self._to_flip.remove(way)
        return bytes([data[0] ^ 1]) + data[1:]

    def _now(self) -> list[Connection]:
        with self._lock:
            return list(self._open)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._speaks.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._to))
        except OSError:
            near.close()
            return
        for side in (near, far):
            for held in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                side.setsockopt(socket.SOL_SOCKET, held, HELD_BYTES)
        connection = Connection(near, far)
        with self._lock:
            self._open.add(connection)
        threading.Thread(target=self._pass, args=(connection, "down"), daemon=True).start()
        self._pass(connection, "up")
        with self._lock:
            self._open.discard(connection)

    def _pass(self, connection: Connection, way: Way) -> None:
        """Pass bytes on until one side has no more; then end both, as nothing speaks one-sidedly here."""
        source, sink = (connection.near, connection.far) if way == "up" else (connection.far, connection.near)
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                self._speaks.wait()
                passed = self.meddle(connection, way, data)
                if passed is None:
                    break
                sink.sendall(passed)
                connection.passed[way] += len(passed)
                with self._lock:
                    self.passed[way] += len(passed)
        connection.hang_up()


class SlowLine(Line):
    """A line that lets so many bytes a second through each way."""

    def __init__(self, to: int, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at_s: dict[Way, float] = {"up": 0.0, "down": 0.0}
        self._turn: dict[Way, threading.Lock] = {"up": threading.Lock(), "down": threading.Lock()}
        super().__init__(to)

    def meddle(self, connection: Connection, way: Way, data: bytes) -> bytes | None:
        """Pass on a piece when the line has time for it."""
        with self._turn[way]:
            now_s = time.monotonic()
            self._free_at_s[way] = max(now_s, self._free_at_s[way]) + len(data) / self._bytes_per_s
            time.sleep(max(0.0, self._free_at_s[way] - now_s))
        return super().meddle(connection, way, data)
