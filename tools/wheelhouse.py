"""All wheels of one profile in a folder, to install where there is no network.

Rules
1. Every file that the constraint file names is checked against its hashes when it is fetched.
2. torch's CPU builds are the exception: they have no hashes before they are fetched (`tools.constraints`, rule 4).
3. `requirements.txt` in the folder has the hash of every file in it. Installing from it checks each of them again.
4. `install` proves a folder: it asks no index.
5. Wheels are for the Python and the kind of machine that fetched them: `kind` is part of the archive's name.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path

from fedcervix.errors import ConfigError
from tools.constraints import FOLDER, FROM_TORCH, PROFILES, read
from tools.programs import run

INSTALL = "/opt/fedcervix/bin/pip install --no-index --find-links . --require-hashes --requirement requirements.txt"


def kind() -> str:
    """Return the Python and the machine that this one's wheels are for, as `cp311-linux-x86_64`."""
    return f"cp{sys.version_info.major}{sys.version_info.minor}-{sysconfig.get_platform()}"


def fetch(profile: str, house: Path, own: Path) -> None:
    """Fill the folder `house` with the wheels of a profile, `own` (fedcervix) among them, and its requirements.txt.

    Raises:
        ConfigError: pip fetched no wheels, and has said why; torch's CPU builds cannot be reached.

    """
    house.mkdir(parents=True)
    _download(house, "--require-hashes", "--requirement", str(FOLDER / f"{profile}.txt"))
    if not PROFILES[profile].cuda:
        _fetch_torch(house)
    shutil.copy(own, house)
    (house / "requirements.txt").write_text(requirements(house, PROFILES[profile].extras), "utf-8")


def install(house: Path, environment: Path) -> Path:
    """Install a folder of wheels into a new environment without asking an index; return the environment's Python.

    Raises:
        ConfigError: a wheel is missing, or is not for this machine; pip has said which.

    """
    run([sys.executable, "-m", "venv", "--without-pip", str(environment)])
    python = environment / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
    run([*command, "--no-index", "--find-links=.", "--require-hashes", "--requirement=requirements.txt"], house)
    return python


def requirements(house: Path, extras: tuple[str, ...] = ()) -> str:
    """Return a line with version and hash for each wheel of a folder; `extras` are those of fedcervix."""
    lines = [f"# {INSTALL}"]
    for wheel in sorted(house.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        wanted = f"[{','.join(extras)}]" if name == "fedcervix" and extras else ""
        lines.append(f"{name}{wanted}=={version} --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}")
    return "\n".join(lines) + "\n"


def _download(house: Path, *wanted: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    run([*command, "--dest", str(house), *wanted])


def _fetch_torch(house: Path) -> None:
    pinned = read("site-cuda")
    wanted = [f"{name}=={version}+cpu" for name in FROM_TORCH for version in pinned[name]]
    try:
        _download(house, *wanted)
    except ConfigError as error:
        raise ConfigError(
            f"cannot fetch {' and '.join(wanted)}",
            cause="they are in the index of the PyTorch project only, and pip is not configured to use it",
            next_step="pip config set global.extra-index-url ADDRESS (PyTorch's installation page has it, for the CPU)",
        ) from error
