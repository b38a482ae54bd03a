"""What people decide on a model: it is approved, or it is retired; who said so, when and why.

A decision is one line of text, which is signed as it stands (`signed_decisions`). Who decides adds one to a chain: each
decision of a party names the hash of that party's decision before, so one that is missing in between is noticed.

Rules
1. A model on which nobody has decided is a candidate.
2. Retired is final. No approval takes it back, whatever its date. So an old approval that is sent again changes
   nothing, and when two people decide at the same moment, the careful one of the two counts.
3. A model is its digest. Names and runs only help people.
4. The text is the truth. It is copied, and never written again from its values.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, cast, get_args

from fedcervix.core.bounds import DIGEST
from fedcervix.core.formats import KEY, contents
from fedcervix.core.plan import check
from fedcervix.trust.chain import LINKS, Chain, End, Value, read

Word = Literal["approved", "retired"]
"""what a decision says"""
State = Literal["candidate", "approved", "retired"]

FORMAT: Final = 1
WHY_CHARS_MAX = 500
PERSON_CHARS_MAX = 100
NAME_CHARS_MAX = 200
DECISIONS = Chain("fedcervix model decision 1")
TEXTS: Mapping[str, int] = {
    "person": PERSON_CHARS_MAX,
    "plan": NAME_CHARS_MAX,
    "run": NAME_CHARS_MAX,
    "said_by": NAME_CHARS_MAX,
    "why": WHY_CHARS_MAX,
}
"""how long they may be"""
KEYS = {"decision", "made_at", "model", "replaced_by", *TEXTS}
SHORT = 12
"""hexadecimal digits of a digest that are shown, and that name a file"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a person says, before it is a link of a chain."""

    decision: Word
    model: str
    """SHA-256 of the weights file"""
    why: str
    said_by: str = ""
    """URI of the party whose key signs it; empty where the home has none"""
    person: str = ""
    """who said so, where a name or an office is given"""
    run: str = ""
    """of the federation that made the model; empty for what a site made itself"""
    plan: str = ""
    """digest of the run's plan"""
    replaced_by: str = ""
    """digest of the model to use instead, where one is named"""
    made_at: str
    """ISO 8601 with its time zone"""

    def __post_init__(self) -> None:
        check(self.decision in get_args(Word), f"decision is one of {', '.join(get_args(Word))}")
        check(DIGEST.fullmatch(self.model) is not None, "model is no digest")
        check(not self.replaced_by or DIGEST.fullmatch(self.replaced_by) is not None, "replaced_by is no digest")
        check(self.replaced_by != self.model, "a model is not replaced by itself")
        for name, most in TEXTS.items():
            check(len(getattr(self, name)) <= most, f"{name} is longer than {most} characters")
            check(getattr(self, name).isprintable(), f"{name} is no single line of printable characters")
        check(bool(self.why.strip()), "it gives no reason")
        check(self.moment.tzinfo is not None, "made_at names no time zone")

    @property
    def moment(self) -> datetime:
        """When it was said."""
        return datetime.fromisoformat(self.made_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDecision(Ruling):
    """One decision, as it was written down."""

    entry: int
    """its number among those of the same party, from 0"""
    previous: str
    """hash of the one before"""
    text: str = field(repr=False)

    @classmethod
    def of(cls, ruling: Ruling, after: End) -> ModelDecision:
        """Return what a person says as the next decision of a party."""
        said = {name: cast(Value, getattr(ruling, name)) for name in sorted(KEYS)}
        text, _ = DECISIONS.append(after, {KEY: FORMAT, **said})
        return cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> ModelDecision:
        """Return the decision that a text says. Raises ValueError; UnknownFormat where a later version wrote it."""
        values = contents("the decision", dict(read(text)), FORMAT)
        check(values.keys() == KEYS | {*LINKS}, "its keys are not those of a decision")
        check(all(isinstance(values[name], str) for name in (KEYS | {"previous"})), "a value of it is no text")
        check(type(values["entry"]) is int and values["entry"] >= 0, "entry is no number")
        return cls(**values, text=text)  # type: ignore[arg-type]

    @property
    def hash(self) -> str:
        """What the next decision of the party names."""
        return DECISIONS.hash(self.text)

    @property
    def end(self) -> End:
        """Where the party's chain ends with it."""
        return End(self.entry + 1, self.hash)

    @property
    def name(self) -> str:
        """The name of its files, without what stands behind the dot."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        return f"{self.decision}-{self.model[:SHORT]}-{digest[:SHORT]}"


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """How a model stands at one institution."""

    state: State = "candidate"
    by: ModelDecision | None = None
    """what made it so; the first retirement, else the last approval"""

    def __str__(self) -> str:
        """Return it in a few words."""
        if self.by is None:
            return self.state
        return f"{self.state} {self.by.made_at[:10]} by {speaker(self.by)}"


def speaker(one: Ruling) -> str:
    """Return who said it, as a person reads it."""
    party = one.said_by.partition("://")[2].partition("/")[2].replace("/", " ") or "this site"
    return f"{party} ({one.person})" if one.person else party


def standing(model: str, decisions: Iterable[ModelDecision]) -> ModelStanding:
    """Return how a model stands by the decisions that bind here."""
    found = sorted((one for one in decisions if one.model == model), key=lambda one: (one.moment, one.entry))
    retired = next((one for one in found if one.decision == "retired"), None)
    if retired is not None:
        return ModelStanding("retired", retired)
    return ModelStanding("approved", found[-1]) if found else ModelStanding()


def gaps(decisions: Iterable[ModelDecision]) -> list[str]:
    """Return, in sentences, what is missing in the chain of one party whose decisions are all kept here."""
    ordered = sorted(decisions, key=lambda one: one.entry)
    known, hashes = {one.entry for one in ordered}, {one.hash for one in ordered}
    last = max(known, default=-1)
    said = [
        f"decision {number} of this home is missing: its files were deleted, or a backup was restored"
        for number in range(last + 1)
        if number not in known
    ]
    return said + [
        f"decision {one.entry} of this home names another one before it than those that are here"
        for one in ordered
        if one.entry - 1 in known and one.previous not in hashes
    ]


def forks(decisions: Iterable[ModelDecision]) -> list[str]:
    """Return, in sentences, where a party has decided twice as if nothing had been between: no fault, and to be known.

    It happens when a home is restored from a backup, and the copies of later decisions come back.
    """
    counts = Counter(one.entry for one in decisions)
    return [
        f"there are {count} decisions {number} of this home: it was restored from a backup, or copied, in between"
        for number, count in sorted(counts.items())
        if count > 1
    ]
