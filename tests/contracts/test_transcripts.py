"""The whole conversation between a coordinator and its sites is as tests/golden has it, word for word.

Each version of the wire that is spoken has a folder of its own there: the coordinator is this one, the site speaks that
version alone. The folder goes when its version is spoken no more.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator.calls.control import WATCHERS_MAX
from coordinator.calls.dispatch import CHUNK_S, MESSAGE_S, WAITED_FOR_MAX
from coordinator.home.registry import Registry
from coordinator.limits.admission import AT_ONCE, LIMITS
from fedcervix.core.events import (
    GAUGES_MAX,
    LOSS_MAX,
    REASON_CHARS_MAX,
    ModelUnusable,
    SiteFailed,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.modes import Mode
from fedcervix.core.pace import SitePace
from fedcervix.core.rounds.state import Outcome, Phase, Presence, Run
from fedcervix.models.blobs import CHUNK_BYTES, BlobStore
from fedcervix.transport import codec, identity, rpc
from fedcervix.transport.identity import REQUEST_BYTES_MAX
from fedcervix.transport.versions import HERE, WIRE_VERSIONS
from fedcervix.trust.fingerprints import Fingerprint
from fedcervix.wire import federation_pb2 as wire
from tests.contracts import transcript
from tests.contracts.stage import FEDERATION, SITES, THREE, WAIT_S, Keys, Stage, agent, keep, keys, model_of, stage
from tests.contracts.transcript import GOLDEN, Transcript, difference, excerpt

pytestmark = pytest.mark.timeout(60)

SITE = LIMITS["site"]
PAGE = Path(__file__).parents[2] / "docs" / "wire.md"
EXCERPT = re.compile(r"<!-- (\w+): (.+?)(?: #(\d+))?, (\d+) blocks? -->\n```text\n(.*?)```", re.DOTALL)
"""an excerpt of a golden file in a page: the file, the title of the first block (its which-th), how many blocks"""

FORMAT = f"""
Golden transcript of protos/federation.proto as spoken; docs/wire.md explains it. A block is a message: who to whom, the
method, the message's name, then its fields. In <> stands what is other in each run.
Renewed by: {transcript.RENEWS}
"""
REMARKS = {
    "csfssl": "Two sites join, and train for two rounds in csfssl: the coordinator averages.",
    "ppfssl": "Two sites join, and train for two rounds in ppfssl: the model goes round a ring.",
    "secure": "Three sites join, and train for two rounds in csfssl: the coordinator learns sums alone.",
    "sealed": "Two sites join, and train for two rounds in ppfssl: the model goes round under seal.",
    "answers": "What is answered to who says a thing twice, comes late, is cut off or may not; and to the operator.",
}

SELDOM = {"attempt", "closes", "closed", "rewrapped"}
"""fields of what is said only where a holder of a secure sum is lost, or a hop under seal is passed over"""

PACE = SitePace(
    steps=5,
    step_low_s=1.0,
    step_high_s=1.25,
    task_s=0.5,
    score_low_s=2.0,
    score_high_s=2.5,
    decode_low_s=3.0,
    decode_high_s=4.0,
    down_low=1e6,
    down_high=2e6,
    up_low=1e6,
    up_high=2e6,
    model_bytes=1_200_000,
    packed_bytes=600_000,
    memory_bytes=2**30,
    memory_free_bytes=2**33,
    disk_bytes=2**28,
    disk_free_bytes=2**36,
    disk_left_bytes=2**27,
    gpu=True,
    vector_s=0.25,
    mask_s=0.125,
    sum_s=0.5,
)

HIDDEN: dict[str, tuple[Mode, tuple[str, ...], dict[str, Any]]] = {
    "secure": ("csfssl", THREE, {"secure_sum": True, "holders": ("nhs", "alts")}),
    "sealed": ("ppfssl", SITES, {"sealed": True}),
}
"""runs that hide something from the coordinator: mode, sites, terms"""

Settle = Callable[[str, int, str], None]

FIRST, SECOND, THIRD = (digit * 32 for digit in "123")
"""instances"""
NHS, ALTS = (identity.Identity(FEDERATION, "site", site) for site in ("nhs", "alts"))


@pytest.fixture
def settle(request: pytest.FixtureRequest) -> Settle:
    """Return what compares a transcript with its golden file, or renews that where --rewrite was given."""

    def compare(name: str, version: int, text: str) -> None:
        golden = folder(version) / f"{name}.txt"
        if request.config.getoption("--rewrite"):
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(text)
        elif found := difference(golden, text):
            pytest.fail(found, pytrace=False)

    return compare


def folder(version: int) -> Path:
    """Return where the conversations in a version of the wire lie."""
    return GOLDEN / f"wire-{version}"


def new(name: str) -> Transcript:
    return Transcript(f"{REMARKS[name]}\n{FORMAT}", secret=name in HIDDEN)


# --- a run --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", WIRE_VERSIONS)
@pytest.mark.parametrize("mode", ["csfssl", "ppfssl"])
def test_the_conversation_of_a_run(
    mode: Mode, version: int, tmp_path: Path, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was checked while it arrived, so no update is read again before it is taken in."""
    read_again: list[Path] = []
    monkeypatch.setattr("coordinator.run.model_work.vet", lambda path, _base: read_again.append(path))
    with stage(tmp_path, mode, new(mode)) as coordinator:
        pems = {site: coordinator.join(site) for site in SITES}
        with ExitStack() as agents:
            ended = []
            for site in SITES:  # one after the other; that all are there begins the run
                ended.append(agents.enter_context(agent(coordinator, site, pems[site], version)))
                coordinator.until(lambda run, site=site: run.site(site).presence is Presence.PRESENT)  # type: ignore[misc]
            coordinator.until(lambda run: run.ended)
        coordinator.until(lambda run: run.phase is Phase.FINISHED)
        assert [[leave.outcome for leave in each] for each in ended] == [[Outcome.OK]] * len(SITES)
        settle(mode, version, coordinator.transcript.text())
    assert not read_again


@pytest.mark.parametrize("version", WIRE_VERSIONS)
@pytest.mark.parametrize("name", HIDDEN)
def test_the_conversation_of_a_run_that_hides_something(
    name: str, version: int, tmp_path: Path, settle: Settle
) -> None:
    mode, sites, terms = HIDDEN[name]
    with stage(tmp_path, mode, new(name), sites=sites, **terms) as coordinator:
        pems = {site: coordinator.join(site) for site in sites}
        pins = {
            site: Fingerprint.parse(identity.identify(pem["certificate_pem"]).key_fingerprint)
            for site, pem in pems.items()
        }
        with ExitStack() as agents:
            ended = []
            for site in sites:
                others = {name: pin for name, pin in pins.items() if name != site}
                ended.append(agents.enter_context(agent(coordinator, site, pems[site], version, others)))
                coordinator.until(lambda run, site=site: run.site(site).presence is Presence.PRESENT)  # type: ignore[misc]
            coordinator.until(lambda run: run.ended)
        coordinator.until(lambda run: run.phase is Phase.FINISHED)
        assert [[leave.outcome for leave in each] for each in ended] == [[Outcome.OK]] * len(sites)
        settle(name, version, coordinator.transcript.text())


# --- answers ------------------------------------------------------------------------------------------------------


class Caller:
    """Somebody with keys, who says what no agent says."""

    def __init__(self, stage: Stage, pems: Keys, instance: str = "", address: str = "") -> None:
        self._stage, self._pems, self._address = stage, pems, address or stage.address
        self._who: dict[str, str | int] = {"instance": instance} if instance else {}

    def ask(self, method: rpc.Method, request: Any, **headers: str | int) -> Any:
        """Make one call; return its answer, or None where it ended with an error. A header `digest` is ours."""
        sent = headers if method is rpc.ATTACH else self._who | headers  # there it is said in the message
        metadata = [(f"fedcervix-{key}", str(value)) for key, value in sent.items()]
        channel = rpc.channel(self._address, **self._pems, here=True)
        with channel, contextlib.suppress(grpc.RpcError):
            answer = rpc.stub(channel, method)(request, timeout=WAIT_S, metadata=metadata)
            return [*answer] if method.shape == "unary_stream" else answer
        return None

    @contextlib.contextmanager
    def hearing(self, method: rpc.Method, request: Any) -> Iterator[None]:
        """Keep a stream open, from its first word on."""
        with rpc.channel(self._address, **self._pems, here=True) as channel:
            stream = rpc.stub(channel, method)(request, timeout=WAIT_S)
            next(stream)
            yield
            stream.cancel()
        self._stage.wait_quiet()

    def tell(self, report: codec.Report) -> None:
        self.ask(rpc.REPORT, codec.write_report(report, 0.0))


@pytest.mark.parametrize("version", WIRE_VERSIONS)
def test_what_is_answered_to_the_late_the_cut_off_and_the_wrong(version: int, tmp_path: Path, settle: Settle) -> None:
    attach = partial(wire.AttachRequest, wire_version=version)
    with stage(tmp_path, "csfssl", new("answers"), given=True) as coordinator:
        pems = coordinator.join("nhs")
        nhs, twin = (Caller(coordinator, pems, instance) for instance in (FIRST, SECOND))
        alts = Caller(coordinator, who_joins_twice(coordinator), FIRST)
        operator = Caller(coordinator, coordinator.operator(), address=coordinator.operator_address)
        who_may_not(nhs, Caller(coordinator, coordinator.operator()))
        who_renews(nhs, pems["key_pem"])
        who_is_one_too_many(nhs, twin, attach)
        who_comes_too_early_or_too_late(coordinator, nhs)
        who_tries_its_line(nhs, coordinator.run)
        for caller in (nhs, nhs, alts):
            caller.tell(codec.Ready(coordinator.run.run, coordinator.run.plan.digest))
        task = Task(coordinator.run.run, TaskKind.TRAIN, 1, coordinator.run.model)
        store = BlobStore(tmp_path / "models")
        digest = keep(store, model_of(2.0, 5))
        whose_line_is_cut(nhs, task.base, digest, store.path(digest).read_bytes())
        who_says_it_twice(nhs, task, digest)
        who_cannot_go_on(alts, coordinator)
        what_the_operator_asks(coordinator, operator)
        alts.ask(rpc.ATTACH, attach(instance=FIRST))
        how_the_operator_ends_it(operator)
        nhs.tell(UpdateStored("nhs", task, digest, 10, 5, 2.0, 0.25, 0.0))
        nhs.tell(ModelUnusable("nhs", task, 0, 0.0))
        settle("answers", version, coordinator.transcript.text())


def who_joins_twice(coordinator: Stage) -> Keys:
    """Whose answer was lost is given it again; somebody else with another key is not. Return the site's keys."""
    key, invitation = identity.new_key(), coordinator.invitation("alts")
    invited = Caller(coordinator, invitation)
    answers = [
        invited.ask(rpc.ENROLL, wire.EnrollRequest(request_pem=identity.request(asking, ALTS)))
        for asking in (key, key, identity.new_key())
    ]
    assert [answer is not None for answer in answers] == [True, True, False]
    return keys(invitation["authority_pem"], answers[0].certificate_pem, key)


def who_may_not(nhs: Caller, operator: Caller) -> None:
    """Another version of the wire, another's role."""
    nhs.ask(rpc.ATTACH, wire.AttachRequest(wire_version=HERE.wire_max + 98))
    operator.ask(rpc.OFFER, wire.OfferRequest(digest="0" * 64, size_bytes=1))
    nhs.ask(rpc.OVERVIEW, wire.OverviewRequest())


def who_renews(nhs: Caller, key: bytes) -> None:
    """Too early to gain anything; and for another key."""
    for asking in (key, identity.new_key()):
        nhs.ask(rpc.RENEW, wire.RenewRequest(request_pem=identity.request(asking, NHS)))


def who_is_one_too_many(nhs: Caller, twin: Caller, attach: Callable[..., wire.AttachRequest]) -> None:
    """A second agent under the same certificate, beside the first one; and `site-agent doctor`, which only looks."""
    with nhs.hearing(rpc.ATTACH, attach(instance=FIRST)):
        twin.ask(rpc.ATTACH, attach(instance=SECOND, succeeds=[THIRD]))
        twin.ask(rpc.OFFER, wire.OfferRequest(digest="0" * 64, size_bytes=1))
        twin.ask(rpc.ATTACH, attach(look=True))


def who_comes_too_early_or_too_late(coordinator: Stage, nhs: Caller) -> None:
    """Before there is anything to do; with another plan; for a run that is over; with a sign of life; with nothing."""
    run = coordinator.run
    nhs.ask(rpc.FETCH, wire.BlobRequest(digest=run.model))
    nhs.tell(codec.Ready(run.run, "0" * 64))
    nhs.tell(codec.Ready("20290101-000000-csfssl-00000000", run.plan.digest))
    nhs.tell(codec.Ping())
    nhs.tell(codec.Stopped())
    nhs.ask(rpc.REPORT, wire.FromSite())


def who_tries_its_line(nhs: Caller, run: Run) -> None:
    """Bytes of no meaning, both ways; more than a probe may have; more than was announced; then what was measured."""
    nhs.ask(rpc.PROBE_DOWN, wire.ProbeRequest(size_bytes=100_000))
    nhs.ask(rpc.PROBE_DOWN, wire.ProbeRequest(size_bytes=codec.PROBE_BYTES_MAX + 1))
    nhs.ask(rpc.PROBE_UP, iter([bytes(100_000)]), size=100_000)
    nhs.ask(rpc.PROBE_UP, iter([bytes(100_001)]), size=100_000)
    nhs.tell(codec.Ready(run.run, run.plan.digest, pace=PACE))


def whose_line_is_cut(nhs: Caller, base: str, digest: str, model: bytes) -> None:
    """A transfer goes on at the byte, in both directions; what is too long or not what it says it is, is not taken."""
    size = len(model)
    nhs.ask(rpc.PACKED, wire.PackedRequest(digest=base))
    nhs.ask(rpc.FETCH, wire.BlobRequest(digest=base, offset=CHUNK_BYTES))
    nhs.ask(rpc.OFFER, wire.OfferRequest(digest=digest, size_bytes=1 << 30))
    nhs.ask(rpc.OFFER, wire.OfferRequest(digest=digest, size_bytes=size))
    nhs.ask(rpc.PUSH, iter([model[:CHUNK_BYTES]]), digest=digest, offset=0, size=size)
    nhs.ask(rpc.OFFER, wire.OfferRequest(digest=digest, size_bytes=size))
    nhs.ask(rpc.PUSH, iter([bytes(size - CHUNK_BYTES)]), digest=digest, offset=CHUNK_BYTES, size=size)
    nhs.ask(rpc.OFFER, wire.OfferRequest(digest=digest, size_bytes=size))
    nhs.ask(rpc.PUSH, iter([model[:CHUNK_BYTES], model[CHUNK_BYTES:] + b"x"]), digest=digest, offset=0, size=size)
    nhs.ask(rpc.PUSH, iter([model[CHUNK_BYTES:]]), digest=digest, offset=CHUNK_BYTES, size=size)
    nhs.ask(rpc.OFFER, wire.OfferRequest(digest=digest, size_bytes=size))


def who_says_it_twice(nhs: Caller, task: Task, digest: str) -> None:
    """The same update again, another one for the round, and one for a round that has not begun."""
    later = Task(task.run, TaskKind.TRAIN, 2, digest)
    for asked, model in ((task, digest), (task, digest), (task, "0" * 64), (later, digest)):
        nhs.tell(UpdateStored("nhs", asked, model, 10, 5, 2.0, 0.25, 0.0))


def who_cannot_go_on(alts: Caller, coordinator: Stage) -> None:
    """A site whose work broke, first so that it goes on by itself; and one whose policy does not allow the plan."""
    for number, goes_on in ((1, True), (2, False)):
        told = ("training", "the GPU has no memory left", f"INC-7F3A-000{number}", 0.0, "TrainingError", goes_on)
        alts.tell(SiteFailed("alts", *told))
    alts.tell(codec.Refusal(coordinator.run.run, "rounds: at most 1 here, 2 there"))


def what_the_operator_asks(coordinator: Stage, operator: Caller) -> None:
    """To look, to abort, to revoke (the registry first, as `coordinator revoke` does)."""
    operator.ask(rpc.OVERVIEW, wire.OverviewRequest())
    with operator.hearing(rpc.WATCH, wire.OverviewRequest(run=coordinator.run.run, known_rounds=0)):
        pass
    operator.ask(rpc.COMMAND, wire.CommandRequest(abort="the ethics board asked for it"))
    Registry(coordinator.home.registry).revoke("alts", datetime.now(UTC))
    operator.ask(rpc.COMMAND, wire.CommandRequest(revoked="alts"))


def how_the_operator_ends_it(operator: Caller) -> None:
    """With nothing, and with the word to stop."""
    operator.ask(rpc.COMMAND, wire.CommandRequest())
    operator.ask(rpc.COMMAND, wire.CommandRequest(stop=True))


# --- the files ----------------------------------------------------------------------------------------------------


def golden_texts() -> str:
    return "\n".join(file.read_text() for file in sorted(folder(HERE.wire_max).glob("*.txt")))


def test_every_method_and_every_field_occurs() -> None:
    """So that whoever writes another agent, or guards a line, has seen it all."""
    text = golden_texts()
    spoken = set(re.findall(r"^\s*(?:- )?(\w+):", text, re.MULTILINE))
    messages = [*wire.DESCRIPTOR.message_types_by_name.values()]
    nested = [kind for message in messages for kind in message.nested_types if not kind.GetOptions().map_entry]
    fields = {field.name for message in [*messages, *nested] for field in message.fields}
    assert fields - SELDOM - spoken == set()
    for method in rpc.METHODS:
        assert f"{method.path.removeprefix('/fedcervix.')}: " in text, method.path


def test_the_page_quotes_the_golden_files(request: pytest.FixtureRequest) -> None:
    page = PAGE.read_text()

    def quoted(match: re.Match[str]) -> str:
        name, title, which, count, kept = match.groups()
        now = excerpt((folder(HERE.wire_max) / f"{name}.txt").read_text(), title, int(which or 1), int(count))
        return match[0].replace(kept, now)

    now = EXCERPT.sub(quoted, page)
    assert len(EXCERPT.findall(page)) == page.count("```text\n=== "), "an excerpt without its remark"
    if request.config.getoption("--rewrite"):
        PAGE.write_text(now)
    else:
        assert now == page, f"docs/wire.md quotes another wire; renewed by: {transcript.RENEWS}"


def test_a_version_that_is_not_spoken_has_no_conversations() -> None:
    assert sorted(GOLDEN.glob("wire-*")) == [folder(version) for version in WIRE_VERSIONS]


def test_a_change_is_shown_with_what_renews_it(tmp_path: Path) -> None:
    golden = tmp_path / "golden.txt"
    told = Transcript("a remark")
    told.message("nhs > coordinator  Federation/Offer", wire.OfferRequest(digest="0" * 64, size_bytes=7))
    golden.write_text(told.text())
    assert difference(golden, told.text()) == ""
    found = difference(golden, told.text().replace("size_bytes: 7", "bytes: 7"))
    assert "-size_bytes: 7\n+bytes: 7" in found
    assert transcript.RENEWS in found


def test_what_varies_is_a_word_and_a_field_that_is_not_known_is_shown() -> None:
    told = Transcript("")
    report = wire.FromSite(at=5.0, failure=wire.Failure(stage="reading", incident="1"))
    told.message("nhs > coordinator  Federation/Report", report)
    told.message("coordinator > operator  Federation/Overview", wire.OverviewReply(json='{"now": 5.5, "x": [1]}'))
    told.message("coordinator > operator  Federation/Overview", wire.OverviewReply(json='{"now": 5.5, "x": [1]}'))
    lines = told.text().splitlines()
    assert lines[2:7] == ["at: <time>", "failure:", '  stage: "reading"', '  hint: ""', '  incident: "1"']
    assert '    "now": "<time>",' in lines
    assert 'json: "<the document above>"' in lines


# --- the page -----------------------------------------------------------------------------------------------------


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading of the page, without its head."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_lists_every_method_with_its_messages() -> None:
    listed = {cells[0].strip("`"): re.findall(r"`(\w+)`|(raw chunks)", cells[1]) for cells in rows("Methods")}
    declared = {
        method.path: [
            (kind.DESCRIPTOR.name, "") if kind else ("", "raw chunks") for kind in (method.request, method.reply)
        ]
        for method in rpc.METHODS
    }
    assert listed == declared


def test_the_page_lists_every_header() -> None:
    named = set(re.findall(r"`(fedcervix-\w+)`", PAGE.read_text()))
    assert named == {rpc.DIGEST_KEY, rpc.OFFSET_KEY, rpc.SIZE_KEY, rpc.INSTANCE_KEY, rpc.VERSIONS_KEY}


def test_the_page_lists_every_status_that_stands_for_an_error_of_ours() -> None:
    page = PAGE.read_text()
    for code in rpc._CODES.values():
        assert f"| `{code.name}` |" in page


@pytest.mark.parametrize(
    ("what", "bound"),
    [
        (
            "a message, a chunk",
            f"{rpc.MESSAGE_BYTES_MAX // 2**20} MiB; to the coordinator {rpc.RECEIVED_BYTES_MAX:,} bytes",
        ),
        ("the plan", f"{codec.PLAN_CHARS_MAX // 1024} Ki characters"),
        ("the record in `Leave`", f"{codec.RECORD_CHARS_MAX // 2**20} Mi characters; left out if it is longer"),
        ("a reason, a hint, the stage of a failure", f"{REASON_CHARS_MAX} characters"),
        ("stage and unit of progress", f"{codec.STAGE_CHARS_MAX} and {codec.UNIT_CHARS_MAX} characters"),
        ("gauges of a score", str(GAUGES_MAX)),
        ("a gauge", f"-{codec.MEASURE_MAX:.0e} to {codec.MEASURE_MAX:.0e}".replace("e+", "e")),
        (
            "a loss, of one image",
            f'-{LOSS_MAX:.0e} to {LOSS_MAX:.0e}; with `loss = "nt-xent"` never negative'.replace("e+0", "e"),
        ),
        ("training or validation images of a site", f"{codec.IMAGES_MAX:,}"),
        ("`done` and `of` of progress", f"2^{codec.PROGRESS_MAX.bit_length() - 1}"),
        ("names in `succeeds`", str(codec.SUCCEEDS_MAX)),
        ("a run's first model", f"{codec.FIRST_MODEL_BYTES_MAX // 2**30} GiB"),
        ("a signing request", f"{REQUEST_BYTES_MAX // 1024} KiB"),
        ("simultaneous `Watch` calls", str(WATCHERS_MAX)),
        (
            "calls of a site at once; calls whose message has not come; calls per second",
            (
                f"{SITE.open_max}; {WAITED_FOR_MAX}; {SITE.per_s:.0f}, and {SITE.burst:.0f} in a burst, "
                f"of which {AT_ONCE} are answered as they come"
            ),
        ),
        (
            "time for a request to arrive; for a chunk to arrive, or an answer to be read",
            f"{MESSAGE_S:.0f} s; {CHUNK_S:.0f} s",
        ),
    ],
)
def test_the_page_s_bounds_are_those_of_the_code(what: str, bound: str) -> None:
    assert [what, bound] in rows("Bounds")


def test_the_page_names_the_version_that_is_spoken() -> None:
    assert rows("Versions")[-1][0] == str(HERE.wire_max)
    assert f"at present {HERE.wire_max}." in PAGE.read_text()
