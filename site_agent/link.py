"""The site's narrow seam to the coordinator. Every call is begun here; every error is one of ours.

`Link` is what the agent needs; `GrpcLink` is the real one. A line that fails raises LinkError, after which the caller
tries again with the pauses of `Pauses`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grpc

from fedcervix import __version__, codec, rpc
from fedcervix.blobs import BlobStore
from fedcervix.errors import LinkError
from fedcervix.events import Answer
from fedcervix.rounds import Instruction
from fedcervix.wire import federation_pb2 as wire

CALL_S = 30.0
"""for a small call, once the line is up; a coordinator answers within milliseconds"""

OnBytes = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all; 0 where unknown)."""


class Link(Protocol):
    """What a site can say to the coordinator."""

    def attach(self) -> Iterator[codec.Welcome | Instruction]:
        """Listen; ends or raises LinkError when the line is cut."""

    def report(self, report: codec.Report) -> tuple[Answer, str]:
        """Tell; returns the answer and, where it refuses, why."""

    def fetch(self, digest: str, blobs: BlobStore, on_bytes: OnBytes) -> None:
        """Bring a model here; goes on where an earlier try ended."""

    def push(self, digest: str, blobs: BlobStore, on_bytes: OnBytes) -> None:
        """Bring a model there; goes on where an earlier try ended."""


class GrpcLink:
    """The link over mutually authenticated TLS."""

    def __init__(self, address: str, *, authority_pem: bytes, certificate_pem: bytes, key_pem: bytes) -> None:
        self._address = address
        self._channel = rpc.channel(
            address, authority_pem=authority_pem, certificate_pem=certificate_pem, key_pem=key_pem
        )
        self._streams: set[Any] = set()

    def enroll(self, request_pem: bytes) -> bytes:
        """Trade a certificate signing request (PEM) for a certificate (PEM); needs an invitation's certificate."""
        reply = self._call(rpc.ENROLL, wire.EnrollRequest(request_pem=request_pem))
        pem: bytes = reply.certificate_pem
        return pem

    def attach(self) -> Iterator[codec.Welcome | Instruction]:
        """Listen; ends or raises LinkError when the line is cut."""
        request = wire.AttachRequest(wire_version=codec.WIRE_VERSION, software_version=__version__)
        stream = rpc.stub(self._channel, rpc.ATTACH)(request)
        self._streams.add(stream)
        try:
            for message in rpc.calls(stream, self._address):
                yield codec.read_from_coordinator(message)
        finally:
            self._streams.discard(stream)
            stream.cancel()

    def report(self, report: codec.Report) -> tuple[Answer, str]:
        """Tell; returns the answer and, where it refuses, why."""
        return codec.read_answer(self._call(rpc.REPORT, codec.write_report(report, time.time())))

    def fetch(self, digest: str, blobs: BlobStore, on_bytes: OnBytes) -> None:
        """Bring a model here; goes on where an earlier try ended."""
        have = blobs.resume_at(digest, SENDER)
        stream = rpc.stub(self._channel, rpc.FETCH)(wire.BlobRequest(digest=digest, offset=have))
        self._streams.add(stream)
        try:
            chunks = _counted(rpc.calls(stream, self._address), have, 0, on_bytes)
            blobs.receive_all(digest, SENDER, chunks, offset=have)
        finally:
            self._streams.discard(stream)
            stream.cancel()

    def push(self, digest: str, blobs: BlobStore, on_bytes: OnBytes) -> None:
        """Bring a model there; goes on where an earlier try ended."""
        size_bytes = blobs.size_bytes(digest)
        offset = self._call(rpc.OFFER, wire.OfferRequest(digest=digest, size_bytes=size_bytes)).offset
        if offset >= size_bytes:
            return
        metadata = ((rpc.DIGEST_KEY, digest), (rpc.OFFSET_KEY, str(offset)), (rpc.SIZE_KEY, str(size_bytes)))
        chunks = _counted(blobs.chunks(digest, offset), offset, size_bytes, on_bytes)
        try:
            rpc.stub(self._channel, rpc.PUSH)(chunks, metadata=metadata)
        except grpc.RpcError as error:
            raise rpc.translate(error, self._address) from error

    def close(self) -> None:
        """Cut the line; whoever listens on it gets a LinkError."""
        for stream in list(self._streams):
            stream.cancel()
        self._channel.close()

    def _call(self, method: rpc.Method, request: Any) -> Any:
        try:
            return rpc.stub(self._channel, method)(request, timeout=CALL_S)
        except grpc.RpcError as error:
            raise rpc.translate(error, self._address) from error
        except ValueError as error:  # the channel was closed under the call
            raise LinkError("the line was closed") from error


SENDER = "coordinator"


def _counted(chunks: Iterator[bytes], start: int, of: int, on_bytes: OnBytes) -> Iterator[bytes]:
    done = start
    for chunk in chunks:
        done += len(chunk)
        on_bytes(done, of)
        yield chunk


class Pauses:
    """Jittered, growing pauses between tries: 0.2 s at first, 5 s at most.

    A returning coordinator finds its sites within seconds, and is not met by all of them at once.
    """

    FIRST_S = 0.2
    MOST_S = 5.0

    def __init__(self, chance: random.Random) -> None:
        self._chance, self._next_s = chance, self.FIRST_S

    def reset(self) -> None:
        """The line is up."""
        self._next_s = self.FIRST_S

    def next_s(self) -> float:
        """Return the next pause, in seconds."""
        pause_s, self._next_s = self._next_s, min(self.MOST_S, 2 * self._next_s)
        return pause_s * self._chance.uniform(0.5, 1.0)
