"""A chain of entries: each holds the hash of the one before, so the hash of the last one stands for all of them.

Rules
1. An entry is one line of text: a JSON object in ASCII, with sorted keys. Keys occur once. A whole number is below 2^53
   in size. A real number is a text, in hexadecimal (`real`).
2. What is stored is what is hashed. An entry is never written again in order to check it.
3. `entry` is the number of an entry, from 0. `previous` is the hash of the entry before; that of entry 0 is `NOTHING`.
4. The hash covers a tag, which says what chain it is, and the text. Each is written with its length (a netstring,
   https://cr.yp.to/proto/netstrings.txt), so no two inputs give the same bytes.

docs/ledger.md describes the format for those who write another verifier.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from fedcervix.core.plan import check
from fedcervix.json_text import parsed
from fedcervix.trust.statements import digest_of

Value = str | int | bool | None | Sequence["Value"] | Mapping[str, "Value"]
Values = Mapping[str, Value]

INTEGER_MAX = 2**53 - 1
"""every reader of JSON knows a whole number up to here"""
TEXT_CHARS_MAX = 2**20
"""of one entry"""
NOTHING = "0" * 64
"""the hash before the first entry"""
LINKS = ("entry", "previous")
"""keys that `append` writes"""


@dataclass(frozen=True, slots=True)
class End:
    """Where a chain ends: how many entries it has, and the hash of the last one."""

    entries: int = 0
    hash: str = NOTHING


class Why(StrEnum):
    """What is wrong with an entry."""

    CHANGED = "was changed"
    MISSING = "is missing"
    MOVED = "does not stand in its place"
    CUT_OFF = "is missing, and so are those after it"
    SURPLUS = "is more than was signed"
    REWRITTEN = "was changed, or entries before it: they do not give the hash that the coordinator signed"


@dataclass(frozen=True, slots=True)
class Fault:
    """The first entry of a chain that does not hold, and why."""

    entry: int
    why: Why

    def __str__(self) -> str:
        return f"entry {self.entry} {self.why}"


def text_of(values: Values) -> str:
    """Return the text of values. Raises ValueError where `read` could not read it back; a float must be `real`."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    read(text)
    return text


def real(number: float) -> str:
    """Return a real number as it stands in an entry."""
    return float(number).hex()


def is_same(one: Value, other: Value) -> bool:
    """Say whether two values are written in the same way; to Python, `True` and 1 are equal."""
    if type(one) is type(other) and isinstance(one, str | int):
        return one == other
    return json.dumps(one, sort_keys=True, allow_nan=False) == json.dumps(other, sort_keys=True, allow_nan=False)


@functools.lru_cache(maxsize=16)
def read(text: str) -> Values:
    """Return the values of a text. Raises ValueError where it is not written by rule 1.

    Those who write, check and replay an entry ask one after the other for the same text. Nobody changes the values.
    """
    check(text.isascii() and text.isprintable(), "it is not printable ASCII")
    check(len(text) <= TEXT_CHARS_MAX, f"it is longer than {TEXT_CHARS_MAX} characters")
    found = parsed(text, object_pairs_hook=_once, parse_int=_whole, parse_float=_refused, parse_constant=_refused)
    check(isinstance(found, dict), "it is no object")
    return cast(Values, found)


def _once(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    names = [name for name, _ in pairs]
    check(names == sorted(set(names)), "its keys are not sorted, or one occurs twice")
    return dict(pairs)


def _whole(digits: str) -> int:
    number = int(digits)
    check(abs(number) <= INTEGER_MAX, "a whole number is too large")
    return number


def _refused(text: str) -> Any:
    raise ValueError(f"it holds {text}: a real number is a text here")


@dataclass(frozen=True, slots=True)
class Chain:
    """A kind of chain. The functions are those of every chain; the tag keeps the kinds apart."""

    tag: str

    def hash(self, text: str) -> str:
        """Return the hash of an entry, in lower-case hexadecimal."""
        return digest_of(self.tag, text)

    def append(self, end: End, values: Values) -> tuple[str, End]:
        """Return the text of the entry that follows, and where the chain then ends. Raises ValueError."""
        check(not set(LINKS) & set(values), f"{' and '.join(LINKS)} are written here")
        text = text_of({**values, "entry": end.entries, "previous": end.hash})
        return text, End(end.entries + 1, self.hash(text))

    def follow(self, end: End, text: str) -> tuple[Values, End]:
        """Return the values of an entry, and where the chain ends with it. Raises ValueError if it does not follow."""
        values = read(text)
        check(values.get("entry") == end.entries, f"entry {end.entries} was expected")
        check(values.get("previous") == end.hash, "it does not follow the entry before")
        return values, End(end.entries + 1, self.hash(text))

    def fault(self, lines: Sequence[str], end: End, known: Mapping[int, str] | None = None) -> Fault | None:
        """Return the first entry that does not hold; None where all do, and they lead to `end`.

        `known`: hashes of earlier ends of the chain, by their number of entries. Without them, entries that were
        rewritten one after the other are found at the end only.
        """
        now, known = End(), known or {}
        for place, text in enumerate(lines):
            try:
                _, now = self.follow(now, text)
            except ValueError:
                return self._diagnosed(lines, place, now, end)
            if now.entries == end.entries and now.hash != end.hash:
                return Fault(place, Why.REWRITTEN if known else Why.CHANGED)
            if now.hash != known.get(now.entries, now.hash):
                return Fault(place, Why.REWRITTEN)
        if len(lines) < end.entries:
            return Fault(len(lines), Why.CUT_OFF)
        return Fault(end.entries, Why.SURPLUS) if len(lines) > end.entries else None

    def _diagnosed(self, lines: Sequence[str], place: int, before: End, end: End) -> Fault:
        """Return what is wrong where an entry does not follow the one before."""
        number, previous = _links(lines[place])
        if number is None or previous == before.hash:  # then it is only the number that is wrong
            return Fault(place, Why.CHANGED)
        if number == place:
            after = _links(lines[place + 1])[1] if place + 1 < len(lines) else end.hash
            stands = place > 0 and after == self.hash(lines[place])
            return Fault(place - 1 if stands else place, Why.CHANGED)
        elsewhere = number < place or any(_links(text)[0] == place for text in lines[place + 1 :])
        return Fault(place, Why.MOVED if elsewhere else Why.MISSING)


def _links(text: str) -> tuple[int | None, str]:
    """Return the number of an entry, and the hash of the one before; None where it cannot be read."""
    try:
        values = read(text)
    except ValueError:
        return None, ""
    number, previous = values.get("entry"), values.get("previous")
    return (number, previous) if type(number) is int and isinstance(previous, str) else (None, "")
