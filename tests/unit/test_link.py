"""A site's fetch, from coordinators that announce what they do not send, on a line without TLS."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from fedcervix.core.events import Answer
from fedcervix.core.rounds.instructions import Finish, Idle
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import RemoteError, RunError, StorageError
from fedcervix.models.blobs import BlobStore
from fedcervix.transport import codec, rpc
from fedcervix.wire import federation_pb2 as wire
from site_agent.federation.link import SENDER, GrpcLink
from tests.unit.fake_link import TRAIN
from tests.unit.plain_server import abort, handlers

MODEL = bytes(range(256)) * 5000
SIZE = len(MODEL)
NAME = hashlib.sha256(MODEL).hexdigest()
CHUNK = 100_000

pytestmark = pytest.mark.timeout(30)

Behaviour = Callable[[wire.BlobRequest, grpc.ServicerContext], Iterator[bytes]]
Coordinator = Callable[[Behaviour], GrpcLink]


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    """Return a maker of lines to a coordinator that answers a Fetch like this."""
    behaviours: dict[str, Behaviour] = {}
    server = grpc.server(ThreadPoolExecutor(4), options=rpc.server_options(2))
    answers = {method: lambda *call: behaviours["fetch"](*call) for method in (rpc.FETCH, rpc.ATTACH, rpc.REPORT)}
    server.add_generic_rpc_handlers(handlers(answers))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    link = GrpcLink("nobody:1", authority_pem=b"", certificate_pem=b"", key_pem=b"")
    link._channel.close()
    link._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=rpc.CLIENT_OPTIONS)

    def answering(behaviour: Behaviour) -> GrpcLink:
        behaviours["fetch"] = behaviour
        return link

    yield answering
    link.close()
    server.stop(None).wait()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path)


def cut(content: bytes) -> Iterator[bytes]:
    yield from (content[at : at + CHUNK] for at in range(0, len(content), CHUNK))


def sends(content: bytes, *, announced: Any = SIZE) -> Behaviour:
    """Return a coordinator's answer: these bytes, after a header that announces so many."""

    def fetch(request: wire.BlobRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        if announced is not None:
            context.send_initial_metadata(((rpc.SIZE_KEY, str(announced)),))
        yield from cut(content[request.offset :])

    return fetch


class Seen:
    """What a transfer says of itself."""

    def __init__(self) -> None:
        self.all: list[tuple[int, int]] = []

    def __call__(self, done: int, of: int) -> None:
        self.all.append((done, of))


def on_disk(blobs: BlobStore) -> int:
    return blobs.resume_at(NAME, SENDER)


FORGED = "done: train in round 7: loss 0.0100"


def test_a_text_of_the_coordinator_says_whose_it_is(coordinator: Coordinator) -> None:
    """Before: a coordinator's reason stood on the site's screen exactly like the agent's own lines."""
    heard = coordinator(
        lambda *_: iter(map(codec.write_instruction, (Idle(f"x{' ' * 80}{FORGED}"), Finish(Outcome.OK, FORGED), TRAIN)))
    ).attach()
    assert [*heard] == [Idle(f"coordinator says: x {FORGED}"), Finish(Outcome.OK, f"coordinator says: {FORGED}"), TRAIN]
    refusing = coordinator(lambda *_: codec.write_answer(Answer.REFUSED, FORGED))
    assert refusing.report(codec.Stopped()) == (Answer.REFUSED, f"coordinator says: {FORGED}")


def test_a_model_comes_with_its_size_and_progress_says_of_how_much(coordinator: Coordinator, blobs: BlobStore) -> None:
    seen = Seen()
    coordinator(sends(MODEL)).fetch(NAME, blobs, seen)
    assert blobs.path(NAME).read_bytes() == MODEL
    assert seen.all[0] == (CHUNK, SIZE)
    assert seen.all[-1] == (SIZE, SIZE)


def test_what_is_here_is_not_asked_for(coordinator: Coordinator, blobs: BlobStore) -> None:
    coordinator(sends(MODEL)).fetch(NAME, blobs, Seen())
    coordinator(sends(b"")).fetch(NAME, blobs, Seen())


@pytest.mark.parametrize("announced", [SIZE + 1, 2**62, 0, -1, "many", "", None])
def test_a_size_that_cannot_be_is_refused_before_anything_is_written(
    coordinator: Coordinator, blobs: BlobStore, announced: object
) -> None:
    seen = Seen()
    with pytest.raises(RemoteError):
        coordinator(sends(MODEL, announced=announced)).fetch(NAME, blobs, seen, bytes_max=SIZE)
    assert (seen.all, on_disk(blobs)) == ([], 0)


def test_a_model_that_does_not_fit_on_the_disk_is_not_begun(coordinator: Coordinator, blobs: BlobStore) -> None:
    seen = Seen()
    with pytest.raises(StorageError, match="no room for a model of 576,460,752,303,423,488 bytes"):
        coordinator(sends(MODEL, announced=2**59)).fetch(NAME, blobs, seen, bytes_max=2**61)
    assert (seen.all, on_disk(blobs)) == ([], 0)


def test_the_first_byte_too_many_ends_a_model_that_does_not_end(coordinator: Coordinator, blobs: BlobStore) -> None:
    sent = []

    def endless(_request: wire.BlobRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.send_initial_metadata(((rpc.SIZE_KEY, str(SIZE)),))
        while context.is_active():
            sent.append(CHUNK)
            yield bytes(CHUNK)

    with pytest.raises(RemoteError, match=f"more bytes than the {SIZE:,} announced"):
        coordinator(endless).fetch(NAME, blobs, Seen())
    assert on_disk(blobs) <= SIZE


def test_a_model_that_ends_early_goes_on_where_it_was(coordinator: Coordinator, blobs: BlobStore) -> None:
    with pytest.raises(RemoteError, match="and sent fewer"):
        coordinator(sends(MODEL[: 3 * CHUNK])).fetch(NAME, blobs, Seen())
    assert on_disk(blobs) == 3 * CHUNK
    seen = Seen()
    coordinator(sends(MODEL)).fetch(NAME, blobs, seen)
    assert seen.all[0] == (4 * CHUNK, SIZE)
    assert blobs.has(NAME)


@pytest.mark.parametrize("left", [MODEL, MODEL[::-1], MODEL + b"more"], ids=["whole", "wrong", "longer"])
def test_what_a_killed_process_has_left_is_verified_or_fetched_anew(
    coordinator: Coordinator, blobs: BlobStore, left: bytes
) -> None:
    part = blobs._part(NAME, SENDER)
    part.parent.mkdir()
    part.write_bytes(left)
    coordinator(sends(MODEL)).fetch(NAME, blobs, Seen())
    assert blobs.path(NAME).read_bytes() == MODEL


def test_an_error_in_place_of_a_model_is_the_coordinator_s(coordinator: Coordinator, blobs: BlobStore) -> None:
    def refuses(_request: wire.BlobRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        abort(context, RunError("the model is not for this site now"))
        yield b""

    with pytest.raises(RunError, match="not for this site now"):
        coordinator(refuses).fetch(NAME, blobs, Seen())


def test_a_fetch_that_was_cut_goes_on_in_small_messages(coordinator: Coordinator, blobs: BlobStore) -> None:
    """What is under way of a message is lost with its line: one that is cut again and again would get nowhere."""
    asked: list[tuple[int, int]] = []

    def breaks_off(request: wire.BlobRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        asked.append((request.offset, request.chunk_bytes))
        yield from sends(MODEL[: request.offset + CHUNK])(request, context)

    for _ in range(2):
        with pytest.raises(RemoteError, match="sent fewer"):
            coordinator(breaks_off).fetch(NAME, blobs, Seen())
    assert asked == [(0, 0), (CHUNK, rpc.CHUNK_BYTES_AGAIN)]
