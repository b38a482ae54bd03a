"""Run the programs that a release is made with: git, pip, uv, hatchling."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedcervix.errors import ConfigError

ROOT = Path(__file__).parents[1]


def run(command: Sequence[str], folder: Path = ROOT, /, *, silent: bool = False, **variables: str) -> None:
    """Run a program in a folder, with further variables in its environment; `silent` drops what it prints.

    Raises:
        ConfigError: it failed; what it wrote to stderr stands above.

    """
    environment: Mapping[str, str] = os.environ | variables
    printed = subprocess.DEVNULL if silent else None
    code = subprocess.run(command, cwd=folder, env=environment, stdout=printed, check=False).returncode
    if code:
        raise ConfigError(
            f"{shlex.join(command)} ended with exit code {code}",
            cause="its own lines above say why",
            next_step=f"try it alone: cd {shlex.quote(str(folder))} && {shlex.join(command)}",
        )
