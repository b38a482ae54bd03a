"""What two homes hold after a federation, a classifier, a report and predictions: nothing that others could read.

The umask of all processes is 0: what is private is so by the programs' doing, not by that of the account.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.loopback import Federation, call, until
from tests.e2e.test_federations import join

pytestmark = pytest.mark.timeout(180)

KINDS = {
    "coordinator": {".safetensors", ".toml", ".db", ".crt", ".key", ".json", "lock", ".lock"},
    "site": {".safetensors", ".toml", ".crt", ".key", ".json", ".jsonl", ".csv", ".html", ".png", ".looks", ".squares"},
}
"""of files that the test looks at, at least"""


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    """Let all processes of the test begin with umask 0."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(home: Path) -> dict[str, str]:
    """Return what below a home, itself included, others may read or write: its path and its mode."""
    found = {path: path.lstat().st_mode for path in (home, *home.rglob("*"))}
    return {
        str(path.relative_to(home)): oct(stat.S_IMODE(mode))
        for path, mode in found.items()
        if not stat.S_ISLNK(mode) and mode & 0o077
    }


def kinds(home: Path) -> set[str]:
    return {path.suffix or path.name for path in home.rglob("*") if path.is_file()}


@pytest.mark.long
def test_after_a_federation_nothing_in_a_home_is_open_to_others(
    federate: Callable[..., Federation], collections: dict[str, Path]
) -> None:
    federation = federate(sites=("nhs",), terms={"rounds": 1}, recipe={"epochs_max": 1})
    coordinator = federation.coordinate("--mode", "csfssl")
    join(federation, "nhs", collections["nhs"] / "manifest.csv")
    site = federation.site("nhs")
    agent = federation.agent("nhs")
    federation.until("the site is heard", lambda seen: seen["sites"][0]["connected"])
    assert until("the journal is open", lambda: [*federation.home.folder.glob("*-wal")]), "written while it runs"
    assert open_to_others(federation.home.folder) == {}
    federation.finish(coordinator, agent)

    folder = ["site-agent", "--home", site.folder]
    images = collections["nhs"] / "images"
    for command in (
        ["finetune"],
        ["evaluate"],
        ["predict", "csfssl", images, "--out", site.folder / "predictions.csv"],
        ["data", "sheet", collections["nhs"] / "manifest.csv", site.folder / "sheet.png", "--images", "1"],
    ):
        code, text = call(*folder, *command, cwd=federation.folder)
        assert code == 0, text
    for role, home in (("coordinator", federation.home.folder), ("site", site.folder)):
        assert kinds(home) >= KINDS[role]
        assert open_to_others(home) == {}
