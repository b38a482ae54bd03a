"""Values of our own types as JSON, and back: for pipes between our processes, and for files that they leave.

A type that forbids unknown keys (`fedcervix.core.plan.STRICT`) is for two programs of one version. Any other type
ignores them, so that a later version may add keys, with a default for texts that lack them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

PLACE_PARTS_MAX = 4
"""of the place that an error names: what lies deeper may be a key that the other side has chosen"""

_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)

_names: Callable[[Any], tuple[str, ...]] = functools.cache(lambda kind: tuple(f.name for f in dataclasses.fields(kind)))


def from_text(kind: type[T], text: str | bytes) -> T:
    """Return the value of a dataclass that a JSON text holds. Raises ValueError, in one line that quotes nothing."""
    try:
        value: T = _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, (getattr(kind, "__name__", kind), *found["loc"][:PLACE_PARTS_MAX])))
        raise ValueError(f"{where}: {found['msg']}") from error
    return value


def from_json(kind: type[T], raw: Any) -> T:
    """Return the value of a dataclass that `dataclasses.asdict` has turned into what JSON can hold.

    A name of a file that is not UTF-8 holds characters that JSON has no form for: they become question marks. Raises
    ValueError, in one line, on anything else: a missing key, a value of another type.
    """
    return from_text(kind, json.dumps(raw, ensure_ascii=False).encode(errors="replace"))


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
    found = {name: from_json(types[name], raw) for name, raw in fields.items() if name in types}
    return dataclasses.replace(value, **found)  # type: ignore[type-var]


def fields_of(value: object) -> dict[str, object]:
    """Return the fields of a dataclass by name, in their order."""
    return {name: getattr(value, name) for name in _names(type(value))}
