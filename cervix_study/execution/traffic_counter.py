"""A relay between a site and its coordinator that counts the bytes on the network, TLS included."""

from __future__ import annotations

import contextlib
import socket
import threading

CHUNK_BYTES = 1 << 18
HOST = "127.0.0.1"


class Relay:
    """Listens on a port of its own and passes everything on to another one, both ways, until it is closed."""

    def __init__(self, port: int) -> None:
        self._to, self._lock = port, threading.Lock()
        self._passed_bytes = 0
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True, name=f"relay {self.port}").start()

    @property
    def passed_bytes(self) -> int:
        """Both directions, so far."""
        with self._lock:
            return self._passed_bytes

    def close(self) -> None:
        """Cut every line."""
        with self._lock:
            ends = [self._listener, *self._open]
        for end in ends:
            _hang_up(end)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection((HOST, self._to))
                except OSError:  # no coordinator: the site tries again
                    _hang_up(near)
                    continue
                with self._lock:
                    self._open += [near, far]
                threading.Thread(target=self._serve, args=(near, far), daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        """Pass both ways until both have said their last."""
        back = threading.Thread(target=self._pass, args=(far, near), daemon=True)
        back.start()
        self._pass(near, far)
        back.join()
        for end in (near, far):
            _hang_up(end)

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        """Pass on what one end says; its end as well, for the other may have more to say."""
        buffer = memoryview(bytearray(CHUNK_BYTES))
        try:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while count := one.recv_into(buffer):
                other.sendall(buffer[:count])
                with self._lock:
                    self._passed_bytes += count
            other.shutdown(socket.SHUT_WR)
        except OSError:  # the line is cut: at the other end as well
            for end in (one, other):
                _hang_up(end)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
