"""A client of HTTP/2 over TLS that does what it is told, also what no library would: the attackers' tool.

Frames are written by hand (RFC 9113); headers without compression (RFC 7541, section 6.2.2), so that no state is kept.
What arrives is read for its data alone: of a refusal, an attacker learns only that no message came.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_MAX = 2**31 - 1
WINDOW_FIRST = 65_535
FRAME_BYTES_MAX = 16_384
CONNECT_S = 10.0
ANSWER_S = 30.0
Headers = Sequence[tuple[str, str]]


class Kind(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntFlag):
    """Flags of frames; those of SETTINGS and PING are called ACK."""

    NONE = 0
    END_STREAM = 1
    ACK = 1
    END_HEADERS = 4


INITIAL_WINDOW, CONCURRENT_STREAMS = 4, 3
"""identifiers in SETTINGS"""


@dataclass(frozen=True, slots=True)
class Door:
    """Where to attack, from which address of this machine, with which certificate; None: without one."""

    port: int
    source: str
    keys: Path | None = None
    """a folder with party.crt and party.key"""

    def dial(self) -> socket.socket:
        """Return a TCP connection. Raises OSError."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=CONNECT_S, source_address=(self.source, 0))

    def context(self) -> ssl.SSLContext:
        """Return what a handshake needs; an attacker does not care whom it reaches."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        if self.keys is not None:
            context.load_cert_chain(self.keys / "party.crt", self.keys / "party.key")
        return context

    def handshake(self) -> ssl.SSLSocket:
        """Return a TLS connection. Raises OSError."""
        plain = self.dial()
        try:
            return self.context().wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise


def frame(kind: Kind, flags: Flag, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame's bytes."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(headers: Headers) -> bytes:
    """Return headers as literals that no table remembers."""
    return b"".join(b"\0" + text(name) + text(value) for name, value in headers)


def text(words: str) -> bytes:
    """Return a text as it stands in a header block."""
    return _number(len(words)) + words.encode("ascii")


def _number(number: int) -> bytes:
    """Return an integer with a prefix of seven bits."""
    if number < 127:
        return bytes([number])
    rest, number = [127], number - 127
    while number >= 128:
        rest.append(number % 128 + 128)
        number //= 128
    return bytes([*rest, number])


def request(path: str, headers: Headers = ()) -> bytes:
    """Return the header block of a gRPC call."""
    whole = [(":method", "POST"), (":scheme", "https"), (":path", path), (":authority", "localhost")]
    return block([*whole, ("content-type", "application/grpc"), ("te", "trailers"), *headers])


def message(data: bytes, *, compressed: bool = False) -> bytes:
    """Return a gRPC message: its mark, its length, its bytes."""
    return struct.pack(">BI", compressed, len(data)) + data


class Line:
    """One HTTP/2 connection. Raises OSError (ssl.SSLError among them) as soon as it is cut."""

    def __init__(self, door: Door, *, window: int = WINDOW_MAX) -> None:
        """`window`: how much of an answer may come before it is asked for."""
        self._socket = door.handshake()
        self._socket.settimeout(CONNECT_S)
        self._left = b""
        self._stream = -1
        self._first_window = WINDOW_FIRST
        self._to_send: dict[int, int] = defaultdict(lambda: self._first_window)
        self._line_window = WINDOW_FIRST
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        settings = struct.pack(">HI", INITIAL_WINDOW, min(window, WINDOW_MAX))
        self.send(PREFACE + frame(Kind.SETTINGS, Flag.NONE, 0, settings))
        self.send(frame(Kind.WINDOW_UPDATE, Flag.NONE, 0, struct.pack(">I", WINDOW_MAX - WINDOW_FIRST)))

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def next_stream(self) -> int:
        """Return a new stream's number."""
        self._stream += 2
        return self._stream

    def open(self, path: str, headers: Headers = (), *, ends: bool = False) -> int:
        """Begin a call; return its stream. A body follows unless it `ends`."""
        stream = self.next_stream()
        flags = Flag.END_HEADERS | (Flag.END_STREAM if ends else Flag.NONE)
        self.send(frame(Kind.HEADERS, flags, stream, request(path, headers)))
        return stream

    def call(self, path: str, data: bytes, headers: Headers = ()) -> int:
        """Send a whole call; return its stream."""
        stream = self.open(path, headers)
        self.write(stream, message(data), ends=True)
        return stream

    def write(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """Send a stream's bytes as fast as the other side lets them come."""
        rest = memoryview(data)
        while rest:
            size = min(len(rest), FRAME_BYTES_MAX, self._line_window, self._to_send[stream])
            if size <= 0:
                if stream in self.ended:
                    return
                self.pump(ANSWER_S)
                continue
            last = ends and size == len(rest)
            self.send(frame(Kind.DATA, Flag.END_STREAM if last else Flag.NONE, stream, bytes(rest[:size])))
            self._line_window -= size
            self._to_send[stream] -= size
            rest = rest[size:]
        if ends and not data:
            self.send(frame(Kind.DATA, Flag.END_STREAM, stream))

    def reset(self, stream: int) -> None:
        """Cancel a call."""
        self.send(frame(Kind.RST_STREAM, Flag.NONE, stream, struct.pack(">I", 8)))

    def answer(self, stream: int, *, timeout_s: float = ANSWER_S) -> bytes | None:
        """Wait for a call's end; return its first message, or None where it was refused."""
        deadline_s = time.monotonic() + timeout_s
        while stream not in self.ended and time.monotonic() < deadline_s:
            self.pump(max(0.0, deadline_s - time.monotonic()))
        messages = self.messages(stream)
        return messages[0] if messages else None

    def messages(self, stream: int) -> list[bytes]:
        """Return the whole messages that have come on a stream."""
        data, found, at = self.got[stream], [], 0
        while at + 5 <= len(data):
            size = struct.unpack(">I", data[at + 1 : at + 5])[0]
            if at + 5 + size > len(data):
                break
            found.append(bytes(data[at + 5 : at + 5 + size]))
            at += 5 + size
        return found

    def pump(self, timeout_s: float) -> None:
        """Take in what has come, or comes within a time."""
        if not self._socket.pending() and not select.select([self._socket], [], [], timeout_s)[0]:
            return
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("the connection was cut")
        self._left += data
        while len(self._left) >= 9:
            size = int.from_bytes(self._left[:3], "big")
            if len(self._left) < 9 + size:
                break
            kind, flags, stream = struct.unpack(">BBI", self._left[3:9])
            payload, self._left = self._left[9 : 9 + size], self._left[9 + size :]
            self._take(kind, flags, stream & WINDOW_MAX, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        match kind:
            case Kind.SETTINGS if not flags & Flag.ACK:
                self._settle(payload)
            case Kind.PING if not flags & Flag.ACK:
                self.send(frame(Kind.PING, Flag.ACK, 0, payload))
            case Kind.WINDOW_UPDATE:
                self._may_send(stream, struct.unpack(">I", payload)[0])
            case Kind.DATA:
                self.got[stream] += payload
            case Kind.RST_STREAM:
                self.ended.add(stream)
        if kind in (Kind.DATA, Kind.HEADERS) and flags & Flag.END_STREAM:
            self.ended.add(stream)

    def _settle(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            name, value = struct.unpack(">HI", payload[at : at + 6])
            if name == INITIAL_WINDOW:
                for stream in self._to_send:
                    self._to_send[stream] += value - self._first_window
                self._first_window = value
        self.send(frame(Kind.SETTINGS, Flag.ACK, 0))

    def _may_send(self, stream: int, more: int) -> None:
        if stream:
            self._to_send[stream] += more
        else:
            self._line_window += more

    def close(self) -> None:
        """Cut it."""
        self._socket.close()


def close_all(lines: Iterable[socket.socket | Line]) -> None:
    """Cut them all."""
    for line in lines:
        line.close()
