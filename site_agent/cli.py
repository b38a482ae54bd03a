"""The command `site-agent`. Commands are loaded when they are called: joining does not wait for torch."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from fedcervix import __version__
from fedcervix.log import configure
from fedcervix.process import exits
from site_agent.home import SiteHome

DEFAULT_HOME = Path.home() / ".fedcervix" / "site"

COMMANDS = {
    "join": ("federation", "join"),
    "check": ("federation", "check"),
    "pretrain": ("pretrain", "pretrain"),
    "finetune": ("finetune", "finetune"),
    "sweep": ("sweep", "sweep"),
    "evaluate": ("evaluate", "evaluate"),
    "predict": ("predict", "predict"),
    "history": ("history", "history"),
    "data": ("data", "data"),
}


class _Lazy(click.Group):
    """A group whose commands live in modules below `site_agent.commands`."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(f"site_agent.commands.{module}"), attribute)
        return command


@click.group(cls=_Lazy, invoke_without_command=True)
@click.version_option(__version__)
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=DEFAULT_HOME,
    envvar="FEDCERVIX_SITE_HOME",
    show_default=True,
    help="The site's home folder.",
)
@click.option("--verbose", is_flag=True, help="Log more.")
@click.pass_context
def cli(context: click.Context, home: Path, *, verbose: bool) -> None:
    """Take part in a federation with this site's images; they never leave this machine.

    Without a command: run the agent until the federation's run is over.
    """
    configure(verbose=verbose)
    context.obj = SiteHome(home.absolute())
    if context.invoked_subcommand is None:
        from site_agent.commands.federation import run

        run(context.obj)


def main() -> None:
    """Run the command line; an error prints what happened, the likely cause, the next command."""
    exits(cli)


if __name__ == "__main__":
    main()
