"""`site-agent data phantom`: draw an institution, so that everything can be tested without images of women."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedcervix.runtime.printing import console, say
from site_agent.phantom import INSTITUTIONS, write_institution

PLAIN_LINES = 10
"""how many progress lines are printed where there is no terminal"""


def phantom(
    folder: Path, institution: str, women: int, seed: int, unlabelled_per_labelled: float | None, test_women: int
) -> None:
    """Draw a phantom institution into FOLDER (new or empty): images and manifest.csv.

    Raises click.UsageError, StorageError.
    """
    with _progress(console(stderr=True)) as report:
        try:
            write_institution(
                folder,
                INSTITUTIONS[institution],
                women=women,
                seed=seed,
                unlabelled_per_labelled=unlabelled_per_labelled,
                test_women=test_women,
                on_progress=report,
            )
        except ValueError as error:
            raise click.UsageError(f"too few women: {error}") from error
    manifest = folder / "manifest.csv"
    more = f" and {test_women} to test" if test_women else ""
    images = sum(1 for _ in (folder / "images").iterdir())
    say(f"wrote {images} images and {manifest}: phantom {institution}, {women} labelled women{more}, seed {seed}")
    say(f"  next: site-agent data check {shlex.quote(str(manifest))}")


@contextmanager
def _progress(screen: Console) -> Iterator[Callable[[int, int], None]]:
    """Yield the callback that shows (done, all): a bar on a terminal, a few plain lines elsewhere."""
    if not screen.is_terminal:
        yield _plain_lines
        return
    columns = TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("drawing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain_lines(done: int, total: int) -> None:
    step = max(2, total // PLAIN_LINES // 2 * 2)  # images come in pairs
    if done % step == 0 or done == total:
        say(f"drawing: {done} of {total} images", err=True)
