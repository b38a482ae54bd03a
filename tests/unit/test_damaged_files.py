"""Whatever a file of ours holds, its reader returns a value, or an error with its likely cause and a next command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cervix_study import records
from cervix_study.data import site_homes
from coordinator.home.home import Home
from coordinator.run import results
from fedcervix.errors import FedcervixError
from site_agent.classifier import sweep
from site_agent.federation import account, compression, fencing
from site_agent.home import SiteHome
from site_agent.store import leak_guard
from site_agent.store.run_store import RunStore

DAMAGED = {
    "empty": b"",
    "zeros": b"\0" * 64,
    "not UTF-8": b"\xff\xfe{",
    "torn": b'{"pid": 1, "po',
    "another value": b"[7]",
    "other keys": b'{"key": 1}',
    "nested": b"[" * 5000,
    "as deep as a parser goes": b'{"key":' * 900 + b"1" + b"}" * 900,
}


def running(folder: Path) -> Any:
    home = Home(folder)
    with home.locked():
        home.running.write_bytes((folder / "running.json.damaged").read_bytes())
        return home.read_running()


READERS: dict[str, Callable[[Path], Any]] = {
    "running.json.damaged": running,
    "run/record.json": lambda folder: results.read(folder, "run"),
    "account.json": lambda folder: account.read(folder / "account.json"),
    compression.FILE: compression.carried,
    "cells.json": lambda folder: sweep.read_cells(folder / "cells.json"),
    "plan.json": lambda folder: RunStore(folder).plan(),
    "journal.json": lambda folder: RunStore(folder).kept(),
    "model-bytes.txt": lambda folder: RunStore(folder).model_bytes(),
    "outcome.txt": lambda folder: RunStore(folder).outcome(),
    "instances.json": lambda folder: fencing.succeed(SiteHome(folder)),
    f"keys/{leak_guard.KEY}": lambda folder: leak_guard.site_key(SiteHome(folder)),
    records.DATA_FILE: records.read_data,
    records.SELECTION_FILE: records.read_selection,
    records.STUDY_FILE: records.read_study,
    f"cells/one/{records.CELL_FILE}": lambda folder: records.read_cell(folder, "one"),
    f"cells/one/{records.PREDICTIONS_FILE}": lambda folder: records.read_predictions(folder, "one"),
    site_homes.DRAWN: lambda folder: site_homes._drawn(folder / site_homes.DRAWN),
}
"""where a file lies in a folder -> its reader"""
AS_IT_IS = {("outcome.txt", kind) for kind in DAMAGED} | {(site_homes.DRAWN, "other keys")}
"""a text that is shown, whatever it is; a value that its reader compares with another"""


WITHOUT_NUMBER = {"running.json.damaged", "model-bytes.txt", "outcome.txt", f"keys/{leak_guard.KEY}"}


@pytest.mark.parametrize("name", [name for name in READERS if name not in WITHOUT_NUMBER and ".csv" not in name])
def test_a_file_of_a_later_version_is_called_so_and_not_damaged(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b'{"format": 7, "other": "keys"}')
    with pytest.raises(FedcervixError, match=r"has format 7; fedcervix .* reads formats up to [123]") as caught:
        READERS[name](tmp_path)
    assert str(file) in caught.value.what
    assert "damaged" not in caught.value.explain()
    assert caught.value.next_step.startswith("install that version again")


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_ends_in_no_traceback(name: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(DAMAGED[kind])
    said = ""
    try:
        READERS[name](tmp_path)
    except FedcervixError as error:
        said = error.explain()
    parts = (file.name.removesuffix(".damaged"), "likely cause: ", "next: ")
    if (name, kind) in AS_IT_IS or kind in ("empty", "zeros"):  # a power cut leaves these: some readers begin anew
        assert not said or all(part in said for part in parts), said
    else:
        assert [part for part in parts if part not in said] == []
