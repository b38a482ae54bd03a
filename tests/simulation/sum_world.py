"""Sites and holders of secure sums in one thread: the real rules, keys and signatures over pretended disks and vectors.

A vector has four numbers. Beside its numbers, each vector that leaves a site carries what it is made of, as a row of
`sum_algebra`: the step of its site, and one unknown mask for each stream. Whoever holds one of the two keys of a stream
knows its mask.

A process is killed at its writes: just before one, or just after it. It begins again with what is on its disk.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fedcervix.core.plan import Average
from fedcervix.errors import RemoteError
from fedcervix.trust.boxes import OwnKey
from fedcervix.trust.contexts import RoundContext, RunContext
from fedcervix.trust.holder_rules import (
    RULES,
    Allowed,
    NotAllowed,
    OwnView,
    Proposal,
    SumRules,
    decide_close,
    decide_free,
    decide_learn,
    decide_opening,
    decide_release,
    decide_roster,
    decide_upload,
    sum_before,
)
from fedcervix.trust.statements import PrivateKey
from fedcervix.trust.sum_closes import SignedClose, signed_close
from fedcervix.trust.sum_lists import (
    SignedRelease,
    SumList,
    mask_secret,
    parts_of,
    signed_release,
)
from fedcervix.trust.sum_memory import Entry, HomeRestored, SumLearned, SumMemory, remembered
from fedcervix.trust.sum_reports import SumReport, commit_nonce, commitment, three_digits
from fedcervix.trust.sum_roster import Opening, PinnedKeys, SumRoster, checked_roster, signed_opening
from tests.simulation.sum_algebra import Row, combined

NUMBERS = 4
LAYOUT = hashlib.sha256(b"four numbers").hexdigest()


def digest(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()


@functools.cache
def identity(name: str) -> PrivateKey:
    """Return the identity key of a name; nobody else's program has it."""
    return ec.derive_private_key(int(digest("identity", name), 16) >> 1, ec.SECP256R1())


@functools.lru_cache(10_000)
def signed_by(name: str, signature: bytes, data: bytes) -> bool:
    """Say whether the owner of a name signed some bytes; the same line is checked by every site, and computed once."""
    try:
        identity(name).public_key().verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True)
class PinnedKey:
    """The public key of a name, as far as anybody uses it."""

    name: str

    def verify(self, signature: bytes, data: bytes, _: object) -> None:
        if not signed_by(self.name, signature, data):
            raise InvalidSignature


def numbers(*parts: object) -> np.ndarray:
    """Return four numbers that are fixed by the rest."""
    return np.frombuffer(hashlib.shake_128(repr(parts).encode()).digest(4 * NUMBERS), np.uint32)


@dataclass(frozen=True)
class Step:
    """What a site learnt in one attempt from one base; `weight` is what it is multiplied by."""

    site: str
    run: str
    round: int
    attempt: int
    base: str
    weight: int


@dataclass(frozen=True)
class Mask:
    """A stream, by the secret that it is made of, and the two public keys of those who know it."""

    secret: bytes
    keys: frozenset[bytes]


@dataclass(frozen=True)
class Vector:
    """Four numbers modulo 2^32, and what they are made of."""

    values: tuple[int, ...]
    row: Row = field(hash=False)

    @classmethod
    def of(cls, unknown: Hashable, values: np.ndarray) -> Vector:
        return cls(tuple(values.tolist()), {unknown: 1})

    def plus(self, other: Vector, factor: int = 1) -> Vector:
        with np.errstate(over="ignore"):
            values = np.array(self.values, np.uint32) + np.uint32(factor % 2**32) * np.array(other.values, np.uint32)
        return Vector(tuple(values.tolist()), combined(self.row, factor, other.row))

    @property
    def digest(self) -> str:
        return digest(*self.values)


NOTHING = Vector((0,) * NUMBERS, {})


def added(vectors: Iterable[Vector]) -> Vector:
    return functools.reduce(Vector.plus, vectors, NOTHING)


def stream(own: OwnKey, roster: SumRoster, context: RoundContext, site: str, holder: str, commit: str) -> Vector:
    """Stand in for AES-CTR: what is simulated is who may know which secret."""
    secret = mask_secret(own, roster, context, site, holder, commit).secret
    keys = frozenset((roster.of(site).key.key, roster.of(holder).key.key))
    return Vector.of(Mask(secret, keys), numbers("stream", secret))


def step_of(step: Step) -> Vector:
    small = numbers("step", step.site, step.run, step.round, step.attempt, step.base) % 1000
    return Vector.of(step, small * np.uint32(step.weight))


@dataclass(frozen=True)
class Terms:
    """What the plan says of the sums."""

    sites: tuple[str, ...]
    holders: tuple[str, ...]
    colluders: int = 0
    average: Average = "equal"
    first_base: str = digest("first model")

    @property
    def digest(self) -> str:
        return digest("plan", self)

    @property
    def is_a_plan(self) -> bool:
        """Say whether a site reads a plan with these terms at all (`core.sum_plan`)."""
        return len(set(self.holders)) > self.colluders


def run_context(run: str, terms: Terms) -> RunContext:
    return RunContext(federation="cervix", run=run, plan=terms.digest)


@functools.lru_cache(10_000)
def first_attempt(run: RunContext, terms: Terms, roster: str, round_: int, base: str, head: str) -> RoundContext:
    return RoundContext(
        run=run,
        sites=len(terms.sites),
        colluders=terms.colluders,
        roster=roster,
        round=round_,
        base=base,
        head=head,
        layout=LAYOUT,
        width=32,
        holders=terms.holders,
    )


class KilledError(Exception):
    """The process is gone."""


class Kills:
    """Kills a process at the given writes, counted over all processes: (number of the write, after it)."""

    def __init__(self, at: Iterable[tuple[int, bool]] = ()) -> None:
        self.at, self.writes, self.done = set(at), 0, 0

    def write(self, disk: list[Entry], entry: Entry) -> None:
        number, self.writes = self.writes, self.writes + 1
        if (number, False) in self.at:
            self.done += 1
            raise KilledError
        disk.append(entry)
        if (number, True) in self.at:
            self.done += 1
            raise KilledError


@dataclass
class Joined:
    """A run at a site: its terms, keys and roster, and the bases and heads that it derived from the sums."""

    terms: Terms
    own: OwnKey
    images: int
    roster: SumRoster | None = None
    bases: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Switches:
    """What a test may break: the rules of the tables, and what is checked outside of them."""

    rules: SumRules = RULES
    pins_count: bool = True
    """H3, of the openings"""
    own_weights: bool = True
    """H3: weights are recomputed from the roster"""
    releases_count: bool = True
    """a sum is known by what its holders signed, not by the coordinator's word"""
    backup_keeps_secrets: bool = False
    """H7"""
    marks_restored: bool = True
    """H7"""
    masks_of: Callable[[RoundContext], RoundContext] = lambda context: context
    """what of a context the masks are bound to"""
    commit_counts: bool = True
    """masks are bound to the vector under them"""


@dataclass
class Site:
    """An honest site, and holder where a plan names it so."""

    name: str
    pins: PinnedKeys
    kills: Kills = field(default_factory=Kills)
    switches: Switches = field(default_factory=Switches)
    disk: list[Entry] = field(default_factory=list)
    runs: dict[str, Joined] = field(default_factory=dict)
    """on its disk too"""
    _recalled: tuple[int, SumMemory] = field(init=False, default=(0, SumMemory()))
    """so many entries of its disk, and what they come to"""

    @property
    def memory(self) -> SumMemory:
        """What the entries on its disk come to."""
        known, memory = self._recalled
        for entry in self.disk[known:]:
            memory = remembered(memory, entry)
        self._recalled = len(self.disk), memory
        return memory

    # --- S0 -----------------------------------------------------------------------------------------------------

    def open(self, run: str, terms: Terms, images: int) -> Opening | None:
        """Sign an opening; None: it has another one for a run of that name, or no part in it any more."""
        has_no_secrets = run in self.memory.openings and run not in self.runs  # they are not in a backup
        if has_no_secrets or not terms.is_a_plan:
            return None
        secret = hashlib.sha256(f"{self.name} {run} run key".encode()).digest()
        joined = self.runs.setdefault(run, Joined(terms, OwnKey(self.name, secret), images))
        rho = hashlib.sha256(f"{self.name} {run} rho".encode()).digest()
        context = run_context(run, joined.terms)
        opening = signed_opening(identity(self.name), context, joined.own, joined.images, rho)
        decision = decide_opening(self.memory, context, opening)
        if isinstance(decision, NotAllowed):
            return None
        self._remember(decision)
        return opening

    def join(self, run: str, openings: Sequence[Opening]) -> bool:
        """Check a roster and keep it; the first one that holds is the only one."""
        joined = self.runs[run]
        if joined.roster is not None:
            return joined.roster.openings == tuple(openings)
        pins = self.pins if self.switches.pins_count else _believed(self.pins, openings)
        try:
            roster = checked_roster(run_context(run, joined.terms), joined.terms.sites, openings, pins)
        except RemoteError:
            return False
        decision = decide_roster(self.memory, self.name, roster)
        if isinstance(decision, NotAllowed):
            return False
        self._remember(decision)
        joined.roster, joined.bases, joined.heads = roster, [joined.terms.first_base], [digest("head", run, 0)]
        return True

    # --- S1 to S4 -----------------------------------------------------------------------------------------------

    def view(self, run: str) -> OwnView:
        joined = self.runs[run]
        assert joined.roster
        terms = joined.terms
        context = first_attempt(
            joined.roster.run, terms, joined.roster.digest, len(joined.bases), joined.bases[-1], joined.heads[-1]
        )
        return OwnView(self.name, self.memory, context, joined.roster, terms.average, self.pins)

    def ready(self, run: str) -> bool:
        return run in self.runs and self.runs[run].roster is not None

    def step(self, proposal: Proposal, weight: int | None = None) -> Step:
        """`weight`: what the coordinator says that it is, where a test breaks that rule."""
        context = proposal.context
        view = self.view(context.run.run)
        own = view.roster.weights(view.average)[self.name]
        if weight is None or self.switches.own_weights:
            weight = own
        return Step(self.name, context.run.run, context.round, context.attempt, context.base, weight)

    def report(self, proposal: Proposal, weight: int | None = None) -> tuple[SumReport, Vector] | NotAllowed:
        """Train, sign, and return what is uploaded."""
        context = proposal.context
        view, joined = self.view(context.run.run), self.runs[context.run.run]
        q = step_of(self.step(proposal, weight))
        nonce = commit_nonce(joined.own.secret, context, q.digest)
        hasher = commitment(nonce)
        hasher.update(q.digest.encode())
        commit = hasher.hexdigest()
        decision = decide_upload(view, proposal, commit, self.switches.rules)
        if isinstance(decision, NotAllowed):
            return decision
        self._remember(decision)
        bound, mine = self.switches.masks_of(context), commit if self.switches.commit_counts else digest("no commit")
        masks = (stream(joined.own, view.roster, bound, self.name, holder, mine) for holder in context.holders)
        y = added([q, *masks])
        figures = {"steps": 10, "norm": three_digits(sum(q.values) / 7), "loss": three_digits(0.123456)}
        report = SumReport(site=self.name, commit=commit, upload=y.digest, before=sum_before(view), **figures)
        return report.signed(identity(self.name), context), y

    def release(self, proposal: Proposal, listed: SumList) -> tuple[SignedRelease, Vector] | NotAllowed:
        context = proposal.context
        view = self.view(context.run.run)
        decision = decide_release(view, proposal, listed, self.switches.rules)
        if isinstance(decision, NotAllowed):
            return decision
        self._remember(decision)
        own, bound = self.runs[context.run.run].own, self.switches.masks_of(context)
        commits = {
            line.site: line.commit if self.switches.commit_counts else digest("no commit") for line in listed.reports
        }
        masks = added(stream(own, view.roster, bound, site, self.name, commit) for site, commit in commits.items())
        return signed_release(identity(self.name), self.name, context, listed, masks.digest), masks

    def close(self, proposal: Proposal, remaining: tuple[str, ...]) -> SignedClose | NotAllowed:
        decision = decide_close(self.view(proposal.context.run.run), proposal, remaining, self.switches.rules)
        if isinstance(decision, NotAllowed):
            return decision
        self._remember(decision)
        return signed_close(identity(self.name), self.name, proposal.context, remaining)

    def free(self, following: Proposal) -> bool:
        """Give the base of a closed round free, as the run has ended."""
        decision = decide_free(self.view(following.context.run.run), following)
        if isinstance(decision, Allowed):
            self._remember(decision)
        return isinstance(decision, Allowed)

    def learn(self, proposal: Proposal, listed: SumList, releases: Sequence[SignedRelease], total: Vector) -> bool:
        """Take the published sum, and derive the next base from it."""
        run = proposal.context.run.run
        view, joined = self.view(run), self.runs[run]
        decision = decide_learn(view, proposal, listed, releases)
        if not self.switches.releases_count and proposal.context == view.context:
            weights = {s: w for s, w in view.roster.weights(view.average).items() if s in listed.sites}
            decision = Allowed(SumLearned(*view.place, view.context.base, parts_of(weights)))
        if isinstance(decision, NotAllowed):
            return False
        self._remember(decision)
        joined.bases.append(digest("model", joined.bases[-1], total.digest))
        joined.heads.append(digest("head", joined.heads[-1], joined.bases[-1]))
        return True

    def _remember(self, decision: Allowed) -> None:
        if decision.entry is not None:
            self.kills.write(self.disk, decision.entry)

    # --- backups ------------------------------------------------------------------------------------------------

    def backup(self) -> Site:
        """Return the home as it is in a backup: without the secrets of its runs."""
        runs = {run: own_copy(joined) for run, joined in self.runs.items()}
        return replace(self, disk=list(self.disk), runs=runs)

    def restored(self, *, with_secrets: bool = False) -> Site:
        """Return the site that goes on with this home. `with_secrets`: it is a copy of the folder, not a backup."""
        keeps = with_secrets or self.switches.backup_keeps_secrets
        marks: list[Entry] = [HomeRestored()] if self.switches.marks_restored else []
        runs = {run: own_copy(joined) for run, joined in self.runs.items()} if keeps else {}
        return replace(self, disk=[*self.disk, *marks], runs=runs)


def own_copy(joined: Joined) -> Joined:
    return replace(joined, bases=list(joined.bases), heads=list(joined.heads))


def _believed(pins: PinnedKeys, openings: Sequence[Opening]) -> PinnedKeys:
    """Stand in for a site that believes the authority: each name has the key that signed its opening."""
    return {opening.site: _Believing() for opening in openings}  # type: ignore[misc,return-value]


class _Believing:
    def verify(self, *_: object) -> None: ...


def sites(names: Iterable[str], kills: Kills | None = None, switches: Switches | None = None) -> dict[str, Site]:
    """Return honest sites that have pinned each other."""
    pins: PinnedKeys = {name: PinnedKey(name) for name in names}  # type: ignore[misc]
    return {name: Site(name, pins, kills or Kills(), switches or Switches()) for name in pins}
