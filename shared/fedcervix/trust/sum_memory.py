"""What a home remembers of secure sums, over all its runs: entries of its journal, and what they come to.

An entry is on the disk before the site or holder does what it says. A site that was killed in between finds the entry,
and does the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

OPEN = "open"
"""of a base: this site uploaded a vector for it, and knows neither the sum nor that there will be none"""


@dataclass(frozen=True, slots=True)
class OpeningMade:
    """The site signed its opening of a run."""

    run: str
    opening: str
    """digest"""


@dataclass(frozen=True, slots=True)
class RosterJoined:
    """The site checked the roster of a run."""

    run: str
    roster: str
    """digest"""


@dataclass(frozen=True, slots=True)
class VectorReported:
    """The site signed the report of its vector."""

    run: str
    round: int
    base: str
    context: str
    commit: str


@dataclass(frozen=True, slots=True)
class MasksReleased:
    """The holder released its masks for a list."""

    run: str
    round: int
    base: str
    context: str
    listed: str
    parts: str


@dataclass(frozen=True, slots=True)
class AttemptClosed:
    """The holder closed an attempt."""

    run: str
    round: int
    base: str
    context: str
    remaining: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SumLearned:
    """The site verified the sum of a round, and knows what is in it."""

    run: str
    round: int
    base: str
    parts: str


@dataclass(frozen=True, slots=True)
class BaseFreed:
    """The last attempt of a round was closed, and the run has ended: the site's vector for this base is in no sum."""

    run: str
    round: int
    base: str


@dataclass(frozen=True, slots=True)
class HomeRestored:
    """The home was restored from a backup, or is a copy: what it did since is not in it."""


@dataclass(frozen=True, slots=True)
class BaseVouched:
    """A first model was in no sum before: a person says so after a restore, or it was made from the run's roster."""

    base: str


Entry = (
    OpeningMade
    | RosterJoined
    | VectorReported
    | MasksReleased
    | AttemptClosed
    | SumLearned
    | BaseFreed
    | HomeRestored
    | BaseVouched
)


@dataclass(frozen=True, slots=True)
class RoundMemory:
    """What a home has done in one round."""

    base: str
    reported: tuple[tuple[str, str], ...] = ()
    """(context, commit), one for each attempt"""
    closed: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(context, remaining holders)"""
    released: tuple[str, str] | None = None
    """(context, list)"""

    @property
    def contexts(self) -> set[str]:
        """The contexts in which it signed anything."""
        return {context for context, _ in (*self.reported, *self.closed)} | set((self.released or ())[:1])


Place = tuple[str, int]
"""run and round"""


@dataclass(frozen=True, slots=True)
class SumMemory:
    """What all entries come to."""

    openings: dict[str, str] = field(default_factory=dict)
    rosters: dict[str, str] = field(default_factory=dict)
    rounds: dict[Place, RoundMemory] = field(default_factory=dict)
    uses: dict[str, Mapping[Place, str]] = field(default_factory=dict)
    """by base: the rounds in which it was used, each with the parts of its sum, or OPEN"""
    barred: frozenset[str] = frozenset()
    """runs in which this home takes no part any more"""
    restored: bool = False
    """it may have forgotten bases"""
    vouched: frozenset[str] = frozenset()
    """first models that were in no sum, since the last restore"""

    def used_elsewhere(self, base: str, place: Place) -> set[str]:
        """Return the parts of all other sums over a base; OPEN is among them for a sum that is not known."""
        return {parts for other, parts in self.uses.get(base, {}).items() if other != place}


def remembered(memory: SumMemory, entry: Entry) -> SumMemory:
    """Return the memory with one more entry."""
    own = replace(
        memory,
        openings=dict(memory.openings),
        rosters=dict(memory.rosters),
        rounds=dict(memory.rounds),
        uses=dict(memory.uses),
    )
    return _noted(own, entry)


def recalled(entries: Iterable[Entry]) -> SumMemory:
    """Return what a home's entries come to, in time that grows as their number."""
    memory = SumMemory()
    for entry in entries:
        memory = _noted(memory, entry)
    return memory


def _noted(memory: SumMemory, entry: Entry) -> SumMemory:
    """Return a memory with one more entry. The tables of the one before are used up: they become those of the new."""
    return _FOLDS[type(entry)](memory, entry) or memory


_Acted = VectorReported | MasksReleased | AttemptClosed


def _acted(memory: SumMemory, entry: _Acted) -> None:
    place = (entry.run, entry.round)
    before = memory.rounds.get(place, RoundMemory(entry.base))
    match entry:
        case VectorReported():
            after = replace(before, reported=(*before.reported, (entry.context, entry.commit)))
            _used(memory, entry, OPEN)
        case MasksReleased():
            after = replace(before, released=(entry.context, entry.listed))
            _used(memory, entry, entry.parts)
        case AttemptClosed():
            after = replace(before, closed=(*before.closed, (entry.context, entry.remaining)))
    memory.rounds[place] = after


def _used(memory: SumMemory, entry: _Acted | SumLearned, parts: str) -> None:
    memory.uses[entry.base] = {**memory.uses.get(entry.base, {}), (entry.run, entry.round): parts}


def _freed(memory: SumMemory, entry: BaseFreed) -> None:
    place = (entry.run, entry.round)
    memory.uses[entry.base] = {other: parts for other, parts in memory.uses[entry.base].items() if other != place}


def _restored(memory: SumMemory, _: HomeRestored) -> SumMemory:
    return replace(memory, barred=memory.barred | memory.openings.keys(), restored=True, vouched=frozenset())


_FOLDS: Mapping[type, Callable[[SumMemory, Any], SumMemory | None]] = {
    OpeningMade: lambda memory, entry: memory.openings.update({entry.run: entry.opening}),
    RosterJoined: lambda memory, entry: memory.rosters.update({entry.run: entry.roster}),
    VectorReported: _acted,
    MasksReleased: _acted,
    AttemptClosed: _acted,
    SumLearned: lambda memory, entry: _used(memory, entry, entry.parts),
    BaseFreed: _freed,
    HomeRestored: _restored,
    BaseVouched: lambda memory, entry: replace(memory, vouched=memory.vouched | {entry.base}),
}
