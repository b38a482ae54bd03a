"""What has left this site, by its egress ledger: whether the ledger holds, and what it says of each run.

Nothing of a file is believed: a chain that does not hold, or an entry without what its kind needs, is a ValueError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fedcervix.core.plan import check
from fedcervix.trust.chain import End, Values, read
from site_agent.store.egress import EGRESS

JOINING = "enrol"
CLOCKS_S = 3600.0
"""how far the clocks of a site and of its coordinator may be apart"""


@dataclass(frozen=True, slots=True)
class Departure:
    """One thing that left, or may have left."""

    entry: int
    kind: str
    at: float
    """Unix seconds"""
    to: str
    bytes: int
    """that left; of a model, in this call"""
    is_exact: bool = True
    """False: at most so many. A process was killed meanwhile, or small messages were announced together"""
    what: str = ""
    digest: str = ""
    record: str = ""
    """SHA-256 of what the site has signed with a report"""
    head: int = -1
    """of a report: the round of the last head that this site had checked; -1: none"""
    key: str = ""
    """of a request: the fingerprint of the key"""
    run: str = ""
    task: str = ""
    """in words; empty where it is of none"""
    reaches: tuple[int, int, int] = (0, 0, 0)
    """of a model: from which byte, to which one, of how many"""


@dataclass(frozen=True, slots=True)
class RunAccount:
    """What left for one run; for none where `run` is empty."""

    run: str
    departures: tuple[Departure, ...]

    def of(self, kind: str) -> tuple[Departure, ...]:
        """Return those of a kind."""
        return tuple(one for one in self.departures if one.kind == kind)

    @property
    def models(self) -> Mapping[str, bool]:
        """By digest, the models of which something left; True where each byte of it did, in one call or in several."""
        parts: dict[str, list[tuple[int, int, int]]] = {}
        for one in self.of("model"):
            parts.setdefault(one.digest, []).append(one.reaches)
        return {digest: _is_whole(found) for digest, found in parts.items()}

    @property
    def reports(self) -> Mapping[str, int]:
        """By kind, how many reports left."""
        return Counter(one.what for one in self.of("report"))


@dataclass(frozen=True, slots=True)
class Egressed:
    """A whole egress ledger that holds."""

    end: End = field(default_factory=End)
    departures: tuple[Departure, ...] = ()

    def never_had(self, key: str, begun_at: float) -> bool:
        """Say whether this home has never had a key (its fingerprint), and was a site's before a run began.

        `begun_at`: when the run began, by the coordinator's clock. Where this ledger does not begin with the joining,
        nobody knows.
        """
        requests = [one for one in self.departures if one.kind == "request"]
        if not requests or requests[0].entry != 0 or requests[0].what != JOINING:
            return False
        return requests[0].at + CLOCKS_S < begun_at and key not in {one.key for one in requests}

    def runs(self) -> list[RunAccount]:
        """Return the account of each run, in the order in which they began; what is of none comes first."""
        names = dict.fromkeys(("", *(one.run for one in self.departures)))
        accounts = (RunAccount(run, tuple(one for one in self.departures if one.run == run)) for run in names)
        return [account for account in accounts if account.departures]


def egressed(texts: Sequence[str], known: Mapping[int, str] | None = None) -> Egressed:
    """Return what an egress ledger says. `known`: hashes of its ends that partners have, by the number of entries.

    Raises ValueError that names the first entry that does not hold.
    """
    known = known or {}
    most = max(known, default=0)
    end = End(len(texts), EGRESS.hash(texts[-1])) if texts else End()
    if most > len(texts):
        end = End(most, known[most])
    if fault := EGRESS.fault(texts, end, known):
        raise ValueError(str(fault))
    found: dict[int, Departure] = {}
    for number, values in enumerate(map(read, texts)):
        try:
            _take(found, number, values)
        except (ValueError, KeyError) as error:
            raise ValueError(f"entry {number} does not hold: {error}") from error
    return Egressed(end, tuple(found.values()))


def _take(found: dict[int, Departure], number: int, values: Values) -> None:
    if values.get("kind") != "left":
        found[number] = _departure(number, values)
        return
    of, left = _whole(values, "of"), _whole(values, "bytes")
    start, _, size = found[of].reaches
    check(found[of].kind == "model" and not found[of].is_exact and left <= size - start, "it ends no model's upload")
    found[of] = _ended(found[of], left)


def _ended(model: Departure, left: int) -> Departure:
    start, _, size = model.reaches
    return replace(model, bytes=left, is_exact=True, reaches=(start, start + left, size))


def _departure(number: int, values: Values) -> Departure:
    kind, task, size = _text(values, "kind"), values.get("task"), _whole(values, "bytes")
    start = _whole(values, "from") if kind == "model" else 0
    check(start <= size, "it begins after its end")
    return Departure(
        entry=number,
        kind=kind,
        at=float.fromhex(_text(values, "at")),
        to=_text(values, "to"),
        bytes=size - start,
        is_exact=kind not in ("model", "talk"),
        what=str(values.get("what", "")),
        digest=str(values.get("digest", "")),
        record=str(values.get("record", "")),
        key=str(values.get("key", "")),
        head=_whole(values, "head") if "head" in values else -1,
        run=str(values.get("run", "")),
        task=f"{task.get('kind')} {task.get('round')}" if isinstance(task, dict) else "",
        reaches=(start, size, size) if kind == "model" else (0, 0, 0),
    )


def _is_whole(parts: Iterable[tuple[int, int, int]]) -> bool:
    done = 0
    for start, end, size in sorted(parts):
        if start > done:
            return False
        done = max(done, end)
        if done == size:
            return True
    return False


def _text(values: Values, name: str) -> str:
    found = values.get(name)
    check(isinstance(found, str), f"it has no {name}")
    return str(found)


def _whole(values: Values, name: str) -> int:
    found = values.get(name)
    if type(found) is not int or found < 0:
        raise ValueError(f"it has no {name}")
    return found
