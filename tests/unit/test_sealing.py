"""A ring under seal between real homes, keys and files, and a coordinator of a few lines that carries it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from safetensors.numpy import save

from fedcervix.core.events import (
    Answer,
    Rewrapped,
    ScoreReported,
    SiteAttached,
    SiteSilent,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.state import Phase, Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.errors import RemoteError, RunError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.rounding import Rounded
from fedcervix.trust.ledger import Ledger
from fedcervix.trust.seals import Signed, passed_on_faults, shown_to, update_faults
from fedcervix.trust.sum_papers import Openings, opening_event
from site_agent.federation import compression
from site_agent.federation.sealed_run import SealedRun
from site_agent.home import SiteHome
from site_agent.home import create as create_home
from site_agent.store.run_store import RunStore

SITES = A, B, C = ("ada", "bob", "cleo")
RUN = "20300101-000000-ppfssl-00000000"
CHUNK_BYTES = 64 << 10


def weights(seed: int) -> bytes:
    """Return a model of three chunks."""
    return save({"w": np.random.default_rng(seed).normal(size=40_000).astype(np.float32)})


@dataclasses.dataclass
class Party:
    """A site: its home, its key, and its part in the run."""

    sealing: SealedRun
    store: RunStore
    blobs: BlobStore
    key: ec.EllipticCurvePrivateKey

    @property
    def home(self) -> SiteHome:
        return SiteHome(self.store.folder.parent.parent)


@dataclasses.dataclass
class Context:
    """What `Sealing` needs of an agent."""

    home: SiteHome
    site: str
    world: World
    ledger: Any = None

    @property
    def blobs(self) -> BlobStore:
        return BlobStore(self.home.blobs)

    @property
    def link(self) -> Context:
        return self

    def sealed(self, digest: str) -> tuple[Signed, ...]:
        return self.world.show(shown_to(self.world.run, self.site, digest))

    def told(self) -> Run:
        return self.world.verified


class World:
    """Three sites and what lies between them."""

    def __init__(self, folder: Path, **terms: Any) -> None:
        given = Terms(rounds=2, sealed=True, **terms)
        self.plan = Plan(mode="ppfssl", sites=SITES, profile="paper", terms=given, recipe=Recipe())
        self.run = self.verified = begin(RUN, self.plan, base="", at=0.0)
        self.blobs = BlobStore(folder / "coordinator")
        self.show: Callable[[tuple[Signed, ...]], tuple[Signed, ...]] = lambda shown: shown
        self.sites = {site: self._party(folder / site, site) for site in SITES}
        keys = {site: party.key.public_key() for site, party in self.sites.items()}
        self.ledger = Ledger(federation="demo", keys=keys)
        for party in self.sites.values():
            party.store.keep_keys(keys)
        openings = [party.sealing.opening(10) for party in self.sites.values()]
        for party in self.sites.values():
            party.sealing.take(Openings(tuple(openings)))
            self.submit(opening_event(party.sealing.opening(10), 0.0))
        for site in SITES:
            self.submit(SiteAttached(site, 0.0))

    def _party(self, folder: Path, site: str) -> Party:
        home, key = SiteHome(folder), ec.generate_private_key(ec.SECP256R1())
        create_home(home)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        home.key_file("site.key").parent.mkdir(parents=True, exist_ok=True)
        home.key_file("site.key").write_bytes(pem)
        store = RunStore(home.run_folder(RUN))
        store.open(self.plan)
        context = Context(home, site, self)
        context.ledger = context
        return Party(SealedRun(context, "demo", self.plan, store), store, BlobStore(home.blobs), key)

    def submit(self, event: Any) -> None:
        before = len(self.run.rounds)
        self.run, answer = step(self.run, event)
        assert answer is Answer.ACCEPTED, event
        if len(self.run.rounds) > before:
            self.verified = self.run

    def asked(self, site: str, kind: TaskKind) -> Task:
        task = instruction(self.run, site)
        assert isinstance(task, Task), task
        assert task.kind is kind
        return task

    def fetch(self, site: str) -> Callable[[str], None]:
        """Return what brings a file of the coordinator to a site."""

        def bring(digest: str) -> None:
            scratch = self.sites[site].blobs.scratch("fetched")
            scratch.write_bytes(self.blobs.path(digest).read_bytes())
            self.sites[site].blobs.adopt(scratch, digest)

        return bring

    def made(self, site: str, kind: TaskKind) -> UpdateStored:
        """Let a site do a task of which a model comes, and upload it."""
        task, party = self.asked(site, kind), self.sites[site]
        if task.base:
            party.sealing.bring(task, self.fetch(site))
            assert hashlib.sha256(party.blobs.path(task.base).read_bytes()).hexdigest() == task.base
        content = weights(task.round * 10 + SITES.index(site))
        scratch = party.blobs.scratch("made")
        scratch.write_bytes(content)
        party.blobs.adopt(scratch, digest := hashlib.sha256(content).hexdigest())
        rounded = compression.rounded(party.blobs, party.store.folder, task, self.plan, digest)
        seal = party.sealing.seal(task, rounded)
        assert seal == party.sealing.seal(task, rounded), "made again after a kill, it is the same"
        up = self.blobs.scratch("up")
        up.write_bytes(party.blobs.path(seal.file).read_bytes())
        self.blobs.adopt(up, seal.file)
        images = 0 if kind is TaskKind.SEED else 10
        return UpdateStored(site, task, rounded.digest, images, 1, 0.5, 1.0, 0.0, seal.file, seal=seal)

    def hop(self, site: str, kind: TaskKind = TaskKind.TRAIN) -> UpdateStored:
        update = self.made(site, kind)
        assert update_faults(self.run, "demo", update, self.ledger.keys[site]) == []
        self.submit(update)
        return update

    def pass_on(self, site: str) -> None:
        task, party = self.asked(site, TaskKind.REWRAP), self.sites[site]
        seal = party.sealing.pass_on(task)
        assert passed_on_faults(self.run, site, task.base, seal, self.ledger.keys[site]) == []
        self.submit(Rewrapped(site, task, seal, 0.0))

    def score(self, site: str) -> None:
        task, party = self.asked(site, TaskKind.SCORE), self.sites[site]
        party.sealing.bring(task, self.fetch(site))
        self.submit(ScoreReported(site, task, 1.0, 1, 10, (), 0.0))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.hop(A, TaskKind.SEED)
    return world


@pytest.mark.parametrize("packing", ["none", "bfloat16"])
def test_a_ring_goes_round_and_the_coordinator_has_no_chunk_of_a_model(tmp_path: Path, packing: str) -> None:
    world = World(tmp_path, compression=packing)
    world.hop(A, TaskKind.SEED)
    for _ in (1, 2):
        for site in SITES:
            world.hop(site)
        for site in (C, A):
            world.score(site)
    assert world.run.phase is Phase.PUBLISHING
    world.pass_on(C if world.run.best.contributions[-1].site == C else A)
    for site in SITES:
        task, party = world.asked(site, TaskKind.ADOPT), world.sites[site]
        party.sealing.bring(task, world.fetch(site))
        assert party.blobs.has(task.base)
    kept = b"".join(file.read_bytes() for file in sorted((tmp_path / "coordinator").rglob("*")) if file.is_file())
    models = [weights(round_ * 10 + number) for round_ in (1, 2) for number in range(3)]
    assert not [m for m in models for at in range(0, len(m), CHUNK_BYTES) if m[at : at + 64] in kept]
    assert len(kept) > 6 * 80_000, "the sealed files are there"


def test_a_site_that_was_passed_over_and_one_that_took_its_place(world: World) -> None:
    world.hop(A)
    world.submit(SiteSilent(B, 1.0))
    world.pass_on(A)
    world.hop(C)
    world.submit(SiteAttached(B, 2.0))
    assert [update.site for update in world.run.current.contributions] == [A, C]


def test_training_goes_on_from_a_model_that_was_checked_while_the_coordinator_is_away(world: World) -> None:
    task, party = world.asked(A, TaskKind.TRAIN), world.sites[A]
    party.sealing.bring(task, world.fetch(A))

    def away(_: tuple[Signed, ...]) -> tuple[Signed, ...]:
        raise AssertionError("nobody is asked")

    world.show = away
    party.sealing.bring(task, away)
    assert world.made(A, TaskKind.TRAIN).seal is not None


def test_what_the_coordinator_exchanges_is_refused_before_anything_is_fetched(world: World) -> None:
    first = world.run.model
    world.hop(A)
    task, party = world.asked(B, TaskKind.TRAIN), world.sites[B]

    def never(_: str) -> None:
        raise AssertionError("nothing is fetched")

    for replayed in (lambda _: shown_to(world.run, B, first), lambda _: ()):
        world.show = replayed
        with pytest.raises(RemoteError, match="refused"):
            party.sealing.bring(task, never)
    assert not party.blobs.has(task.base)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"\0", lambda data: data + b"\0"])
def test_a_damaged_file_leaves_no_model(world: World, damage: Callable[[bytes], bytes]) -> None:
    world.hop(A)
    task, party = world.asked(B, TaskKind.TRAIN), world.sites[B]

    def fetch(digest: str) -> None:
        party.blobs.path(digest).write_bytes(damage(world.blobs.path(digest).read_bytes()))

    with pytest.raises(RemoteError, match="cannot be opened"):
        party.sealing.bring(task, fetch)
    assert not party.blobs.has(task.base)


def test_a_model_with_a_number_that_is_none_is_refused(world: World) -> None:
    """Its site has signed it; the receiver vets it as the coordinator would, before it trains."""
    party, task = world.sites[A], world.asked(A, TaskKind.TRAIN)
    party.sealing.bring(task, world.fetch(A))
    bad = save({"w": np.full(10, np.nan, np.float32)})
    party.blobs.path(digest := hashlib.sha256(bad).hexdigest()).write_bytes(bad)
    seal = party.sealing.seal(task, Rounded(digest))
    world.blobs.path(seal.file).write_bytes(party.blobs.path(seal.file).read_bytes())
    world.submit(UpdateStored(A, task, digest, 1, 1, 0.5, 1.0, 0.0, seal.file, seal=seal))
    other = world.sites[B]
    for _ in range(2):
        with pytest.raises(RemoteError, match="finite"):
            other.sealing.bring(world.asked(B, TaskKind.TRAIN), world.fetch(B))


def test_a_home_without_its_secrets_reads_nothing_and_says_why(world: World) -> None:
    party = world.sites[A]
    task = world.asked(A, TaskKind.TRAIN)
    party.sealing.end()
    party.blobs.path(task.base).unlink()
    with pytest.raises(RunError, match="lost its secrets"):
        party.sealing.bring(task, world.fetch(A))


def test_a_restored_home_that_draws_new_secrets_does_not_take_part(world: World) -> None:
    """Else it could not open a box, and would blame the site that made it."""
    party = world.sites[B]
    before = Openings(tuple(one.sealing.opening(10) for one in world.sites.values()))
    party.sealing.end()
    assert party.sealing.opening(10) not in before.openings
    with pytest.raises(RunError, match="lost its secrets"):
        party.sealing.take(before)


def test_an_opening_is_the_same_each_time_and_of_all_sites(world: World) -> None:
    party = world.sites[B]
    assert party.sealing.opening(99) == party.sealing.opening(10)
    with pytest.raises(RemoteError, match="openings of bob"):
        party.sealing.take(Openings((party.sealing.opening(10),)))
