"""A folder of wheels installs without an index, and a wheel that somebody changed is refused."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from fedcervix.errors import ConfigError
from tools import release_check, wheelhouse

RUNBOOK = Path(__file__).parents[2] / "deploy" / "RUNBOOK.md"


def make_wheel(house: Path, name: str, requires: str = "") -> Path:
    """The smallest wheel that pip installs: one module that says its name."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": f"NAME = {name!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    house.mkdir(exist_ok=True)
    with zipfile.ZipFile(house / f"{name}-1.0-py3-none-any.whl", "w") as packed:
        for path, text in files.items():
            packed.writestr(path, text)
    return house / f"{name}-1.0-py3-none-any.whl"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    folder = tmp_path / "house"
    make_wheel(folder, "fedcervix", "Provides-Extra: site\nRequires-Dist: below; extra == 'site'\n")
    make_wheel(folder, "below")
    (folder / "requirements.txt").write_text(wheelhouse.requirements(folder, ("site",)))
    return folder


def test_a_folder_of_wheels_installs_without_an_index(house: Path, tmp_path: Path) -> None:
    python = wheelhouse.install(house, tmp_path / "environment")
    done = subprocess.run(
        [python, "-c", "import below, fedcervix; print(below.NAME, fedcervix.NAME)"], capture_output=True, check=True
    )
    assert done.stdout == b"below fedcervix\n"


def test_a_wheel_that_was_changed_is_not_installed(house: Path, tmp_path: Path) -> None:
    make_wheel(house, "below", "Summary: changed\n")
    with pytest.raises(ConfigError, match="pip"):
        wheelhouse.install(house, tmp_path / "environment")


def test_the_list_names_the_extras_and_the_command(house: Path) -> None:
    lines = (house / "requirements.txt").read_text().splitlines()
    assert lines[0] == f"# {wheelhouse.INSTALL}"
    assert wheelhouse.INSTALL in RUNBOOK.read_text("utf-8")
    assert [line.split(" --hash=sha256:")[0] for line in lines[1:]] == ["below==1.0", "fedcervix[site]==1.0"]


@pytest.mark.parametrize("profile", ["coordinator", "site-cuda", "site-cpu"])
def test_the_name_of_an_archive_says_its_profile(profile: str) -> None:
    assert release_check.profile_of(Path(f"fedcervix-0.1.0-{profile}-{wheelhouse.kind()}.tar")) == profile


def test_a_command_that_is_tried_has_no_network() -> None:
    if not (apart := release_check.offline()):
        pytest.skip("the system permits no `unshare --net`")
    devices = subprocess.run([*apart, "cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]
