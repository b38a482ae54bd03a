"""Install the oldest versions that pyproject.toml admits, try them, and ask for known holes in them: `make lowest`.

A floor that nobody tries is a guess. What fails here is mended by raising the floor, or in the code.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from fedcervix.runtime.cli_runtime import exits
from fedcervix.runtime.printing import say
from tools.programs import ROOT, run

EXTRAS = ("site", "imagenet", "private", "tensorboard", "slurm", "export")
TESTS_NEED = ("hypothesis", "pytest", "pytest-timeout", "tifffile")
"""any version of them that goes with the oldest of ours"""
SUBJECTS = (
    "checkpoints",
    "cli_runtime",
    "codec",
    "commandline",
    "config",
    "decode",
    "display",
    "embedding_map",
    "engine",
    "identity",
    "init",
    "intervals",
    "joining",
    "listener",
    "log",
    "metrics",
    "optimizer",
    "plan",
    "rpc",
    "status",
    "steps",
    "tensorboard",
    "weights",
)
"""of tests/unit: some of each package that is at its floor (click, cryptography, grpcio, numpy, pillow, torch, ...)"""

IMPORT_ALL = """
import importlib, pkgutil, coordinator, site_agent, cervix_study, fedcervix
for package in (coordinator, site_agent, cervix_study, fedcervix):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def install(folder: Path) -> Path:
    """Install the oldest versions below a folder; return the environment's Python."""
    uv = [sys.executable, "-m", "uv", "--quiet", "pip"]
    python, oldest = folder / "environment" / "bin" / "python", folder / "oldest.txt"
    run([sys.executable, "-m", "venv", "--without-pip", str(folder / "environment")])
    compile_ = [*uv, "compile", "pyproject.toml", "--resolution", "lowest-direct", "--no-annotate", "--no-header"]
    extras = [f"--extra={extra}" for extra in EXTRAS]
    run([*compile_, *extras, "--python", str(python), "--output-file", str(oldest)])
    into = [*uv, "install", "--python", str(python)]
    run([*into, "--requirement", str(oldest), "--constraint", str(oldest), *TESTS_NEED])
    return python


def try_out(python: Path) -> int:
    """Ask every program for its help, run some tests, ask for known holes; return 0 where all is well, else 1."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'shared'}"}
    runs = [["-m", f"{program}.cli", "--help"] for program in ("coordinator", "site_agent", "cervix_study")]
    runs += [["-c", IMPORT_ALL]]
    runs += [["-m", "pytest", *(f"tests/unit/test_{subject}.py" for subject in SUBJECTS)]]
    commands = [[str(python), *run] for run in runs]
    [packages] = python.parents[1].glob("lib/python3*/site-packages")
    commands += [[sys.executable, "-m", "tests.audit", "--path", str(packages)]]
    codes = [subprocess.run(one, cwd=ROOT, env=environment, check=False).returncode for one in commands]
    return int(any(codes))


@click.command()
def main() -> None:
    """Try the oldest versions that pyproject.toml admits."""
    with tempfile.TemporaryDirectory(prefix="fedcervix-lowest-") as folder:
        python = install(Path(folder))
        say((Path(folder) / "oldest.txt").read_text("utf-8"))
        sys.exit(try_out(python))


if __name__ == "__main__":
    exits(main)
