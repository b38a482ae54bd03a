"""`site-agent data phantom`: draw an institution, so that everything can be tested without images of women."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from fedcervix.core.plan import Stage
from fedcervix.runtime.printing import say
from site_agent.commands.display import progress
from site_agent.phantom import INSTITUTIONS, Protocol, write_institution


def phantom(
    folder: Path,
    institution: str,
    women: int,
    seed: int,
    unlabelled_per_labelled: float | None,
    test_women: int,
    stages: tuple[Stage, ...],
    devices: int,
) -> None:
    """Draw a phantom institution into FOLDER (new or empty): images and manifest.csv.

    Raises click.UsageError, StorageError.
    """
    protocol = Protocol.of(tuple(dict.fromkeys(stages)), devices)
    with progress("drawing images") as report:
        try:
            write_institution(
                folder,
                INSTITUTIONS[institution],
                women=women,
                seed=seed,
                unlabelled_per_labelled=unlabelled_per_labelled,
                test_women=test_women,
                protocol=protocol,
                on_progress=report,
            )
        except ValueError as error:
            raise click.UsageError(f"too few women: {error}") from error
    manifest = folder / "manifest.csv"
    more = f" and {test_women} to test" if test_women else ""
    images = sum(1 for _ in (folder / "images").iterdir())
    say(f"wrote {images} images and {manifest}: phantom {institution}, {women} labelled women{more}, seed {seed}")
    say(f"  next: site-agent data check {shlex.quote(str(manifest))}")
