"""The commands `coordinator backup` and `coordinator restore`."""

from __future__ import annotations

import contextlib
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path

from coordinator.backup import making, restoring
from coordinator.backup.archive import Label
from coordinator.backup.placing import taken_name
from coordinator.home.home import Home
from coordinator.run import history
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.runtime.printing import say


def backup(home: Home, file: Path | None) -> None:
    """Write the home into one file. Raises FedcervixError."""
    now = datetime.now(UTC)
    name = f"coordinator-{now:%Y%m%d-%H%M%S}.backup.tar"
    to = file / name if file and file.is_dir() else file or Path(name)
    if os.path.lexists(to):
        raise taken_name(to)
    label = making.backup(home, to, now)
    say(f"wrote {to} ({to.stat().st_size:,} bytes): {_told(label)}")
    say("it holds the federation's keys: keep it as secret as a password, on another machine")
    say(f"to use it: coordinator --home NEW-FOLDER restore {shlex.quote(str(to))}")


def restore(home: Home, file: Path) -> None:
    """Make the home of a backup file. Raises FedcervixError."""
    label = restoring.restore(home, file)
    say(f"made {home.folder} of {file}: {_told(label)}")
    say("before you start it:")
    say("  - the coordinator that the backup was made of must not run any more, on any machine")
    say(f"  - what was done after {label.made_at} is not in it: revoke again who was revoked, invite again who joined")
    say(
        f"  - so may be decisions on models: {home.command('models import FILE')} takes back what others have a copy of"
    )
    if label.run and not label.outcome:
        say(f"next: {home.command('start')}, which continues run {label.run}")
        if compression := _compression(home):
            say(
                f"its models travel as {compression}: a site can repeat its last round only, so if more than one round "
                "was made after the backup, the sites refuse and this run cannot go on"
            )
        say(f"if sites refuse because the run went on after the backup: {home.command('start --new')}")
    else:
        say(f"next: {home.command('start --mode csfssl')}, which begins a run")


def _compression(home: Home) -> str:
    """Return how the models of the last run are rounded to travel; empty where they are not, or that cannot be read."""
    with contextlib.closing(Journal(home.journal, read_only=True)) as journal:
        last = history.last_of(journal)
    return last.plan.terms.compression.replace("none", "") if isinstance(last, RunRecord) else ""


def _told(label: Label) -> str:
    run = f"run {label.run}, {label.outcome or 'unfinished'}, round {label.round}" if label.run else "no run yet"
    return f"federation {label.federation}, at {label.made_at}, {run}"
