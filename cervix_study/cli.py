"""The command `cervix-study`: every command and option that can be typed, and the function that does the work.

This file imports nothing slow. The work of a command is in the module of `cervix_study.commands` that its function
imports.
"""

from __future__ import annotations

from typing import Any

import click

from fedcervix import __version__
from fedcervix.runtime.cli_runtime import exits
from fedcervix.runtime.commandline import ANY_PATH, Program, verbose_option


@click.group("cervix-study", cls=Program)
@click.version_option(__version__)
@verbose_option
def cli() -> None:
    """Compare classifiers with different starts on your own images: the paper's study, with statistics."""


@cli.command()
@click.argument("study", metavar="STUDY.toml", type=ANY_PATH)
@click.option(
    "--out", "-o", type=ANY_PATH, help="The study's folder. Default: the study's name, in the current folder."
)
@click.option(
    "--cells",
    "pattern",
    default="*",
    help="Compute only these cells: a name pattern with *, or the beginning of a key.",
)
@click.option("--dry-run", is_flag=True, help="Show the cells and the estimated time; compute nothing.")
def run(**options: Any) -> None:
    """Run a study, or continue it: finished cells are not computed again."""
    from cervix_study.commands.run import run as work

    work(**options)


@cli.command()
@click.option("--auc", type=float, default=0.70, show_default=True, help="AUC of the start that is worse.")
@click.option(
    "--difference",
    "differences",
    type=float,
    multiple=True,
    default=(0.03, 0.05, 0.10, 0.15),
    show_default=True,
    help="Difference in AUC that you want to show. Repeatable.",
)
@click.option(
    "--correlation",
    "correlations",
    type=float,
    multiple=True,
    default=(0.5, 0.7, 0.9),
    show_default=True,
    help="Correlation of the two AUCs. Repeatable.",
)
@click.option("--case-share", type=float, default=0.5, show_default=True, help="Share of the women who are cases.")
@click.option("--comparisons", type=int, default=1, show_default=True, help="Comparisons that are corrected for.")
@click.option("--women", type=click.IntRange(2), help="Also show what so many test women can show.")
def power(**options: Any) -> None:
    """Before a study: how many test women a difference needs, and what your women can show."""
    from cervix_study.commands.power import power as work

    work(**options)


@cli.command()
@click.argument("folder", type=ANY_PATH)
@click.option("--paper-audit", is_flag=True, help="Also test the numbers printed in the paper.")
def report(**options: Any) -> None:
    """Evaluate a study; write report.html, report.md, checklists.md and findings.json to its FOLDER."""
    from cervix_study.commands.report import report as work

    work(**options)


@cli.command()
@click.argument("model", metavar="CELL|MODEL", type=ANY_PATH)
@click.option("--to", "--out", "-o", "folder", type=ANY_PATH, required=True, help="Folder to write to.")
def export(**options: Any) -> None:
    """Write a model as safetensors and ONNX with a model card.

    CELL is STUDY/cells/KEY (KEY may be shortened); MODEL is HOME/models/NAME, HOME/classifiers/NAME, or a folder
    that `coordinator export` wrote.
    """
    from cervix_study.commands.export import export as work

    work(**options)


def main() -> None:
    """Run the command line; an error prints what happened, the likely cause, the next command."""
    exits(cli)


if __name__ == "__main__":
    main()
