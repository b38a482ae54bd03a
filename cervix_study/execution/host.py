"""The machine and the software of a study, for its records."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("fedcervix", "torch", "torchvision", "numpy", "scikit-learn", "pillow", "grpcio", "cryptography")
CPUINFO = Path("/proc/cpuinfo")
GIT_WITHIN_S = 30.0


def versions() -> dict[str, str]:
    """Return the versions of all that a result may depend on."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """Return the kind of processor."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def now() -> str:
    """Return the time, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command() -> tuple[str, ...]:
    """Return the command line that this process was started with."""
    return (Path(sys.argv[0]).name, *sys.argv[1:])


def commit_of(file: Path) -> str:
    """Return the newest commit that changed a file, if the file is committed as it stands; else nothing."""
    git = ("git", "-C", str(file.parent))
    try:
        changed, found = (
            subprocess.run([*git, *words], capture_output=True, text=True, timeout=GIT_WITHIN_S, check=False)
            for words in (("diff", "--quiet", "HEAD", "--", file.name), ("rev-list", "-1", "HEAD", "--", file.name))
        )
    except (OSError, subprocess.TimeoutExpired):  # no git here, or none that answers
        return ""
    return found.stdout.strip() if changed.returncode == found.returncode == 0 else ""
