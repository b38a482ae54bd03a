"""The message before a command loads the trainer, which takes some seconds."""

from __future__ import annotations

import importlib.util

from fedcervix.extras import missing
from fedcervix.runtime.printing import say


def loading(command: str) -> None:
    """Say that a command loads torch now. Raises ConfigError where it is not installed."""
    if not _is_installed("torch"):
        raise missing("torch")
    say(f"{command}: loading the software, which takes some seconds", err=True)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
