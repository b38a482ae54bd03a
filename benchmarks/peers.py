"""Make an environment with one of the field's frameworks, which benchmarks/round.py then measures as a side of its own.

    python -m benchmarks.peers flower|nvflare FOLDER      makes FOLDER/flower or FOLDER/nvflare: a venv with the package

Nothing of ours is installed there, and nothing of theirs here: what runs inside lies in benchmarks/peer_*/ and imports
the framework alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
import venv
from pathlib import Path

from benchmarks.federations import Processes

PACKAGES = {"flower": "flwr==1.42.0"}
NO_AVERAGE_S = 240.0
"""without an average a peer is taken for stuck"""
POLL_S = 0.1
OURS_ALONE = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class PeerMissing(Exception):  # noqa: N818 - it says what is so
    """The framework is not installed where it was looked for."""


def make(peer: str, folder: Path) -> Path:
    """Make the environment of a framework; return its folder."""
    made = folder / peer
    venv.create(made, with_pip=True, clear=True)
    subprocess.run([made / "bin" / "python", "-m", "pip", "install", "--quiet", PACKAGES[peer]], check=True)
    return made


def environment(peer: str, folder: Path | None) -> Path:
    """Return where a framework is installed. Raises PeerMissing."""
    if folder is None:
        raise PeerMissing(f"{peer} needs --peers FOLDER, made by: python -m benchmarks.peers {peer} FOLDER")
    found = (folder / peer).absolute()
    if not (found / "bin" / "python").exists():
        raise PeerMissing(f"{folder} has no {peer}; it is made by: python -m benchmarks.peers {peer} {folder}")
    return found


def variables(installed: Path, **more: str) -> dict[str, str]:
    """Return the environment variables of a program of a framework: its own programs first, nothing of ours."""
    ours = {name: value for name, value in os.environ.items() if name not in OURS_ALONE}
    return {**ours, "PATH": f"{installed / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}", **more}


def averaged_at(file: Path) -> list[float]:
    """Return when each round was averaged: a line for each, the last of which may be half written."""
    try:
        lines = file.read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [float(line) for line in lines]


def all_averages(file: Path, count: int, processes: Processes, server: str) -> list[float]:
    """Wait for so many averages; return when they were. Raises RuntimeError with what the server printed."""
    seen, since = 0, time.monotonic()
    while len(times := averaged_at(file)) < count:
        if len(times) > seen:
            seen, since = len(times), time.monotonic()
        if processes.running[server].poll() is not None or time.monotonic() - since > NO_AVERAGE_S:
            raise RuntimeError(f"no average after {seen} of {count}:\n{processes.said(server)[-3000:]}")
        time.sleep(POLL_S)
    return times


def main() -> None:
    """Make one environment."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("peer", choices=PACKAGES)
    asked.add_argument("folder", type=Path)
    given = asked.parse_args()
    print(f"{PACKAGES[given.peer]} is in {make(given.peer, given.folder)}")


if __name__ == "__main__":
    main()
