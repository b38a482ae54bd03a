"""Man pages and shell completion of every program, made from the commands themselves.

They are made for a release and kept nowhere else: nothing is written twice, and nothing is out of date.
"""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import get_completion_class
from click_man.core import write_man_pages

from fedcervix import __version__

PROGRAMS = {"coordinator": "coordinator.cli", "site-agent": "site_agent.cli", "cervix-study": "cervix_study.cli"}
COMPLETIONS = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/site-functions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}
"""for each shell, where below share/ it looks for the completion of a program"""


def program(name: str) -> click.Group:
    """Return the commands of a program."""
    found: click.Group = import_module(PROGRAMS[name]).cli
    return found


def completion(name: str, shell: str) -> str:
    """Return the script with which a shell completes a program's command line. Raises KeyError: no such shell."""
    shells = get_completion_class(shell)
    if shells is None:
        raise KeyError(shell)
    return shells(program(name), {}, name, f"_{name.replace('-', '_').upper()}_COMPLETE").source() + "\n"


def write(share: Path, epoch_s: int) -> None:
    """Write man pages and completion of all programs into a folder that is laid out as /usr/share is."""
    pages = share / "man" / "man1"
    pages.mkdir(parents=True)
    day = time.strftime("%Y-%m-%d", time.gmtime(epoch_s))
    for name in PROGRAMS:
        write_man_pages(name, program(name), version=__version__, target_dir=str(pages), date=day)
        for shell, place in COMPLETIONS.items():
            path = share / place.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(completion(name, shell), "utf-8")
