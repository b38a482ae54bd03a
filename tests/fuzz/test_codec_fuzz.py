"""Bytes into the codec: a value or a RemoteError, nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcervix.core.events import (
    Answer,
    Event,
    ModelAdopted,
    ScoreReported,
    SiteFailed,
    Task,
    TaskKind,
    UpdateStored,
    event_from_json,
    event_to_json,
)
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import Finish, Idle
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import RemoteError, VersionError
from fedcervix.transport import codec
from fedcervix.transport.versions import HERE
from fedcervix.wire import federation_pb2 as wire

QUICK = settings(max_examples=400, deadline=None)
BASE = "b" * 64
TRAIN = Task("run", TaskKind.TRAIN, 3, BASE)
SCORE = Task("run", TaskKind.SCORE, 3, BASE)
PLAN = Plan(mode="csfssl", sites=("ada",), profile="paper", terms=Terms(), recipe=Recipe())


def read_report(message: wire.FromSite) -> None:
    """What is read can be journaled, and sent on."""
    report = codec.read_report(message, site="ada", at=1.0)
    assert codec.read_report(codec.write_report(report, 1.0), site="ada", at=1.0) == report
    if isinstance(report, Event):
        assert event_from_json(event_to_json(report)) == report


def read_from_coordinator(message: wire.FromCoordinator) -> None:
    said = codec.read_from_coordinator(message)
    written = codec.write_welcome(said) if isinstance(said, codec.Welcome) else codec.write_instruction(said)
    assert codec.read_from_coordinator(written) == said


READERS: dict[type[Any], Callable[[Any], object]] = {
    wire.FromSite: read_report,
    wire.FromCoordinator: read_from_coordinator,
    wire.ReportReply: codec.read_answer,
    wire.OfferRequest: codec.read_offer,
    wire.OfferReply: codec.read_wanted,
}

VALID: list[Any] = [
    *(
        codec.write_report(report, 1.0)
        for report in (
            codec.Ready("run", BASE),
            codec.Refusal("run", "no"),
            codec.Ping(),
            codec.Progress(TRAIN, "training", 1, 2, "steps", 0.5, 1.5),
            UpdateStored("ada", TRAIN, BASE, 1, 1, 0.5, 1.0, 1.0),
            ScoreReported("ada", SCORE, 1.0, 1, 1, (("rank", 1.5),), 1.0),
            ModelAdopted("ada", Task("run", TaskKind.ADOPT, 1, BASE), 1.0),
            SiteFailed("ada", "training", "broke", "INC-1", 1.0),
        )
    ),
    *(codec.write_instruction(said) for said in (TRAIN, Idle("wait"), Finish(Outcome.OK, "done", "{}"))),
    codec.write_welcome(codec.Welcome("federation", "run", PLAN)),
    codec.write_answer(Answer.STALE, "why"),
    wire.OfferRequest(digest=BASE, size_bytes=5),
    wire.OfferReply(offset=5, chunk_bytes=1 << 20),
]


def read(kind: type[Any], data: bytes) -> None:
    """Parse and read; what is not a message at all is turned away by protobuf itself."""
    with contextlib.suppress(DecodeError, RemoteError, VersionError):
        READERS[kind](kind.FromString(data))


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
@QUICK
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes(kind: type[Any], data: bytes) -> None:
    read(kind, data)


@QUICK
@given(
    message=st.sampled_from(VALID),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 9),
    tail=st.binary(max_size=40),
)
def test_valid_messages_with_bytes_changed_cut_off_or_added(
    message: Any, edits: list[tuple[float, int]], cut: int, tail: bytes
) -> None:
    data = bytearray(message.SerializeToString())
    for where, byte in edits:
        data[int(where * (len(data) - 1))] = byte
    read(type(message), bytes(data[: len(data) - cut]) + tail)


@QUICK
@given(first=st.sampled_from(VALID), second=st.sampled_from(VALID))
def test_one_message_taken_for_another_or_two_run_together(first: Any, second: Any) -> None:
    for kind in READERS:
        read(kind, first.SerializeToString() + second.SerializeToString())


NUMBERS = st.floats() | st.sampled_from([0.0, -0.0, 1e308, 5e-324])
NATURAL = st.integers(0, 2**64 - 1) | st.integers(0, 5)
WORDS = st.text(max_size=70) | st.sampled_from(["", "run", BASE])


def tasks() -> st.SearchStrategy[wire.Task]:
    return st.builds(
        lambda run, kind, round_, base: wire.Task(run=run, kind=kind, round=round_, base=base),
        WORDS,
        st.integers(-1, 6),
        st.integers(0, 2**32 - 1) | st.integers(0, 3),
        WORDS,
    )


@QUICK
@given(task=tasks(), digest=WORDS, counts=st.tuples(NATURAL, NATURAL), values=st.tuples(NUMBERS, NUMBERS), text=WORDS)
def test_well_formed_messages_with_any_values(
    task: wire.Task, digest: str, counts: tuple[int, int], values: tuple[float, float], text: str
) -> None:
    one, two = counts
    loss, seconds = values
    for message in (
        wire.FromSite(update=wire.Update(task=task, digest=digest, images=one, steps=two, loss=loss, seconds=seconds)),
        wire.FromSite(score=wire.Score(task=task, loss_sum=loss, count=one, images=two, gauges={text: seconds})),
        wire.FromSite(progress=wire.Progress(task=task, stage=text, done=one, of=two, loss=loss, images_per_s=seconds)),
        wire.FromSite(adopted=wire.Adopted(task=task)),
        wire.FromSite(ready=wire.Ready(run=text, plan_digest=digest)),
        wire.FromSite(failure=wire.Failure(stage=text, hint=text, incident=digest)),
        wire.FromCoordinator(task=task),
        wire.FromCoordinator(leave=wire.Leave(outcome=text, reason=digest)),
        wire.FromCoordinator(welcome=wire.Welcome(wire_version=HERE.wire_max, federation=text, run=digest, plan=text)),
        wire.OfferRequest(digest=digest, size_bytes=one),
        wire.OfferReply(offset=one, chunk_bytes=two % (1 << 32)),
    ):
        with contextlib.suppress(RemoteError):
            READERS[type(message)](message)
