"""What a key of a plan or a configuration may be: one of some words, a digest, or a number between two bounds.

A key is one line of its dataclass: name, allowed values, default. So the dataclass is the table that the checks, the
documents (by a test) and other users read:

    head: Literal["relu", "linear", "mlp"] = "relu"
    width: Annotated[int, Within(1, 4096)] = 64
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fedcervix.printable import quoted

DIGEST = re.compile(r"[0-9a-f]{64}")
"""SHA-256 in lower-case hexadecimal: the name of a blob and of a model"""
INT64_MAX = 2**63 - 1
FLOAT_MAX = 1e300
"""a whole number that stands for a fraction is no longer"""
WORDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


@dataclass(frozen=True, slots=True)
class Within:
    """The numbers from `least`, or above `above`, to `most`, or below `below`; and those of `also`."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    also: tuple[float | None, ...] = ()
    """None: the key may be left out"""

    def __contains__(self, value: float | None) -> bool:
        if value is None or value in self.also:
            return value in self.also
        ends = (
            self.least is None or self.least <= value,
            self.most is None or value <= self.most,
            self.above is None or self.above < value,
            self.below is None or value < self.below,
        )
        return all(ends)

    def __str__(self) -> str:
        low = f"above {_shown(self.above)}" if self.least is None else _shown(self.least)
        if self.below is not None:
            high = f" {'and' if self.least is None else 'to'} below {_shown(self.below)}"
        elif self.most is not None:
            high = f", at most {_shown(self.most)}" if self.least is None else f" to {_shown(self.most)}"
        else:
            high = "" if self.least is None else " or more"
        return "".join([*(f"{_shown(one)} or " for one in self.also if one is not None), low, high])


@dataclass(frozen=True, slots=True)
class OrDigest:
    """Some words, or the SHA-256 of a model's weights file."""

    words: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.words or DIGEST.fullmatch(value) is not None

    def __iter__(self) -> Iterator[str]:
        yield from (*self.words, "a digest")

    def __str__(self) -> str:
        return f"{', '.join(self.words)} or the SHA-256 of a model"


Values = Within | OrDigest | tuple[str, ...]
"""what a key may be"""


def _shown(number: float | None) -> str:
    if number == INT64_MAX:
        return "2^63 - 1"
    return str(number) if isinstance(number, int) else f"{number:g}".replace("e+", "e")


@cache
def allowed(schema: type) -> dict[str, Values]:
    """Return what the keys of a dataclass may be: bounds of a number, or words. Other keys are left out."""
    hints = get_type_hints(schema, include_extras=True)
    return {field.name: found for field in dataclasses.fields(schema) if (found := _allowed(hints[field.name]))}


def _allowed(hint: Any) -> Values | None:
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((bound for bound in getattr(hint, "__metadata__", ()) if isinstance(bound, Within | OrDigest)), None)


@cache
def _types(schema: type) -> dict[str, tuple[type, ...]]:
    """Return the types of those keys that are numbers, truth values or texts."""
    hints = get_type_hints(schema)
    parts = {field.name: get_args(hints[field.name]) or (hints[field.name],) for field in dataclasses.fields(schema)}
    return {key: found for key, found in parts.items() if set(found) <= {*WORDS, type(None)}}


def _check_types(value: Any) -> None:
    """JSON and TOML tell numbers, truth values and texts apart, and whoever computes with one relies on it."""
    for key, types in _types(value.__class__).items():
        found = getattr(value, key)
        whole = type(found) is int and float in types and abs(found) <= FLOAT_MAX
        if type(found) not in types and not whole:
            words = " or ".join(WORDS[one] for one in types if one in WORDS)
            raise ValueError(f"{key} must be {words}; found {quoted(found)}")


def check_values(value: Any) -> None:
    """Check every key of a dataclass. Raises ValueError, which names the key, what is allowed and what was found."""
    _check_types(value)
    for key, values in allowed(value.__class__).items():
        found = getattr(value, key)
        if found not in values:
            raise ValueError(f"{key} must be {_words(values)}; found {_found(values, found)}")


def _words(values: Values) -> str:
    return f"one of {', '.join(values)}" if isinstance(values, tuple) else str(values)


def _found(values: Values, found: object) -> str:
    return str(found) if isinstance(values, Within) else quoted(found)
