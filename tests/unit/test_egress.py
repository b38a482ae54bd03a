"""What leaves a site stands in its egress ledger before it leaves, whatever breaks."""

from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from fedcervix.core.events import Answer, ScoreReported, SiteFailed, UpdateStored
from fedcervix.errors import FullDiskError, LedgerError, LinkError, RunError
from fedcervix.models.blobs import BlobStore
from fedcervix.transport import codec, identity, rpc
from fedcervix.trust.chain import End, read, text_of
from fedcervix.trust.heads import Head
from fedcervix.wire import federation_pb2 as wire
from site_agent.cli import cli
from site_agent.federation.link import Books, GrpcLink
from site_agent.store import egress as ledger
from site_agent.store.egress import TALK_BYTES, Egress
from site_agent.store.egress_account import Egressed, egressed
from tests.unit.fake_link import RUN, SCORE, TRAIN, digest
from tests.unit.independent_verifier import BrokenError, verify_egress
from tests.unit.plain_server import handlers

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]
MODEL = bytes(range(256)) * 20_000
NAME = digest(MODEL)
WHERE = "localhost:1"
UPDATE = UpdateStored("nhs", TRAIN, NAME, 9, 3, 1.5, 0.1, 1.0)


class Coordinator:
    """A server that keeps what arrives, and what stood in the site's ledger at that moment."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.messages: list[Any] = []
        self.models: list[bytes] = []
        self.unannounced: list[str] = []
        self.has_bytes = 0
        self.cut_after_bytes: int | None = None
        self.hold: Callable[[], object] | None = None
        """waits, with a part of a model here"""
        self.port = 0
        self.behaviours = {rpc.OFFER: self.offer, rpc.PUSH: self.push, rpc.REPORT: self.report, rpc.RENEW: self.renew}

    def _arrived(self, announced: str) -> None:
        """Note what arrives and does not stand in the ledger by now."""
        if not self._file.is_symlink() and announced not in "".join(ledger.entries(self._file)):
            self.unannounced.append(announced)

    def offer(self, request: wire.OfferRequest, _: grpc.ServicerContext) -> wire.OfferReply:
        self._arrived('"what":"question"')
        self.messages.append(request)
        return wire.OfferReply(offset=self.has_bytes, chunk_bytes=65536)

    def push(self, chunks: Iterator[bytes], context: grpc.ServicerContext) -> wire.PushReply:
        self.models.append(b"")
        for chunk in chunks:
            self._arrived(f'"digest":"{NAME}"')
            self.models[-1] += chunk
            self.has_bytes += len(chunk)
            if self.hold is not None and self.has_bytes > len(MODEL) // 4:
                self.hold()
                return wire.PushReply()
            if self.cut_after_bytes is not None and len(self.models[-1]) >= self.cut_after_bytes:
                context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        return wire.PushReply()

    def report(self, request: wire.FromSite, _: grpc.ServicerContext) -> wire.ReportReply:
        self._arrived(digest(request.SerializeToString()))
        self.messages.append(request)
        return codec.write_answer(Answer.ACCEPTED, "", 2)

    def renew(self, request: wire.RenewRequest, _: grpc.ServicerContext) -> wire.RenewReply:
        self._arrived(digest(request.request_pem))
        self.messages.append(request)
        return wire.RenewReply(certificate_pem=b"new")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "egress.jsonl"


@pytest.fixture
def coordinator(file: Path) -> Coordinator:
    return Coordinator(file)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    made = BlobStore(tmp_path / "blobs")
    making = made.scratch("made")
    making.write_bytes(MODEL)
    made.adopt(making, NAME)
    return made


@pytest.fixture
def link(coordinator: Coordinator, file: Path) -> Iterator[GrpcLink]:
    server = grpc.server(ThreadPoolExecutor(4), options=rpc.server_options(2))
    server.add_generic_rpc_handlers(handlers(coordinator.behaviours))
    port = coordinator.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    made = GrpcLink(
        "nobody:1", authority_pem=b"", certificate_pem=b"", key_pem=b"", books=Books(egress=Egress(file, WHERE))
    )
    made._channel.close()
    made._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=rpc.CLIENT_OPTIONS)
    yield made
    made.close()
    server.stop(None).wait()


def nothing(_done: int, _of: int) -> None:
    """Say nothing of a transfer."""


def told(file: Path) -> Egressed:
    verify_egress(file)
    return egressed(ledger.entries(file))


def test_all_that_arrives_was_written_down_before(
    link: GrpcLink, coordinator: Coordinator, blobs: BlobStore, file: Path
) -> None:
    wish = identity.request(key := identity.new_key(), identity.Identity("cervix", "site", "nhs"))
    link.push(NAME, blobs, nothing, task=TRAIN)
    link.report(UPDATE)
    link.report(ScoreReported("nhs", SCORE, 6.0, 4, 10, (), 1.0))
    link.report(codec.Ready(RUN, "0" * 64))
    link.report(SiteFailed("nhs", "agent", "a hint", "INC-0000-0000", 1.0))
    link.renew(wish)
    assert b"".join(coordinator.models) == MODEL
    assert not coordinator.unannounced
    [account] = [one for one in told(file).runs() if one.run == RUN]
    [model] = account.of("model")
    assert (model.bytes, model.is_exact, model.digest, model.task, model.to) == (
        len(MODEL),
        True,
        NAME,
        "train 1",
        WHERE,
    )
    assert account.models == {NAME: True}
    assert account.reports == {"update": 1, "score": 1, "ready": 1}
    messages = {hashlib.sha256(one.SerializeToString()).hexdigest(): one.ByteSize() for one in coordinator.messages}
    reports = [one for one in told(file).departures if one.kind == "report"]
    assert len(reports) == 4
    assert all(messages[one.digest] == one.bytes for one in reports)
    [request] = [one for one in told(file).departures if one.kind == "request"]
    assert (request.what, request.digest, request.bytes) == ("renew", digest(wish), len(wish))
    assert request.key == identity.key_fingerprint(identity.public_key(key))


def test_an_upload_that_is_cut_and_resumed_is_accounted_byte_for_byte(
    link: GrpcLink, coordinator: Coordinator, blobs: BlobStore, file: Path
) -> None:
    coordinator.cut_after_bytes = 1_000_000
    with pytest.raises(LinkError):
        link.push(NAME, blobs, nothing, task=TRAIN)
    cut_bytes = coordinator.has_bytes
    assert 0 < cut_bytes < len(MODEL)
    coordinator.cut_after_bytes = None
    link.push(NAME, blobs, nothing, task=TRAIN)
    [account] = [one for one in told(file).runs() if one.run == RUN]
    first, second = account.of("model")
    assert cut_bytes <= first.bytes < len(MODEL)
    assert (second.reaches, second.bytes) == ((cut_bytes, len(MODEL), len(MODEL)), len(MODEL) - cut_bytes)
    assert first.is_exact
    assert second.is_exact
    assert account.models == {NAME: True}


def test_a_process_that_is_killed_in_an_upload_has_announced_too_much_and_never_too_little(file: Path) -> None:
    killed = Egress(file, WHERE).model(NAME, 0, 100, TRAIN)
    killed.__enter__()(40, 100)
    [model] = told(file).departures
    assert (model.bytes, model.is_exact) == (100, False)
    with Egress(file, WHERE).model(NAME, 30, 100, TRAIN) as leaves:
        leaves(100, 100)
    first, second = told(file).departures
    assert (first.bytes, first.is_exact, second.bytes, second.is_exact) == (100, False, 70, True)


SENDER = """
import sys
from pathlib import Path
import grpc
from fedcervix.models.blobs import BlobStore
from fedcervix.transport import rpc
from site_agent.federation.link import Books, GrpcLink
from site_agent.store.egress import Egress
from tests.unit.fake_link import TRAIN
port, file, blobs, digest = sys.argv[1:]
keys = {"authority_pem": b"", "certificate_pem": b"", "key_pem": b""}
link = GrpcLink("nobody:1", **keys, books=Books(egress=Egress(Path(file), "localhost:1")))
link._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=rpc.CLIENT_OPTIONS)
link.push(digest, BlobStore(Path(blobs)), lambda _done, _of: None, task=TRAIN)
"""


def test_an_agent_that_is_killed_in_an_upload_is_accounted_with_what_it_resumes(
    link: GrpcLink, coordinator: Coordinator, blobs: BlobStore, file: Path, tmp_path: Path
) -> None:
    """`kill -9` while the bytes leave, then another process."""
    sent, killed = threading.Event(), threading.Event()
    coordinator.hold = lambda: (sent.set(), killed.wait(50))
    arguments = [str(coordinator.port), str(file), str(tmp_path / "blobs"), NAME]
    process = subprocess.Popen([sys.executable, "-c", SENDER, *arguments], cwd=ROOT)
    assert sent.wait(50)
    process.kill()
    process.wait(50)
    coordinator.hold = None
    arrived = coordinator.has_bytes
    assert 0 < arrived < len(MODEL)
    killed.set()
    [model] = [one for one in told(file).departures if one.kind == "model"]
    assert (model.bytes, model.is_exact) == (len(MODEL), False)
    link.push(NAME, blobs, nothing, task=TRAIN)
    [account] = [one for one in told(file).runs() if one.run == RUN]
    _, second = account.of("model")
    assert (second.bytes, second.is_exact) == (len(MODEL) - second.reaches[0], True)
    assert second.reaches[0] >= arrived
    assert account.models == {NAME: True}


def test_a_model_of_which_a_part_did_not_leave_is_not_whole(file: Path) -> None:
    egress = Egress(file, WHERE)
    with egress.model(NAME, 0, 100, TRAIN) as leaves:
        leaves(40, 100)
    [account] = told(file).runs()
    assert account.models == {NAME: False}
    with egress.model(NAME, 50, 100, TRAIN) as leaves:
        leaves(100, 100)
    [account] = told(file).runs()
    assert account.models == {NAME: False}


def test_small_messages_are_announced_together(link: GrpcLink, coordinator: Coordinator, file: Path) -> None:
    del coordinator
    link._run = RUN
    said = codec.Progress(TRAIN, "training", 1, 2, "steps", 1.5, 3.0)
    for _ in range(30):
        link.sign(said)
    [talk] = told(file).departures
    assert (talk.what, talk.bytes, talk.is_exact, talk.run) == ("progress", TALK_BYTES, False, RUN)
    egress = Egress(file, WHERE)
    for _ in range(5):
        egress.talk("question", TALK_BYTES // 2)
    assert [one.what for one in told(file).departures] == ["progress", "question", "question", "question"]


def test_a_report_says_which_head_of_its_own_run_was_signed(file: Path) -> None:
    egress = Egress(file, WHERE)
    for run in (RUN, RUN.replace("2030", "2031")):
        message = codec.write_report(UPDATE, 0.0)
        message.head = Head(run, 3, End(5, "a" * 64)).text.encode()
        egress.report(message, run, TRAIN)
    assert [one.head for one in told(file).departures] == [3, -1]


def test_two_processes_write_one_chain(file: Path) -> None:
    """`check` and `join` run beside the agent."""
    one, other = Egress(file, WHERE), Egress(file, WHERE)
    for number in range(6):
        (one, other)[number % 2].request("renew", b"%d" % number, "key")
    assert [departure.digest for departure in told(file).departures] == [digest(b"%d" % number) for number in range(6)]


def test_a_line_that_a_power_cut_has_torn_is_no_entry(file: Path) -> None:
    Egress(file, WHERE).request("renew", b"one", "key")
    with file.open("a") as out:
        out.write('\n{"at":"0x1.8p+1","bytes":3,"dig')
    Egress(file, WHERE).request("renew", b"two", "key")
    assert [departure.digest for departure in told(file).departures] == [digest(b"one"), digest(b"two")]


def full(file: Path) -> Callable[[], None]:
    """Let a file be on a disk that is full; return what makes room."""
    file.symlink_to("/dev/full")
    return file.unlink


def test_on_a_full_disk_no_result_leaves(
    link: GrpcLink, coordinator: Coordinator, blobs: BlobStore, file: Path
) -> None:
    make_room = full(file)
    for leave in (lambda: link.push(NAME, blobs, nothing, task=TRAIN), lambda: link.report(UPDATE)):
        with pytest.raises(FullDiskError):
            leave()
    assert not coordinator.models
    assert not any(isinstance(one, wire.FromSite) for one in coordinator.messages)
    make_room()
    link.report(UPDATE)
    assert [one.kind for one in told(file).departures] == ["talk", "report"]


def test_on_a_full_disk_a_site_is_not_mute_and_its_words_are_written_down_when_there_is_room(
    link: GrpcLink, coordinator: Coordinator, file: Path
) -> None:
    make_room = full(file)
    link.report(SiteFailed("nhs", "agent", "the disk is full", "INC-0000-0000", 1.0))
    link.sign(codec.Ping())
    assert coordinator.messages
    make_room()
    link.report(UPDATE)
    assert [one.what for one in told(file).departures] == ["failure", "here", "update"]


@pytest.mark.parametrize("place", range(6))
def test_what_was_changed_in_it_is_named(file: Path, place: int) -> None:
    egress = Egress(file, WHERE)
    for number in range(6):
        egress.request("renew", b"%d" % number, "key")
    lines = ledger.entries(file)
    end = egress.end()
    changed = text_of({**read(lines[place]), "bytes": 7})
    histories = {
        "was changed": [*lines[:place], changed, *lines[place + 1 :]],
        "is missing": [*lines[:place], *lines[place + 1 :]],
    }
    for why, history in histories.items():
        file.write_text("\n".join(history))
        with pytest.raises(ValueError, match=f"entry {place} {why}"):
            egressed(ledger.entries(file), {end.entries: end.hash})
        if place < 5:  # of the last one, only those know to whom this site has signed it
            with pytest.raises(BrokenError):
                verify_egress(file)


def test_an_end_that_ends_nothing_does_not_hold(file: Path) -> None:
    egress = Egress(file, WHERE)
    egress.request("renew", b"one", "key")
    for of in (0, 5):
        egress._note("left", {"of": of, "bytes": 1})
        with pytest.raises(ValueError, match="entry 1 does not hold"):
            egressed(ledger.entries(file))


def shown(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--home", str(folder), "egress", *words])


def test_the_command_says_for_each_run_what_left_and_to_whom(file: Path) -> None:
    assert shown(file.parent).output == "nothing has left this site yet\n"
    egress = Egress(file, WHERE, lambda: 0.0)
    egress.request("enrol", b"please", "key")
    with egress.model(NAME, 0, 3000, TRAIN) as leaves:
        leaves(3000, 3000)
    with egress.model(digest(b"other"), 0, 2000, TRAIN) as leaves:
        leaves(500, 2000)
    message = codec.write_report(UPDATE, 0.0)
    egress.report(message, RUN, TRAIN)
    egress.sign(codec.write_report(codec.Ping(), 0.0), RUN)
    assert shown(file.parent).output.splitlines() == [
        "outside of runs:",
        "  requests for a certificate: 1; 6 bytes",
        f"  to: {WHERE}",
        f"run {RUN}:",
        "  files: 1 whole, 1 in part; 3,500 bytes",
        f"  reports: 1 update; {message.ByteSize()} bytes",
        "  small messages (here): at most 65,536 bytes",
        f"  to: {WHERE}",
    ]
    first, second, *_ = shown(file.parent, RUN).output.splitlines()
    assert first == f"1970-01-01 00:00 UTC  model  train 1  3,000 bytes  {NAME[:12]}  to {WHERE}"
    assert "500 bytes, from byte 0 on" in second


def test_the_command_names_what_is_wrong(file: Path) -> None:
    egress = Egress(file, WHERE)
    for number in range(3):
        egress.request("renew", b"%d" % number, "key")
    missing = shown(file.parent, "20990101-000000-csfssl-00000000").exception
    assert isinstance(missing, RunError)
    assert "nothing has left this site for run 2099" in missing.what
    lines = file.read_text().split("\n")
    file.write_text("\n".join([*lines[:2], *lines[3:]]))
    error = shown(file.parent).exception
    assert isinstance(error, LedgerError)
    assert "the ledger of what has left this site does not hold: entry 1 is missing" in error.what


def test_no_line_of_an_agent_is_without_the_ledger() -> None:
    """Every link that the programs of a site make is given one."""
    calls = [
        node
        for file in (ROOT / "site_agent").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "GrpcLink"
    ]
    assert len(calls) >= 2
    books = [word.value for call in calls for word in call.keywords if word.arg == "books"]
    assert len(books) == len(calls)
    assert all("Egress(" in ast.unparse(one) for one in books)
