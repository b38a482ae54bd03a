"""Where no more files can be opened, every place says so, and none blames the file that it wanted."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from coordinator.home.registry import Registry
from fedcervix.disk import descriptors
from fedcervix.disk.journal import Journal
from fedcervix.disk.storage import disk
from fedcervix.errors import FedcervixError, StorageError
from fedcervix.runtime.config import read_toml
from fedcervix.transport import rpc
from site_agent.data.not_same import read_pairs
from site_agent.images.decode import decode
from site_agent.manifest.manifest_file import read_manifest
from site_agent.network import encoder
from site_agent.store import leak_guard
from tests.unit.test_rpc import Ended

LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)


@pytest.fixture
def none_left() -> Iterator[Callable[[], None]]:
    """Return what takes the last descriptor away, until the test ends."""
    yield lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (3, LIMIT[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, LIMIT)


def read_file(path: Path) -> None:
    with disk(path, "read"):
        path.read_bytes()


PLACES: dict[str, Callable[[Path], object]] = {
    "any file": read_file,
    "a TOML file": read_toml,
    "an image": decode,
    "a manifest": read_manifest,
    "pairs of images": read_pairs,
    "weights": encoder.load_weights,
    "the list of training women": lambda path: leak_guard.read(
        path.parent, leak_guard.SiteKey(b"key"), next_step="make the model again"
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_file_is_not_blamed(tmp_path: Path, none_left: Callable[[], None], place: str) -> None:
    file = tmp_path / leak_guard.WOMEN
    file.write_text("{}")
    none_left()
    with pytest.raises(FedcervixError) as caught:
        PLACES[place](file)
    is_told(caught.value)


def test_a_database_is_not_blamed(tmp_path: Path, none_left: Callable[[], None]) -> None:
    """SQLite says that it is unable to open database file. Before: the home folder is missing or not accessible."""
    Journal(tmp_path / "journal.db").close()
    registry = Registry(tmp_path / "registry.db")
    none_left()
    for use in (lambda: Journal(tmp_path / "journal.db"), registry.sites):
        with pytest.raises(StorageError) as caught:
            use()
        is_told(caught.value)


def test_a_coordinator_is_not_blamed(tmp_path: Path) -> None:
    """Before: it is not running, or a firewall is in the way."""
    details = f"failed to connect to all addresses; last error: INTERNAL: ipv4:1.2.3.4:5: socket: {TOO_MANY}"
    is_told(rpc.translate(Ended(grpc.StatusCode.UNAVAILABLE, details), "1.2.3.4:5"))
    with pytest.raises(StorageError) as caught:
        descriptors.check_used_up("no way", OSError(errno.EMFILE, TOO_MANY))
    is_told(caught.value)
    descriptors.check_used_up("no way", OSError(errno.ECONNREFUSED, "refused"))


TOO_MANY = os.strerror(errno.EMFILE)


def is_told(error: FedcervixError) -> None:
    assert isinstance(error, StorageError)
    assert error.cause == "this process has reached its limit of open files and connections"
    assert "LimitNOFILE=65536" in error.next_step


def test_the_limit_is_raised_to_what_the_system_allows() -> None:
    soft = min(200, LIMIT[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, LIMIT[1]))
    try:
        assert descriptors.raise_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == LIMIT[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, LIMIT)
