"""`coordinator backup` beside a run, and `coordinator restore` in place of what was lost."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.home.home import Home
from coordinator.run import history
from coordinator.run.incoming import needed
from fedcervix.disk.journal import Journal
from fedcervix.errors import StorageError
from fedcervix.models.blobs import BlobStore
from tests.e2e.loopback import Federation, call

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)


def backed_up(federation: Federation, name: str) -> Path:
    code, said = call("coordinator", "--home", federation.home.folder, "backup", name, cwd=federation.folder)
    assert code == 0, said
    return federation.folder / name


def restored(source: Path, folder: Path) -> Home:
    code, said = call("coordinator", "--home", folder, "restore", source, cwd=source.parent)
    assert code == 0, said
    return Home(folder)


def undisturbed(federate: Federate, mode: str, terms: dict[str, Any]) -> str:
    """Return the result of a federation of light sites that nobody disturbs; with what compression costs."""
    federation = federate(terms=terms)
    coordinator = federation.coordinate("--mode", mode)
    for site in federation.sites:
        federation.enrol(site)
    federation.finish(coordinator, *[federation.light(site) for site in federation.sites])
    return federation.result()


@pytest.mark.parametrize("mode", ["csfssl", pytest.param("ppfssl", marks=pytest.mark.long)])
def test_a_coordinator_that_burnt_down_in_mid_run_goes_on_from_its_backup(mode: str, federate: Federate) -> None:
    terms: dict[str, Any] = {"rounds": 8, "compression": "int8"}
    federation = federate(terms=terms)
    coordinator = federation.coordinate("--mode", mode)
    for site in federation.sites:
        federation.enrol(site)
    nhs, alts = [federation.light(site) for site in federation.sites]
    federation.until("round 2 has begun", lambda seen: seen["round"] >= 2)
    federation.kill_site(nhs)  # so the run does not end meanwhile
    file = backed_up(federation, "mid-run.tar")
    coordinator.kill()
    assert file.stat().st_mode & 0o777 == 0o600
    shutil.rmtree(federation.home.folder)

    home = restored(file, federation.home.folder)
    model = next(home.blobs.glob("*.safetensors"))
    model.rename(federation.folder / "aside")
    code, said = call("coordinator", "--home", home.folder, "backup", "2.tar", cwd=federation.folder)
    assert (code, f"{model} is missing" in said) == (StorageError.exit_code, True), said
    assert not (federation.folder / "2.tar").exists()
    (federation.folder / "aside").rename(model)

    coordinator = federation.coordinate()
    federation.finish(coordinator, federation.light("nhs"), alts)
    assert federation.record()["outcome"] == "OK"
    assert federation.result() == undisturbed(federate, mode, terms)


def test_every_backup_that_is_made_while_a_run_goes_on_has_all_that_it_needs(federate: Federate) -> None:
    federation = federate(terms={"rounds": 12, "compression": "int8"})
    coordinator = federation.coordinate("--mode", "csfssl")
    for site in federation.sites:
        federation.enrol(site)
    agents = [federation.light(site) for site in federation.sites]
    files = []
    while not federation.stored():
        files.append(backed_up(federation, f"{len(files)}.tar"))
    federation.finish(coordinator, *agents)
    rounds = set()
    for file in [*files, backed_up(federation, "ended.tar")]:
        home = restored(file, federation.folder / file.stem)
        with tarfile.open(file) as tar:
            assert not {name for name in tar.getnames() if "lock" in name or "running" in name or "sock" in name}
        journal = Journal(home.journal)
        last = history.last_of(journal)
        if last is not None:
            run = history.replayed(journal, last)
            rounds.add(len(run.rounds))
            blobs = BlobStore(home.blobs)
            ended = history.unfinished(home, journal) is None
            lost = [digest for digest in needed(run) if not ended and not blobs.has(digest)]
            assert not lost, (file, run.phase)
        journal.close()
    assert len(rounds) > 1, rounds
