"""Attacks that hold something and wait: calls, streams, connections, handshakes."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable

from fedcervix.wire import federation_pb2 as wire
from tests.e2e.hostile.field.attacker import (
    ATTACH,
    PUSH,
    REPORT,
    WIRE_VERSION,
    Attacker,
)
from tests.e2e.hostile.field.frames import Flag, Headers, Kind, Line, close_all, frame, message, request

CALLS = 40
"""on one connection: more than the coordinator has threads for a few sites"""
LINES, IDLE = 300, 2000


def calls_without_a_body(me: Attacker) -> None:
    """Begin calls and never send what they are about."""

    def hold(line: Line) -> None:
        for _ in range(CALLS):
            line.open(REPORT, me.who)
            me.counts["calls"] += 1
        me.hold(line)

    me.persist(hold)


def streams_that_are_not_read(me: Attacker) -> None:
    """Ask for streams with a window of 0: nothing of their answers may be sent."""
    look = message(wire.AttachRequest(wire_version=WIRE_VERSION, look=True).SerializeToString())

    def hold(line: Line) -> None:
        for _ in range(CALLS):
            line.write(line.open(ATTACH, me.who), look, ends=True)
            me.counts["calls"] += 1
        me.hold(line)

    me.persist(hold, window=0)


def every_method_without_a_body(me: Attacker) -> None:
    """Begin calls of all kinds, on several connections, each with half a message."""
    methods = [
        f"/fedcervix.Federation/{name}" for name in ("Attach", "Report", "Offer", "Packed", "Enroll", "Overview")
    ]
    half = message(b"\0" * 100)[:50]

    def hold(line: Line) -> None:
        for number in range(CALLS * 2):
            line.write(line.open(methods[number % len(methods)], me.who), half)
            me.counts["calls"] += 1
        me.hold(line)

    me.persist(hold)


def more_streams_than_are_allowed(me: Attacker) -> None:
    """Begin ten thousand calls on one connection, whatever its settings say."""

    def hold(line: Line) -> None:
        asked = request(REPORT, me.who)
        for _ in range(100):
            line.send(b"".join(frame(Kind.HEADERS, Flag.END_HEADERS, line.next_stream(), asked) for _ in range(100)))
            me.counts["calls"] += 100
            line.pump(0.0)
        me.hold(line)

    me.persist(hold)


def _many(me: Attacker, count: int, begin: Callable[[], Line | socket.socket]) -> None:
    """Hold so many connections; those that were cut are made again."""
    held: list[Line | socket.socket] = []
    try:
        while me.goes_on():
            try:
                held.append(begin())
                me.counts["connections"] += 1
            except OSError:
                me.counts["refused connections"] += 1
                me.wait(0.02)
            if len(held) >= count:
                me.wait(1.0)
                close_all(held[: count // 10])  # some are dead by now: nobody looks
                del held[: count // 10]
    finally:
        close_all(held)


def many_connections(me: Attacker) -> None:
    """Open connections with a valid certificate, each with a stream that stays."""

    def begin() -> Line:
        line = Line(me.door)
        line.open(REPORT, me.who)
        return line

    _many(me, LINES, begin)


def idle_connections(me: Attacker) -> None:
    """Open TCP connections and say nothing; no certificate is needed."""
    _many(me, IDLE, me.door.dial)


def hello_and_stop(me: Attacker) -> None:
    """Send the first part of a handshake and stop."""
    hello = client_hello(me)

    def begin() -> socket.socket:
        plain = me.door.dial()
        plain.sendall(hello)
        return plain

    _many(me, IDLE, begin)


def half_a_hello(me: Attacker) -> None:
    """Send a handshake byte by byte."""
    hello, held = client_hello(me), [me.door.dial() for _ in range(200)]
    at = 0
    while me.goes_on():
        for number, plain in enumerate(held):
            try:
                plain.sendall(hello[at % len(hello) : at % len(hello) + 1])
            except OSError:
                plain.close()
                me.counts["cut connections"] += 1
                held[number] = me.door.dial()
        at += 1
        me.wait(0.2)


def client_hello(me: Attacker) -> bytes:
    """Return the first message of a handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    begun = me.door.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        begun.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake needs an answer")


def reconnect(me: Attacker) -> None:
    """Do one handshake after the other, as fast as they go."""
    while me.goes_on():
        try:
            me.door.handshake().close()
            me.counts["connections"] += 1
        except OSError:
            me.counts["refused connections"] += 1
            time.sleep(0.001)


def no_preface(me: Attacker) -> None:
    """Do the handshake and then say nothing."""
    _many(me, LINES, me.door.handshake)


def slow_fetch(me: Attacker) -> None:
    """Ask for the welcome again and again, and let it come byte by byte."""
    look = message(wire.AttachRequest(wire_version=WIRE_VERSION, look=True).SerializeToString())

    def hold(line: Line) -> None:
        streams = []
        for _ in range(CALLS):
            streams.append(line.open(ATTACH, me.who))
            line.write(streams[-1], look, ends=True)
        while me.goes_on():
            for stream in streams:
                line.send(frame(Kind.WINDOW_UPDATE, Flag.NONE, stream, struct.pack(">I", 1)))
            line.pump(0.2)

    me.persist(hold, window=1)


def slow_headers(me: Attacker) -> None:
    """Begin header blocks that never end; and push bodies of one byte a second."""
    headers: Headers = [*me.who, *((f"fedcervix-x{number}", "y" * 100) for number in range(50))]

    def hold(line: Line) -> None:
        push = line.open(PUSH, me.who)
        stream = line.next_stream()
        line.send(frame(Kind.HEADERS, Flag.NONE, stream, request(REPORT, headers)[:1000]))
        while me.goes_on():
            me.wait(0.5)
            line.send(frame(Kind.CONTINUATION, Flag.NONE, stream, b""))
            me.counts["continuations"] += 1
            line.pump(0.0)
        line.reset(push)

    me.persist(hold)
