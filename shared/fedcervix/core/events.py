"""What may happen in a federation, and what a site may be asked to do: frozen values, checked when built.

Events carry the time they happened at (`at`, Unix seconds): the machines in `rounds` and `session` own no clock.
An event is written to the journal as one JSON object; `event_to_json` and `event_from_json` are that format.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from fedcervix.core.bounds import DIGEST
from fedcervix.core.formats import FIRST, KEY, UnknownFormat, contents
from fedcervix.core.measures import Measures
from fedcervix.core.modes import MODES
from fedcervix.core.plan import SITE_NAME, SITES_MAX, check
from fedcervix.json_text import parsed
from fedcervix.printable import QUOTED_CHARS_MAX, quoted, shortened

T = TypeVar("T")

RUN_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
"""A run is named like a site, with one character more; both sides call folders after it."""

RUN_OF_COORDINATOR = re.compile(rf"[0-9]{{8}}-[0-9]{{6}}-(?:{'|'.join(MODES)})-[0-9a-f]{{8}}")
"""How a coordinator names its runs: moment, mode and the plan's digest. No model that a site makes has such a name."""

KEY_BOX = re.compile(r"[0-9a-f]{96}")
"""32 bytes of a key and 16 of its tag, in hexadecimal"""
SEAL_HEADER_CHARS_MAX = 4096

ROUND_MAX = 1_000_000
ATTEMPTS_MAX = 4
"""at a round: each costs a holder, and of c + 2 only one can be lost"""
SIGNATURE = re.compile(r"(?:[0-9a-f]{2}){0,72}")
"""in lower-case hexadecimal (ECDSA with P-256, DER)"""
BOX_CHARS_MAX = 2 * 64
"""of 32 secret bytes in a box, in hexadecimal"""
RUN_KEY = re.compile(r"[0-9a-f]{64}")
GAUGES_MAX = 32
GAUGE_CHARS_MAX = 40
MOMENT_MAX = 1e11
"""Unix seconds, in the year 5138: what is later, or before 1970, is no time at which anything has happened"""
REASON_CHARS_MAX = 600
FAILURE_STAGE_CHARS_MAX = 120
"""of what a site was doing when it failed"""
INCIDENT_CHARS_MAX = 40

LOSS_MAX = 1e9
"""of one image, either way: with any temperature, normalised features give less than 1e4. Training that comes to more
has diverged"""

RULES = 1
"""by which `rounds` judges what a site reports, and what a revocation undoes. 0: those of journals that name
none. A journal gives the same state again only by the rules under which it was written"""


class TaskKind(StrEnum):
    """What a site can be asked to do."""

    SEED = "seed"  # make the first model from the plan's seed
    TRAIN = "train"  # E epochs from the given model
    SCORE = "score"  # contrastive loss of the given model on the site's validation images
    ADOPT = "adopt"  # keep the given model: it is the result
    REWRAP = "rewrap"  # pass the key of the given model, which is under seal, on to other sites
    BOX = "box"  # put the site's secret bytes of this run into a box for each other site
    RELEASE = "release"  # release the masks of the round's list
    CLOSE = "close"  # promise to release nothing in this attempt at the round


WITHOUT_BASE = (TaskKind.SEED, TaskKind.BOX)
"""tasks that have no model to work on"""


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work, and its name: the same task asked twice is the same work."""

    run: str
    kind: TaskKind
    round: int
    base: str
    """digest of the model to work on; empty for `seed` and `box`"""
    attempt: int = 1
    """at the round: with secure sums a round is done again where a holder is lost"""
    readers: tuple[str, ...] = ()
    """of `rewrap` alone: the sites that are to read the model"""

    def __post_init__(self) -> None:
        check(1 <= self.attempt <= ATTEMPTS_MAX, f"attempt must be 1 to {ATTEMPTS_MAX}; found {self.attempt}")
        check(RUN_NAME.fullmatch(self.run) is not None, f"not a run's name: {quoted(self.run)}")
        check(0 <= self.round <= ROUND_MAX, f"round must be 0 to {ROUND_MAX}; found {self.round}")
        check(
            self.base == "" if self.kind in WITHOUT_BASE else bool(DIGEST.fullmatch(self.base)),
            f"not a base digest: {quoted(self.base)}",
        )
        check(bool(self.readers) == (self.kind == TaskKind.REWRAP), "only a key is passed on, and to somebody")
        _check_readers(self.readers)

    def __str__(self) -> str:
        return _WORDS[self.kind].format(self.round, ", ".join(self.readers))


_WORDS = {
    TaskKind.SEED: "make the first model",
    TaskKind.TRAIN: "train in round {}",
    TaskKind.SCORE: "score the model of round {}",
    TaskKind.ADOPT: "adopt the model of round {}",
    TaskKind.REWRAP: "pass on the key of the model of round {} to {}",
    TaskKind.BOX: "exchange secrets with the other sites",
    TaskKind.RELEASE: "release the masks of round {}",
    TaskKind.CLOSE: "close an attempt at round {}",
}


def _check_readers(readers: tuple[str, ...]) -> None:
    check(len(readers) <= SITES_MAX and len({*readers}) == len(readers), "a site is named twice, or there are too many")
    for site in readers:
        check(SITE_NAME.fullmatch(site) is not None, f"not a site name: {quoted(site)}")


@dataclass(frozen=True, slots=True)
class Seal:
    """What a site signs of a model under seal: its header, the file, and its key in a box for each reader.

    The core only carries it; see `fedcervix.trust.seals`.
    """

    header: str
    """the text of the file's header"""
    file: str
    """digest of the sealed file"""
    boxes: tuple[tuple[str, str], ...]
    """reader, and its box in hexadecimal"""
    signature: str
    """DER, in hexadecimal"""

    def __post_init__(self) -> None:
        check(0 < len(self.header) <= SEAL_HEADER_CHARS_MAX, "a seal has no header, or a long one")
        check(bool(DIGEST.fullmatch(self.file)), f"not a digest: {quoted(self.file)}")
        _check_readers(self.readers)
        for _, box in self.boxes:
            check(bool(KEY_BOX.fullmatch(box)), f"not the box of a key: {quoted(box)}")
        _check_signature(self.signature)

    @property
    def readers(self) -> tuple[str, ...]:
        """The sites that it has boxes for."""
        return tuple(reader for reader, _ in self.boxes)


class Answer(StrEnum):
    """What the coordinator says to a site's report. All but REFUSED let the site forget the matter."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # said before: the same acknowledgement again
    STALE = "stale"  # the run is at a later step
    REFUSED = "refused"  # no correct site says this


def _check_measure(name: str, value: float) -> None:
    check(math.isfinite(value), f"{name} is a finite number; found {value}")


def _check_optional(digest: str) -> None:
    check(digest == "" or bool(DIGEST.fullmatch(digest)), f"neither a digest nor empty: {quoted(digest)}")


@dataclass(frozen=True, slots=True)
class SiteAttached:
    """A site has accepted the plan and is ready to be asked."""

    site: str
    at: float
    software: str = ""
    """version of fedcervix there; empty where it is not known"""
    numerics: int = 0
    """how it computes (see fedcervix.transport.versions); 0 where it is not known"""

    def __post_init__(self) -> None:
        check(0 <= self.numerics < 2**32, f"numerics must be 0 to 2^32 - 1; found {self.numerics}")


@dataclass(frozen=True, slots=True)
class SiteSilent:
    """A site has shown no sign of life for the length of its lease."""

    site: str
    at: float
    reason: str = ""
    """what is known of it, such as that its engineer stopped it; empty where nothing is"""


@dataclass(frozen=True, slots=True)
class SiteRefused:
    """A site's policy does not allow the plan."""

    site: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class SiteRevoked:
    """The operator has withdrawn the site's certificate: it will not come back in this run."""

    site: str
    at: float
    rules: int = RULES
    """0: what the site had done for the round in progress still counts"""


@dataclass(frozen=True, slots=True)
class SiteFailed:
    """Work broke at a site. The words are scrubbed there; the trace stays there under the incident number."""

    site: str
    stage: str
    hint: str
    incident: str
    at: float
    kind: str = ""
    """of error: the name of its class"""
    goes_on: bool = False
    """the site goes on by itself; the report is for the operator to know"""


def _check_signature(signature: str) -> None:
    check(SIGNATURE.fullmatch(signature) is not None, f"not a signature: {quoted(signature)}")


@dataclass(frozen=True, slots=True)
class SiteOpened:
    """A site has opened a run that hides something from the coordinator (`fedcervix.trust.sum_roster.Opening`)."""

    site: str
    key: str
    """X25519, of this run, in hexadecimal"""
    images: int
    rho: str
    """SHA-256 of its 32 secret bytes"""
    signature: str
    """of the site's identity key, in hexadecimal"""
    at: float

    def __post_init__(self) -> None:
        check(RUN_KEY.fullmatch(self.key) is not None, f"not a run key: {quoted(self.key)}")
        check(bool(DIGEST.fullmatch(self.rho)), f"not a digest: {quoted(self.rho)}")
        check(0 < self.images <= 2**31, f"images must be 1 to 2^31; found {self.images}")
        _check_signature(self.signature)


@dataclass(frozen=True, slots=True)
class BoxesStored:
    """A site has put its secret bytes into a box for each other site."""

    site: str
    task: Task
    roster: str
    """digest of the openings that the site has checked"""
    boxes: tuple[tuple[str, str], ...]
    """(reader, box in hexadecimal)"""
    at: float

    def __post_init__(self) -> None:
        check(self.task.kind == TaskKind.BOX, f"{self.task.kind} makes no boxes")
        check(bool(DIGEST.fullmatch(self.roster)), f"not a digest: {quoted(self.roster)}")
        for reader, box in self.boxes:
            check(SITE_NAME.fullmatch(reader) is not None, f"not a site name: {quoted(reader)}")
            check(bool(box) and len(box) <= BOX_CHARS_MAX, f"a box has 1 to {BOX_CHARS_MAX} digits")


@dataclass(frozen=True, slots=True)
class Masked:
    """What a site has signed of a masked update, besides the update's own fields."""

    commit: str
    """to the vector under the masks"""
    norm: float
    """of its step; three digits"""
    before: str
    """digest of the sites and weights of an earlier sum over the same base; empty: the site knows of none"""
    signature: str

    def __post_init__(self) -> None:
        check(bool(DIGEST.fullmatch(self.commit)), f"not a digest: {quoted(self.commit)}")
        _check_optional(self.before)
        _check_measure("norm", self.norm)
        _check_signature(self.signature)


@dataclass(frozen=True, slots=True)
class ReleaseStored:
    """A holder has released its masks for a round's list; their sum lies in the blob store."""

    site: str
    task: Task
    listed: str
    """digest of the list"""
    masks: str
    """digest of the sum of its masks"""
    signature: str
    at: float

    def __post_init__(self) -> None:
        check(self.task.kind == TaskKind.RELEASE, f"{self.task.kind} releases no masks")
        for digest in (self.listed, self.masks):
            check(bool(DIGEST.fullmatch(digest)), f"not a digest: {quoted(digest)}")
        _check_signature(self.signature)


@dataclass(frozen=True, slots=True)
class CloseSigned:
    """A holder has promised that it will never release its masks in an attempt at a round."""

    site: str
    task: Task
    remaining: tuple[str, ...]
    """the holders of the next attempt"""
    signature: str
    at: float

    def __post_init__(self) -> None:
        check(self.task.kind == TaskKind.CLOSE, f"{self.task.kind} closes no attempt")
        check(all(SITE_NAME.fullmatch(name) for name in self.remaining), "remaining holds names of sites")
        _check_signature(self.signature)


@dataclass(frozen=True, slots=True)
class UpdateStored:
    """A site's model has arrived whole, was vetted, and lies in the blob store."""

    site: str
    task: Task
    digest: str
    images: int
    """training images at the site: its weight where the plan averages by images"""
    steps: int
    loss: float
    """mean training loss of the last epoch"""
    seconds: float
    at: float
    packed: str = ""
    """digest of the packed form in which the model travelled; empty where it travelled itself"""
    step: float = 0.0
    """how far the model lies from its base, as the coordinator has measured it (see `fedcervix.models.step_norms`)"""
    measures: Measures | None = None
    """in a ring: of the hop's step. Where updates are averaged, `AggregateStored` has them"""
    rules: int = RULES
    seal: Seal | None = None
    """of a model under seal: `packed` is then the sealed file"""
    masked: Masked | None = None
    """with secure sums: `digest` is that of the masked vector"""

    def __post_init__(self) -> None:
        check(bool(DIGEST.fullmatch(self.digest)), f"not a digest: {quoted(self.digest)}")
        _check_optional(self.packed)
        check(self.seal is None or self.seal.file == self.packed, "the seal is that of another file")
        _check_measure("step", self.step)
        check(self.task.kind in (TaskKind.SEED, TaskKind.TRAIN), f"{self.task.kind} makes no model")
        check(0 <= self.images <= 2**40, f"images must be 0 to 2^40; found {self.images}")
        check(self.images > 0 or self.task.kind == TaskKind.SEED, "an update counts at least one image")
        check(0 <= self.steps <= 2**40, f"steps must be 0 to 2^40; found {self.steps}")
        _check_measure("loss", self.loss)
        _check_measure("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class AggregateStored:
    """The coordinator has averaged the round's updates."""

    round: int
    digest: str
    at: float
    packed: str = ""
    """digest of the average's packed form; empty where the average itself travels"""
    residual: str = ""
    """digest of what was rounded away, which is added to the next average"""
    attempt: int = 0
    """which average of the round this is: it is made again where an update is left out"""
    measures: tuple[tuple[str, Measures], ...] = ()
    """what was measured of each averaged update, by site in roster order"""
    total: str = ""
    """digest of the secure sum from which every site derives the average; empty where it is made of the updates"""
    summed_norm: float = 0.0
    """Euclidean length of the average step in the secure sum; 0 where there is none"""

    def __post_init__(self) -> None:
        _check_measure("summed_norm", self.summed_norm)
        check(bool(DIGEST.fullmatch(self.digest)), f"not a digest: {quoted(self.digest)}")
        _check_optional(self.total)
        _check_optional(self.packed)
        _check_optional(self.residual)


@dataclass(frozen=True, slots=True)
class AverageUnusable:
    """The round's updates have no average that a model could hold: a number in it is not finite."""

    round: int
    attempt: int
    at: float


@dataclass(frozen=True, slots=True)
class ScoreReported:
    """A site's contrastive validation loss of the round's model."""

    site: str
    task: Task
    loss_sum: float
    count: int
    """validation images the sum is over"""
    images: int
    """training images at the site (see UpdateStored)"""
    gauges: tuple[tuple[str, float], ...]
    """collapse gauges, sorted by name (see site_agent.training.collapse_metrics)"""
    at: float
    rules: int = RULES

    def __post_init__(self) -> None:
        check(self.task.kind == TaskKind.SCORE, f"{self.task.kind} gives no score")
        check(0 < self.count <= 2**40, f"count must be 1 to 2^40; found {self.count}")
        check(0 < self.images <= 2**40, f"images must be 1 to 2^40; found {self.images}")
        check(len(self.gauges) <= GAUGES_MAX, f"at most {GAUGES_MAX} gauges")
        _check_measure("loss_sum", self.loss_sum)
        for name, value in self.gauges:
            _check_measure(name, value)

    @property
    def loss(self) -> float:
        """Mean loss per validation image."""
        return self.loss_sum / self.count


@dataclass(frozen=True, slots=True)
class ModelUnusable:
    """A site has no finite loss from the model that it was asked to train from, or to score."""

    site: str
    task: Task
    steps: int
    """that training took before; 0: the model gives no finite loss as it is"""
    at: float

    def __post_init__(self) -> None:
        check(self.task.kind in (TaskKind.TRAIN, TaskKind.SCORE), f"{self.task.kind} gives no loss")
        check(0 <= self.steps <= 2**40, f"steps must be 0 to 2^40; found {self.steps}")


@dataclass(frozen=True, slots=True)
class ModelAdopted:
    """A site holds the final model."""

    site: str
    task: Task
    at: float

    def __post_init__(self) -> None:
        check(self.task.kind == TaskKind.ADOPT, f"{self.task.kind} adopts no model")


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """A site has passed the key of a model under seal on to others."""

    site: str
    task: Task
    seal: Seal
    at: float

    def __post_init__(self) -> None:
        check(self.task.kind == TaskKind.REWRAP, f"{self.task.kind} passes no key on")
        check(self.seal.readers == self.task.readers, "the boxes are for other sites than it was asked for")


@dataclass(frozen=True, slots=True)
class RunAborted:
    """The operator ends the run before its time, or the coordinator cannot go on with it."""

    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has reached a deadline that `rounds.deadline` named."""

    at: float


Event = (
    SiteAttached
    | SiteSilent
    | SiteRefused
    | SiteRevoked
    | SiteFailed
    | SiteOpened
    | BoxesStored
    | UpdateStored
    | ReleaseStored
    | CloseSigned
    | AggregateStored
    | AverageUnusable
    | ScoreReported
    | ModelUnusable
    | ModelAdopted
    | Rewrapped
    | RunAborted
    | Tick
)

EVENTS: Mapping[str, type[Event]] = {event.__name__: event for event in get_args(Event)}


FORMAT = 2
"""of an event's text: raised with a new event, or a new field of one"""
SINCE: Mapping[str, int] = dict.fromkeys(
    (
        "SiteOpened",
        "BoxesStored",
        "ReleaseStored",
        "CloseSigned",
        "Task.attempt",
        "UpdateStored.masked",
        "AggregateStored.total",
        "AggregateStored.summed_norm",
        "Rewrapped",
        "Task.readers",
        "UpdateStored.seal",
    ),
    2,
)
"""event (`Tick`), field of one (`Tick.at`) or of a value in one (`Measures.norm`) -> the format that it came
with, where that is later than 1. A new field has a default, which is what older texts mean: it never changes"""

_FIELDS = {kind: tuple(field.name for field in dataclasses.fields(kind)) for kind in EVENTS.values()}


def check_event(event: Event) -> None:
    """Check what all events share: site names, times, lengths of text. Raises ValueError."""
    _check_measure("at", event.at)
    check(0 <= event.at <= MOMENT_MAX, f"at must be 0 to {MOMENT_MAX:g}; found {event.at}")
    rules = getattr(event, "rules", RULES)
    check(rules >= 0, f"rules is 0 or more; found {rules}")
    if rules > RULES:
        raise UnknownFormat("the set of rules of the event", rules, RULES)
    for name in _FIELDS[type(event)]:
        value = getattr(event, name)
        if name == "site":
            check(SITE_NAME.fullmatch(value) is not None, f"not a site name: {quoted(value)}")
        elif isinstance(value, str):
            check(len(value) <= REASON_CHARS_MAX, f"{name} is longer than {REASON_CHARS_MAX} characters")


def task_from_dict(raw: object) -> Task:
    """Rebuild a task. Raises ValueError, KeyError or TypeError."""
    return _built(Task, raw)


def event_to_json(event: Event) -> str:
    """Return the journal's text of an event. Raises ValueError where `event_from_json` could not read it back.

    A character takes at most 4 bytes in it. (As an escape it would take up to 12.) Half a surrogate pair, which UTF-8
    does not have, stands there as its escape.
    """
    check_event(event)
    raw = {"event": type(event).__name__, **_plain(event)}
    needed = needed_format(event)
    if needed > FIRST:
        raw[KEY] = needed
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, without later fields that say nothing: older versions read the rest."""
    if isinstance(value, tuple):
        return [_plain(below) for below in value]
    if not (fields := _fields(type(value))):
        return value
    found = [(field, getattr(value, field.name)) for field in fields]
    return {field.name: _plain(below) for field, below in found if field.place not in SINCE or below != field.default}


def needed_format(event: Any) -> int:
    """Return the lowest format that has this event, or this value in one, with these fields."""
    found = [(field, getattr(event, field.name)) for field in _fields(type(event))]
    used = [(field.place, value) for field, value in found if value != field.default]
    own = max(SINCE.get(one, FIRST) for one in (type(event).__name__, *(place for place, _ in used)))
    return max(own, *(needed_format(below) for _, value in used for below in _ours(value)), FIRST)


class _Field(NamedTuple):
    """A field of a type of ours, and its name together with that of the type."""

    name: str
    place: str
    default: object


def _fields_of(kind: Any) -> tuple[_Field, ...]:
    """Return the fields of a type; none where it is not of ours."""
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return tuple(_Field(field.name, f"{kind.__name__}.{field.name}", field.default) for field in fields)


_fields: Callable[[Any], tuple[_Field, ...]] = functools.cache(_fields_of)
"""each event is written, checked and read several times, at each site"""


def _ours(value: Any) -> Iterator[Any]:
    """Yield the values of ours that a field holds."""
    if isinstance(value, tuple):
        for below in value:
            yield from _ours(below)
    elif _fields(type(value)):
        yield value


_hints: Callable[[Any], dict[str, object]] = functools.cache(get_type_hints)


def _built(kind: type[T], raw: Any) -> T:
    """Rebuild an event, or a value of ours in one: each field by its type. Raises ValueError, TypeError."""
    check(isinstance(raw, dict), f"{kind.__name__} is no object; found {quoted(raw)}")
    hints = _hints(kind)
    unknown = [name for name in raw if name not in hints]
    check(not unknown, f"{kind.__name__} has no field {quoted(''.join(unknown[:1]))}")
    return kind(**{name: _value(hints[name], below, f"{kind.__name__}.{name}") for name, below in raw.items()})


def _value(hint: Any, raw: Any, place: str) -> Any:
    """Rebuild a value of a type: one of ours, a tuple, one that may be None, or what JSON has itself."""
    if isinstance(hint, UnionType):
        [one] = [one for one in get_args(hint) if one is not NoneType]
        return None if raw is None else _value(one, raw, place)
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), raw, place)
    if _fields(hint):
        return _built(hint, raw)
    if issubclass(hint, StrEnum):
        return hint(raw)
    check(type(raw) in (_NUMBERS if hint is float else (hint,)), f"{place} is not of type {hint.__name__}")
    if hint is float:
        _check_measure(place, raw)
    return raw


_NUMBERS = (int, float)


def _tuple(parts: tuple[Any, ...], raw: Any, place: str) -> tuple[Any, ...]:
    check(isinstance(raw, list), f"{place} is no list")
    types = (parts[0],) * len(raw) if parts[-1] is ... else parts
    return tuple(_value(hint, below, place) for hint, below in zip(types, raw, strict=True))


def event_from_json(text: str, **hooks: Any) -> Event:
    """Rebuild an event from the journal. Raises UnknownFormat where a later version wrote it, else ValueError.

    `hooks`: how the text is parsed, see `json_text.parsed`.
    """
    try:
        raw = contents("the event", parsed(text, **hooks), FORMAT)
        name = str(raw.pop("event"))
        check(name in EVENTS, f"unknown event {quoted(name)}")
        kind = EVENTS[name]
        if "rules" in _FIELDS[kind]:
            raw.setdefault("rules", 0)
        event: Event = _built(kind, raw)
        check_event(event)
    except (AttributeError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not an event: {shortened(str(error), QUOTED_CHARS_MAX)}") from error
    return event
