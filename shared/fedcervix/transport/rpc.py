"""The network code that both roles share: methods, TLS, the keepalive settings, and errors sent over the network.

Rules
1. One table of methods; serializers come from it, on both ends. Models are raw bytes (see protos/federation.proto).
2. Mutual TLS, 1.3, or 1.2 with forward-secret AEAD suites only; both sides trust only the federation's own authority.
3. gRPC's errors are translated only here, in both directions; no other module sees a status code.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from fedcervix.disk.descriptors import USED_UP
from fedcervix.errors import (
    BusyError,
    DuplicateAgentError,
    FedcervixError,
    IdentityError,
    LinkError,
    NoSuchMethodError,
    RemoteError,
    RunError,
    StorageError,
    VersionError,
)
from fedcervix.json_text import parsed
from fedcervix.printable import printable
from fedcervix.transport.codec import REQUEST_TEXT_CHARS_MAX, received
from fedcervix.wire import federation_pb2 as wire

MESSAGE_BYTES_MAX = 4 << 20
REQUEST_BYTES_MAX = 64 << 10
"""the same of a request that is no part of a model: several times what the longest one has, and read in no time"""
DIGEST_KEY = "fedcervix-digest"
OFFSET_KEY = "fedcervix-offset"
SIZE_KEY = "fedcervix-size"
INSTANCE_KEY = "fedcervix-instance"
VERSIONS_KEY = "fedcervix-versions"

_BOUNDS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # No message is compressed by gRPC, and none is unpacked: 4 KB may stand for 4 MiB, of which many fit into a window.
    ("grpc.compression_enabled_algorithms_bitset", 1),
]

_PINGS: list[tuple[str, int]] = [
    # Sent where nothing has arrived for 20 s: that keeps NATs and idle firewalls open.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
]

# "grpc.keepalive_timeout_ms" would be the public name of this, but no timer obeys it in the releases there are (seen up
# to 1.85). The answer to a ping may stand behind the part of a model that is under way.
_PING_PATIENCE = "grpc.http2.ping_timeout_ms"

# How much may be under way does not grow with a line's speed. At a coordinator, many sites that send at once would fill
# the memory; at a site, it would be measured by pings, whose answers stand behind the model that is arriving: after a
# minute of that, on a slow line, the library cuts it.
_FIXED_WINDOW: list[tuple[str, int]] = [("grpc.http2.bdp_probe", 0)]
_WINDOW = "grpc.http2.lookahead_bytes"
WINDOW_BYTES_MAX = 4 << 20
"""fills a line of 300 Mbit/s to the other side of the world (100 ms there and back)"""

CLIENT_OPTIONS: list[tuple[str, int]] = [
    *_BOUNDS,
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    *_FIXED_WINDOW,
    (_WINDOW, WINDOW_BYTES_MAX),
    *_PINGS,
    (_PING_PATIENCE, 60_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Dialling again while the coordinator is away: jittered by a fifth, and a second apart at most, for a site is to be
    # back within five seconds of the coordinator, and pauses of its own as well (see fedcervix.transport.backoff).
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # What is called the least back-off is the time that a connection may take to be made: a handshake through a proxy
    # and over a slow line takes more than a moment.
    ("grpc.min_reconnect_backoff_ms", 10_000),
]

HERE_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.ssl_target_name_override", "localhost"),  # a Unix socket's path is in no certificate
]

UPLOADS_BYTES = 16 << 20
"""that may arrive from all sites together before they are asked for"""
WINDOW_BYTES_MIN = 64 << 10
"""the same of one site"""
CHUNK_BYTES_MIN, CHUNK_BYTES_MAX = 1 << 18, 1 << 20
"""of a model in one message; the coordinator holds about five for each site that sends at the same moment"""
RECEIVED_BYTES_MAX = CHUNK_BYTES_MAX + (64 << 10)
"""of a message to the coordinator, of which nothing is longer than a part of a model"""
CHUNK_BYTES_STEP = 1 << 16
"""so that a message cuts no number in two: see fedcervix.models.stream_validation"""
CHUNK_BYTES_AGAIN = 1 << 16
"""the same of a transfer that was cut: what is under way of a message is lost when it is cut again"""

HANDSHAKE_S = 10
"""for the TLS handshake and HTTP/2's first words, from the moment when a server accepts a connection"""
CONNECTIONS_MAX = "grpc.max_allowed_incoming_connections"
"""of one address that a server listens on; one more is closed as soon as it is accepted"""

STREAMS_MAX = 32
"""calls at once on a connection: those of an agent whose signs of life stand behind a model. A call that is cancelled
at once (CVE-2023-44487) stays in the queue in which the calls of all connections wait, even when its connection is cut:
100 on each of two dozen connections held up others for a second. Without a limit the library drops calls of others"""

PENDING_MAX = 16_384
"""calls that wait for the event loop. Of more than a thousand the library drops some by chance, whoever made them: two
dozen connections whose calls are cancelled at once cost others their calls"""

READ_BYTES_MAX = 64 << 10
"""of a connection at once. The library has a few threads for all connections: with the 4 MiB of its own choice, eight
floods of frames keep them from an honest call for a third of a second"""

_SERVER_OPTIONS: list[tuple[str, int]] = [
    *_BOUNDS,
    ("grpc.max_receive_message_length", RECEIVED_BYTES_MAX),
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second listener
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.server.max_pending_requests", PENDING_MAX),
    ("grpc.server.max_pending_requests_hard_limit", PENDING_MAX),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
    # The library's own bound on pings made a flood of them dear: for each one above the bound it lengthens the text of
    # an error, all of which it copies each time. Clients ping as they like; coordinator.limits.overhead bounds bytes.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.experimental.tcp_max_read_chunk_size", READ_BYTES_MAX),
    *_PINGS,
    (_PING_PATIENCE, 30_000),
    *_FIXED_WINDOW,
]


def server_options(sites: int) -> list[tuple[str, int]]:
    """Return what a server needs that so many sites call: the more there are, the less each may send ahead."""
    return [*_SERVER_OPTIONS, (_WINDOW, min(max(UPLOADS_BYTES // sites, WINDOW_BYTES_MIN), WINDOW_BYTES_MAX))]


def chunk_bytes(sites: int) -> int:
    """Return how much of a model goes into one message where so many sites may send at once."""
    fair_share = UPLOADS_BYTES // sites // CHUNK_BYTES_STEP * CHUNK_BYTES_STEP
    return min(max(fair_share, CHUNK_BYTES_MIN), CHUNK_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Method:
    """One remote procedure. A message type of None stands for raw bytes."""

    path: str
    request: type[Any] | None
    reply: type[Any] | None
    shape: str = "unary_unary"
    """unary_unary, unary_stream (the reply streams) or stream_unary (the request streams)"""


ENROLL = Method("/fedcervix.Federation/Enroll", wire.EnrollRequest, wire.EnrollReply)
RENEW = Method("/fedcervix.Federation/Renew", wire.RenewRequest, wire.RenewReply)
ATTACH = Method("/fedcervix.Federation/Attach", wire.AttachRequest, wire.FromCoordinator, "unary_stream")
REPORT = Method("/fedcervix.Federation/Report", wire.FromSite, wire.ReportReply)
OFFER = Method("/fedcervix.Federation/Offer", wire.OfferRequest, wire.OfferReply)
PACKED = Method("/fedcervix.Federation/Packed", wire.PackedRequest, wire.PackedReply)
OVERVIEW = Method("/fedcervix.Federation/Overview", wire.OverviewRequest, wire.OverviewReply)
WATCH = Method("/fedcervix.Federation/Watch", wire.OverviewRequest, wire.OverviewReply, "unary_stream")
COMMAND = Method("/fedcervix.Federation/Command", wire.CommandRequest, wire.CommandReply)
FETCH = Method("/fedcervix.Blobs/Fetch", wire.BlobRequest, None, "unary_stream")
PUSH = Method("/fedcervix.Blobs/Push", None, wire.PushReply, "stream_unary")
PROBE_DOWN = Method("/fedcervix.Blobs/ProbeDown", wire.ProbeRequest, None, "unary_stream")
PROBE_UP = Method("/fedcervix.Blobs/ProbeUp", None, wire.PushReply, "stream_unary")

SITES = (ENROLL, RENEW, ATTACH, REPORT, OFFER, PACKED, FETCH, PUSH, PROBE_DOWN, PROBE_UP)
"""what sites call"""
OPERATOR = (OVERVIEW, WATCH, COMMAND)
"""what the operator calls, on a listener that only the coordinator's machine reaches"""
METHODS = (*SITES, *OPERATOR)


def _to_bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def stub(channel: grpc.Channel, method: Method) -> Any:
    """Return the callable of a method on a channel."""
    return getattr(channel, method.shape)(
        method.path,
        request_serializer=_to_bytes if method.request else None,
        response_deserializer=received(method.reply) if method.reply else None,
    )


CallHandler = Callable[[Method | None, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[None]]
"""answers one call, whose headers are there; it reads and writes bytes. None: a method that the server does not have"""


class Served(grpc.GenericRpcHandler):
    """The server's side of some methods: hands every call to `answer`, also a call of a method that is not there.

    `answer` is called before anything of a call's message is read. On the wire, a single message and a stream of one
    are the same; so every method is served as a stream.
    """

    def __init__(self, methods: Iterable[Method], answer: CallHandler) -> None:
        self._methods, self._answer = {method.path: method for method in methods}, answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Return what answers a call."""
        method = self._methods.get(handler_call_details.method)

        async def call(_messages: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            await self._answer(method, context)

        return grpc.stream_stream_rpc_method_handler(call)


def parse(method: Method, data: bytes) -> Any:
    """Return the request that a method's bytes are. Raises RemoteError where they are none, or too many."""
    if method.request is not None and len(data) > REQUEST_BYTES_MAX:
        raise RemoteError(f"a request of {len(data):,} bytes; {method.path} takes at most {REQUEST_BYTES_MAX:,}")
    try:
        return _parser(method)(data)
    except DecodeError as error:
        raise RemoteError(f"this is not a request of {method.path}") from error


@cache
def _parser(method: Method) -> Callable[[bytes], Any]:
    return received(method.request, REQUEST_TEXT_CHARS_MAX) if method.request else bytes


def serialize(method: Method, reply: Any) -> bytes:
    """Return a method's reply as bytes."""
    data: bytes = reply if method.reply is None else _to_bytes(reply)
    return data


def channel(
    address: str, *, authority_pem: bytes, certificate_pem: bytes, key_pem: bytes, here: bool = False
) -> grpc.Channel:
    """Return a channel; nothing is sent before the first call. `here`: to this machine, past any HTTP proxy."""
    credentials = grpc.ssl_channel_credentials(authority_pem, key_pem, certificate_pem)
    return grpc.secure_channel(address, credentials, options=[*CLIENT_OPTIONS, *(HERE_OPTIONS if here else ())])


def server_credentials(*, authority_pem: bytes, certificate_pem: bytes, key_pem: bytes) -> grpc.ServerCredentials:
    """Return credentials that refuse every client without a certificate of the authority."""
    return ServerKeys(authority_pem, certificate_pem, key_pem).credentials()


class ServerKeys:
    """A server's certificate and key, which can be changed while it serves. May be used from any thread.

    The library asks at every handshake; so the answer is a comparison, and a connection keeps what it began with.
    """

    def __init__(self, authority_pem: bytes, certificate_pem: bytes, key_pem: bytes) -> None:
        self._authority_pem = authority_pem
        self.change(certificate_pem, key_pem)

    def change(self, certificate_pem: bytes, key_pem: bytes) -> None:
        """Show this certificate from the next handshake on."""
        self._shown = grpc.ssl_server_certificate_configuration([(key_pem, certificate_pem)], self._authority_pem)

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for one port, which refuse every client without a certificate of the authority."""
        given = self._shown

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if self._shown is given:
                return None  # to the library: nothing has changed
            given = self._shown
            return given

        return grpc.dynamic_ssl_server_credentials(given, changed, require_client_authentication=True)  # type: ignore[arg-type]


# --- errors across the wire ---------------------------------------------------------------------------------------

_CODES: dict[type[FedcervixError], grpc.StatusCode] = {
    IdentityError: grpc.StatusCode.PERMISSION_DENIED,
    RunError: grpc.StatusCode.FAILED_PRECONDITION,
    StorageError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    RemoteError: grpc.StatusCode.INVALID_ARGUMENT,
    DuplicateAgentError: grpc.StatusCode.ALREADY_EXISTS,
    BusyError: grpc.StatusCode.UNAVAILABLE,
    VersionError: grpc.StatusCode.OUT_OF_RANGE,
    NoSuchMethodError: grpc.StatusCode.UNIMPLEMENTED,
}
_ERRORS = {code: error for error, code in _CODES.items()}
_ALSO_THE_LIBRARY_S = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED)
"""an error of ours only with three lines of ours"""


def status(error: FedcervixError) -> tuple[grpc.StatusCode, str]:
    """Return how a call ends with a FedcervixError: the code for its class, its three lines as JSON."""
    return _code(error), json.dumps(
        [_bounded(text) for text in (error.what, error.cause, error.next_step)], allow_nan=False
    )


def _code(error: FedcervixError) -> grpc.StatusCode:
    """Return the status code of an error's class, or of the class above it."""
    return next((_CODES[kind] for kind in type(error).mro() if kind in _CODES), grpc.StatusCode.INTERNAL)


def _bounded(text: str) -> str:
    """Return a text whose JSON fits a header: at most about 1,500 bytes of it."""
    return text if len(json.dumps(text, allow_nan=False)) <= 1500 else text.encode("ascii", "replace")[:1200].decode()


def translate(
    error: grpc.RpcError, address: str, *, next_step: str = "site-agent doctor", own: bool = False
) -> FedcervixError:
    """Return the error that the other side raised, or LinkError if the connection failed.

    `own`: the coordinator runs on this machine, for this operator. Else what it says is quoted, and only advice of this
    program stands as such.
    """
    code, details = error.code(), error.details() or ""
    lines = _three_lines(details)
    if code in _ERRORS and (lines or code not in _ALSO_THE_LIBRARY_S):
        what, cause, advice = (printable(words) for words in lines or (details, "", ""))
        if own:
            return _ERRORS[code](what, cause=cause, next_step=advice)
        return _quoting(_ERRORS[code], what, cause, advice)
    details = " ".join(printable(details).split())
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and details.startswith(_BUGS):
        return RemoteError(
            f"the coordinator at {address} failed at this call ({_in_short(details)})",
            cause="a bug at the coordinator, or a damaged home folder",
            next_step="ask the coordinator's operator for its log",
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return RemoteError(f"the program that answers at {address} is not a coordinator of this version ({details})")
    if _NO_MORE_FILES in details:
        cause, advice = USED_UP[errno.EMFILE]
        return StorageError(f"the coordinator at {address} cannot be called", cause=cause, next_step=advice)
    return LinkError(
        f"the coordinator at {address} cannot be reached ({_in_short(details)})",
        cause="it is not running, the address is wrong, or a firewall or proxy blocks the connection",
        next_step=next_step,
    )


def said(text: str) -> str:
    """Return a text of the coordinator as a site shows it: behind words that only this program writes.

    Nothing pads it to the width of a terminal, where the rest of it would begin a line.
    """
    return f"coordinator says: {' '.join(text.split())}" if text else ""


def _quoting(kind: type[FedcervixError], what: str, cause: str, advice: str) -> FedcervixError:
    """Return an error of the coordinator as its words, and with a next step that is this program's."""
    quotes = [
        f'the coordinator {verb} "{_in_quotes(words)}"'
        for verb, words in (("says", cause), ("advises", advice))
        if words
    ]
    return kind(
        f'the coordinator refused: "{_in_quotes(what)}"',
        cause="; ".join(quotes),
        next_step=_NEXT.get(kind, "ask the coordinator's operator"),
    )


def _in_quotes(text: str) -> str:
    return " ".join(text.split()).replace('"', "'")


_NEXT: dict[type[FedcervixError], str] = {
    BusyError: "no action is needed: it is tried again automatically",
    DuplicateAgentError: "stop one of the two agents of this site",
    VersionError: "ask the coordinator's operator which fedcervix belongs where; until then a running agent waits, and"
    " tries again by itself",
}


def _three_lines(details: str) -> tuple[str, str, str] | None:
    """Return the lines of a FedcervixError; None if the text is from another source."""
    try:
        lines = parsed(details)
    except ValueError:
        return None
    return tuple(lines) if isinstance(lines, list) and [type(line) for line in lines] == [str] * 3 else None


def _in_short(details: str) -> str:
    """GRPC's account of a failed connection, without its nested repetitions."""
    for sign, words in _SIGNS.items():
        if sign in details:
            return words
    return _FIELDS.sub("", details.split("; last error: ")[-1])[:200].strip() or "the connection was cut"


_BUGS = ("[", "Exception ", "Unexpected ", "Failed to serialize")
"""how the other side's own failures begin: an error of ours without a code, or gRPC's words for a bug. Everything else
with their codes is a line that broke in the middle of a call, also where bytes arrived that were not those sent"""

_NO_MORE_FILES = os.strerror(errno.EMFILE)
_FIELDS = re.compile(r"\s*\[field:[^\]]*\]")
"""where in itself the library failed: nothing that a reader could use"""
_SIGNS = {
    "certificate has expired": "its certificate has expired, or this machine's clock is wrong",
    "certificate is not yet valid": "its certificate is not valid yet, or this machine's clock is wrong",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not of this federation",
    "Connection refused": "connection refused",
    "DNS resolution failed": "its name cannot be resolved",
    "hostname lookup": "its name cannot be resolved",
    "certificate unknown": "it does not accept this certificate",
    "Socket closed": "the connection was cut",
    "Connection reset": "the connection was cut",
    "Locally cancelled": "this side closed the connection",
    "Channel closed": "this side closed the connection",
    "TSI_DATA_CORRUPTED": "the connection was closed because bytes arrived damaged",
}


def calls(stream: Any, address: str, *, own: bool = False) -> Iterator[Any]:
    """Iterate over a reply stream, translating its errors.

    Raises the error that the other side raised, or LinkError.
    """
    try:
        yield from stream
    except grpc.RpcError as error:
        raise translate(error, address, own=own) from error
