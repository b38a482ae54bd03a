"""The command `cervix-study`. Commands are loaded when they are called."""

from __future__ import annotations

import importlib

import click

from fedcervix import __version__
from fedcervix.log import configure
from fedcervix.process import exits

COMMANDS = {
    "run": ("run", "run"),
    "report": ("report", "report"),
    "export": ("export", "export"),
}


class _Lazy(click.Group):
    """A group whose commands live in modules below `cervix_study.commands`."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(f"cervix_study.commands.{module}"), attribute)
        return command


@click.group(cls=_Lazy)
@click.version_option(__version__)
@click.option("--verbose", is_flag=True, help="Log more.")
def cli(*, verbose: bool) -> None:
    """Compare ways to start a classifier on collections of your own: the paper's study, with statistics."""
    configure(verbose=verbose)


def main() -> None:
    """Run the command line; an error prints what happened, the likely cause, the next command."""
    exits(cli)


if __name__ == "__main__":
    main()
