"""What a format can say, written down for good: tests/golden/NAME-format-NUMBER.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest

GOLDEN = Path(__file__).parents[1] / "golden"
NEEDED = "it must be said"


def written_down(name: str) -> dict[int, Any]:
    """Return what each format can say, by its number."""
    files = GOLDEN.glob(f"{name}-format-*.json")
    return {int(file.stem.rpartition("-")[2]): json.loads(file.read_text()) for file in files}


def check_written_down(name: str, number: int, now: Any, config: pytest.Config) -> None:
    """Compare what the code's newest format can say with what was written down; with --rewrite, write a new format."""
    file = GOLDEN / f"{name}-format-{number}.json"
    if config.getoption("--rewrite") and not file.exists():
        file.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    assert sorted(written_down(name)) == list(range(1, number + 1)), f"give this test --rewrite: it writes {file.name}"
    assert json.loads(file.read_text()) == now, (
        f"another format begins here: raise its number; or, where {number} was never released, delete {file.name} and "
        "give this test --rewrite"
    )


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return what a text without a field means, as JSON has it."""
    if field.default is not dataclasses.MISSING:
        return json.loads(json.dumps(field.default, default=sorted))
    return NEEDED if field.default_factory is dataclasses.MISSING else field.default_factory()


def with_values(kind: type, leave_out: tuple[type, ...] = ()) -> Iterator[type]:
    """Yield a dataclass, then those of the values in it, each once."""
    found, waiting = {kind}, [kind]
    while waiting:
        yield (one := waiting.pop(0))
        for below in sorted(_dataclasses(tuple(get_type_hints(one).values())), key=lambda below: below.__name__):
            if below not in found and below not in leave_out:
                found.add(below)
                waiting.append(below)


def _dataclasses(hint: Any) -> set[type]:
    if isinstance(hint, tuple):
        return {one for below in hint for one in _dataclasses(below)}
    own = {hint} if dataclasses.is_dataclass(hint) and isinstance(hint, type) else set()
    return own | _dataclasses(tuple(one for one in get_args(hint) if one is not NoneType))
