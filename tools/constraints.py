"""Write `deploy/constraints/*.txt`: every package of each profile, with its version and hashes: `make constraints`.

Rules
1. `dev.txt` comes first: the versions that the tests run with. The other files may hold no other version.
2. A version that stands in a file stays as it is while pyproject.toml admits it. `--upgrade` takes the newest ones.
3. A file names no package index. That is why there is no `uv.lock`: it has the address of an index for each package.
4. The CPU builds of torch are not in the index of Python's packages. `site-cpu.txt` is `site-cuda.txt` without CUDA and
   without the packages in `FROM_TORCH`, which are installed apart, from the index of the PyTorch project.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from fedcervix.runtime.cli_runtime import exits
from fedcervix.runtime.printing import say
from tools.programs import ROOT, run

FOLDER = ROOT / "deploy" / "constraints"
LOWEST_PYTHON = "3.11"
FROM_TORCH = ("torch", "torchvision")
CUDA = re.compile(r"nvidia-.*|cuda-.*|triton")
"""names of packages that only a GPU needs"""
PIN = re.compile(r"(?m)^([a-z0-9-]+)==([^ ;]+)")


@dataclass(frozen=True, slots=True)
class Profile:
    """What one kind of machine installs: extras of fedcervix, with or without CUDA."""

    extras: tuple[str, ...] = ()
    cuda: bool = True


PROFILES = {
    "coordinator": Profile(),
    "site-cuda": Profile(("site",)),
    "site-cpu": Profile(("site",), cuda=False),
}
ALL = {"dev": Profile(("dev", "release")), **PROFILES}


def pins(text: str) -> dict[str, set[str]]:
    """Return the versions that a constraint file holds: name -> one version, or one for each marker."""
    found: dict[str, set[str]] = {}
    for name, version in PIN.findall(text):
        found.setdefault(name, set()).add(version)
    return found


def read(name: str, folder: Path = FOLDER) -> dict[str, set[str]]:
    """Return the versions that the constraint file of a profile holds."""
    return pins((folder / f"{name}.txt").read_text("utf-8"))


def left_out(profile: Profile, folder: Path) -> list[str]:
    """Return the packages that a profile's constraint file does not name."""
    if profile.cuda:
        return []
    return [name for name in read("site-cuda", folder) if name in FROM_TORCH or CUDA.fullmatch(name)]


def write(name: str, folder: Path, upgrade: bool) -> None:
    """Write the constraint file of a profile. The index that uv is configured to use is asked.

    Raises:
        ConfigError: uv found no set of versions, or reached no index; it has said so.

    """
    profile = ALL[name]
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet", "--universal"]
    command += ["--python-version", LOWEST_PYTHON, "--generate-hashes", "--no-header", "--no-annotate"]
    command += [f"--extra={extra}" for extra in profile.extras]
    command += [f"--no-emit-package={package}" for package in left_out(profile, folder)]
    command += ["--output-file", str(folder / f"{name}.txt"), *["--upgrade"] * upgrade]
    if name != "dev":
        command += ["--constraint", str(folder / "dev.txt")]
    run(command)


@click.command()
@click.option("--to", type=click.Path(path_type=Path), default=FOLDER, help="The folder to write into.")
@click.option("--upgrade", is_flag=True, help="Take the newest versions that pyproject.toml admits.")
def main(to: Path, upgrade: bool) -> None:
    """Write the constraint files of all profiles and of development."""
    for name in ALL:
        write(name, to.absolute(), upgrade)
        say(f"{to / name}.txt: {len(read(name, to))} packages")


if __name__ == "__main__":
    exits(main)
