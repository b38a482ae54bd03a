"""The message before a command loads the trainer, which takes some seconds."""

from __future__ import annotations

from fedcervix.extras import require
from fedcervix.runtime.printing import say


def loading(command: str) -> None:
    """Say that a command loads torch now. Raises ConfigError where it is not installed."""
    require("torch")
    say(f"{command}: loading the software, which takes some seconds", err=True)
