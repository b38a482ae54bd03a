"""How much federations have had of this site in the last 30 days, and whether the policy allows more.

One small file in the home, written whole: for each day the runs that were opened, the rounds and epochs that were
trained, and the bytes of models that were sent. It is written before the work begins or the bytes leave, so a killed
process can make the count too high and never too low; bytes that did not leave are given back. A power cut may cost
the last seconds, or the file.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from fedcervix.core.formats import contents
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import read_kept
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json
from site_agent.home import Policy

MONTH_DAYS = 30
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Spent:
    """What federations had of this site."""

    runs: int = 0
    rounds: int = 0
    epochs: int = 0
    bytes: int = 0
    """of models that were sent"""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is not a count: {value!r}")

    def __add__(self, other: Spent) -> Spent:
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return Spent(*(a + b for a, b in zip(mine, others, strict=True)))


NOTHING = Spent()
Days = dict[date, Spent]


def month(days: Days, today: date) -> Spent:
    """Return what was spent in the last 30 days; a day that lies ahead, by a clock that was wrong, counts too."""
    first = today - timedelta(days=MONTH_DAYS - 1)
    return sum((spent for day, spent in days.items() if day >= first), NOTHING)


def objections(policy: Policy, so_far: Spent, more: Spent) -> list[str]:
    """Return which monthly limits would be exceeded if this much more was spent."""
    after, found = so_far + more, []
    for name in ("runs", "rounds", "epochs"):
        total, most = getattr(after, name), getattr(policy, f"{name}_per_month")
        if getattr(more, name) and total > most:
            would = f"with this task it would be {total} {name} in {MONTH_DAYS} days"
            found.append(f"{would}; [policy] {name}_per_month is {most}")
    if more.bytes and after.bytes > policy.upload_gib_per_month * GIB:
        most = policy.upload_gib_per_month
        total = f"{after.bytes / GIB:.2f} GiB sent in {MONTH_DAYS} days"
        found.append(f"with this task it would be {total}; [policy] upload_gib_per_month is {most}")
    return found


def read(file: Path) -> Days:
    """Return what was spent on each day. Raises StorageError."""
    next_step = f"delete it: rm {file}; the limits of [policy] per month then start again from zero"
    return read_kept(file, _parsed, missing={}, next_step=next_step)


def _parsed(content: bytes) -> Days:
    return from_json(dict[date, Spent], contents("the account", parsed(content.strip(b"\0") or b"{}")))


def spend(file: Path, policy: Policy, more: Spent, now: datetime | None = None) -> list[str]:
    """Write down that more is spent, or return why the policy does not allow it. Raises StorageError."""
    days, today = read(file), (now or datetime.now(UTC)).date()
    if against := objections(policy, month(days, today), more):
        return against
    days[today] = days.get(today, NOTHING) + more
    _write(file, days, today)
    return []


def give_back(file: Path, size_bytes: int, now: datetime | None = None) -> None:
    """Write down that bytes that were counted today did not leave. Raises StorageError."""
    days, today = read(file), (now or datetime.now(UTC)).date()
    spent = days.get(today, NOTHING)
    days[today] = dataclasses.replace(spent, bytes=max(0, spent.bytes - size_bytes))
    _write(file, days, today)


def _write(file: Path, days: Days, today: date) -> None:
    first = today - timedelta(days=MONTH_DAYS - 1)
    kept = {day.isoformat(): dataclasses.asdict(spent) for day, spent in sorted(days.items()) if day >= first}
    write_whole(file, json.dumps(kept, indent=1, allow_nan=False).encode(), sync=False)
