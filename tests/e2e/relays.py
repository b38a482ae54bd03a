"""What stands between a site and its coordinator: a line that holds on to the dead. It sees encrypted bytes."""

from __future__ import annotations

import contextlib
import socket
import threading


class Relay:
    """Passes bytes between whoever connects and a port of this machine.

    `holds`: when the near side ends, the far one is told no sooner than `released`, as behind a firewall that drops a
    connection in silence.
    """

    def __init__(self, port: int, *, holds: bool = False) -> None:
        self._to, self.released = port, threading.Event()
        if not holds:
            self.released.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it, and every connection through it."""
        self.released.set()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            far = self.reach(near)
            self._open.append(far)
            threading.Thread(target=self._pass, args=(far, near), daemon=True).start()
            self._pass(near, far)

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        """Pass bytes until one side ends, then tell the other one."""
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        self.released.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def reach(self, _near: socket.socket) -> socket.socket:
        """Return the connection onwards; OSError where there is none to be had."""
        return socket.create_connection(("127.0.0.1", self._to))
