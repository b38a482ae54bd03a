"""The command `coordinator metrics`: how the run stands, as Prometheus reads it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from coordinator.commands.operator import picture_since
from coordinator.home.home import Home
from coordinator.monitoring.facts import facts
from coordinator.monitoring.measuring import measured
from coordinator.run.history import stands
from coordinator.run.status_document import StatusDocument
from fedcervix.disk.storage import disk
from fedcervix.errors import LinkError, RunError
from fedcervix.extras import require
from fedcervix.monitoring.exposition import check_folder, text, write_textfile
from fedcervix.monitoring.textfiles import keep_writing
from fedcervix.runtime.printing import say


def metrics(home: Home, textfile: Path | None, every: float | None) -> None:
    """Print the metrics, or write them into node_exporter's folder, once or again and again.

    Raises click.UsageError, ConfigError, StorageError, IdentityError.
    """
    require("prometheus_client")
    if textfile is None:
        if every is not None:
            raise click.UsageError("--every needs --textfile DIR: printed metrics are those of one moment")
        say(Looks(home).text().decode().rstrip("\n"))
        return
    check_folder(textfile)
    file = textfile / f"fedcervix-coordinator-{home.config().federation.name}.prom"
    if every is None:
        write_textfile(file, Looks(home).text())
        say(f"wrote {file}")
        return
    say(f"writes {file} every {every:g} s; Ctrl-C ends it and removes the file")
    keep_writing(file, Looks(home).text, every)


class Looks:
    """Looks at a home again and again. Only what is new since the last look is read or sent."""

    def __init__(self, home: Home, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._home, self._clock = home, clock
        self._known: StatusDocument | None = None
        self._journal: tuple[object, StatusDocument | None] | None = None
        """the mark of the journal's files, and what was read from them"""

    def text(self) -> bytes:
        """Return the metrics. Raises ConfigError, IdentityError, StorageError."""
        document, answers = self.look()
        known = facts(self._home, self._clock(), answers=answers)
        return text(measured(document, known), {"federation": known.federation})

    def look(self) -> tuple[StatusDocument | None, bool]:
        """Return the status and whether the coordinator answers; by the journal where it gives none. None: no run."""
        answers = False
        with contextlib.suppress(LinkError):  # none runs, or it hangs
            try:
                found = picture_since(self._home, self._known)
            except RunError:
                answers = True  # too many watch it, or it is of another version
            else:
                if found is not None:
                    self._known = found
                    return found, True
        return self._by_journal(), answers

    def _by_journal(self) -> StatusDocument | None:
        """Read the journal, unless its files are those of the last look: a long run takes seconds."""
        mark = self._mark()
        if self._journal is None or self._journal[0] != mark:
            document = None
            with contextlib.suppress(RunError):  # no run has begun
                document = stands(self._home)
            self._journal = mark, document
        return self._journal[1]

    def _mark(self) -> object:
        """Return a value that changes with the journal; a reader may make an empty file beside it."""
        files = [self._home.journal, self._home.journal.with_name(f"{self._home.journal.name}-wal")]
        with disk(self._home.journal, "read"):
            found = [file.stat() for file in files if file.exists()]
        return [(one.st_ino, one.st_size, one.st_mtime_ns) for one in found if one.st_size]
