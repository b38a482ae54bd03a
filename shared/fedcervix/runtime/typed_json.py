"""Values of our own types as JSON, and back: for pipes between our processes, and for files that they leave."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


def from_json(kind: type[T], raw: Any) -> T:
    """Return the value of a dataclass that `dataclasses.asdict` has turned into what JSON can hold.

    A name of a file that is not UTF-8 holds characters that JSON has no form for: they become question marks. Raises
    ValueError, in one line, on anything else: a missing or unknown key, a value of another type.
    """
    try:
        text = json.dumps(raw, ensure_ascii=False).encode(errors="replace")
        value: T = _adapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, (kind.__name__, *found["loc"])))
        raise ValueError(f"{where}: {found['msg']}") from error
    return value
