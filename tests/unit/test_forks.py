"""A coordinator that shows two ledgers is stopped within two rounds, whoever colludes with it (TRUST, section 10)."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from coordinator.calls.ledger_stream import LedgerStream
from fedcervix.core.events import Task, TaskKind
from fedcervix.errors import LedgerError
from fedcervix.transport import identity
from fedcervix.trust.fingerprints import Fingerprint
from fedcervix.trust.heads import Head, countersign
from fedcervix.trust.key_texts import private_key
from fedcervix.trust.ledger import reader
from fedcervix.trust.statements import PublicKey
from site_agent import home as homes
from site_agent.federation.site_ledger import SiteLedger
from tests.unit.fake_link import digest
from tests.unit.ledgers import RUN, Ledgers, deliver

COLLUDERS = [(3, 0), (3, 1), (5, 0), (5, 2), (8, 0), (8, 3)]
FORK = 2
"""the heads of this round are the first that differ"""


@dataclass
class Branch:
    """One of the ledgers that a coordinator shows, and the honest sites to which it shows it."""

    ledgers: Ledgers
    honest: tuple[str, ...]
    colluders: tuple[str, ...]

    def __post_init__(self) -> None:
        self.sites: dict[str, tuple[SiteLedger, LedgerStream]] = {
            site: self.ledgers.attached(site) for site in self.honest
        }

    def end_round(self, word: str) -> None:
        """Write what the coordinator likes; all that it can reach sign the head that follows."""
        ledger = self.ledgers.ledger
        ledger._add(lambda known: [reader(known.round + 1, self.ledgers.sites[0], digest(word.encode()))])
        round_ = max(ledger.known.heads)
        head = Head(RUN, round_, ledger.known.heads[round_])
        for site in self.colluders:
            signature = countersign(private_key(self.ledgers.keys[site]), site, head)
            ledger.countersigned(site, head, signature)
        for site, (kept, stream) in self.sites.items():
            deliver(kept, stream)
            self.ledgers.countersign(kept, site)

    def keys(self, site: str) -> dict[str, PublicKey]:
        """Return the keys that count at a site whose policy asks for pins: its own, and the pinned ones."""
        known = {site, *self.ledgers.site(site).pins().keys}
        return {name: private_key(key).public_key() for name, key in self.ledgers.keys.items() if name in known}

    def beginning(self, round_: int) -> Iterator[str]:
        """Yield the honest sites that begin a round, once the coordinator has passed on what it has."""
        task = Task(RUN, TaskKind.TRAIN, round_, digest(b"base"))
        too_few = []
        for site in self.honest:
            kept, _ = self.ledgers.attached(site)
            deliver(kept, LedgerStream(self.ledgers.ledger, self.ledgers.key, kept.kept()))
            kept.check_told(task)
            try:
                kept.check_countersigned(task, len(self.colluders), self.keys(site))
                yield site
            except LedgerError as error:
                too_few.append(error.what)
        assert all("sites have signed the head" in what for what in too_few)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Ledgers]:
    return {count: pinned(tmp_path_factory.mktemp(f"k{count}"), count) for count in {count for count, _ in COLLUDERS}}


def pinned(folder: Path, count: int) -> Ledgers:
    """Return a run of so many sites, each of which has pinned the others."""
    run = Ledgers(folder, tuple(f"s{number}" for number in range(count)), rounds=6)
    prints = {site: Fingerprint.of(identity.public_key(key)) for site, key in run.keys.items()}
    table = "[pins]\n" + "".join(f'{site} = "{found.hex}"\n' for site, found in prints.items())
    for site in run.sites:
        run.site(site).config_file.write_text(table.replace(f'{site} = "{prints[site].hex}"\n', ""))
        assert homes.SiteHome(run.site(site).folder).pins().keys.keys() == set(run.sites) - {site}
    return run


def branch(run: Ledgers, name: str, honest: tuple[str, ...], colluders: tuple[str, ...]) -> Branch:
    other = copy.copy(run)
    other.keys, other.certificates = run.keys, run.certificates
    other.begin(name)
    return Branch(other, honest, colluders)


def groups(run: Ledgers, colluders: int) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    honest = run.sites[colluders:]
    for size in sorted({1, len(honest) // 2}):  # all others: tests/unit/test_heads.py
        yield honest[:size], honest[size:]


def swept(run: Ledgers) -> Ledgers:
    for site in run.sites:
        shutil.rmtree(run.site(site).folder / "runs", ignore_errors=True)
    for file in run.home.folder.glob("branch-*"):
        file.unlink()
    return run


@pytest.mark.parametrize(("count", "colluders"), COLLUDERS)
def test_a_fork_ends_within_two_rounds(made: dict[int, Ledgers], count: int, colluders: int) -> None:
    for number, (some, others) in enumerate(groups(made[count], colluders)):
        run = swept(made[count])
        collude = run.sites[:colluders]
        one = branch(run, f"branch-{number}-one.db", some, collude)
        other = branch(run, f"branch-{number}-other.db", others, collude)
        for round_ in range(FORK + 2):  # the head of FORK is the first that differs
            for side, word in ((one, "one"), (other, "other")):
                side.end_round(word if round_ >= FORK else "the same")
        heads = [side.ledgers.ledger.known.heads for side in (one, other)]
        assert heads[0][FORK - 1] == heads[1][FORK - 1]
        assert heads[0][FORK] != heads[1][FORK]
        begin = [set(side.beginning(FORK + 2)) for side in (one, other)]
        assert not all(begin), f"both ledgers go on: {begin}"
        for side in (one, other):
            side.ledgers.journal.close()


@pytest.mark.parametrize(("count", "colluders"), COLLUDERS)
def test_without_a_fork_everybody_begins(made: dict[int, Ledgers], count: int, colluders: int) -> None:
    run = swept(made[count])
    honest = branch(run, "branch-honest.db", run.sites[colluders:], run.sites[:colluders])
    for round_ in range(4):
        honest.end_round("the same")
        assert set(honest.beginning(round_ + 1)) == set(honest.honest)
    honest.ledgers.journal.close()


def test_a_signature_by_a_key_that_is_not_pinned_does_not_count(tmp_path: Path) -> None:
    """The coordinator certifies what it likes: two invented partners, and the site would be alone with them."""
    run = pinned(tmp_path, 3)
    alone = branch(run, "branch-alone.db", run.sites[:1], run.sites[1:])
    for _ in range(3):
        alone.end_round("the same")
    assert list(replace(alone, colluders=()).beginning(3)) == ["s0"]
    homes.unpin(run.site("s0"), "s1")
    homes.unpin(run.site("s0"), "s2")
    assert not list(replace(alone, colluders=()).beginning(3))
    alone.ledgers.journal.close()
