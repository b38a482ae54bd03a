"""Converts messages of the protocol to values of the core, and back. Bad input raises only `RemoteError`.

Every bound of protos/federation.proto is enforced here: a `read_` function returns a checked value. Both ends parse
every message with `received`, which removes the control characters from all its texts.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fedcervix.core.bounds import DIGEST
from fedcervix.core.compression import Packed
from fedcervix.core.events import (
    ATTEMPTS_MAX,
    BOX_CHARS_MAX,
    FAILURE_STAGE_CHARS_MAX,
    GAUGE_CHARS_MAX,
    INCIDENT_CHARS_MAX,
    LOSS_MAX,
    REASON_CHARS_MAX,
    ROUND_MAX,
    RUN_NAME,
    SEAL_HEADER_CHARS_MAX,
    Answer,
    BoxesStored,
    CloseSigned,
    Event,
    Masked,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
    Rewrapped,
    ScoreReported,
    Seal,
    SiteFailed,
    Task,
    TaskKind,
    UpdateStored,
    check_event,
)
from fedcervix.core.formats import FIRST, UnknownFormat
from fedcervix.core.pace import SitePace
from fedcervix.core.plan import SITE_NAME, SITES_MAX, Plan, check
from fedcervix.core.rounds.instructions import Finish, Idle, Instruction
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import RemoteError
from fedcervix.json_text import parsed
from fedcervix.printable import printable, printable_values, shortened
from fedcervix.transport.versions import HERE, SOFTWARE, Build, agreed
from fedcervix.trust.boxes import NamedKey
from fedcervix.trust.chain import TEXT_CHARS_MAX
from fedcervix.trust.heads import HEAD_CHARS_MAX, Head, SignedHead
from fedcervix.trust.key_texts import KEY_CHARS_MAX
from fedcervix.trust.ledger import LedgerEntry, Signed
from fedcervix.trust.records import SIGNED_CHARS_MAX
from fedcervix.trust.statements import SIGNATURE_BYTES_MAX
from fedcervix.trust.sum_closes import SignedClose
from fedcervix.trust.sum_lists import SignedRelease
from fedcervix.trust.sum_papers import AttemptShown, Boxes, Closing, Openings, SumShown
from fedcervix.trust.sum_reports import SumReport
from fedcervix.trust.sum_roster import Opening
from fedcervix.wire import federation_pb2 as wire

if TYPE_CHECKING:  # with `cryptography`, which `coordinator status` does not need
    from fedcervix.trust.fingerprints import SiteKeys

PLAN_CHARS_MAX = 256 * 1024
STAGE_CHARS_MAX = 40
KIND_CHARS_MAX = 40
UNIT_CHARS_MAX = 16
ERROR_CHARS_MAX = 600
"""of what is wrong with a message, in words"""
RECORD_CHARS_MAX = 3 * 2**20
MODEL_BYTES_MAX = 64 * 2**30
FIRST_MODEL_BYTES_MAX = 8 * 2**30
"""of a run; later models have the length of the first one"""
CHUNK_BYTES_BOUNDS = (64 * 2**10, 2 * 2**20)
"""of a model in one message: the least and the most that one side may ask of the other"""
CHUNK_BYTES_UNSAID = 512 * 2**10
"""the same where it asks for nothing"""
IMAGES_MAX = 10**8
"""of one site"""
PROGRESS_MAX = 2**53
"""of bytes or steps: every reader of JSON knows a whole number up to here"""
TIME_MAX = 1e12
"""Unix seconds"""
SECONDS_MAX = 1e9
"""of one task: 30 years"""
MEASURE_MAX = 1e15
"""of a gauge or a speed"""
PROBE_BYTES_MAX = 16 * 2**20
"""in one look at how fast a line is"""
INSTANCE = re.compile(r"[0-9a-f]{32}")
SUCCEEDS_MAX = 16

P = ParamSpec("P")
R = TypeVar("R")


def _reads(read: Callable[P, R]) -> Callable[P, R]:
    """Translate the error of a check of a received message into RemoteError."""

    @functools.wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return read(*args, **kwargs)
        except (ValueError, OverflowError) as error:
            said = shortened(str(error), ERROR_CHARS_MAX)
            raise RemoteError(f"the other side sent an invalid message: {said}") from error

    return guarded


def _text(value: str, chars_max: int, name: str) -> str:
    check(len(value) <= chars_max, f"{name} is longer than {chars_max} characters")
    return value


def _run(value: str) -> str:
    check(RUN_NAME.fullmatch(value) is not None, "not a run's name")
    return value


Number = TypeVar("Number", int, float)


def _within(value: Number, least: float, most: float, name: str) -> Number:
    """Return a number that is within its bounds; NaN is within none."""
    check(least <= value <= most, f"{name} is a number from {least:g} to {most:g}; found {value:.6g}")
    return value


def _loss(value: float, name: str) -> float:
    return _within(value, -LOSS_MAX, LOSS_MAX, name)


# --- on receipt ---------------------------------------------------------------------------------------------------

M = TypeVar("M", bound=Message)


REQUEST_TEXT_CHARS_MAX = 4096
"""of any text that a caller sends, looked at: each has a bound of its own below this, and a longer one is refused"""


def received(kind: type[M], chars_max: int | None = None) -> Callable[[bytes], M]:
    """Return what parses a message of this kind that arrived: no text in it has a control character.

    `chars_max`: a longer text, or list of texts, is cut to one more than that, so that a hostile one costs no time.
    It raises google.protobuf.message.DecodeError where the bytes are no such message.
    """
    end = None if chars_max is None else chars_max + 1

    def parse(data: bytes) -> M:
        message = kind.FromString(data)
        _take_out(message, end)
        return message

    return parse


def _take_out(message: Message, end: int | None) -> None:
    for field, value in message.ListFields():
        if field.message_type is None:
            if field.type == field.TYPE_STRING:
                _take_out_of_text(message, field, value, end)
        elif field.message_type.GetOptions().map_entry:
            _take_out_of_map(value, end)
        else:
            for inner in value if field.is_repeated else [value]:
                _take_out(inner, end)


def _take_out_of_text(message: Message, field: FieldDescriptor, value: Any, end: int | None) -> None:
    if field.is_repeated:
        value[:] = [printable(text[:end]) for text in value[:end]]
    else:
        setattr(message, field.name, printable(value[:end]))


def _take_out_of_map(value: Any, end: int | None) -> None:
    """Take control characters out of a map's keys; the values of this protocol's maps are numbers."""
    cleaned = {printable(key[:end]): number for key, number in islice(value.items(), end)}
    if cleaned != dict(value):
        value.clear()
        value.update(cleaned)


def _printable_json(text: str) -> str:
    """Return a JSON document whose texts are printable, also where they were written as escapes. Raises ValueError."""
    return json.dumps(printable_values(parsed(text)), allow_nan=False)


# --- what a version has -------------------------------------------------------------------------------------------

SINCE: Mapping[str, int] = {
    "FromCoordinator.ledger": 2,  # for agents that say in `AttachRequest.ledger` how far they have it
    **dict.fromkeys(
        (
            "FromCoordinator.openings",
            "FromCoordinator.boxes",
            "FromCoordinator.attempt",
            "FromCoordinator.summed",
            "FromSite.boxed",
            "FromSite.released",
            "FromSite.closed",
            "Task.attempt",
            "Task.Kind.KIND_BOX",
            "Task.Kind.KIND_RELEASE",
            "Task.Kind.KIND_CLOSE",
            "FromSite.rewrapped",
            "Task.Kind.KIND_REWRAP",
        ),
        2,  # in runs whose plan hides something from the coordinator: since format 2 of plans
    ),
}
"""which version of the wire brought a kind of message, or a value of an enumeration, that the first release lacks; by
message and field, or by message, enumeration and value. Where only sites that read a later format of plans, or that ask
for it, can meet one, it needs no new version: the row has the one that was spoken before"""


def spoken(message: M, version: int, since: Mapping[str, int] = SINCE) -> M:
    """Return a message of which an end that speaks this version knows every part. Raises ValueError: a bug of ours."""
    late = [name for name in _kinds(message) if name in since and since[name] > version]
    check(not late, f"version {version} of the protocol has no {', '.join(late)}")
    return message


def _kinds(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.containing_oneof is not None:
            yield f"{message.DESCRIPTOR.name}.{field.name}"
        if field.enum_type is not None:
            yield f"{message.DESCRIPTOR.name}.{field.enum_type.name}.{field.enum_type.values_by_number[value].name}"
        if isinstance(value, Message):
            yield from _kinds(value)


# --- who speaks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InstanceClaim:
    """Which process of a site's agent wants to act for it, and which ones ran on its home folder before."""

    instance: str
    succeeds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(len(self.succeeds) <= SUCCEEDS_MAX, f"an agent names at most {SUCCEEDS_MAX} others")
        for instance in (self.instance, *self.succeeds):
            check(INSTANCE.fullmatch(instance) is not None, "an instance is 32 lower-case hexadecimal digits")


@_reads
def read_claim(instance: str, succeeds: Iterable[str] = ()) -> InstanceClaim:
    """Return who speaks, by an AttachRequest's fields or by the header of another call."""
    return InstanceClaim(instance, tuple(succeeds))


def write_attach(
    build: Build, claim: InstanceClaim | None, at: float = 0.0, kept: LedgerKept | None = None
) -> wire.AttachRequest:
    """Return the message with which an agent begins to listen; without a claim, it only wants to hear the welcome.

    `at`: Unix seconds by the site's clock; 0: not said. `kept`: how far it has a run's ledger; None: it keeps none.
    """
    return wire.AttachRequest(
        wire_version=build.wire_min,
        wire_version_max=build.wire_max,
        software_version=build.software,
        numerics=build.numerics,
        plan_format=build.plan_format,
        instance=claim.instance if claim else "",
        succeeds=claim.succeeds if claim else (),
        look=claim is None,
        at=at,
        ledger=wire.LedgerKept(run=kept.run, entries=kept.entries) if kept else None,
    )


def write_versions(build: Build) -> str:
    """Return the header with which a coordinator says what it speaks, before it says whether that fits."""
    return f"{build.wire_min} {build.wire_max} {build.numerics} {build.plan_format}"


def read_versions(text: str) -> Build | None:
    """Return what a coordinator says that it speaks; None where it says nothing, or nothing of this form."""
    try:
        return Build("", *map(int, text.split())) if _VERSIONS.fullmatch(text) else None
    except ValueError:
        return None


_VERSIONS = re.compile(r"\d{1,9}( \d{1,9}){3}", re.ASCII)


@_reads
def read_build(said: wire.AttachRequest) -> Build:
    """Return what an agent speaks. The name of its version is left out where it is none."""
    software = said.software_version if SOFTWARE.fullmatch(said.software_version) else ""
    newest = said.wire_version_max or said.wire_version
    return Build(software, said.wire_version, newest, said.numerics or 1, said.plan_format or FIRST)


@_reads
def read_clock(said: wire.AttachRequest, now: float) -> float:
    """Return how many seconds a site's clock is ahead of ours; 0 where it does not say what it shows."""
    return _within(said.at, 0, TIME_MAX, "at") - now if said.at else 0.0


# --- tasks and instructions ---------------------------------------------------------------------------------------

_KINDS = {
    TaskKind.SEED: wire.Task.KIND_SEED,
    TaskKind.TRAIN: wire.Task.KIND_TRAIN,
    TaskKind.SCORE: wire.Task.KIND_SCORE,
    TaskKind.ADOPT: wire.Task.KIND_ADOPT,
    TaskKind.REWRAP: wire.Task.KIND_REWRAP,
    TaskKind.BOX: wire.Task.KIND_BOX,
    TaskKind.RELEASE: wire.Task.KIND_RELEASE,
    TaskKind.CLOSE: wire.Task.KIND_CLOSE,
}
_KINDS_BACK = {number: kind for kind, number in _KINDS.items()}

_ANSWERS = {
    Answer.ACCEPTED: wire.ReportReply.ANSWER_ACCEPTED,
    Answer.DUPLICATE: wire.ReportReply.ANSWER_DUPLICATE,
    Answer.STALE: wire.ReportReply.ANSWER_STALE,
    Answer.REFUSED: wire.ReportReply.ANSWER_REFUSED,
}
_ANSWERS_BACK = {number: answer for answer, number in _ANSWERS.items()}


def write_task(task: Task) -> wire.Task:
    """Return the message of a task."""
    return wire.Task(
        run=task.run,
        kind=_KINDS[task.kind],
        round=task.round,
        base=task.base,
        attempt=task.attempt if task.attempt > 1 else None,
        readers=task.readers,
    )


def _task(message: wire.Task) -> Task:
    check(message.kind in _KINDS_BACK, f"not a kind of task: {message.kind}")
    kind, attempt, readers = _KINDS_BACK[message.kind], message.attempt or 1, tuple(message.readers)
    return Task(_run(message.run), kind, message.round, message.base, attempt, readers)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The first thing a coordinator says to a site."""

    federation: str
    run: str
    plan: Plan
    wire_version: int = HERE.wire_max
    """that is spoken from here on"""
    at: float = 0.0
    """Unix seconds by the coordinator's clock; 0: not said"""
    keys: SiteKeys = dataclasses.field(default_factory=dict)
    """of the plan's sites that have joined; empty where the coordinator's version does not say"""
    ledger_key: str = ""
    """with which the heads of the run's ledger are signed (PEM); empty where it keeps none"""


def write_instruction(instruction: Instruction, version: int = HERE.wire_max) -> wire.FromCoordinator:
    """Return the message of an instruction, in the version that was agreed."""
    return spoken(_instruction(instruction), version)


def _instruction(instruction: Instruction) -> wire.FromCoordinator:
    match instruction:
        case Task():
            return wire.FromCoordinator(task=write_task(instruction))
        case Idle(reason):
            return wire.FromCoordinator(stand=wire.Stand(reason=reason[:REASON_CHARS_MAX]))
        case Finish(outcome, reason, record):
            message = wire.Leave(outcome=outcome.value, reason=reason[:REASON_CHARS_MAX], record=record)
            return wire.FromCoordinator(leave=message)


def write_welcome(welcome: Welcome) -> wire.FromCoordinator:
    """Return the message of a welcome."""
    from fedcervix.trust.fingerprints import key_bytes  # as above

    message = wire.Welcome(
        federation=welcome.federation,
        run=welcome.run,
        plan=welcome.plan.canonical(),
        wire_version=welcome.wire_version,
        at=welcome.at,
        keys=(wire.SiteKey(site=site, key=key_bytes(key)) for site, key in welcome.keys.items()),
        ledger_key=welcome.ledger_key.encode(),
    )
    return wire.FromCoordinator(welcome=message)


@_reads
def read_from_coordinator(
    message: wire.FromCoordinator, here: Build = HERE
) -> Welcome | LedgerPart | Paper | Instruction:
    """Return what the coordinator says to a site's software. Raises RemoteError, VersionError."""
    match message.WhichOneof("what"):
        case "welcome":
            return _welcome(message.welcome, here)
        case "ledger":
            return _ledger(message.ledger)
        case "task":
            return _task(message.task)
        case "stand":
            return Idle(_text(message.stand.reason, REASON_CHARS_MAX, "reason"))
        case "leave":
            return _leave(message.leave)
        case "openings" | "boxes" | "attempt" | "summed":
            return _paper(message)
        case _:
            raise ValueError("neither welcome nor instruction")


def _welcome(said: wire.Welcome, here: Build) -> Welcome:
    """Return a welcome. What else it says is read only in a version, and by a format, that are known here."""
    agreed(here, replace(here, software="", wire_min=said.wire_version, wire_max=said.wire_version), at="site")
    plan = _plan(_text(said.plan, PLAN_CHARS_MAX, "plan"), here)
    keys, ledger_key = _keys(said.keys, plan.sites), _ascii(said.ledger_key, KEY_CHARS_MAX, "a key")
    at = _within(said.at, 0, TIME_MAX, "at")
    federation = _text(said.federation, 64, "federation")
    return Welcome(federation, _run(said.run), plan, said.wire_version, at, keys, ledger_key)


def _keys(said: Sequence[wire.SiteKey], sites: Sequence[str]) -> SiteKeys:
    """Return the keys of a plan's sites. A key under two names would be two sites of one hand."""
    from fedcervix.trust.fingerprints import read_key  # as above

    check(len(said) <= len(sites), f"keys of {len(said)} sites; the plan has {len(sites)}")
    keys = {one.site: read_key(one.key) for one in said}
    check(keys.keys() <= set(sites), "a key of a site that is not in the plan")
    check(len({one.site for one in said}) == len(said), "two keys of one site")
    check(len({one.key for one in said}) == len(said), "one key of two sites")
    return keys


def _ascii(value: bytes, chars_max: int, name: str) -> str:
    check(len(value) <= chars_max and value.isascii(), f"{name} is not ASCII, or longer than {chars_max} characters")
    return value.decode()


def _plan(text: str, here: Build) -> Plan:
    try:
        return Plan.parse(text)
    except UnknownFormat as error:
        agreed(here, replace(here, software="", plan_format=error.found), at="site")
        raise


def _leave(said: wire.Leave) -> Finish:
    record = _text(said.record, RECORD_CHARS_MAX, "record")
    return Finish(Outcome(said.outcome), _text(said.reason, REASON_CHARS_MAX, "reason"), _record(record))


def _record(text: str) -> str:
    """Return a run's record, its texts printable; empty if it is not JSON: the run is over in any case."""
    try:
        return _printable_json(text) if text else ""
    except ValueError:
        return ""


# --- the ledger ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LedgerKept:
    """How far a site has the ledger of a run."""

    run: str = ""
    entries: int = 0


@dataclass(frozen=True, slots=True)
class Countersigned:
    """A head of a ledger, and a site's signature over it."""

    site: str
    head: Head
    signature: bytes


@dataclass(frozen=True, slots=True)
class LedgerPart:
    """Entries of a ledger, and where they are the last ones for now, the signed head."""

    lines: tuple[LedgerEntry, ...]
    head: SignedHead | None = None
    countersigned: tuple[Countersigned, ...] = ()


PART_CHARS_MAX = 2**20
"""of the entries in one message, unless it is a single one"""


@functools.lru_cache(maxsize=4)
def write_ledger(part: LedgerPart) -> wire.FromCoordinator:
    """Return the message of entries of a ledger."""
    message = wire.Ledger(
        lines=[wire.LedgerLine(text=line.text.encode(), signature=line.signature) for line in part.lines],
        head=part.head.head.text.encode() if part.head else b"",
        signature=part.head.signature if part.head else b"",
        countersigned=[
            wire.Countersignature(site=one.site, head=one.head.text.encode(), signature=one.signature)
            for one in part.countersigned
        ],
    )
    return wire.FromCoordinator(ledger=message)


def _ledger(said: wire.Ledger) -> LedgerPart:
    lines = tuple(
        LedgerEntry(_ascii(line.text, TEXT_CHARS_MAX, "an entry"), _signature(line.signature)) for line in said.lines
    )
    head = SignedHead(_head(said.head), _signature(said.signature)) if said.head else None
    countersigned = tuple(
        Countersigned(_text(one.site, 64, "site"), _head(one.head), _signature(one.signature))
        for one in said.countersigned
    )
    return LedgerPart(lines, head, countersigned)


def _head(text: bytes) -> Head:
    return Head.parse(_ascii(text, HEAD_CHARS_MAX, "a head"))


def _signature(value: bytes) -> bytes:
    check(len(value) <= SIGNATURE_BYTES_MAX, "a signature is too long")
    return value


@_reads
def read_kept(message: wire.AttachRequest) -> LedgerKept | None:
    """Return how far an agent has a run's ledger; None where it keeps none."""
    said = message.ledger
    return LedgerKept(_run(said.run) if said.run else "", said.entries) if message.HasField("ledger") else None


@_reads
def read_signed(message: wire.FromSite) -> Signed:
    """Return what a site has signed with a report; it is not checked yet."""
    return Signed(_ascii(message.record, SIGNED_CHARS_MAX, "a record"), _signature(message.signature))


@_reads
def read_countersigned(message: wire.FromSite, site: str) -> Countersigned | None:
    """Return which head a site has countersigned; None where it has none."""
    return Countersigned(site, _head(message.head), _signature(message.countersignature)) if message.head else None


# --- what a run hides from the coordinator ------------------------------------------------------------------------

Paper = Openings | Boxes | AttemptShown | SumShown
"""what a site is shown before a task that needs it"""


def write_paper(paper: Paper) -> wire.FromCoordinator:
    """Return the message of what a site is shown before a task."""
    match paper:
        case Openings(openings):
            said = [wire.SiteOpening(site=one.site, opening=_write_opening(one)) for one in openings]
            return wire.FromCoordinator(openings=wire.Openings(openings=said))
        case Boxes(boxes):
            return wire.FromCoordinator(boxes=wire.Boxes(boxes=_write_boxes(boxes)))
        case AttemptShown():
            return wire.FromCoordinator(attempt=_write_attempt(paper))
        case SumShown():
            return wire.FromCoordinator(summed=_write_summed(paper))


def _write_boxes(boxes: Mapping[str, bytes]) -> list[wire.Box]:
    return [wire.Box(site=site, box=box) for site, box in boxes.items()]


def _write_opening(opening: Opening) -> wire.Opening:
    key, images = opening.key.key, opening.images
    return wire.Opening(key=key, images=images, rho=opening.rho, signature=opening.signature)


def _write_attempt(paper: AttemptShown) -> wire.Attempt:
    return wire.Attempt(
        round=paper.round,
        earlier=[
            wire.Closing(
                remaining=closing[0].remaining,
                closes=[wire.HolderSignature(site=one.holder, signature=one.signature) for one in closing],
            )
            for closing in paper.earlier
        ],
        lines=[
            wire.SumLine(site=line.site, upload=line.upload, steps=line.steps, loss=line.loss, masked=_masked_of(line))
            for line in paper.lines
        ],
        remaining=paper.remaining,
    )


def _masked_of(line: SumReport) -> wire.Masked:
    return wire.Masked(commit=line.commit, norm=line.norm, before=line.before, signature=line.signature)


def _write_summed(paper: SumShown) -> wire.Summed:
    return wire.Summed(
        attempt=_write_attempt(paper.attempt),
        releases=[
            wire.Release(site=one.holder, listed=one.listed, masks=one.masks, signature=one.signature)
            for one in paper.releases
        ],
        base=paper.base,
        total=paper.total,
        model=paper.model,
    )


def _paper(message: wire.FromCoordinator) -> Paper:
    match message.WhichOneof("what"):
        case "openings":
            return _openings(message.openings)
        case "boxes":
            boxes = _boxes(message.boxes.boxes)
            return Boxes({site: bytes.fromhex(box) for site, box in boxes})
        case "attempt":
            return _attempt(message.attempt)
        case _:
            return _summed(message.summed)


def _openings(said: wire.Openings) -> Openings:
    _few(said.openings)
    return Openings(tuple(_opening(one.opening, _site(one.site)) for one in said.openings))


def _opening(said: wire.Opening, site: str) -> Opening:
    images = _within(said.images, 1, IMAGES_MAX, "images")
    key, signature = NamedKey(site, said.key), _signature(said.signature)
    return Opening(site=site, key=key, images=images, rho=said.rho, signature=signature)


def _site(name: str) -> str:
    check(SITE_NAME.fullmatch(name) is not None, "not a site's name")
    return name


def _few(entries: Sequence[object], most: int = SITES_MAX) -> None:
    check(len(entries) <= most, f"a list has at most {most} entries here")


def _boxes(said: Sequence[wire.Box]) -> tuple[tuple[str, str], ...]:
    """Return boxes in hexadecimal, by site."""
    _few(said)
    check(len({one.site for one in said}) == len(said), "two boxes of one site")
    check(all(0 < 2 * len(one.box) <= BOX_CHARS_MAX for one in said), f"a box has 1 to {BOX_CHARS_MAX // 2} bytes")
    return tuple((_site(one.site), one.box.hex()) for one in said)


def _attempt(said: wire.Attempt) -> AttemptShown:
    _few(said.earlier, ATTEMPTS_MAX)
    _few(said.lines)
    earlier = tuple(map(_closing, said.earlier))
    return AttemptShown(
        _within(said.round, 1, ROUND_MAX, "round"), earlier, tuple(map(_line, said.lines)), _names(said.remaining)
    )


def _names(names: Sequence[str]) -> tuple[str, ...]:
    _few(names)
    return tuple(map(_site, names))


def _closing(said: wire.Closing) -> Closing:
    _few(said.closes)
    check(len(said.closes) > 0, "nobody closed an attempt before")
    remaining = _names(said.remaining)
    return tuple(SignedClose(_site(one.site), remaining, _signature(one.signature)) for one in said.closes)


def _line(said: wire.SumLine) -> SumReport:
    masked = said.masked
    return SumReport(
        site=_site(said.site),
        commit=masked.commit,
        upload=said.upload,
        steps=said.steps,
        norm=masked.norm,
        loss=_loss(said.loss, "loss"),
        before=masked.before,
        signature=_signature(masked.signature),
    )


def _summed(said: wire.Summed) -> SumShown:
    _few(said.releases)
    releases = tuple(
        SignedRelease(_site(one.site), read_digest(one.listed), read_digest(one.masks), _signature(one.signature))
        for one in said.releases
    )
    base, total, model = map(read_digest, (said.base, said.total, said.model))
    return SumShown(_attempt(said.attempt), releases, base, total, model)


# --- reports ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """A site accepts the plan."""

    run: str
    plan_digest: str
    opening: Opening | None = None
    """where the plan hides something from the coordinator"""
    pace: SitePace | None = None
    """what the site has measured for the plan; None: nothing"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A site's policy does not allow the plan."""

    run: str
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a site is with a task; not journaled."""

    task: Task
    stage: str
    done: int
    of: int
    unit: str
    loss: float
    images_per_s: float


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life of a site that has nothing to do; not journaled."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The site's engineer has stopped the agent (Ctrl-C, SIGTERM); not journaled."""


Heartbeat = Ping | Progress
SecretsReport = BoxesStored | ReleaseStored | CloseSigned | Rewrapped
"""only in runs that hide something from the coordinator"""
PlainReport = (
    Heartbeat | Stopped | Ready | Refusal | UpdateStored | ScoreReported | ModelUnusable | ModelAdopted | SiteFailed
)
Report = PlainReport | SecretsReport


def write_report(report: Report, at: float, version: int = HERE.wire_max) -> wire.FromSite:
    """Return the message of a report, in the version that was agreed; `at`: Unix seconds by the site's clock."""
    if isinstance(report, SecretsReport):
        return spoken(_secrets_report(report, at), version)
    return spoken(_report(report, at), version)


def _report(report: PlainReport, at: float) -> wire.FromSite:
    match report:
        case Ping():
            return wire.FromSite(at=at, here=wire.Here())
        case Stopped():
            return wire.FromSite(at=at, stopped=wire.Stopped())
        case Ready():
            return wire.FromSite(at=at, ready=_write_ready(report))
        case Refusal(run, reason):
            return wire.FromSite(at=at, refusal=wire.Refusal(run=run, reason=reason[:REASON_CHARS_MAX]))
        case Progress():
            return wire.FromSite(at=at, progress=_write_progress(report))
        case UpdateStored():
            return wire.FromSite(at=at, update=_write_update(report))
        case ScoreReported() | ModelUnusable():
            return _write_judgement(report, at)
        case ModelAdopted(_, task):
            return wire.FromSite(at=at, adopted=wire.Adopted(task=write_task(task)))
        case SiteFailed():
            return wire.FromSite(at=at, failure=_write_failure(report))


def _write_ready(report: Ready) -> wire.Ready:
    said = _write_opening(report.opening) if report.opening else None
    pace = wire.Pace(**dataclasses.asdict(report.pace)) if report.pace else None
    return wire.Ready(run=report.run, plan_digest=report.plan_digest, opening=said, pace=pace)


def _secrets_report(report: SecretsReport, at: float) -> wire.FromSite:
    task = write_task(report.task)
    match report:
        case BoxesStored():
            boxes = _write_boxes({reader: bytes.fromhex(box) for reader, box in report.boxes})
            return wire.FromSite(at=at, boxed=wire.Boxed(task=task, roster=report.roster, boxes=boxes))
        case ReleaseStored():
            signature = bytes.fromhex(report.signature)
            said = wire.Released(task=task, listed=report.listed, masks=report.masks, signature=signature)
            return wire.FromSite(at=at, released=said)
        case CloseSigned():
            signature = bytes.fromhex(report.signature)
            return wire.FromSite(at=at, closed=wire.Closed(task=task, remaining=report.remaining, signature=signature))
        case Rewrapped():
            return wire.FromSite(at=at, rewrapped=wire.Rewrapped(task=task, seal=_write_seal(report.seal)))


def _write_judgement(report: ScoreReported | ModelUnusable, at: float) -> wire.FromSite:
    if isinstance(report, ScoreReported):
        return wire.FromSite(at=at, score=_write_score(report))
    return wire.FromSite(at=at, unusable=wire.Unusable(task=write_task(report.task), steps=report.steps))


def _write_seal(seal: Seal, site: str = "") -> wire.Seal:
    boxes = [wire.KeyBox(reader=reader, box=bytes.fromhex(box)) for reader, box in seal.boxes]
    signature = bytes.fromhex(seal.signature)
    return wire.Seal(site=site, header=seal.header.encode(), file=seal.file, boxes=boxes, signature=signature)


def _seal(said: wire.Seal) -> Seal:
    header = _ascii(said.header, SEAL_HEADER_CHARS_MAX, "a header")
    boxes = tuple((one.reader, one.box.hex()) for one in said.boxes)
    return Seal(header, read_digest(said.file), boxes, _signature(said.signature).hex())


def _write_progress(report: Progress) -> wire.Progress:
    """Return the message, cut to the bounds: a sign of life must not be refused because of a long text."""
    return wire.Progress(
        task=write_task(report.task),
        stage=report.stage[:STAGE_CHARS_MAX],
        done=min(report.done, PROGRESS_MAX),
        of=min(report.of, PROGRESS_MAX),
        unit=report.unit[:UNIT_CHARS_MAX],
        loss=report.loss if abs(report.loss) <= LOSS_MAX else 0.0,
        images_per_s=report.images_per_s if 0 <= report.images_per_s <= MEASURE_MAX else 0.0,
    )


def _write_failure(report: SiteFailed) -> wire.Failure:
    return wire.Failure(
        stage=report.stage[:FAILURE_STAGE_CHARS_MAX],
        hint=report.hint[:REASON_CHARS_MAX],
        incident=report.incident,
        kind=report.kind[:KIND_CHARS_MAX],
        goes_on=report.goes_on,
    )


def _write_update(report: UpdateStored) -> wire.Update:
    return wire.Update(
        task=write_task(report.task),
        digest=report.digest,
        images=report.images,
        steps=report.steps,
        loss=report.loss,
        seconds=report.seconds,
        packed=report.packed,
        seal=_write_seal(report.seal) if report.seal else None,
        masked=_write_masked(report.masked) if report.masked else None,
    )


def _write_masked(masked: Masked) -> wire.Masked:
    signature = bytes.fromhex(masked.signature)
    return wire.Masked(commit=masked.commit, norm=masked.norm, before=masked.before, signature=signature)


def _write_score(report: ScoreReported) -> wire.Score:
    return wire.Score(
        task=write_task(report.task),
        loss_sum=report.loss_sum,
        count=report.count,
        images=report.images,
        gauges=dict(report.gauges),
    )


@_reads
def read_report(message: wire.FromSite, *, site: str, at: float) -> Report:
    """Return what a site reports. `site` is from its certificate, `at` the coordinator's time: never a message's."""
    kind = message.WhichOneof("what")
    check(kind is not None, "an empty report")
    report = _READ[str(kind)](message, site, at)
    if isinstance(report, Event):
        check_event(report)
    return report


def _read_ready(message: wire.FromSite, site: str, _at: float) -> Ready:
    check(bool(DIGEST.fullmatch(message.ready.plan_digest)), "not a plan digest")
    opening = _opening(message.ready.opening, site) if message.ready.HasField("opening") else None
    pace = _pace(message.ready.pace) if message.ready.HasField("pace") else None
    return Ready(_run(message.ready.run), message.ready.plan_digest, opening, pace)


def _pace(said: wire.Pace) -> SitePace:
    return SitePace(**{field.name: getattr(said, field.name) for field in said.DESCRIPTOR.fields})


def _read_here(_message: wire.FromSite, _site: str, _at: float) -> Ping:
    return Ping()


def _read_stopped(_message: wire.FromSite, _site: str, _at: float) -> Stopped:
    return Stopped()


def _read_refusal(message: wire.FromSite, _site: str, _at: float) -> Refusal:
    said = message.refusal
    return Refusal(_run(said.run), _text(said.reason, REASON_CHARS_MAX, "reason"))


def _read_progress(message: wire.FromSite, _site: str, _at: float) -> Progress:
    said = message.progress
    return Progress(
        _task(said.task),
        _text(said.stage, STAGE_CHARS_MAX, "stage"),
        _within(said.done, 0, PROGRESS_MAX, "done"),
        _within(said.of, 0, PROGRESS_MAX, "of"),
        _text(said.unit, UNIT_CHARS_MAX, "unit"),
        _loss(said.loss, "loss"),
        _within(said.images_per_s, 0, MEASURE_MAX, "images_per_s"),
    )


def _read_update(message: wire.FromSite, site: str, at: float) -> UpdateStored:
    said = message.update
    images, loss = _within(said.images, 0, IMAGES_MAX, "images"), _loss(said.loss, "loss")
    seconds = _within(said.seconds, 0, SECONDS_MAX, "seconds")
    masked = _masked(said.masked) if said.HasField("masked") else None
    task = _task(said.task)
    seal = _seal(said.seal) if said.HasField("seal") else None
    update = UpdateStored(site, task, said.digest, images, said.steps, loss, seconds, at, said.packed)
    return replace(update, masked=masked, seal=seal)


def _masked(said: wire.Masked) -> Masked:
    return Masked(said.commit, said.norm, said.before, _signature(said.signature).hex())


def _read_boxed(message: wire.FromSite, site: str, at: float) -> BoxesStored:
    said = message.boxed
    return BoxesStored(site, _task(said.task), said.roster, _boxes(said.boxes), at)


def _read_released(message: wire.FromSite, site: str, at: float) -> ReleaseStored:
    said = message.released
    return ReleaseStored(site, _task(said.task), said.listed, said.masks, _signature(said.signature).hex(), at)


def _read_closed(message: wire.FromSite, site: str, at: float) -> CloseSigned:
    said = message.closed
    return CloseSigned(site, _task(said.task), _names(said.remaining), _signature(said.signature).hex(), at)


def _read_score(message: wire.FromSite, site: str, at: float) -> ScoreReported:
    said = message.score
    gauges = tuple(
        sorted(
            (_text(name, GAUGE_CHARS_MAX, "gauge"), _within(value, -MEASURE_MAX, MEASURE_MAX, "a gauge"))
            for name, value in said.gauges.items()
        )
    )
    count = _within(said.count, 1, IMAGES_MAX, "count")
    images = _within(said.images, 1, IMAGES_MAX, "images")
    _loss(said.loss_sum / count, "loss_sum / count")
    return ScoreReported(site, _task(said.task), said.loss_sum, count, images, gauges, at)


def _read_unusable(message: wire.FromSite, site: str, at: float) -> ModelUnusable:
    return ModelUnusable(site, _task(message.unusable.task), message.unusable.steps, at)


def _read_adopted(message: wire.FromSite, site: str, at: float) -> ModelAdopted:
    return ModelAdopted(site, _task(message.adopted.task), at)


def _read_rewrapped(message: wire.FromSite, site: str, at: float) -> Rewrapped:
    return Rewrapped(site, _task(message.rewrapped.task), _seal(message.rewrapped.seal), at)


def _read_failure(message: wire.FromSite, site: str, at: float) -> SiteFailed:
    said = message.failure
    kind = _text(said.kind, KIND_CHARS_MAX, "kind")
    stage = _text(said.stage, REASON_CHARS_MAX, "stage")[:FAILURE_STAGE_CHARS_MAX]  # earlier versions send more
    incident = _text(said.incident, INCIDENT_CHARS_MAX, "incident")
    return SiteFailed(site, stage, said.hint, incident, at, kind, said.goes_on)


_READ: dict[str, Callable[[wire.FromSite, str, float], Report]] = {
    "ready": _read_ready,
    "here": _read_here,
    "stopped": _read_stopped,
    "refusal": _read_refusal,
    "progress": _read_progress,
    "update": _read_update,
    "score": _read_score,
    "unusable": _read_unusable,
    "adopted": _read_adopted,
    "rewrapped": _read_rewrapped,
    "failure": _read_failure,
    "boxed": _read_boxed,
    "released": _read_released,
    "closed": _read_closed,
}


def write_answer(answer: Answer, reason: str = "", version: int = HERE.wire_max) -> wire.ReportReply:
    """Return the message of an answer, in the version that was agreed."""
    return spoken(wire.ReportReply(answer=_ANSWERS[answer], reason=reason[:REASON_CHARS_MAX]), version)


@_reads
def read_answer(message: wire.ReportReply) -> tuple[Answer, str]:
    """Return the coordinator's answer and, where it refuses, the reason."""
    check(message.answer in _ANSWERS_BACK, f"not an answer: {message.answer}")
    return _ANSWERS_BACK[message.answer], _text(message.reason, REASON_CHARS_MAX, "reason")


# --- blobs --------------------------------------------------------------------------------------------------------


@_reads
def read_digest(digest: str) -> str:
    """Return a blob's name."""
    check(bool(DIGEST.fullmatch(digest)), "not a digest")
    return digest


def model_bytes_max(first_bytes: int) -> int:
    """Return how long a run's model may be on the wire; `first_bytes`: of its first one, 0 where that is not known."""
    return 2 * first_bytes or FIRST_MODEL_BYTES_MAX


@_reads
def read_size(text: str, bytes_max: int) -> int:
    """Return the length in bytes that the header of a Fetch announces."""
    check(text.isascii() and text.isdigit() and len(text) < 19, "a model comes with its size")
    check(0 < int(text) <= bytes_max, f"a model of {int(text):,} bytes is not this run's (at most {bytes_max:,})")
    return int(text)


def write_packed(form: Packed | None, seals: Iterable[tuple[str, Seal]] = ()) -> wire.PackedReply:
    """Return the message of a packed form, or of none. `seals`: what goes with a model under seal, by who signed it."""
    reply = wire.PackedReply(seals=(_write_seal(seal, site) for site, seal in seals))
    if form is not None:
        reply.digest, reply.base = form.digest, form.base
    return reply


@_reads
def read_packed(message: wire.PackedReply) -> Packed | None:
    """Return the packed form of a model; None: the model is sent unpacked."""
    if not message.digest and not message.base:
        return None
    return Packed(read_digest(message.digest), read_digest(message.base) if message.base else "")


@_reads
def read_seals(message: wire.PackedReply) -> tuple[tuple[str, Seal], ...]:
    """Return what goes with a model under seal, by who signed it; it is not checked yet."""
    check(len(message.seals) <= SITES_MAX + 1, "there are more seals than a round can have")
    return tuple((_text(one.site, 64, "site"), _seal(one)) for one in message.seals)


@_reads
def read_probe(size_bytes: int) -> int:
    """Return how many bytes a site wants to see on its line, or to send over it."""
    check(1 <= size_bytes <= PROBE_BYTES_MAX, f"a probe has 1 to {PROBE_BYTES_MAX:,} bytes; found {size_bytes:,}")
    return size_bytes


def probe_bytes(count: int) -> bytes:
    """Return bytes of no meaning that a line which compresses cannot make shorter: models do not shrink either."""
    return hashlib.shake_256(b"probe").digest(count)


@_reads
def read_wanted(message: wire.OfferReply) -> tuple[int, int]:
    """Return from which byte a model is wanted, and how many bytes go into a message."""
    return message.offset, read_chunk_bytes(message.chunk_bytes, CHUNK_BYTES_UNSAID)


def read_chunk_bytes(found: int, otherwise: int) -> int:
    """Return how many bytes of a model go into a message; 0: `otherwise`. Raises RemoteError."""
    least, most = CHUNK_BYTES_BOUNDS
    if found and not least <= found <= most:
        raise RemoteError(f"a message carries {least} to {most} bytes of a model")
    return found or otherwise


def check_offset(offset: int, size_bytes: int) -> None:
    """Raise RemoteError where a model has no such offset."""
    if not 0 <= offset <= size_bytes:
        raise RemoteError(f"a model of {size_bytes:,} bytes has no byte {offset:,}")


@_reads
def read_offer(message: wire.OfferRequest) -> tuple[str, int]:
    """Return the digest and size in bytes of a model that a site offers."""
    check(0 < message.size_bytes <= MODEL_BYTES_MAX, f"a model has 1 to {MODEL_BYTES_MAX} bytes")
    return read_digest(message.digest), message.size_bytes
