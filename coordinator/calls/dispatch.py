"""Every call from its headers to its last message: on the event loop, where nothing waits for a peer.

Rules
1. A call is admitted before anything of its message is read: certificate, role, registry, budget, in this order. So a
   refusal costs no thread. A caller that continues loses all its connections, and new ones for a while: the calls of
   others wait behind those that it has under way.
2. Every read and write has a deadline. A caller that does not read its answer loses its connection, because the library
   cannot end a call whose answer is stuck.
3. FedcervixErrors become status codes here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio

from coordinator.calls.calls import Call, Headers
from coordinator.calls.transfers import SUPERSEDED
from coordinator.calls.work import WorkThreads
from coordinator.home.registry import Roll, used_by_another
from coordinator.home.standing import RegistryReader
from coordinator.limits.admission import Admission
from coordinator.limits.overhead import CALL_BYTES
from fedcervix.errors import (
    BusyError,
    FedcervixError,
    IdentityError,
    NoSuchMethodError,
    StorageError,
)
from fedcervix.runtime.log import logger
from fedcervix.transport import identity, rpc

MESSAGE_S = 10.0
"""time for a request, and for a look at the registry"""
CHUNK_S = 120.0
"""time for a part of a model, and for an answer to be read: on a slow network it waits behind a model"""
WAITED_FOR_MAX = 16
"""requests of a certificate at once, the others after them: while the coordinator itself was held up, many arrived"""
CUT_S = 2.0
"""time after which a cut connection has ended"""
LAST_WORDS_S = 10.0
"""time for the final status of a call"""

identify = lru_cache(maxsize=1024)(identity.identify)

Context = grpc.aio.ServicerContext[bytes, bytes]


class Lines(Protocol):
    """Connections, as far as they are needed here. None of it waits."""

    def authenticated(self, peer: str, who: str, serial: str) -> None:
        """A call came with this certificate, which is in force."""

    def took(self, peer: str, size_bytes: int) -> None:
        """So much of a message that came on it is of use."""

    def refused(self, peer: str) -> None:
        """The caller was refused: its connection is closed after the refusal can have arrived."""

    def cut_peer(self, peer: str) -> bool:
        """Close a connection now."""

    def cut_flood(self, peer: str, serial: str) -> None:
        """Close a connection, and all others of its certificate, now and unread."""

    def cut_serial(self, serial: str) -> int:
        """Close all connections of a certificate now."""


class Gate(Protocol):
    """Who may call a listener's methods."""

    async def admit(self, method: rpc.Method, certificate: identity.Certificate) -> tuple[str, Callable[[], None]]:
        """Return the limits of a certificate, and a check that raises when it is no longer valid.

        Raises IdentityError, StorageError.
        """


class SitesGate:
    """Invitations may enrol; certificates of sites in the roster may do everything else."""

    def __init__(self, federation: str, standing: RegistryReader, check_roster: Callable[[str], None]) -> None:
        self._federation, self._standing, self._check_roster = federation, standing, check_roster
        self._came: set[str] = set()
        """serials with which a site has called: so it has them"""

    async def admit(self, method: rpc.Method, certificate: identity.Certificate) -> tuple[str, Callable[[], None]]:
        """Return the limits' name, and what raises once the certificate is no longer in force."""
        insist_role(certificate, self._federation, "enroll" if method is rpc.ENROLL else "site")
        roll = await self._standing.current(certificate.serial)
        return self._invitation(roll, certificate) if method is rpc.ENROLL else await self._site(roll, certificate)

    async def _site(self, roll: Roll, certificate: identity.Certificate) -> tuple[str, Callable[[], None]]:
        serial, site = certificate.serial, certificate.identity.name
        roll.admit(serial, site)
        self._check_roster(site)
        if roll.is_new(serial):
            with contextlib.suppress(StorageError):  # on a full disk the renewed one and the one before both count
                await self._standing.put_in_force(serial)
        self._came.add(serial)
        return "site", lambda: self._standing.roll.admit(serial, site)

    def _invitation(self, roll: Roll, certificate: identity.Certificate) -> tuple[str, Callable[[], None]]:
        """A used invitation is answered once more only while the first answer may have been lost."""
        made = roll.admit_invitation(certificate.serial, datetime.now(UTC))
        if made in self._came:
            raise used_by_another(certificate.identity.name)
        return "used invitation" if made else "enroll", lambda: None


class OperatorsGate:
    """Only the operator may call."""

    def __init__(self, federation: str) -> None:
        self._federation = federation

    async def admit(self, _method: rpc.Method, certificate: identity.Certificate) -> tuple[str, Callable[[], None]]:
        """Return the limits' name, and what never raises."""
        insist_role(certificate, self._federation, "operator")
        return "operator", lambda: None


def insist_role(certificate: identity.Certificate, federation: str, role: str) -> None:
    """Raise IdentityError for a certificate of another federation or role."""
    who = certificate.identity
    if who.federation != federation or who.role != role:
        raise IdentityError(
            f"{who.uri} has no permission for this call", cause=f"the call needs a certificate with the role {role!r}"
        )


@dataclass(slots=True)
class _Open:
    """A call that was admitted, until it ends."""

    call: Call
    method: rpc.Method
    context: Context


class Dispatcher:
    """Answers every call of one listener. Belongs to one event loop."""

    def __init__(
        self,
        behaviours: Mapping[rpc.Method, Callable[..., Any]],
        gate: Gate,
        work: WorkThreads,
        lines: Lines,
        admission: Admission,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        message_s: float = MESSAGE_S,
        chunk_s: float = CHUNK_S,
    ) -> None:
        self._behaviours, self._gate, self._work, self._lines = behaviours, gate, work, lines
        self._admission, self._clock_s = admission, clock_s
        self._waiting: dict[str, asyncio.Semaphore] = {}
        """by serial"""
        self._cut: dict[str, float] = {}
        """connections that are being cut, and until when their calls are ignored"""
        self._message_s, self._chunk_s = message_s, chunk_s
        self._shapes = {"unary_unary": self._small, "unary_stream": self._telling, "stream_unary": self._taking}

    async def answer(self, method: rpc.Method | None, context: Context) -> None:
        """Answer one call; only its headers have arrived. Raises CancelledError on a connection being cut."""
        peer, found = context.peer(), None
        if self._is_cut(peer):
            raise asyncio.CancelledError
        try:
            found = await self._admitted(method, context, peer)
            await self._turn(found)
            await self._shapes[found.method.shape](found)
        except FedcervixError as error:
            if found is not None:
                _log(error, found.call.site)
            await self._end(context, peer, *rpc.status(error))
        except asyncio.CancelledError as cancelled:
            if cancelled.args != (SUPERSEDED,):
                raise
            await self._end(context, peer, grpc.StatusCode.CANCELLED, SUPERSEDED)
        finally:
            if found is not None:
                self._admission.end(found.call.serial)

    # --- before anything is read ---

    async def _admitted(self, method: rpc.Method | None, context: Context, peer: str) -> _Open:
        """Return a call that may be answered. Raises a FedcervixError, and counts the refusal."""
        [pem] = context.auth_context().get("x509_pem_cert", [b""])
        certificate = identify(pem)
        serial, name = certificate.serial, certificate.identity.name
        if self._admission.is_out(serial, self._clock_s()):
            self._shut_out(peer, serial)
        try:
            if method is None:
                raise NoSuchMethodError(
                    "the coordinator does not offer this method on this connection",
                    cause="the two sides run different versions of fedcervix",
                )
            kind, insist = await self._gate.admit(method, certificate)
            self._lines.authenticated(peer, name, serial)  # also where it is over its limits: revocation finds it then
            if not self._admission.begin(serial, name, kind, self._clock_s()):
                raise BusyError(
                    f"the coordinator accepts no more calls from {name or kind} now",
                    cause="too many at once, or too many in a short time",
                    next_step="no action is needed: it is tried again automatically",
                )
        except FedcervixError as error:
            self._refused(serial, name, peer, error)
            raise
        self._lines.took(peer, CALL_BYTES)
        task = asyncio.current_task()
        assert task is not None
        headers = {key: str(value) for key, value in context.invocation_metadata() or ()}
        return _Open(Call(peer, certificate, headers, task, insist), method, context)

    async def _turn(self, found: _Open) -> None:
        """Let a call wait for its turn. Raises IdentityError where its certificate is no longer in force then."""
        if pause_s := self._admission.pause_s(found.call.serial):
            await asyncio.sleep(pause_s)
            found.call.insist()

    def _refused(self, serial: str, name: str, peer: str, error: FedcervixError) -> None:
        """Count a refused call. A caller that is not allowed here loses its connection; one that continues, all."""
        now_s = self._clock_s()
        goes_on = self._admission.refuse(serial, name, now_s)
        if self._admission.may_say(serial, now_s):
            _log(error, name)
        if not goes_on:
            self._shut_out(peer, serial)
        if isinstance(error, IdentityError):
            self._lines.refused(peer)

    def _shut_out(self, peer: str, serial: str) -> NoReturn:
        """Close the connections of a certificate; on this one, no call is answered any more."""
        self._cut[peer] = self._clock_s() + CUT_S
        self._lines.cut_flood(peer, serial)
        raise asyncio.CancelledError

    def _is_cut(self, peer: str) -> bool:
        """Say whether a call came on a connection that is being cut: nothing is spent on it."""
        if not self._cut:
            return False
        now_s = self._clock_s()
        for gone in [one for one, until_s in self._cut.items() if until_s <= now_s]:
            del self._cut[gone]
        return peer in self._cut

    # --- reading and writing ---

    async def _small(self, found: _Open) -> None:
        """A message, and its answer."""
        data, behaviour = await self._message(found), self._behaviours[found.method]

        def answer() -> bytes:
            return rpc.serialize(found.method, behaviour(rpc.parse(found.method, data), found.call))

        if asyncio.iscoroutinefunction(behaviour):
            reply = rpc.serialize(found.method, await behaviour(rpc.parse(found.method, data), found.call))
        else:
            reply = await self._work.do(found.call.serial, answer)
        await self._write(found, reply)

    async def _telling(self, found: _Open) -> None:
        """A message, and answers as long as there are some."""
        data = await self._message(found)
        request = await self._work.do(found.call.serial, rpc.parse, found.method, data)
        async with aclosing(self._behaviours[found.method](request, found.call)) as said:
            async for message in said:
                if isinstance(message, Headers):
                    await self._within(found, found.context.send_initial_metadata(tuple(message.items())))
                else:
                    await self._write(found, rpc.serialize(found.method, message))

    async def _taking(self, found: _Open) -> None:
        """Messages as long as there are some, and one answer."""
        async with aclosing(self._messages(found)) as chunks:
            reply = await self._behaviours[found.method](chunks, found.call)
        await self._write(found, rpc.serialize(found.method, reply))

    async def _message(self, found: _Open) -> bytes:
        """Return a call's only message. Raises BusyError where none comes."""
        async with self._waiting.setdefault(found.call.serial, asyncio.Semaphore(WAITED_FOR_MAX)):
            data = await self._next(found, self._message_s)
        if data is None:
            self._refused(found.call.serial, found.call.site, found.call.peer, error := _no_message())
            raise error
        return data

    async def _messages(self, found: _Open) -> AsyncGenerator[bytes, None]:
        """Yield what comes, until nothing more does."""
        while (data := await self._next(found, self._chunk_s)) is not None:
            yield data

    async def _next(self, found: _Open, most_s: float) -> bytes | None:
        """Return the next message of a call; None: it did not come in time, or there is none."""
        try:
            async with asyncio.timeout(most_s):
                data = await found.context.read()
        except TimeoutError:
            return None
        if not isinstance(data, bytes):
            return None
        most = len(data) if found.method.request is None else rpc.REQUEST_BYTES_MAX
        self._lines.took(found.call.peer, min(len(data), most))
        return data

    async def _write(self, found: _Open, data: bytes) -> None:
        await self._within(found, found.context.write(data))

    async def _within(self, found: _Open, sends: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(self._chunk_s):
                await sends
        except TimeoutError:
            self._give_up(found.call.peer)

    async def _end(self, context: Context, peer: str, code: grpc.StatusCode, details: str) -> None:
        """End a call with an error; this raises gRPC's own error."""
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await context.abort(code, details)
        except TimeoutError:
            self._give_up(peer)

    def _give_up(self, peer: str) -> NoReturn:
        """End a call whose answer is not taken."""
        self._lines.cut_peer(peer)
        raise asyncio.CancelledError


def _no_message() -> BusyError:
    """Return the error that lets an honest caller try again: on a slow network, a message waits behind a model."""
    return BusyError(
        f"the message of a call did not arrive within {MESSAGE_S:.0f} s",
        cause="the connection is slow or was cut",
        next_step="no action is needed: it is tried again automatically",
    )


def _log(error: FedcervixError, site: str) -> None:
    log = logger(site=site) if site else logger()
    if isinstance(error, StorageError):
        log.error("storage", what=error.what, cause=error.cause, next_step=error.next_step)
    else:
        log.warning("call refused", what=error.what)
