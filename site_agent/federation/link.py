"""The site's narrow seam to the coordinator. Every call is begun here; every error is one of ours.

`Link` is what the agent needs; `GrpcLink` is the real one. A line that fails raises LinkError, after which the caller
tries again after a while (`fedcervix.transport.backoff`). Every text of the coordinator's choice says that it is the
coordinator's: else it could look like a line, or advice, of this program.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import grpc

from fedcervix.core.compression import Packed
from fedcervix.core.events import Answer, Task
from fedcervix.core.rounds.instructions import Finish, Idle, Instruction
from fedcervix.errors import LinkError, RemoteError, StorageError, VersionError
from fedcervix.models.blobs import BlobStore
from fedcervix.transport import codec, identity, rpc
from fedcervix.transport.codec import FIRST_MODEL_BYTES_MAX
from fedcervix.transport.versions import HERE, Build, agreed
from fedcervix.trust.seals import Signed
from fedcervix.wire import federation_pb2 as wire
from site_agent.federation.privacy import outgoing
from site_agent.federation.site_ledger import SiteLedger
from site_agent.store.egress import Egress

CALL_S = 30.0
"""for a small call, once the line is up; a coordinator answers within milliseconds"""

PROBE_S = 120.0
"""for one try of how fast the line is"""

Said = codec.Welcome | codec.LedgerPart | codec.Paper | Instruction
"""what a coordinator says on the stream"""
OnBytes = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all; 0 where unknown)."""


class Link(Protocol):
    """What a site can say to the coordinator."""

    def attach(self) -> Iterator[Said]:
        """Listen; ends or raises LinkError when the line is cut."""

    def report(self, report: codec.Report) -> tuple[Answer, str]:
        """Tell; returns the answer and, where it refuses, why."""

    def sign(self, report: codec.Heartbeat) -> None:
        """Show a sign of life. Nobody waits for its answer, which may stand behind a model on a slow line."""

    def fetch(
        self, digest: str, blobs: BlobStore, on_bytes: OnBytes, *, bytes_max: int = FIRST_MODEL_BYTES_MAX
    ) -> None:
        """Bring a model here; goes on where an earlier try ended. Refuses one that is longer."""

    def push(self, digest: str, blobs: BlobStore, on_bytes: OnBytes, *, task: Task | None = None) -> None:
        """Bring a model there; goes on where an earlier try ended. `task`: whose result it is.

        `on_bytes` is called with the start before anything leaves, and with the end of each chunk before it leaves.
        Raises a FedcervixError; LinkError where the line was cut.
        """

    def packed(self, digest: str) -> Packed | None:
        """Return the packed form in which the task's model is to be had; None: it travels itself."""

    def sealed(self, digest: str) -> tuple[Signed, ...]:
        """Return what the coordinator shows of the task's model, which is under seal; nothing is checked yet."""

    def renew(self, request_pem: bytes) -> bytes:
        """Ask for a certificate (PEM) that lives longer, with a signing request (PEM) for the key of this line."""

    def use(self, certificate_pem: bytes) -> None:
        """Go on with this certificate, for the same key. What is under way is cut, and is tried again like any cut."""


@dataclass(frozen=True, slots=True)
class Books:
    """What a site writes down of what it says on a line."""

    ledger: SiteLedger | None = None
    """keeps the run's ledger and signs reports; without it, neither is done"""
    egress: Egress | None = None
    """has all that leaves, before it does; without it, nothing is written down"""


class GrpcLink:
    """The link over mutually authenticated TLS."""

    def __init__(
        self,
        address: str,
        *,
        authority_pem: bytes,
        certificate_pem: bytes,
        key_pem: bytes,
        claim: codec.InstanceClaim | None = None,
        here: Build = HERE,
        clock_s: Callable[[], float] = time.time,
        books: Books | None = None,
    ) -> None:
        """`claim`: which process of the site's agent speaks; left out, one that succeeds nobody. `here`: its build."""
        self._address, self._here, self._clock_s = address, here, clock_s
        books = books or Books()
        self._ledger, self._egress = books.ledger, books.egress
        self._run = ""
        """of the last welcome"""
        self._wire_version = here.wire_min
        """that was agreed last"""
        self._claim = claim or codec.InstanceClaim(secrets.token_hex(16))
        self._who = ((rpc.INSTANCE_KEY, self._claim.instance),)
        self._dial = partial(rpc.channel, address, authority_pem=authority_pem, key_pem=key_pem)
        self._channel = self._dial(certificate_pem=certificate_pem)
        self._closed = False
        self._streams: set[Any] = set()
        self._signs: set[Any] = set()
        self._last: dict[str, str] = {}
        """the model of the last transfer, by kind"""

    def enroll(self, request_pem: bytes) -> bytes:
        """Trade a certificate signing request (PEM) for a certificate (PEM); needs an invitation's certificate."""
        self._asks("enrol", request_pem)
        reply = self._call(rpc.ENROLL, wire.EnrollRequest(request_pem=request_pem), headers=())
        pem: bytes = reply.certificate_pem
        return pem

    def renew(self, request_pem: bytes) -> bytes:
        """Ask for a certificate (PEM) that lives longer, with a signing request (PEM) for the key of this line."""
        self._asks("renew", request_pem)
        pem: bytes = self._call(rpc.RENEW, wire.RenewRequest(request_pem=request_pem)).certificate_pem
        return pem

    def _asks(self, what: str, request_pem: bytes) -> None:
        """Write down that a certificate is asked for. Raises StorageError."""
        if self._egress:
            key = identity.key_fingerprint(identity.check_request(request_pem))
            self._egress.request(what, request_pem, key)

    def use(self, certificate_pem: bytes) -> None:
        """Go on with this certificate, for the same key. What is under way is cut, and is tried again like any cut.

        The line with the one before ends first: no call comes with it once the coordinator has seen this one.
        """
        self._cut()
        self._channel = self._dial(certificate_pem=certificate_pem)
        if self._closed:
            self._channel.close()

    def attach(self) -> Iterator[Said]:
        """Listen; ends or raises LinkError when the line is cut."""
        return self._attach(self._claim)

    def welcome(self) -> Said:
        """Hear what an agent would hear first, beside the agent that may be at work."""
        return next(self._attach(None))

    def _attach(self, claim: codec.InstanceClaim | None) -> Iterator[Said]:
        kept = self._ledger.kept() if self._ledger and claim else None
        stream = self._begin(rpc.ATTACH, self._question(codec.write_attach(self._here, claim, self._clock_s(), kept)))
        self._streams.add(stream)
        try:
            for message in self._heard(stream):
                said = codec.read_from_coordinator(message, self._here)
                if isinstance(said, codec.Welcome):
                    self._wire_version, self._run = said.wire_version, said.run
                yield _attributed(said)
        finally:
            self._streams.discard(stream)
            stream.cancel()

    def _heard(self, stream: Any) -> Iterator[Any]:
        """Yield what comes."""
        try:
            yield from rpc.calls(stream, self._address)
        except VersionError as refused:
            raise self._in_own_words(stream, refused) from refused.__cause__

    def _in_own_words(self, stream: Any, refused: VersionError) -> VersionError:
        """Return why the two ends do not fit, by what the coordinator has said that it speaks; its words as a quote."""
        coordinator = codec.read_versions(str(dict(stream.initial_metadata() or ()).get(rpc.VERSIONS_KEY, "")))
        try:
            agreed(self._here, coordinator or self._here, at="site")
        except VersionError as ours:
            ours.cause += f"; {refused.what}"
            return ours
        return refused

    def report(self, report: codec.Report) -> tuple[Answer, str]:
        """Tell; returns the answer and, where it refuses, why."""
        message = self._message(report)
        answer, why = codec.read_answer(self._call(rpc.REPORT, message))
        if self._ledger and answer is Answer.ACCEPTED:
            self._ledger.accepted(message)
        return answer, rpc.said(why)

    def _message(self, report: codec.Report) -> wire.FromSite:
        """Return the message of a report, and what this site signs of it."""
        message = _message(report, self._wire_version)
        if self._ledger:
            self._ledger.sign(message, self._egress.end() if self._egress else None)
        if self._egress:
            self._egress.report(message, getattr(report, "run", self._run), getattr(report, "task", None))
        return message

    def sign(self, report: codec.Heartbeat) -> None:
        """Show a sign of life. Nobody waits for its answer, which may stand behind a model on a slow line."""
        message = _message(report, self._wire_version)
        with contextlib.suppress(ValueError, StorageError):  # the channel was closed under the call; or the disk fails
            if self._egress:
                self._egress.sign(message, self._run)
            call = rpc.stub(self._channel, rpc.REPORT).future(message, timeout=CALL_S, metadata=self._who)
            self._signs.add(call)  # a call that nobody holds is cancelled
            call.add_done_callback(self._signs.discard)

    def fetch(
        self, digest: str, blobs: BlobStore, on_bytes: OnBytes, *, bytes_max: int = FIRST_MODEL_BYTES_MAX
    ) -> None:
        """Bring a model here; goes on where an earlier try ended. Nothing is written before its size is known."""
        while not blobs.has(digest):  # twice where what an earlier try has left turns out to be wrong
            have = blobs.resume_at(digest, SENDER)
            chunk_bytes = rpc.CHUNK_BYTES_AGAIN if self._is_again("fetch", digest) else 0
            request = self._question(wire.BlobRequest(digest=digest, offset=have, chunk_bytes=chunk_bytes))
            stream = self._begin(rpc.FETCH, request, metadata=self._who)
            self._streams.add(stream)
            try:
                size_bytes = self._announced(stream, bytes_max)
                if blobs.expect(digest, SENDER, size_bytes=size_bytes) == have < size_bytes:
                    chunks = _counted(rpc.calls(stream, self._address), have, size_bytes, on_bytes)
                    _receive(blobs, digest, chunks, have, size_bytes)
            finally:
                self._streams.discard(stream)
                stream.cancel()

    def _announced(self, stream: Any, bytes_max: int) -> int:
        """Return the size that goes before a model. Raises RemoteError, or the error that came in its place."""
        headers = dict(stream.initial_metadata() or ())
        if rpc.SIZE_KEY not in headers:
            next(rpc.calls(stream, self._address), b"")
        return codec.read_size(str(headers.get(rpc.SIZE_KEY, "")), bytes_max)

    def push(self, digest: str, blobs: BlobStore, on_bytes: OnBytes, *, task: Task | None = None) -> None:
        """Bring a model there; goes on where an earlier try ended. Raises a FedcervixError."""
        size_bytes = blobs.size_bytes(digest)
        reply = self._call(rpc.OFFER, self._question(wire.OfferRequest(digest=digest, size_bytes=size_bytes)))
        offset, chunk_bytes = codec.read_wanted(reply)
        if self._is_again("push", digest):
            chunk_bytes = rpc.CHUNK_BYTES_AGAIN
        if offset >= size_bytes:
            return
        on_bytes(offset, size_bytes)
        place = ((rpc.DIGEST_KEY, digest), (rpc.OFFSET_KEY, str(offset)), (rpc.SIZE_KEY, str(size_bytes)))
        with self._leaving(digest, offset, size_bytes, task) as leaves:
            chunks = _counted(blobs.chunks(digest, offset, chunk_bytes), offset, size_bytes, on_bytes)
            told = _counted(chunks, offset, size_bytes, leaves)
            self._begin(rpc.PUSH, told, metadata=(*self._who, *place))

    def _leaving(
        self, digest: str, offset: int, size_bytes: int, task: Task | None
    ) -> contextlib.AbstractContextManager[OnBytes]:
        if self._egress is None:
            return contextlib.nullcontext(lambda _done, _of: None)
        return self._egress.model(digest, offset, size_bytes, task)

    def _is_again(self, kind: str, digest: str) -> bool:
        """Say whether the last transfer of this kind was the same one: it was cut, so small messages are better."""
        again = self._last.get(kind) == digest
        self._last[kind] = digest
        return again

    def packed(self, digest: str) -> Packed | None:
        """Return the packed form in which the task's model is to be had; None: it travels itself."""
        return codec.read_packed(self._call(rpc.PACKED, self._question(wire.PackedRequest(digest=digest))))

    def _question(self, request: Any) -> Any:
        """Write down that a message leaves which holds names, digests and sizes alone; return it."""
        if self._egress:
            self._egress.talk("question", request.ByteSize(), self._run)
        return request

    def sealed(self, digest: str) -> tuple[Signed, ...]:
        """Return what the coordinator shows of the task's model, which is under seal; nothing is checked yet."""
        return codec.read_seals(self._call(rpc.PACKED, wire.PackedRequest(digest=digest)))

    def probe_down(self, size_bytes: int) -> None:
        """Let the coordinator send so many bytes of no meaning. Raises a FedcervixError."""
        request = self._question(wire.ProbeRequest(size_bytes=size_bytes))
        stream = self._begin(rpc.PROBE_DOWN, request, timeout=PROBE_S, metadata=self._who)
        self._streams.add(stream)
        try:
            arrived = sum(len(chunk) for chunk in rpc.calls(stream, self._address))
        finally:
            self._streams.discard(stream)
            stream.cancel()
        if arrived != size_bytes:
            raise RemoteError(f"the coordinator sent {arrived:,} bytes of {size_bytes:,}")

    def probe_up(self, size_bytes: int) -> None:
        """Send so many bytes of no meaning to the coordinator. Raises a FedcervixError."""
        if self._egress:
            self._egress.talk("probe", size_bytes, self._run)
        size = ((rpc.SIZE_KEY, str(size_bytes)),)
        chunk = codec.probe_bytes(codec.CHUNK_BYTES_UNSAID)
        chunks = (chunk[: size_bytes - start] for start in range(0, size_bytes, len(chunk)))
        self._begin(rpc.PROBE_UP, chunks, timeout=PROBE_S, metadata=(*self._who, *size))

    def close(self) -> None:
        """Cut the line; whoever listens on it gets a LinkError."""
        self._closed = True
        self._cut()

    def _cut(self) -> None:
        for stream in list(self._streams):
            stream.cancel()
        self._channel.close()

    def _call(self, method: rpc.Method, request: Any, *, headers: tuple[tuple[str, str], ...] | None = None) -> Any:
        metadata = self._who if headers is None else headers
        return self._begin(method, request, timeout=CALL_S, metadata=metadata)

    def _begin(self, method: rpc.Method, request: Any, **options: Any) -> Any:
        """Begin a call; one with a single answer also ends here. Raises a FedcervixError."""
        try:
            return rpc.stub(self._channel, method)(request, **options)
        except grpc.RpcError as error:
            raise rpc.translate(error, self._address) from error
        except ValueError as error:  # the channel was closed under the call
            raise LinkError("the connection was closed") from error


SENDER = "coordinator"


def _attributed(what: Said) -> Said:
    """Return what the coordinator says; a text of its choice says that it is the coordinator's."""
    return replace(what, reason=rpc.said(what.reason)) if isinstance(what, Idle | Finish) else what


def _message(report: codec.Report, version: int = HERE.wire_max) -> wire.FromSite:
    """Return the message of a report: of what may leave of it. There is no other way out for a report."""
    return codec.write_report(outgoing(report), time.time(), version)


def _receive(blobs: BlobStore, digest: str, chunks: Iterator[bytes], offset: int, size_bytes: int) -> None:
    if not blobs.receive(digest, SENDER, chunks, offset=offset, size_bytes=size_bytes):
        raise RemoteError(f"the coordinator announced {size_bytes:,} bytes and sent fewer")


def _counted(chunks: Iterator[bytes], start: int, of: int, on_bytes: OnBytes) -> Iterator[bytes]:
    done = start
    for chunk in chunks:
        done += len(chunk)
        on_bytes(done, of)
        yield chunk
