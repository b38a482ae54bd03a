"""Two builds of one tree are one file, whoever builds it, where and when; the wheel has all that the programs need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fedcervix import __version__
from tools import packages, release, release_check

pytest.importorskip("hatchling", reason="hatchling is not installed: make setup")

ROOT = Path(__file__).parents[2]
SOURCES = ("coordinator", "site_agent", "cervix_study", "shared")
FILES = ("pyproject.toml", "README.md", "LICENSE")
EPOCH_S = 1_790_000_000
BUILD = "import sys, pathlib; from tools import packages; packages.build(*map(pathlib.Path, sys.argv[1:3]), {epoch_s})"


def tree(folder: Path, *, of_s: int) -> Path:
    """A copy of what is packed, whose files say that they were written at `of_s`, seconds since 1970."""
    folder.mkdir(parents=True)
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for path in folder.rglob("*"):
        os.utime(path, (of_s, of_s))
    return folder


def built(source: Path, to: Path, *, umask: int, zone: str) -> dict[str, bytes]:
    """What a person with this umask in this time zone gets: name -> bytes."""
    environment = os.environ | {"TZ": zone}
    command = [sys.executable, "-c", BUILD.format(epoch_s=EPOCH_S), str(source), str(to)]
    subprocess.run(command, cwd=ROOT, env=environment, umask=umask, check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in to.iterdir()}


def test_two_builds_in_two_folders_at_two_times_are_the_same_bytes(tmp_path: Path) -> None:
    here = tree(tmp_path / "here", of_s=1_600_000_000)
    there = tree(tmp_path / "another" / "place", of_s=1_750_000_000)
    for path in there.rglob("*.py"):
        path.chmod(0o600)

    first = built(here, tmp_path / "first", umask=0o022, zone="UTC")
    second = built(there, tmp_path / "second", umask=0o077, zone="Asia/Tokyo")

    assert sorted(first) == [f"fedcervix-{__version__}-py3-none-any.whl", f"fedcervix-{__version__}.tar.gz"]
    assert first == second


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return packages.build(tree(folder / "source", of_s=EPOCH_S), folder / "dist", EPOCH_S)


def test_the_wheel_has_the_four_packages_and_all_their_files(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    kept = {
        path.relative_to(base).as_posix()
        for base, package in [(ROOT, name) for name in SOURCES[:3]] + [(ROOT / "shared", "fedcervix")]
        for path in (base / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == kept


def test_the_programs_of_the_wheel_work_without_the_checkout_and_without_a_network(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    starts = "import sys; sys.path.insert(0, 'installed'); import {} as program; program.main()"
    for module, arguments in {
        "coordinator.cli": ["--home", "home", "init", "--advertise", "localhost:8443"],
        "site_agent.cli": ["data", "phantom", "images", "--women", "4", "--institution", "nhs"],
        "cervix_study.cli": ["--help"],
    }.items():
        # -I looks neither at the working folder nor at PYTHONPATH
        command = [*release_check.offline(), sys.executable, "-I", "-c", starts.format(module), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / "coordinator.toml").exists()
    assert (tmp_path / "images" / "manifest.csv").exists()


def test_an_archive_knows_neither_owner_nor_time_nor_mode(tmp_path: Path) -> None:
    made = []
    for name, mode, time_s in [("a", 0o600, 1_600_000_000), ("b", 0o664, 1_700_000_000)]:
        folder = tmp_path / name / "share"
        folder.mkdir(parents=True)
        for file in ("two", "one") if name == "a" else ("one", "two"):
            (folder / file).write_text(file)
            (folder / file).chmod(mode)
            os.utime(folder / file, (time_s, time_s))
        packages.pack(folder, tmp_path / f"{name}.tar", EPOCH_S)
        made.append((tmp_path / f"{name}.tar").read_bytes())
    assert made[0] == made[1]


def test_the_sums_are_those_that_sha256sum_checks(tmp_path: Path) -> None:
    (tmp_path / "one.whl").write_bytes(b"one")
    release.write_sums(tmp_path)

    check = ["sha256sum", "--check", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "one.whl: OK\n"
    (tmp_path / "one.whl").write_bytes(b"two")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 1
