"""The command `run`: make the cells of a study, choose, open."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

import click
from rich.table import Table

from cervix_study.estimate import duration, paces, seconds_left
from cervix_study.executors import Executor, Here, Slurm
from cervix_study.ground import Ground, prepare
from cervix_study.naming import named
from cervix_study.places import Places
from cervix_study.planning import expected_followers, grid
from cervix_study.records import read_cell
from cervix_study.running import Running
from cervix_study.screen import Screen
from cervix_study.settings import Asked, read
from fedcervix.process import stdout_console

INTERRUPTED = 130


@click.command("run")
@click.argument("study", metavar="STUDY.toml", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The study's folder; default: the study's name, here.")
@click.option("--cells", "pattern", default="*", help="Make only these: a name with *, or the beginning of a key.")
@click.option("--dry-run", is_flag=True, help="Show the cells and how long they may take; make none.")
def run(study: Path, out: Path | None, pattern: str, *, dry_run: bool) -> None:
    """Run a study, or go on with it: what is finished is not done again."""
    asked = read(study)
    places = Places((out or Path(asked.settings.name)).absolute())
    screen = Screen()
    with places.locked():
        ground = prepare(asked, places, screen.reading)
        screen.close()
        if dry_run:
            show_plan(asked, places, ground)
            return
        _run(asked, places, ground, screen, pattern)


def _run(asked: Asked, places: Places, ground: Ground, screen: Screen, pattern: str) -> None:
    executor = executor_of(asked, places)
    running = Running(asked, places, ground, executor, screen, asked.settings.machine.workers, pattern)
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        state = running.run()
    except KeyboardInterrupt:
        screen.close()
        click.echo("stopping: cells at work keep a checkpoint", err=True)
        executor.close()
        running.stopped()
        click.echo(f"stopped; {len(running.finished)} cells are finished; go on with: {_again()}", err=True)
        sys.exit(INTERRUPTED)
    finally:
        screen.close()
        executor.close()
    click.echo(f"{state}: {len(running.finished)} cells in {places.folder}")
    for key, why in running.failed.items():
        click.echo(f"not made: {named(running.cells[key])}: {why}")
    if state == "finished":
        click.echo(f"next: cervix-study report {shlex.quote(str(places.folder))}")
    else:
        click.echo("cells are left; run it again without --cells")


def _as_interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _again() -> str:
    return shlex.join(["cervix-study", *sys.argv[1:]])


def executor_of(asked: Asked, places: Places) -> Executor:
    """Return where the study's cells are made."""
    machine = asked.settings.machine
    if machine.executor == "slurm":
        return Slurm(places, machine.workers, asked.settings.slurm)
    return Here(places, machine.workers)


def show_plan(asked: Asked, places: Places, ground: Ground) -> None:
    """Print every cell of the grid, how many follow, and how long it may take."""
    cells = grid(asked, ground)
    records = {cell.key: read_cell(places.folder, cell.key) for cell in cells}
    table = Table("key", "cell", "", title=f"study {asked.settings.name}", title_justify="left")
    for cell in cells:
        table.add_row(cell.key[:12], named(cell), "finished" if records[cell.key] else "")
    stdout_console().print(table)
    finished = [record for record in records.values() if record]
    later = expected_followers(asked, ground)
    click.echo(f"{len(cells)} cells, {len(finished)} of them finished; {later} more follow from what is chosen")
    left = seconds_left(
        [cell for cell in cells if not records[cell.key]],
        paces(finished, ground),
        ground,
        asked.settings.machine.workers,
    )
    click.echo(f"at most {duration(left)} for the grid" if left is not None else "no estimate yet")
