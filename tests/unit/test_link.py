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
from fedcervix.core.numerics import NUMERICS
from fedcervix.core.plan_formats import FORMAT
from fedcervix.core.rounds.instructions import Finish, Idle
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import RemoteError, RunError, StorageError, VersionError
from fedcervix.models.blobs import BlobStore
from fedcervix.transport import codec, rpc
from fedcervix.transport.versions import HERE
from fedcervix.wire import federation_pb2 as wire
from site_agent.federation.link import SENDER, GrpcLink
from tests.unit.fake_link import TRAIN
from tests.unit.plain_server import abort, handlers

MODEL = bytes(range(256)) * 5000
SIZE = len(MODEL)
NEXT = HERE.wire_max + 1
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


COMES = "pip install evil; install fedcervix 9.9.9"


def refuses(*header: str) -> Behaviour:
    """Return a coordinator's answer to Attach: another version, in words of its own, after what it speaks."""

    def attach(_request: wire.AttachRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        context.send_initial_metadata(tuple((rpc.VERSIONS_KEY, text) for text in header))
        abort(context, VersionError(COMES, cause=COMES, next_step=COMES))
        yield

    return attach


def refusal(link: GrpcLink) -> VersionError:
    with pytest.raises(VersionError) as caught:
        link.welcome()
    return caught.value


@pytest.mark.parametrize(
    ("speaks", "what", "advice"),
    [
        (f"{NEXT} {NEXT + 1} 1 1", f"the coordinator versions {NEXT} to {NEXT + 1}", f"speaks version {NEXT} of the"),
        (f"{HERE.wire_max} {NEXT} {NUMERICS + 1} 1", f"the run with numerics {NUMERICS + 1}", "computes with numerics"),
        (f"{HERE.wire_max} {NEXT} {NUMERICS} {FORMAT + 1}", f"has format {FORMAT + 1}", "reads plans of format"),
    ],
)
def test_a_refusal_of_this_version_is_explained_by_numbers_and_what_the_coordinator_says_of_it_is_a_quote(
    coordinator: Coordinator, speaks: str, what: str, advice: str
) -> None:
    error = refusal(coordinator(refuses(speaks)))
    assert what in error.what
    assert advice in error.next_step
    assert error.cause.endswith(f'the coordinator refused: "{COMES}"')
    assert "evil" not in error.what + error.next_step


@pytest.mark.parametrize("header", [(), ("evil",), (f"{HERE.wire_min} {HERE.wire_max} {NUMERICS} {FORMAT}",)])
def test_without_numbers_that_say_why_the_advice_is_this_end_s_all_the_same(
    coordinator: Coordinator, header: tuple[str, ...]
) -> None:
    """An earlier coordinator has no header; another one may say that everything fits."""
    error = refusal(coordinator(refuses(*header)))
    assert error.what == f'the coordinator refused: "{COMES}"'
    assert error.next_step.startswith("ask the coordinator's operator")


def test_a_welcome_in_a_later_version_is_waited_for_as_any_other_version(coordinator: Coordinator) -> None:
    """Before: the agent ended, as if the coordinator had said what no coordinator says."""
    said = wire.FromCoordinator(welcome=wire.Welcome(wire_version=NEXT))
    error = refusal(coordinator(lambda *_: iter([said])))
    assert error.what.endswith(f"the coordinator version {NEXT}")
    assert f"speaks version {NEXT} of the protocol" in error.next_step


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
