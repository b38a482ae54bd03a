"""The folders of the reports: dated, whole, never overwritten, for their owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedcervix.errors import StorageError
from site_agent.store.report_store import LATEST, all_reports, newest, publish

NOW = datetime(2026, 11, 29, 17, 27, 55, tzinfo=UTC)
FILES = {"report.html": b"page", "results.json": b"{}"}


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_nobody_but_the_owner_may_read_a_report(tmp_path: Path) -> None:
    folder = publish(tmp_path / "reports", "csfssl", NOW, FILES)
    assert [mode(folder.parent), mode(folder)] == [0o700, 0o700]
    assert {mode(file) for file in folder.iterdir()} == {0o600}


def test_a_reports_folder_that_others_could_read_is_closed(tmp_path: Path) -> None:
    """An older version made it as the umask said."""
    (tmp_path / "reports").mkdir(mode=0o755)
    publish(tmp_path / "reports", "csfssl", NOW, FILES)
    assert mode(tmp_path / "reports") == 0o700


def test_a_report_is_named_by_its_time_and_overwrites_nothing(tmp_path: Path) -> None:
    made = [publish(tmp_path, "csfssl", NOW, {"report.html": text}) for text in (b"one", b"two", b"three")]
    assert [folder.name for folder in made] == [f"20261129-172755-csfssl{tail}" for tail in ("", "-2", "-3")]
    assert [(folder / "report.html").read_bytes() for folder in made] == [b"one", b"two", b"three"]


def test_the_newest_report_is_found_by_its_name_and_by_the_link(tmp_path: Path) -> None:
    assert newest(tmp_path / "reports") is None
    older = publish(tmp_path, "b", NOW, FILES)
    newer = publish(tmp_path, "a", NOW + timedelta(seconds=1), FILES)
    assert all_reports(tmp_path) == [older, newer]
    assert newest(tmp_path) == newer
    assert (tmp_path / LATEST).resolve() == newer.resolve()


def test_the_home_may_be_moved(tmp_path: Path) -> None:
    """The link names no place outside of the folder that it is in."""
    folder = publish(tmp_path / "home" / "reports", "csfssl", NOW, FILES)
    (tmp_path / "home").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "reports" / LATEST).resolve().name == folder.name


def test_a_file_of_ones_own_called_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / LATEST).write_text("mine")
    publish(tmp_path, "csfssl", NOW, FILES)
    assert (tmp_path / LATEST).read_text() == "mine"


def test_what_is_no_report_is_not_listed(tmp_path: Path) -> None:
    for name in ("notes", ".making-abc", "2026", "20261129-172755-"):
        (tmp_path / name).mkdir()
    (tmp_path / "20261129-172755-file").write_text("a file")
    assert all_reports(tmp_path) == []


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        publish(tmp_path, "csfssl", NOW, {"report.html": b"page", "below/nowhere": b""})
    assert list(tmp_path.iterdir()) == []
