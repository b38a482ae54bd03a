"""Every call from its headers to its last message: who does not send, or does not read, holds nothing for long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from coordinator.calls.calls import Call
from coordinator.calls.dispatch import WAITED_FOR_MAX, Dispatcher
from coordinator.calls.work import WorkThreads
from coordinator.limits.admission import LIMITS, Admission
from fedcervix.errors import IdentityError
from fedcervix.transport import identity, rpc
from fedcervix.wire import federation_pb2 as wire

pytestmark = pytest.mark.timeout(60)

PEER = "ipv4:192.0.2.1:5678"


def certificate() -> bytes:
    now, key = datetime.now(UTC), identity.new_key()
    authority = identity.Authority(identity.new_authority("cervix", key, now), key)
    who = identity.Identity("cervix", "site", "nhs")
    return identity.issue(authority, identity.public_key(identity.new_key()), who, now, identity.SITE_LIFETIME)


class AbortedError(Exception):
    """As gRPC ends a handler that has given a status."""


@dataclass
class Context:
    """A call as gRPC hands it over. None among the messages: nothing more ever comes."""

    pem: bytes
    messages: list[bytes | None] = field(default_factory=list)
    reads: bool = True
    """takes what is written to it"""
    said: list[bytes] = field(default_factory=list)
    code: grpc.StatusCode | None = None
    looked: int = 0
    """for a message"""

    def peer(self) -> str:
        return PEER

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self.pem]}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def read(self) -> Any:
        self.looked += 1
        await asyncio.sleep(0)
        message = self.messages.pop(0) if self.messages else grpc.aio.EOF
        return message if message is not None else await asyncio.Event().wait()

    async def write(self, data: bytes) -> None:
        if not self.reads:
            await asyncio.Event().wait()
        self.said.append(data)

    async def abort(self, code: grpc.StatusCode, _details: str) -> None:
        self.code = code
        raise AbortedError


@dataclass
class Lines:
    """Connections, as they are told of."""

    told: list[str] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)

    def authenticated(self, _peer: str, who: str, _serial: str) -> None:
        self.told.append(f"{who} called")

    def refused(self, peer: str) -> None:
        self.told.append(f"refused {peer}")

    def took(self, peer: str, size_bytes: int) -> None:
        self.taken[peer] += size_bytes

    def cut_peer(self, peer: str) -> bool:
        self.told.append(f"cut {peer}")
        return True

    def cut_flood(self, peer: str, _serial: str) -> None:
        self.told.append(f"cut all of {peer}")

    def cut_serial(self, _serial: str) -> int:
        return 0


@dataclass
class Open:
    """A gate that lets everybody in, or nobody."""

    closed: bool = False

    async def admit(self, _method: rpc.Method, _certificate: identity.Certificate) -> tuple[str, Callable[[], None]]:
        if self.closed:
            raise IdentityError("the certificate is revoked")
        return "site", lambda: None


@dataclass
class Stage:
    """A dispatcher with short patience."""

    lines: Lines = field(default_factory=Lines)
    admission: Admission = field(default_factory=Admission)
    gate: Open = field(default_factory=Open)
    pem: bytes = field(default_factory=certificate)

    async def answer(self, method: rpc.Method | None, *contexts: Context) -> None:
        async def attach(_request: Any, _call: Call) -> AsyncIterator[wire.FromCoordinator]:
            yield wire.FromCoordinator()

        async def push(chunks: AsyncIterator[bytes], _call: Call) -> wire.PushReply:
            return wire.PushReply(size_bytes=sum([len(chunk) async for chunk in chunks]))

        behaviours = {
            rpc.REPORT: lambda _request, _call: wire.ReportReply(reason="heard"),
            rpc.ATTACH: attach,
            rpc.PUSH: push,
        }
        work = WorkThreads("test", 2, each=2)
        made = Dispatcher(behaviours, self.gate, work, self.lines, self.admission, message_s=0.05, chunk_s=0.05)
        try:
            await asyncio.gather(*(made.answer(method, one) for one in contexts))  # type: ignore[arg-type]
        finally:
            work.close()

    @property
    def open(self) -> int:
        return sum(held.open for held in self.admission.held(0.0).values())


def on(test: Callable[[Stage], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test(Stage())

    asyncio.run(whole())


def test_a_small_call_is_answered() -> None:
    async def test(stage: Stage) -> None:
        context = Context(stage.pem, [wire.FromSite(at=1.0).SerializeToString()])
        await stage.answer(rpc.REPORT, context)
        assert wire.ReportReply.FromString(*context.said).reason == "heard"
        assert (stage.lines.told, stage.open) == (["nhs called"], 0)

    on(test)


@pytest.mark.parametrize("method", [rpc.REPORT, rpc.ATTACH])
def test_a_message_that_does_not_come_ends_the_call(method: rpc.Method) -> None:
    """With what makes an agent try again, as after a cut line: on a slow one, the message stands behind a model."""

    async def test(stage: Stage) -> None:
        context = Context(stage.pem, [None])
        with pytest.raises(AbortedError):
            await stage.answer(method, context)
        assert (context.code, stage.open) == (grpc.StatusCode.UNAVAILABLE, 0)

    on(test)


def test_who_makes_many_calls_at_once_waits_for_its_turn_and_nobody_else_does() -> None:
    """Before: 500 calls of one certificate took the event loop for a quarter of a second."""

    async def test(stage: Stage) -> None:
        here = wire.FromSite(at=1.0).SerializeToString()
        late, mine = Context(stage.pem, [here]), identity.identify(stage.pem).serial
        for _ in range(int(LIMITS["site"].burst) - 1):
            assert stage.admission.begin(mine, "nhs", "site", time.monotonic())
            stage.admission.end(mine)
        waits = asyncio.create_task(stage.answer(rpc.REPORT, late))
        other = Context(certificate(), [here])
        await stage.answer(rpc.REPORT, other)
        assert (len(other.said), late.looked, waits.done()) == (1, 0, False)
        waits.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waits
        assert stage.open == 0

    on(test)


def test_calls_that_arrived_while_the_coordinator_was_held_up_are_all_answered() -> None:
    """Before: of 25 calls that were found together, 9 were refused: "too many at once"."""

    async def test(stage: Stage) -> None:
        here = wire.FromSite(at=1.0).SerializeToString()
        found = [Context(stage.pem, [here]) for _ in range(2 * WAITED_FOR_MAX)]
        await stage.answer(rpc.REPORT, *found)
        assert [len(one.said) for one in found] == [1] * len(found)

    on(test)


def test_a_call_over_its_limits_brings_nothing_of_use() -> None:
    async def test(stage: Stage) -> None:
        for _ in range(LIMITS["site"].open_max):
            stage.admission.begin(identity.identify(stage.pem).serial, "nhs", "site", time.monotonic())
        with pytest.raises(AbortedError):
            await stage.answer(rpc.REPORT, Context(stage.pem, [wire.FromSite(at=1.0).SerializeToString()]))
        assert stage.lines.taken[PEER] == 0

    on(test)


def test_a_transfer_that_stops_ends_with_what_has_come() -> None:
    async def test(stage: Stage) -> None:
        context = Context(stage.pem, [b"abc", b"de", None])
        await stage.answer(rpc.PUSH, context)
        assert wire.PushReply.FromString(*context.said).size_bytes == 5
        assert stage.open == 0

    on(test)


@pytest.mark.parametrize("method", [rpc.REPORT, rpc.ATTACH])
def test_who_does_not_read_loses_the_connection(method: rpc.Method) -> None:
    """The library cannot end such a call: its last word, too, would wait behind what is not read."""

    async def test(stage: Stage) -> None:
        context = Context(stage.pem, [wire.FromSite(at=1.0).SerializeToString() * (method is rpc.REPORT)], reads=False)
        with pytest.raises(asyncio.CancelledError):
            await stage.answer(method, context)
        assert (stage.lines.told[-1], stage.open) == (f"cut {PEER}", 0)

    on(test)


@pytest.mark.parametrize("method", [rpc.REPORT, rpc.PUSH, None])
def test_who_may_not_call_is_not_read(method: rpc.Method | None) -> None:
    async def test(stage: Stage) -> None:
        stage.gate.closed = True
        context = Context(stage.pem, [b"abc"])
        with pytest.raises(AbortedError):
            await stage.answer(method, context)
        expected = grpc.StatusCode.PERMISSION_DENIED if method else grpc.StatusCode.UNIMPLEMENTED
        assert (context.code, context.looked, stage.open) == (expected, 0, 0)
        assert stage.lines.told == ([f"refused {PEER}"] if method else [])

    on(test)


def test_bytes_that_are_no_message_are_the_caller_s_fault() -> None:
    async def test(stage: Stage) -> None:
        context = Context(stage.pem, [b"\xff\xff\xff"])
        with pytest.raises(AbortedError):
            await stage.answer(rpc.REPORT, context)
        assert context.code is grpc.StatusCode.INVALID_ARGUMENT

    on(test)


def test_a_caller_that_leaves_holds_nothing() -> None:
    async def test(stage: Stage) -> None:
        task = asyncio.create_task(stage.answer(rpc.PUSH, Context(stage.pem, [b"abc", None])))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stage.open == 0

    on(test)


def test_who_goes_on_though_it_is_refused_is_shut_out_and_not_even_answered() -> None:
    """Before: one connection after the other was cut, and the calls of all of them stood before those of others."""

    async def test(stage: Stage) -> None:
        stage.gate.closed = True
        codes = []
        for _ in range(200):
            context = Context(stage.pem)
            with pytest.raises((AbortedError, asyncio.CancelledError)):
                await stage.answer(rpc.REPORT, context)
            codes.append(context.code)
        assert codes[0] is grpc.StatusCode.PERMISSION_DENIED
        assert codes[-1] is None
        assert stage.lines.told[-1] == f"cut all of {PEER}"
        stage.gate.closed = False
        again = Context(stage.pem, [wire.FromSite(at=1.0).SerializeToString()])
        with pytest.raises(asyncio.CancelledError):
            await stage.answer(rpc.REPORT, again)
        assert (again.looked, again.said, stage.open) == (0, [], 0)

    on(test)
