"""Values of our own types as JSON, and back: for pipes between our processes, and for files that they leave.

Two programs of one version know each other's keys: an unknown one is refused (`from_json`). A text that was stored or
sent may be of a later version, which may add keys: it is read with `extra="ignore"`. A new key has a default for texts
that lack it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
Extra = Literal["ignore", "forbid"]

PLACE_PARTS_MAX = 4
"""of the place that an error names: what lies deeper may be a key that the other side has chosen"""

_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)

_names: Callable[[Any], tuple[str, ...]] = functools.cache(lambda kind: tuple(f.name for f in dataclasses.fields(kind)))


def from_text(kind: type[T], text: str | bytes, *, extra: Extra = "ignore") -> T:
    """Return the value of a dataclass that a JSON text holds; `extra`: what becomes of keys that are not known.

    Raises ValueError, in one line that quotes nothing.
    """
    try:
        value: T = _adapter(kind).validate_json(text, strict=True, extra=extra)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, (getattr(kind, "__name__", kind), *found["loc"][:PLACE_PARTS_MAX])))
        raise ValueError(f"{where}: {found['msg']}") from error
    return value


def from_json(kind: type[T], raw: Any, *, extra: Extra = "forbid") -> T:
    """Return the value of a dataclass that `dataclasses.asdict` has turned into what JSON can hold.

    A name of a file that is not UTF-8 holds characters that JSON has no form for: they become question marks. Raises
    ValueError, in one line, on anything else: a missing or unknown key, a value of another type.
    """
    return from_text(kind, json.dumps(raw, ensure_ascii=False).encode(errors="replace"), extra=extra)


def to_text(value: object, **style: Any) -> str:
    """Return a value as JSON, the dataclasses in it as objects; `style` is that of `json.dumps`.

    Raises ValueError where a number in it is not finite.
    """
    return json.dumps(value, default=fields_of, allow_nan=False, **style)


def replaced(value: T, fields: Mapping[str, object]) -> T:
    """Return a dataclass in which some fields have the values that JSON gives; others than its own are ignored.

    Raises ValueError where a value is of another type.
    """
    types = get_type_hints(type(value), include_extras=True)
    found = {name: from_json(types[name], raw, extra="ignore") for name, raw in fields.items() if name in types}
    return dataclasses.replace(value, **found)  # type: ignore[type-var]


def fields_of(value: object) -> dict[str, object]:
    """Return the fields of a dataclass by name, in their order."""
    return {name: getattr(value, name) for name in _names(type(value))}
