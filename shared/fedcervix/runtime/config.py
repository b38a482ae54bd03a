"""TOML files to checked, frozen dataclasses.

An error names file, key, what was expected, what was found, and the nearest known key.

Unknown keys and silent conversions are errors.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_type_hints

from fedcervix import __version__
from fedcervix.core.plan import Recipe, Terms
from fedcervix.core.profiles import PROFILES, Profile
from fedcervix.disk.descriptors import check_used_up
from fedcervix.disk.storage import known
from fedcervix.errors import ConfigError
from fedcervix.json_text import shallow

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")


NOT_SET_UP = "wrong --home, or not set up yet"


def read_toml(path: Path, *, hint: str = "", missing: str = NOT_SET_UP) -> dict[str, object]:
    """Return the content of a TOML file. Raises ConfigError.

    Where the file does not exist, `missing` is the likely cause and `hint` the next command.

    Editors of Windows put a byte order mark before the text: it is dropped.
    """
    try:
        return shallow(tomllib.loads(_text(path, path.read_bytes())))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{path} does not exist", cause=missing, next_step=hint) from error
    except OSError as error:
        check_used_up(f"cannot read {path}", error)
        found = known(error, path, "read")
        raise ConfigError(found.what, cause=found.cause, next_step=found.next_step) from error
    except (ValueError, RecursionError) as error:
        twice = str(error).startswith(("Cannot overwrite", "Cannot declare"))
        raise ConfigError(
            f"{path} is not valid TOML: {str(error)[:200]}",
            cause="the file contains this key or table twice: delete one of the two"
            if twice
            else "a missing quote, bracket or equals sign at that place",
            next_step=f"edit {path}",
        ) from error


UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""how a file begins that Windows calls Unicode"""


def _text(path: Path, content: bytes) -> str:
    """Return a configuration file's text. Raises ConfigError where it is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = "UTF-16" if content.startswith(UTF_16) else "an encoding that is not UTF-8"
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path} is written in {found} (line {line})",
            cause="an editor or a shell of Windows saved it in its own encoding",
            next_step=f"save it as UTF-8 (in Notepad: Save as, Encoding: UTF-8), then try again: {path}",
        ) from error


def build(
    schema: type[T], raw: Mapping[str, object], *, source: Path, section: str = "", page: str = "docs/configuration.md"
) -> T:
    """Return `schema` filled from a TOML table. Raises ConfigError naming file, key, expected, found, nearest key.

    `page` explains the keys.
    """
    from pydantic import ValidationError
    from pydantic_core import to_json  # a file that is not there is complained of without

    try:
        # By way of JSON, because strict validation takes tables for dataclasses and arrays for tuples only there.
        # There `inf` and `nan` are words: no key takes them, and a plan that held one would have no digest.
        text = to_json(raw, inf_nan_mode="strings")
        found: T = _adapter(cast("Hashable", schema)).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        details = error.errors()[:5]
        lines = [_explain(schema, detail, section) for detail in details]
        causes = dict.fromkeys(_CAUSES.get(detail["type"], "a value of the wrong type") for detail in details)
        raise ConfigError(
            "\n".join(f"{source}: {line}" for line in lines),
            cause=" or ".join(causes),
            next_step=f"edit {source} (every key is explained in {page})",
        ) from error
    return found


@cache
def _adapter(schema: Hashable) -> TypeAdapter[Any]:
    """Return what checks a schema: it takes 8 ms to make, and a page reads its configuration again and again."""
    from pydantic import TypeAdapter

    return TypeAdapter(cast("type[Any]", schema))


_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_MISSING = ("missing", "missing_argument")
_CAUSES = {
    **dict.fromkeys(
        _UNKNOWN,
        "a misspelt key, one that belongs to another table, or one of a later version of fedcervix"
        f" (this is {__version__})",
    ),
    **dict.fromkeys(_MISSING, "a key that was deleted or misspelt"),
    "value_error": "a value that the key does not accept",
}
"""by pydantic's kind of error"""


def apply_profile(name: object, recipe: Mapping[str, object], terms: Mapping[str, object], *, source: Path) -> Profile:
    """Return the named profile with single keys overridden. Raises ConfigError."""
    if not (isinstance(name, str) and name in PROFILES):
        near = _nearest(str(name), list(PROFILES))
        raise ConfigError(
            f"{source}: profile must be one of {', '.join(PROFILES)}; found {name!r}{near}", next_step=f"edit {source}"
        )
    start = PROFILES[name]
    return Profile(
        build(Recipe, _override(dataclasses.asdict(start.recipe), recipe), source=source, section="recipe"),
        build(Terms, _override(dataclasses.asdict(start.terms), terms), source=source, section="terms"),
    )


def _override(defaults: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return defaults overridden by the given keys, table by table; unknown keys stay, to be reported later."""
    merged = dict(defaults)
    for key, value in given.items():
        below = merged.get(key)
        merged[key] = _override(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _explain(schema: type, detail: ErrorDetails, section: str) -> str:
    key = ".".join([section, *map(str, detail["loc"])] if section else map(str, detail["loc"]))
    if detail["type"] in _UNKNOWN:
        return f"unknown key `{key}`{_nearest(str(detail['loc'][-1]), _keys(schema, detail['loc'][:-1]))}"
    if detail["type"] in _MISSING:
        return f"key `{key}` is missing"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if detail["type"] == "value_error":  # of a dataclass's own checks: they name the key and what was found
        return f"{key}.{message}" if key else message
    return f"{key}: expected {message}; found {_found(detail)}"


def _found(detail: ErrorDetails) -> str:
    """Return a value of the wrong kind as it is shown; a number that is written as a text is called so."""
    value, wants_number = detail["input"], detail["type"] in ("int_type", "float_type", "bool_type")
    if wants_number and isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?|true|false", value):
        return f'the text "{value}": remove the quotation marks'
    return repr(value)


def _keys(schema: Any, path: Sequence[int | str]) -> list[str]:
    for part in path:  # a number leads into an array of tables
        schema = get_args(schema)[0] if isinstance(part, int) else get_type_hints(schema).get(str(part))
    return [field.name for field in dataclasses.fields(schema)] if dataclasses.is_dataclass(schema) else []


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean `{close[0]}`?)" if close else f" (known: {', '.join(known)})"
