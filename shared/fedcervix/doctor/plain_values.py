"""What of a configuration, a plan or a fact names nobody: numbers, yes or no, and words from a list in the source.

The type of a field decides, not its value: an `int`, a `float`, a `bool` and a `Literal` pass. Of any other field only
this passes: whether it is set, and how many values it has. So a field that is added later stays out until its type says
that it cannot name anybody.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
"""as JSON has it"""


def plain(value: object, allowed: Collection[str] = ()) -> dict[str, Plain]:
    """Return the fields of a dataclass, those below it included. `allowed`: texts that a person lets pass."""
    hints = get_type_hints(type(value), include_extras=True)
    fields = dataclasses.fields(value)  # type: ignore[arg-type]
    return {one.name: _plain(hints[one.name], getattr(value, one.name), allowed) for one in fields}


def _plain(hint: Any, value: object, allowed: Collection[str]) -> Plain:
    if value is None or _passes(hint, value):
        return value  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(value, allowed)
    if isinstance(value, tuple) and (of := _element(hint)) is not None:
        return [_plain(of, one, allowed) for one in value] if _is_plain(of) else _counted(value, allowed)
    if isinstance(value, str):
        return value if value in allowed else ("(set)" if value else "(empty)")
    return _counted(value, allowed) if isinstance(value, Collection) else "(set)"


def _counted(values: Collection[object], allowed: Collection[str]) -> Plain:
    if isinstance(values, Mapping):
        return f"({len(values)} entries)"
    told: list[Plain] = [one for one in values if isinstance(one, str) and one in allowed]
    return f"({len(values)} values)" if not told else [*told, f"({len(values) - len(told)} more values)"]


def _passes(hint: Any, value: object) -> bool:
    """Say whether a value is of a type that can name nobody."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _passes(get_args(hint)[0], value)
    if origin in (Union, types.UnionType):
        return any(_passes(one, value) for one in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    return hint in (bool, int, float) and isinstance(value, bool | int | float)


def _is_plain(hint: Any) -> bool:
    """Say whether every value of a type passes, or is a dataclass."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _is_plain(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return all(_is_plain(one) for one in get_args(hint))
    return origin is Literal or hint in (bool, int, float, type(None)) or dataclasses.is_dataclass(hint)


def _element(hint: Any) -> Any:
    """Return of which type the elements of a tuple are; None where they differ."""
    if get_origin(hint) is Annotated:
        return _element(get_args(hint)[0])
    args = get_args(hint)
    return args[0] if get_origin(hint) is tuple and len(args) == 2 and args[1] is Ellipsis else None
