"""Make an environment with one of the field's frameworks, which benchmarks/round.py then measures as a side of its own.

    python -m benchmarks.peers flower|nvflare FOLDER      makes FOLDER/flower or FOLDER/nvflare: a venv with the package

Nothing of ours is installed there, and nothing of theirs here: what runs inside lies in benchmarks/peer_*/ and imports
the framework alone.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import subprocess
import time
import venv
from pathlib import Path

from benchmarks.federations import Processes

PACKAGES = {"flower": "flwr==1.42.0", "nvflare": "nvflare==2.9.0"}
NO_AVERAGE_S = 600.0
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


def averages(file: Path) -> list[tuple[float, float]]:
    """Return when each round was averaged, and a number of it: a line for each, the last of which may be half written.

    Every site adds one to that number in every round. Raises RuntimeError if an average is not one more than the last.
    """
    try:
        lines = file.read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    found = [(float(at), float(number)) for at, number in map(str.split, lines)]
    for (_, earlier), (_, later) in itertools.pairwise(found):
        if not math.isclose(later - earlier, 1, abs_tol=0.01):
            raise RuntimeError(f"a number was {earlier} in one average and {later} in the next, which is not one more")
    return found


def averaged_at(file: Path, count: int, processes: Processes, server: str) -> list[float]:
    """Wait for so many averages; return when they were. Raises RuntimeError with what the server printed."""
    seen, since = 0, time.monotonic()
    while len(found := averages(file)) < count:
        if len(found) > seen:
            seen, since = len(found), time.monotonic()
        if processes.running[server].poll() is not None or time.monotonic() - since > NO_AVERAGE_S:
            raise RuntimeError(f"no average after {seen} of {count}:\n{processes.said(server)[-3000:]}")
        time.sleep(POLL_S)
    return [at for at, _ in found]


def main() -> None:
    """Make one environment."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("peer", choices=PACKAGES)
    asked.add_argument("folder", type=Path)
    given = asked.parse_args()
    print(f"{PACKAGES[given.peer]} is in {make(given.peer, given.folder)}")


if __name__ == "__main__":
    main()
