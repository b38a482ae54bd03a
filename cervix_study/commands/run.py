"""The command `run`: train the cells of a study, choose, open."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cervix_study.execution.executors import Executor, LocalProcesses, Slurm
from cervix_study.planning.cell_names import named
from cervix_study.settings import StudyConfig, read
from cervix_study.study_paths import Places
from fedcervix.errors import INTERRUPTED
from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.printing import say

if TYPE_CHECKING:
    from cervix_study.execution.scheduler import Running


def run(study: Path, out: Path | None, pattern: str, *, dry_run: bool) -> None:
    """Run a study, or continue it: finished cells are not computed again."""
    asked = read(study)
    from cervix_study.data.preparation import (
        prepare,  # what reads images is loaded when the study is known to be a right one
    )
    from cervix_study.execution.progress_display import Screen
    from cervix_study.execution.scheduler import Running

    places = Places((out or Path(asked.settings.name)).absolute())
    screen = Screen()
    with places.locked():
        places.tidy()
        ground = prepare(asked, places, screen.reading)
        screen.close()
        executor = executor_of(asked, places)
        running = Running(asked, places, ground, executor, screen, pattern)
        signal.signal(signal.SIGTERM, _as_interrupt)
        try:
            _show_plan(running) if dry_run else _run(running)
        except KeyboardInterrupt:
            screen.close()
            say("stopping: running cells save a checkpoint", err=True)
            executor.close()
            running.stopped()
            say(f"stopped; {len(running.finished)} cells are finished; continue with: {_again()}", err=True)
            sys.exit(INTERRUPTED)
        finally:
            screen.close()
            executor.close()


def _run(running: Running) -> None:
    state, folder = running.run(), running.places.folder
    running.screen.close()
    say(f"{state}: {len(running.finished)} cells in {folder}")
    for key, why in running.failed.items():
        say(f"not computed: {named(running.cells[key])}: {why}")
    if state == "finished":
        say(f"next: cervix-study report {shlex.quote(str(folder))}")
    else:
        say("not all cells are finished: run it again with another --cells, or without --cells")


def _as_interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _again() -> str:
    return shlex.join(["cervix-study", *sys.argv[1:]])


def executor_of(asked: StudyConfig, places: Places) -> Executor:
    """Return where the study's cells are made."""
    machine = asked.settings.machine
    if machine.executor == "slurm":
        return Slurm(places, machine.workers, asked.settings.slurm)
    return LocalProcesses(places, machine.workers)


def _show_plan(running: Running) -> None:
    """Print every cell of the grid, how many follow, and how long it may take."""
    from rich.table import Table

    from cervix_study.execution.estimate import duration

    running.plan_grid()
    running.time()
    running.screen.close()
    table = Table("key", "cell", "", title=f"study {running.asked.settings.name}", title_justify="left")
    for key, cell in running.cells.items():
        table.add_row(key[:12], named(cell), "finished" if key in running.finished else "")
    stdout_console().print(table)
    later, left = running.expected - len(running.cells), running.seconds_left()
    say(f"{len(running.cells)} cells, {len(running.finished)} finished; about {later} more depend on the choices")
    if left:
        say(f"the grid takes at most {duration(left)} more, with {running.asked.settings.machine.workers} workers")
