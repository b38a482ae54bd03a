"""What stands between a site and its coordinator: a firewall, an HTTP proxy. They see encrypted bytes."""

from __future__ import annotations

import base64
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
        self.passed_bytes = 0
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
                self.passed_bytes += len(data)
        self.released.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def reach(self, _near: socket.socket) -> socket.socket:
        """Return the connection onwards; OSError where there is none to be had."""
        return socket.create_connection(("127.0.0.1", self._to))


class ConnectProxy(Relay):
    """A hospital's HTTP proxy: who asks it to CONNECT to a port of this machine is passed through, and counted.

    `credentials`: USER:PASSWORD, wanted of everybody. `allows`: the one port; none of its own lets any through.
    """

    def __init__(self, *, credentials: str = "", allows: int = 0) -> None:
        self._credentials, self._allows = credentials, allows
        self.asked: list[str] = []
        """targets, in the words of whoever asked"""
        super().__init__(0)

    @property
    def url(self) -> str:
        return f"http://{self._credentials}{'@' if self._credentials else ''}127.0.0.1:{self.port}"

    def reach(self, near: socket.socket) -> socket.socket:
        """Answer the request, and connect."""
        head = read_head(near)
        method, target, _ = head.split("\r\n")[0].split(" ")
        assert method == "CONNECT", head
        self.asked.append(target)
        host, _, port = target.rpartition(":")
        if self._credentials and basic(self._credentials) not in head:
            raise self._refuse(near, "407 Proxy Authentication Required")
        if self._allows not in (0, int(port)):
            raise self._refuse(near, "403 Forbidden")
        far = socket.create_connection((host, int(port)))
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return far

    def _refuse(self, near: socket.socket, status: str) -> OSError:
        near.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        near.close()
        return PermissionError(status)


def read_head(near: socket.socket) -> str:
    """Return the head of a request, to the byte: what follows it is for the other side."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = near.recv(1)
        if not byte:
            raise ConnectionError("ended within its head")
        head += byte
    return head.decode("ascii")


def basic(credentials: str) -> str:
    return f"Basic {base64.b64encode(credentials.encode()).decode()}"
