"""Four sites of a run with secure sums, with real homes, keys and files; between them a coordinator of a few lines.

There is no wire: what one of them says is given to the other as it is. A site can be killed at each of its writes into
the journal, just before one or just after it; then a new process begins on its home.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from fedcervix.core.plan import Plan, Terms
from fedcervix.models.blobs import BlobStore
from fedcervix.models.secure_sums import open_sum
from fedcervix.models.weights import read_layout, read_tensors, write_tensors
from fedcervix.trust.contexts import RunContext
from fedcervix.trust.ledger_run import KnownRound
from fedcervix.trust.sum_lists import SignedRelease, SumList
from fedcervix.trust.sum_memory import Entry
from fedcervix.trust.sum_papers import AttemptShown, Closing
from fedcervix.trust.sum_reports import SumReport
from site_agent.federation.sum_site import SigningSite, SumSite, TrainedUpdate
from site_agent.home import SiteHome
from site_agent.store.run_secrets import RunSecrets, SecretsFile
from site_agent.store.sum_journal import SumJournal
from tests.unit.sites import plan_of

Answer = TypeVar("Answer")

NAMES = ("a", "b", "c", "d")
HOLDERS = ("a", "b")
IMAGES = {"a": 300, "b": 250, "c": 410, "d": 333}
RUN = "20260101-000000-csfssl-0123abcd"
KEYS = {name: ec.derive_private_key(1000 + number, ec.SECP256R1()) for number, name in enumerate(NAMES)}
PINS = {name: key.public_key() for name, key in KEYS.items()}
HEADS = tuple(hashlib.sha256(b"head %d" % round_).hexdigest() for round_ in range(9))


def plan(**terms: object) -> Plan:
    """Return the plan of these sites."""
    small = plan_of(7)
    sums = {"secure_sum": True, "holders": HOLDERS, "average": "by-images", "share_max": 1.0}
    chosen = Terms(rounds=3, **{**sums, **terms})  # type: ignore[arg-type]
    return Plan(mode="csfssl", sites=NAMES, profile="demo", terms=chosen, recipe=small.recipe)


class KilledError(Exception):
    """The process is gone."""


@dataclass
class Kills:
    """Kills a process at the writes of these numbers, counted over all sites; an odd half: after the write."""

    at: set[float] = field(default_factory=set)
    writes: int = 0

    def write(self, append: Callable[[], None]) -> None:
        number, self.writes = self.writes, self.writes + 1
        if number in self.at:
            raise KilledError
        append()
        if number + 0.5 in self.at:
            raise KilledError


class MortalJournal(SumJournal):
    """A journal at whose writes its process may be killed."""

    def __init__(self, home: SiteHome, kills: Kills) -> None:
        self._kills = kills
        super().__init__(home)

    def remember(self, entry: Entry | None) -> None:
        if entry is not None:
            self._kills.write(functools.partial(super().remember, entry))


@dataclass
class Federation:
    """The sites, and what an honest coordinator has on its disk."""

    folder: Path
    plan: Plan = field(default_factory=plan)
    kills: Kills = field(default_factory=Kills)
    run: str = RUN
    sites: dict[str, SumSite] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        chance = np.random.default_rng(5)
        values = {"w": chance.normal(size=(40, 30)).astype(np.float32), "bn.running_mean": np.zeros(7, np.float32)}
        write_tensors(self.folder / "base", values)
        self.base = hashlib.sha256((self.folder / "base").read_bytes()).hexdigest()
        for name in NAMES:
            self.home(name).folder.mkdir(parents=True)
            shutil.copy(self.folder / "base", self.blobs(name).path(self.base))
            SumJournal(self.home(name))
            self._draw(name)
            self.begin(name)

    def _draw(self, name: str) -> None:
        """Let the site have drawn secrets that are the same each time."""
        key, rho, nonces = (hashlib.sha256(f"{name} {what}".encode()).hexdigest() for what in ("key", "rho", "nonces"))
        SecretsFile(self.home(name), self.run).write(RunSecrets(IMAGES[name], key, rho, nonces))

    def home(self, name: str) -> SiteHome:
        return SiteHome(self.folder / "sites" / name)

    def blobs(self, name: str) -> BlobStore:
        return BlobStore(self.home(name).blobs)

    @property
    def context(self) -> RunContext:
        return RunContext(federation="f", run=self.run, plan=self.plan.digest)

    def begin(self, name: str) -> SumSite:
        """Let a new process begin on a site's home."""
        journal = MortalJournal(self.home(name), self.kills)
        me = SigningSite(name, KEYS[name])
        self.sites[name] = made = SumSite(self.home(name), me, self.context, self.plan, journal)
        made.keys = PINS
        return made

    def ask(self, name: str, what: Callable[[SumSite], Answer]) -> Answer:
        """Ask a site until it answers; where it was killed, a new process begins."""
        for _ in range(4):
            try:
                return what(self.sites[name])
            except KilledError:
                self.begin(name)
        raise AssertionError("killed too often")

    # --- a run, as the coordinator leads it ---

    def open(self) -> None:
        """Let all sites open, and tell each the openings and boxes of the others."""
        openings = [self.ask(name, lambda site, n=name: site.opening(IMAGES[n])) for name in NAMES]  # type: ignore[misc]
        boxes = {name: self.ask(name, lambda site: site.join(openings)) for name in NAMES}
        for name in NAMES:
            theirs = {other: boxes[other][name] for other in NAMES if other != name}
            self.ask(name, lambda site, theirs=theirs: site.take_boxes(theirs))  # type: ignore[misc]
            assert self.sites[name].is_joined

    def trained(self, name: str, known: KnownRound, attempt: int = 1) -> TrainedUpdate:
        """Train, as training with this attempt's seeds would; return what it gave."""
        seed = int(hashlib.sha256(f"{name} {known.round} {attempt}".encode()).hexdigest(), 16)
        chance, blobs = np.random.default_rng(seed), self.blobs(name)
        tensors = read_tensors(blobs.path(known.base))
        moved = {key: value + chance.normal(size=value.shape) / 50 for key, value in tensors.items()}
        scratch = blobs.scratch("made")
        digest = write_tensors(scratch, {key: value.astype(np.float32) for key, value in moved.items()})
        blobs.adopt(scratch, digest)
        return TrainedUpdate(digest, 10, 1.2345)

    def uploads(
        self, known: KnownRound, closes: tuple[Closing, ...] = (), who: Sequence[str] = NAMES
    ) -> dict[str, SumReport]:
        """Let sites upload, and return their reports."""

        def upload(site: SumSite, name: str) -> SumReport:
            proposal = site.proposal(known, AttemptShown(known.round, closes))
            return site.upload(known, proposal, self.trained(name, known, proposal.context.attempt))

        return {name: self.ask(name, functools.partial(upload, name=name)) for name in who}

    def listed(self, known: KnownRound, reports: dict[str, SumReport], closes: tuple[Closing, ...]) -> SumList:
        """Return the list of a round."""
        context = self.sites["c"].proposal(known, AttemptShown(known.round, closes)).context
        return SumList(context.digest, tuple(reports[name] for name in sorted(reports)))

    def released(self, known: KnownRound, listed: SumList, closes: tuple[Closing, ...]) -> list[SignedRelease]:
        """Let all holders of the attempt release."""
        holders = self.sites["c"].proposal(known, AttemptShown(known.round, closes)).context.holders

        def release(site: SumSite) -> SignedRelease:
            return site.release(known, site.proposal(known, AttemptShown(known.round, closes)), listed)

        return [self.ask(holder, release) for holder in holders]

    def opened(self, listed: SumList, releases: Sequence[SignedRelease]) -> Path:
        """Subtract the masks; return the file of the sum."""
        masked = [self.blobs(line.site).path(line.upload) for line in listed.reports]
        masks = [self.blobs(one.holder).path(one.masks) for one in releases]
        total = self.folder / "sum"
        open_sum(masked, masks, total, read_layout(self.folder / "base"))
        return total

    def learn(
        self,
        known: KnownRound,
        listed: SumList,
        releases: Sequence[SignedRelease],
        total: Path,
        closes: tuple[Closing, ...] = (),
    ) -> set[str]:
        """Let every site check the sum and derive the model; return the digests."""
        digest = hashlib.sha256(total.read_bytes()).hexdigest()

        def learn(site: SumSite, name: str) -> str:
            shutil.copy(total, self.blobs(name).path(digest))
            return site.learn(known, site.proposal(known, AttemptShown(known.round, closes)), listed, releases, digest)

        return {self.ask(name, functools.partial(learn, name=name)) for name in NAMES}

    def round(self, known: KnownRound, closes: tuple[Closing, ...] = (), who: Sequence[str] = NAMES) -> set[str]:
        """Do a whole round; return the digests of the models that the sites have derived."""
        listed = self.listed(known, self.uploads(known, closes, who), closes)
        releases = self.released(known, listed, closes)
        return self.learn(known, listed, releases, self.opened(listed, releases), closes)

    def first(self) -> KnownRound:
        return KnownRound(1, self.base, HEADS[0])
