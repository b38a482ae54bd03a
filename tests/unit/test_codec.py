"""Messages to values and back; every bound of federation.proto is held here."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedcervix.core.events import (
    WITHOUT_BASE,
    Answer,
    BoxesStored,
    CloseSigned,
    Masked,
    ModelAdopted,
    ReleaseStored,
    Rewrapped,
    ScoreReported,
    Seal,
    SiteFailed,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import Finish, Idle, Instruction
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import RemoteError
from fedcervix.transport import codec
from fedcervix.transport.codec import Ping, Progress, Ready, Refusal, Report, Welcome
from fedcervix.transport.versions import HERE
from fedcervix.trust.boxes import OwnKey
from fedcervix.trust.fingerprints import key_bytes
from fedcervix.trust.sum_closes import SignedClose
from fedcervix.trust.sum_lists import SignedRelease
from fedcervix.trust.sum_papers import AttemptShown, Boxes, Openings, SumShown
from fedcervix.trust.sum_reports import SumReport
from fedcervix.trust.sum_roster import Opening
from fedcervix.wire import federation_pb2 as wire

BASE, MADE = "b" * 64, "d" * 64
REWRAP = Task("run", TaskKind.REWRAP, 3, BASE, readers=("bob", "cleo"))
SEAL = Seal('{"header":1}', MADE, (("bob", "b0" * 48), ("cleo", "c0" * 48)), "5e")
TASKS = [
    Task("run", kind, 0 if kind in WITHOUT_BASE else 3, "" if kind in WITHOUT_BASE else BASE)
    for kind in TaskKind
    if kind is not TaskKind.REWRAP
]
TRAIN = TASKS[1]
KEYS = [ec.derive_private_key(number, ec.SECP256R1()).public_key() for number in (2, 3)]
PLAN = Plan(mode="ppfssl", sites=("ada", "bob"), profile="paper", terms=Terms(quorum=2), recipe=Recipe())
SITE, AT = "ada", 12.5

OWN = {name: OwnKey(name, bytes([number]) * 32) for number, name in enumerate(("ada", "bob"), 1)}
OPENINGS = {name: Opening(site=name, key=own.public, images=7, rho=MADE, signature=b"s") for name, own in OWN.items()}
MASKED = Masked(BASE, 0.0625, "", "abcd")
AGAIN = [Task("run", kind, 3, BASE, attempt=2) for kind in (TaskKind.TRAIN, TaskKind.RELEASE, TaskKind.CLOSE)]

REPORTS: list[Report] = [
    Ready("run", MADE),
    Refusal("run", "rounds_max is 2"),
    Ping(),
    Progress(TRAIN, "training", 3, 40, "steps", 0.25, 12.5),
    UpdateStored(SITE, TRAIN, MADE, 10, 7, 0.25, 60.0, AT),
    UpdateStored(SITE, TASKS[0], MADE, 0, 0, 0.0, 1.0, AT),
    ScoreReported(SITE, TASKS[2], 8.0, 4, 10, (("alignment", 0.5), ("unit_std", 0.9)), AT),
    ModelAdopted(SITE, TASKS[3], AT),
    Rewrapped(SITE, REWRAP, SEAL, AT),
    UpdateStored(SITE, TRAIN, MADE, 10, 7, 0.25, 60.0, AT, MADE, seal=SEAL),
    SiteFailed(SITE, "training", "diverged", "INC-1", AT),
    SiteFailed(SITE, "training", "hung", "INC-2", AT, "TrainingError", goes_on=True),
    Ready("run", MADE, OPENINGS[SITE]),
    UpdateStored(SITE, AGAIN[0], MADE, 10, 7, 0.25, 60.0, AT, masked=MASKED),
    BoxesStored(SITE, Task("run", TaskKind.BOX, 0, ""), MADE, (("bob", "ab" * 48),), AT),
    ReleaseStored(SITE, AGAIN[1], BASE, MADE, "abcd", AT),
    CloseSigned(SITE, AGAIN[2], ("ada", "bob"), "abcd", AT),
]


def over_the_line(message: Any) -> Any:
    """Return the message as the other side parses it."""
    return type(message).FromString(message.SerializeToString())


def read(report: Report) -> Report:
    return codec.read_report(over_the_line(codec.write_report(report, 99.0)), site=SITE, at=AT)


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_a_report_arrives_as_it_was_said(report: Report) -> None:
    assert read(report) == report


@pytest.mark.parametrize(
    "instruction",
    [
        *TASKS,
        REWRAP,
        *AGAIN,
        Idle("round 1: waiting for bob"),
        *(Finish(outcome, "why", '{"run": 1}') for outcome in Outcome),
    ],
    ids=str,
)
def test_an_instruction_arrives_as_it_was_said(instruction: Instruction) -> None:
    assert codec.read_from_coordinator(over_the_line(codec.write_instruction(instruction))) == instruction


LINE = SumReport(site="ada", commit=BASE, upload=MADE, steps=7, norm=0.5, loss=1.25, before=BASE, signature=b"s")
ATTEMPT = AttemptShown(
    3, ((SignedClose("ada", ("ada", "bob"), b"a"), SignedClose("bob", ("ada", "bob"), b"b")),), (LINE,), ("ada",)
)
PAPERS = [
    Openings((OPENINGS["ada"], OPENINGS["bob"])),
    Boxes({"ada": b"a" * 48, "bob": b"b" * 48}),
    AttemptShown(1),
    ATTEMPT,
    SumShown(ATTEMPT, (SignedRelease("ada", BASE, MADE, b"r"),), BASE, MADE, BASE),
]


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: type(paper).__name__)
def test_what_a_site_is_shown_arrives_as_it_was_said(paper: codec.Paper) -> None:
    assert codec.read_from_coordinator(over_the_line(codec.write_paper(paper))) == paper


FAULTS: dict[str, wire.FromCoordinator] = {
    "two boxes of one site": wire.FromCoordinator(boxes=wire.Boxes(boxes=[wire.Box(site="ada", box=b"x")] * 2)),
    "a box has 1 to 64 bytes": wire.FromCoordinator(boxes=wire.Boxes(boxes=[wire.Box(site="ada", box=b"x" * 65)])),
    "not a site's name": wire.FromCoordinator(attempt=wire.Attempt(round=1, remaining=["Ada"])),
    "nobody closed": wire.FromCoordinator(attempt=wire.Attempt(round=1, earlier=[wire.Closing(remaining=["ada"])])),
    "at most 4 entries": wire.FromCoordinator(attempt=wire.Attempt(round=1, earlier=[wire.Closing()] * 5)),
    "at most 256 entries": wire.FromCoordinator(openings=wire.Openings(openings=[wire.SiteOpening()] * 257)),
    "round is a number": wire.FromCoordinator(attempt=wire.Attempt()),
    "not a digest": wire.FromCoordinator(summed=wire.Summed()),
    "a commitment is a SHA-256": wire.FromCoordinator(
        attempt=wire.Attempt(round=1, lines=[wire.SumLine(site="ada", upload=MADE)])
    ),
}


@pytest.mark.parametrize("words", FAULTS)
def test_what_a_site_is_shown_is_checked(words: str) -> None:
    with pytest.raises(RemoteError, match=words):
        codec.read_from_coordinator(FAULTS[words])


def test_a_key_of_low_order_is_refused_by_the_site_s_name() -> None:
    ready = codec.write_report(Ready("run", MADE, OPENINGS["ada"]), 99.0)
    ready.ready.opening.key = bytes(32)
    with pytest.raises(RemoteError, match="site ada gives a key that has a low order"):
        codec.read_report(ready, site=SITE, at=AT)


def test_a_welcome_brings_the_plan() -> None:
    welcome = Welcome("federation", "run", PLAN, keys={PLAN.sites[1]: KEYS[0], PLAN.sites[0]: KEYS[1]})
    assert codec.read_from_coordinator(over_the_line(codec.write_welcome(welcome))) == welcome


@pytest.mark.parametrize("answer", Answer)
def test_an_answer_arrives_as_it_was_said(answer: Answer) -> None:
    assert codec.read_answer(over_the_line(codec.write_answer(answer, "why"))) == (answer, "why")


def test_who_speaks_and_when_is_never_read_from_a_message() -> None:
    """The design: "the servicer takes the site's name from the verified certificate and never from a message"."""
    update = UpdateStored("mallory", TRAIN, MADE, 10, 7, 0.25, 60.0, 5.0)
    message = codec.write_report(update, 7.0)
    found = codec.read_report(message, site="ada", at=AT)
    assert isinstance(found, UpdateStored)
    assert (found.site, found.at) == ("ada", AT)


def test_texts_are_cut_by_the_one_who_writes_them() -> None:
    long = "x" * 1000
    for report in (Refusal("run", long), SiteFailed(SITE, long, long, "INC-1", AT)):
        assert read(report)
    for instruction in (Idle(long), Finish(Outcome.OK, long)):
        assert codec.read_from_coordinator(codec.write_instruction(instruction))
    assert codec.read_answer(codec.write_answer(Answer.REFUSED, long)) == (Answer.REFUSED, "x" * 600)


def test_a_sign_of_life_is_not_lost_for_its_words() -> None:
    sign = Progress(TRAIN, "s" * 50, 1, 2, "u" * 20, float("nan"), float("inf"))
    assert read(sign) == Progress(TRAIN, "s" * 40, 1, 2, "u" * 16, 0.0, 0.0)


# --- bounds -------------------------------------------------------------------------------------------------------


def keyed(*keys: tuple[str, ec.EllipticCurvePublicKey | bytes]) -> wire.FromCoordinator:
    said = [wire.SiteKey(site=site, key=key if isinstance(key, bytes) else key_bytes(key)) for site, key in keys]
    return wire.FromCoordinator(
        welcome=wire.Welcome(wire_version=HERE.wire_max, run="run", plan=PLAN.canonical(), keys=said)
    )


def task(**changes: Any) -> wire.Task:
    return wire.Task(**{"run": "run", "kind": wire.Task.KIND_TRAIN, "round": 3, "base": BASE, **changes})


def update(**changes: Any) -> wire.FromSite:
    given = {"task": task(), "digest": MADE, "images": 10, "steps": 7, "loss": 0.5, "seconds": 1.0, **changes}
    return wire.FromSite(update=wire.Update(**given))


def score(**changes: Any) -> wire.FromSite:
    given = {"task": task(kind=wire.Task.KIND_SCORE), "loss_sum": 1.0, "count": 1, "images": 1, **changes}
    return wire.FromSite(score=wire.Score(**given))


def progress(**changes: Any) -> wire.FromSite:
    return wire.FromSite(progress=wire.Progress(**{"task": task(), "stage": "training", **changes}))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (wire.FromSite(), "an empty report"),
        (wire.FromSite(ready=wire.Ready(run="run")), "not a plan digest"),
        (wire.FromSite(ready=wire.Ready(run="r" * 65, plan_digest=MADE)), "not a run's name"),
        (wire.FromSite(refusal=wire.Refusal(run="run", reason="x" * 601)), "reason is longer than 600"),
        (update(task=task(run="r" * 65)), "not a run's name"),
        (update(task=task(run="../../keys")), "not a run's name"),
        (update(task=task(run="")), "not a run's name"),
        (update(task=task(kind=0)), "not a kind of task: 0"),
        (update(task=task(kind=77)), "not a kind of task: 77"),
        (update(task=task(round=1_000_001)), "round must be 0 to 1000000"),
        (update(task=task(base="../../etc/passwd")), "not a base digest"),
        (update(digest="D" * 64), "not a digest"),
        (update(images=0), "an update counts at least one image"),
        *((update(images=found), "images is a number from 0 to 1e.08") for found in (2**63, 2**31)),
        *((update(loss=found), "loss is a number from") for found in (NAN, INF, -INF, 1e308, -1e308, 2e9)),
        *((update(seconds=found), "seconds is a number from 0 to") for found in (NAN, -INF, -1.0, 1e300)),
        (update(steps=2**63), "steps must be 0 to 2"),
        (update(task=task(kind=wire.Task.KIND_SCORE)), "score makes no model"),
        *((score(count=found), "count is a number from 1 to") for found in (0, 2**31)),
        *((score(images=found), "images is a number from 1 to") for found in (0, 2**31)),
        *((score(loss_sum=found), "loss_sum / count is a number from") for found in (NAN, INF, 1e308, -1e308)),
        (score(loss_sum=3e9, count=2), "loss_sum / count is a number from"),
        (score(gauges={"x" * 41: 0.0}), "gauge is longer than 40 characters"),
        (score(gauges={f"g{n}": 0.0 for n in range(33)}), "at most 32 gauges"),
        *((score(gauges={"rank": found}), "a gauge is a number from") for found in (NAN, INF, 1e308)),
        (score(task=task()), "train gives no score"),
        (wire.FromSite(adopted=wire.Adopted(task=task())), "train adopts no model"),
        (wire.FromSite(failure=wire.Failure(stage="s" * 601)), "stage is longer than 600"),
        (wire.FromSite(failure=wire.Failure(hint="h" * 601)), "hint is longer than 600"),
        (wire.FromSite(failure=wire.Failure(incident="i" * 41)), "incident is longer than 40"),
        (wire.FromSite(failure=wire.Failure(kind="k" * 41)), "kind is longer than 40"),
        (progress(stage="s" * 41), "stage is longer than 40"),
        (progress(unit="u" * 17), "unit is longer than 16"),
        *((progress(loss=found), "loss is a number from") for found in (NAN, INF, -1e308)),
        *((progress(images_per_s=found), "images_per_s is a number from 0") for found in (INF, NAN, -1.0, 1e308)),
        *((progress(**{name: 2**64 - 1}), f"{name} is a number from 0") for name in ("done", "of")),
    ],
)
def test_a_report_beyond_its_bounds_is_the_other_side_s_fault(message: wire.FromSite, complaint: str) -> None:
    with pytest.raises(RemoteError, match=f"the other side sent an invalid message: .*{complaint}"):
        codec.read_report(over_the_line(message), site=SITE, at=AT)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (wire.FromCoordinator(), "neither welcome nor instruction"),
        (wire.FromCoordinator(welcome=wire.Welcome(wire_version=HERE.wire_max, plan="{}")), "not a plan"),
        (
            wire.FromCoordinator(
                welcome=wire.Welcome(wire_version=HERE.wire_max, run="../../keys", plan=PLAN.canonical())
            ),
            "not a run's name",
        ),
        (
            wire.FromCoordinator(welcome=wire.Welcome(wire_version=HERE.wire_max, plan=" " * 262_145)),
            "plan is longer than 262144",
        ),
        (
            wire.FromCoordinator(welcome=wire.Welcome(wire_version=HERE.wire_max, run="r" * 65, plan=PLAN.canonical())),
            "not a run's name",
        ),
        (
            wire.FromCoordinator(
                welcome=wire.Welcome(wire_version=HERE.wire_max, federation="f" * 65, plan=PLAN.canonical())
            ),
            "federation is longer",
        ),
        (keyed(("stranger", KEYS[0])), "a key of a site that is not in the plan"),
        (keyed((PLAN.sites[0], KEYS[0]), (PLAN.sites[0], KEYS[1])), "two keys of one site"),
        (keyed((PLAN.sites[0], KEYS[0]), (PLAN.sites[1], KEYS[0])), "one key of two sites"),
        (keyed(*((site, KEYS[0]) for site in PLAN.sites), (PLAN.sites[0], KEYS[1])), "the plan has"),
        (keyed((PLAN.sites[0], b"no key")), "not a public key"),
        (keyed((PLAN.sites[0], bytes(257))), "at most 256"),
        (wire.FromCoordinator(task=task(kind=wire.Task.KIND_SEED)), "not a base digest"),
        (wire.FromCoordinator(stand=wire.Stand(reason="x" * 601)), "reason is longer than 600"),
        (wire.FromCoordinator(leave=wire.Leave(outcome="GREAT")), "'GREAT' is not a valid Outcome"),
        (wire.FromCoordinator(leave=wire.Leave(outcome="OK", reason="x" * 601)), "reason is longer than 600"),
        (
            wire.FromCoordinator(leave=wire.Leave(outcome="OK", record="x" * (codec.RECORD_CHARS_MAX + 1))),
            "record is longer than",
        ),
    ],
)
def test_an_instruction_beyond_its_bounds_is_the_other_side_s_fault(message: Any, complaint: str) -> None:
    with pytest.raises(RemoteError, match=complaint):
        codec.read_from_coordinator(message)


def test_an_answer_that_is_none() -> None:
    for number in (0, 9):
        with pytest.raises(RemoteError, match=f"not an answer: {number}"):
            codec.read_answer(wire.ReportReply(answer=number))  # type: ignore[arg-type]
    with pytest.raises(RemoteError, match="reason is longer"):
        codec.read_answer(wire.ReportReply(answer=wire.ReportReply.ANSWER_STALE, reason="x" * 601))


@pytest.mark.parametrize("digest", ["", "d" * 63, "D" * 64, "../" + "d" * 61, "d" * 64 + "\n"])
def test_a_blob_s_name_is_a_digest_and_nothing_else(digest: str) -> None:
    with pytest.raises(RemoteError, match="not a digest"):
        codec.read_digest(digest)


def test_a_wanted_model_travels_in_messages_of_a_sensible_size() -> None:
    assert codec.read_wanted(wire.OfferReply(offset=7, chunk_bytes=1 << 20)) == (7, 1 << 20)
    assert codec.read_wanted(wire.OfferReply(offset=7)) == (7, codec.CHUNK_BYTES_UNSAID)
    for chunk_bytes in (1, (64 << 10) - 1, (2 << 20) + 1):
        with pytest.raises(RemoteError, match="a message carries"):
            codec.read_wanted(wire.OfferReply(offset=7, chunk_bytes=chunk_bytes))


def test_an_offer_has_a_size() -> None:
    assert codec.read_offer(wire.OfferRequest(digest=MADE, size_bytes=1)) == (MADE, 1)
    for size_bytes in (0, codec.MODEL_BYTES_MAX + 1):
        with pytest.raises(RemoteError, match="a model has 1 to"):
            codec.read_offer(wire.OfferRequest(digest=MADE, size_bytes=size_bytes))
    with pytest.raises(RemoteError, match="not a digest"):
        codec.read_offer(wire.OfferRequest(digest="x", size_bytes=1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FromSite.ready", codec.write_report(Ready("run", "0" * 64), 1.0)),
        ("FromCoordinator.stand", codec.write_instruction(Idle("wait"))),
        ("Task.Kind.KIND_TRAIN", codec.write_instruction(TRAIN)),
        ("ReportReply.Answer.ANSWER_STALE", codec.write_answer(Answer.STALE)),
    ],
)
def test_what_the_agreed_version_lacks_is_not_sent(name: str, message: Any) -> None:
    later = HERE.wire_max + 1
    assert codec.spoken(message, later, {name: later}) is message
    with pytest.raises(ValueError, match=f"version {HERE.wire_max} of the protocol has no {name}"):
        codec.spoken(message, HERE.wire_max, {name: later})
