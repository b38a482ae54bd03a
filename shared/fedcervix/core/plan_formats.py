"""The formats of a plan: which key, and which value of a key, came with which format.

Rules
1. A digest never changes. So a text is kept and hashed as it was written, and what it does not say holds for good
   (`Change.before` of a new key): the default of a later version means nothing to an older plan.
2. A plan is written in the lowest format that can say it. A key that came later stands in the text only where its value
   differs from what holds without it. So older versions take part in every plan that they could have made.
3. A version reads every format up to FORMAT. A later format is refused by its number (`UnknownFormat`), whatever else
   the text holds. A known format has no unknown keys.
4. The values of a key may become more. They never become fewer: else an older plan could not be read. Advice against a
   value of a new plan belongs where coordinator.toml is read.

Whoever adds a key, a table or a value that earlier versions refuse, adds a row to CHANGES. A test fails until it is
there (tests/unit/test_plan_formats.py).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_type_hints

from fedcervix.core.bounds import Within
from fedcervix.core.formats import FIRST, KEY, contents
from fedcervix.printable import quoted

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """What plans can say since a format."""

    format: int
    key: str
    """the tables above it, then the name: `clip` of the terms is "terms.clip" """
    before: tuple[Any, ...] | Within
    """what earlier formats could say. Of a new key: the one value that holds where a text says nothing. Of a new table:
    nothing, as each of its keys has a row of its own"""
    is_new: bool = True
    """whether the key itself is new; else it takes more values"""

    @property
    def is_table(self) -> bool:
        """Whether it is a new table, which stands in a text only where one of its keys does."""
        return self.before == ()


CHANGES: Final = (
    # Before the first release, texts of format 1 said nothing of these.
    Change(1, "terms.share_max", (1.0,)),
    Change(1, "terms.aggregation", ("mean",)),
    Change(1, "terms.trim", (0.2,)),
    Change(1, "terms.clip", (0.0,)),
    Change(1, "terms.step_max", (1e36,)),
    Change(2, "terms.sealed", (False,)),
    Change(2, "terms.secure_sum", (False,)),
    Change(2, "terms.holders", ((),)),
    Change(2, "terms.colluders", (0,)),
    Change(3, "recipe.architecture", ("resnet18", "resnet50"), is_new=False),
    Change(3, "recipe.start", ("random", "imagenet"), is_new=False),
    Change(3, "recipe.roi", ("none",)),
    Change(3, "recipe.harmonise", ("none",)),
    Change(3, "recipe.stages", ((),)),
    Change(3, "recipe.positives", ("view",)),
    Change(3, "recipe.augment.colour", ("free",)),
    Change(3, "recipe.classifier.method", ("full",)),
    Change(3, "recipe.classifier.trainings", (1,)),
    Change(3, "recipe.classifier.averaged_epochs", (1,)),
    Change(3, "recipe.classifier.tuned_share", (1.0,)),
    Change(3, "recipe.classifier.labels", ("binary",)),
    Change(3, "recipe.classifier.zone_error", (0.0,)),
)

FORMAT: Final = max(change.format for change in CHANGES)
"""the latest one that this version reads and writes"""


def unsaid(path: str, after: int = 0) -> dict[str, object]:
    """Return what holds where a text says nothing: of the keys directly below `path`, by name; of a table, all of it.

    `after`: of the keys that are later than this format.
    """
    rows = [(row, row.key.rpartition(".")) for row in CHANGES if row.is_new and row.format > after]
    return {name: _holds(row, after) for row, (above, _, name) in rows if above == path}


def _holds(row: Change, after: int) -> Any:
    assert isinstance(row.before, tuple)
    return unsaid(row.key, after) if row.is_table else row.before[0]


def to_dict(value: Any, path: str = "", *, after: int = 0) -> dict[str, object]:
    """Return what the text of a plan says, or of the part of it at `path` (`recipe`), in the lowest format.

    `after`: keys up to this format are said in any case.
    """
    needed = needed_format(value, path)
    whole = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.compare}
    return {**shortest(whole, path, after), **({KEY: needed} if needed > FIRST else {})}


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


def shortest(whole: dict[str, object], path: str, after: int = 0) -> dict[str, object]:
    """Return what of a plan, or of the part of it at `path`, does not hold without it; see `unsaid`."""
    holds = unsaid(path, after)
    return {
        name: shortest(below, _below(path, name), after) if isinstance(below, dict) else below
        for name, below in whole.items()
        if name not in holds or below != holds[name]
    }


def needed_format(value: Any, path: str = "") -> int:
    """Return the lowest format that can say a plan, or the part of it at `path`."""
    rows = (row for row in CHANGES if row.key.startswith(_below(path, "")) and not row.is_table)
    return max((row.format for row in rows if _at(value, row.key, path) not in row.before), default=FIRST)


def _at(value: Any, key: str, path: str) -> Any:
    for name in key.removeprefix(_below(path, "")).split("."):
        value = getattr(value, name)
    return value


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def from_dict(schema: type[T], raw: Any, path: str = "") -> T:
    """Rebuild a plan, or the part of it at `path`, from what `to_dict` returned; also of earlier versions.

    Raises UnknownFormat; ValueError or TypeError on anything else.
    """
    what = f"the {path}" if path else "the plan"
    value = _built(schema, contents(what, raw, FORMAT), path)
    named, needed = raw.get(KEY, FIRST), needed_format(value, path)
    if named < needed:
        raise ValueError(f"{what} names format {named} and says what only format {needed} can say")
    return value


def _built(schema: type[T], raw: Any, path: str) -> T:
    if not isinstance(raw, dict):
        raise TypeError(f"{path} is no object; found {quoted(raw)}")
    said = {**unsaid(path), **raw}
    names = [field.name for field in dataclasses.fields(schema) if field.compare]  # type: ignore[arg-type]
    if unknown := [name for name in raw if name not in names]:
        raise TypeError(f"unknown key {quoted(_below(path, unknown[0]))}")
    if missing := [name for name in names if name not in said]:
        raise TypeError(f"{_below(path, missing[0])} is missing")
    hints = get_type_hints(schema)
    return schema(**{name: _value(hints[name], below, _below(path, name)) for name, below in said.items()})


def _value(hint: Any, raw: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _built(hint, raw, path)  # type: ignore[arg-type]
    return tuple(raw) if isinstance(raw, list) else raw
