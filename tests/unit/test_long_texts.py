"""A text of 3.5 MB in any field of the protocol: what is logged, answered, journaled and shown of it stays small."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from fedcervix.core.events import Event, event_to_json
from fedcervix.errors import PART_CHARS_MAX, FedcervixError, RemoteError
from fedcervix.printable import QUOTED_CHARS_MAX, quoted
from fedcervix.runtime import log
from fedcervix.runtime.log import LINE_CHARS_MAX
from fedcervix.transport import codec, rpc
from fedcervix.transport.versions import HERE
from fedcervix.wire import federation_pb2 as wire
from tests.unit.test_codec import REPORTS
from tests.unit.test_printable import FIELDS, NAMES, NOW, Way, with_text

CHARS = 3_500_000
TEXTS = {"letters": "x" * CHARS, "doubled by escapes": "\\" * CHARS, "twelve bytes each": "🧬" * (CHARS // 4)}
ANSWER_BYTES_MAX = 8 * 1024
"""of the status of a call, which is a header"""
JOURNAL_BYTES_MAX = 4096

READS: dict[type[Message], Callable[[Any], Any]] = {
    wire.FromSite: lambda said: codec.read_report(said, site="ada", at=NOW),
    wire.AttachRequest: lambda said: codec.read_claim(said.instance, said.succeeds),
    wire.OfferRequest: codec.read_offer,
    wire.BlobRequest: lambda said: codec.read_digest(said.digest),
    wire.PackedRequest: lambda said: codec.read_digest(said.digest),
    wire.FromCoordinator: codec.read_from_coordinator,
    wire.ReportReply: codec.read_answer,
    wire.PackedReply: codec.read_packed,
}
REQUESTS = {method.request for method in rpc.METHODS}


def full(kind: type[Message], way: Way, text: str) -> Message:
    """Return a message that is right but for one text."""
    message = kind()
    for report in REPORTS if kind is wire.FromSite else ():
        sent = codec.write_report(report, 1.0)
        if sent.WhichOneof("what") == way[0].name:
            message.CopyFrom(sent)
    message.MergeFrom(with_text(kind, way, text))
    if isinstance(message, wire.FromCoordinator) and message.HasField("welcome"):
        message.welcome.wire_version = HERE.wire_max
    return message


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    ("kind", "way"),
    [f for f in FIELDS if f[0] in READS],
    ids=[name for name, (kind, _) in zip(NAMES, FIELDS, strict=True) if kind in READS],
)
def test_a_long_text_in_any_field_stays_small(
    kind: type[Message], way: Way, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure()
    data = full(kind, way, text).SerializeToString()
    message = codec.received(kind, codec.REQUEST_TEXT_CHARS_MAX if kind in REQUESTS else None)(data)
    try:
        found = READS[kind](message)
    except RemoteError as refused:
        found = refused
    if isinstance(found, RemoteError):
        error = found
        assert max(map(len, (error.what, error.cause, error.next_step))) <= 800
        _, details = rpc.status(error)
        assert len(details.encode()) <= ANSWER_BYTES_MAX
        log.logger(site="ada").warning("call refused", what=error.what)
    else:
        log.logger(site="ada").info("a report", report=found)
        if isinstance(found, Event):
            assert len(event_to_json(found).encode()) <= JOURNAL_BYTES_MAX
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert len(lines[0].encode()) <= LINE_CHARS_MAX
    assert json.loads(lines[0])["site"] == "ada"


def test_every_message_that_is_read_is_walked() -> None:
    """The others hold no text of a site: certificates, and what operator and coordinator say to each other."""
    kinds = {kind for kind, _ in FIELDS}
    others = {wire.EnrollReply, wire.OverviewRequest, wire.OverviewReply, wire.CommandRequest, wire.CommandReply}
    assert kinds - READS.keys() <= others


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_error_is_long(text: str) -> None:
    error = FedcervixError(text, cause=text, next_step=text)
    assert len(error.explain()) <= 3 * (PART_CHARS_MAX + 50)
    assert len(str(error)) <= PART_CHARS_MAX


@pytest.mark.parametrize("value", [*TEXTS.values(), b"\0" * CHARS, ["y" * 1000] * 1000], ids=[*TEXTS, "bytes", "list"])
def test_a_value_is_quoted_in_short(value: object) -> None:
    assert len(quoted(value)) <= QUOTED_CHARS_MAX


@pytest.mark.parametrize("value", ["short", 7, None, ("a", 1)])
def test_a_short_value_is_quoted_whole(value: object) -> None:
    assert quoted(value) == repr(value)
