"""Models that sites bring: one of each lies here unreported, and only while the site is asked for one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.run.incoming import Unreported
from fedcervix.core.events import SiteAttached, SiteRevoked, UpdateStored
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.state import Run
from fedcervix.core.rounds.step import step
from fedcervix.errors import FullDiskError, RunError
from fedcervix.models.blobs import BlobStore
from tests.unit.test_rounds import GIVEN, after, fresh

SITES = ("ada", "bob", "cleo")
FIRST, SECOND, THIRD = (f"{word} model".encode() * 100 for word in ("first", "second", "third"))


class Coordinator:
    """A round that waits for all sites, and a store."""

    def __init__(self, folder: Path) -> None:
        self.blobs = BlobStore(folder)
        self.blobs.path(GIVEN).write_bytes(b"base")
        self.incoming = Unreported(self.blobs)
        self.run: Run = after(fresh(), *(SiteAttached(site, 0.0) for site in SITES))

    def offer(self, site: str, model: bytes) -> int:
        self.incoming.offered(self.run, site, name(model))
        return self.incoming.expect(site, name(model), len(model))

    def push(self, site: str, model: bytes, *, bytes_: int | None = None) -> None:
        """Offer a model and send it, or some of its bytes."""
        offset = self.offer(site, model)
        if offset < len(model):
            chunks = iter([model[offset : bytes_ or len(model)]])
            self.blobs.receive(name(model), site, chunks, offset=offset, size_bytes=len(model))

    def report(self, site: str, model: bytes) -> None:
        task = instruction(self.run, site)
        update = UpdateStored(site, task, name(model), 10, 1, 0.5, 1.0, 1.0)  # type: ignore[arg-type]
        self.run, _ = step(self.run, update)

    def here(self) -> set[bytes]:
        return {model for model in (FIRST, SECOND, THIRD) if self.blobs.has(name(model))}

    def clear(self) -> None:
        self.incoming.clear(self.run)
        self.blobs.purge()


def name(model: bytes) -> str:
    return hashlib.sha256(model).hexdigest()


@pytest.fixture
def made(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path / "blobs")


def test_a_site_that_never_reports_holds_one_model_at_a_time(made: Coordinator) -> None:
    for model in (FIRST, SECOND, THIRD):
        made.push("ada", model)
        assert made.here() == {model}
    assert made.blobs.has(GIVEN)
    files = [file for file in made.blobs.path("x").parent.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) == len(THIRD) + len(b"base")


def test_a_model_that_counts_stays_and_so_does_what_others_have_brought(made: Coordinator) -> None:
    made.push("bob", FIRST)
    made.push("cleo", SECOND)
    made.report("bob", FIRST)
    made.push("ada", THIRD)
    assert made.here() == {FIRST, SECOND, THIRD}
    assert made.offer("bob", FIRST) == len(FIRST), "its answer was lost: it is told that the model is here"


def test_a_model_that_two_have_brought_goes_with_the_second_one(made: Coordinator) -> None:
    made.push("ada", FIRST)
    made.push("bob", FIRST)
    made.push("ada", SECOND)
    assert made.here() == {FIRST, SECOND}
    assert made.offer("bob", FIRST) == len(FIRST)
    made.push("bob", THIRD)
    assert made.here() == {SECOND, THIRD}


def test_what_another_has_brought_is_taken_again_from_its_first_byte(made: Coordinator) -> None:
    made.push("bob", FIRST)
    assert made.offer("ada", FIRST) == made.offer("ada", SECOND) == 0


def test_who_is_asked_for_nothing_may_bring_nothing_and_leaves_nothing(made: Coordinator) -> None:
    made.push("ada", FIRST)
    made.push("bob", SECOND, bytes_=50)
    made.run, _ = step(made.run, SiteRevoked("ada", 1.0))
    made.run, _ = step(made.run, SiteRevoked("bob", 1.0))
    made.clear()
    assert made.here() == set()
    assert made.blobs.unreported_bytes("bob", ()) == 0
    with pytest.raises(RunError, match="not asked for a model now"):
        made.offer("ada", THIRD)


def test_a_transfer_goes_on_after_a_restart(made: Coordinator) -> None:
    made.push("ada", FIRST)
    made.push("bob", SECOND, bytes_=50)
    made.clear()
    assert made.offer("bob", SECOND) == 50
    assert made.offer("ada", FIRST) == len(FIRST)


def test_a_transfer_that_nobody_wants_any_more_ends_without_a_model(made: Coordinator) -> None:
    made.offer("ada", FIRST)

    def chunks() -> Iterator[bytes]:
        yield FIRST[:50]
        made.run, _ = step(made.run, SiteRevoked("ada", 1.0))
        made.clear()
        yield FIRST[50:]

    assert not made.blobs.receive(name(FIRST), "ada", chunks(), offset=0, size_bytes=len(FIRST))
    assert made.here() == set()


def test_an_upload_that_waits_for_room_is_named_with_who_takes_it(
    made: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.push("cleo", FIRST)
    made.push("bob", SECOND, bytes_=50)
    free = shutil.disk_usage(made.blobs.path("x").parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free._replace(free=0))
    with pytest.raises(FullDiskError):
        made.offer("ada", THIRD)
    words = made.incoming.words(made.run)
    assert words.startswith("waiting for room to send a model: ada; no room for a model of 1,100 bytes")
    assert "models of the run: 4 bytes; not reported yet, of cleo: 1,100 bytes; not reported yet, of bob: 50" in words
    assert "next: free some space (df -h" in words
    monkeypatch.undo()
    made.offer("ada", THIRD)
    assert made.incoming.words(made.run) == ""
