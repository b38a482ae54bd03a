"""The paths of a study, in addition to those in `records`.

STUDY/phantoms/NAME/           drawn institutions
STUDY/workshop/lock            one `cervix-study run` at a time
STUDY/workshop/cache/          decoded images of all sites, kept by content
STUDY/workshop/sites/NAME/     the site's home folder: site.toml, splits.csv (NAME-fold-K in cross-validation)
STUDY/workshop/plan/KEY.json   what a cell is to be
STUDY/workshop/scratch/KEY/    a cell that is being made: checkpoints, a federation's homes and logs
STUDY/workshop/logs/           what the workers print
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cervix_study.records import CELLS_FOLDER, Cell, cell_folder, from_json, write
from fedcervix.disk.locks import held
from fedcervix.disk.paths import Below
from fedcervix.disk.storage import disk, read_file
from fedcervix.errors import RunError
from fedcervix.json_text import parsed
from site_agent.home import SiteHome


@dataclass(frozen=True, slots=True)
class Places:
    """Paths below a study's folder."""

    folder: Path

    workshop = Below("workshop")
    """What may be thrown away once the study is finished, but for splits.csv."""
    cache = Below("workshop/cache")
    """Decoded images."""
    logs = Below("workshop/logs")
    """What the workers print."""
    paces_file = Below("workshop/paces.json")
    """How long the network takes on this machine: kind of cell -> seconds per pass of one image."""

    def timed(self) -> dict[str, float]:
        """Return the paces that were timed; none where none were."""
        try:
            found: dict[str, float] = parsed(self.paces_file.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def phantom(self, site: str) -> Path:
        """Return where a site's phantoms are drawn."""
        return self.folder / "phantoms" / site

    def home(self, site: str, fold: int | None) -> SiteHome:
        """Return a site's home folder."""
        return SiteHome(self.workshop / "sites" / (site if fold is None else f"{site}-fold-{fold}"))

    def cell(self, key: str) -> Path:
        """Return the folder of a finished cell."""
        return cell_folder(self.folder, key)

    def scratch(self, key: str) -> Path:
        """Return where a cell is made."""
        return self.workshop / "scratch" / key

    def plan_file(self, key: str) -> Path:
        """Return where it is written what a cell is to be."""
        return self.workshop / "plan" / f"{key}.json"

    def put_plan(self, cell: Cell) -> None:
        """Write down what a cell is to be, for whichever process makes it. Raises StorageError."""
        file = self.plan_file(cell.key)
        if not file.exists():
            with disk(file, "write"):
                file.parent.mkdir(parents=True, exist_ok=True)
            write(file, cell)

    def planned(self, key: str) -> Cell:
        """Return what a cell is to be. Raises StorageError."""
        file = self.plan_file(key)
        return from_json(Cell, read_file(file), file)

    def tidy(self) -> None:
        """Remove what processes that were killed left half-written. Call it while nothing is being made."""
        for rest in (self.folder / CELLS_FOLDER).glob(".*"):
            shutil.rmtree(rest, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the study's folder for one run. Raises RunError where another one has it."""
        with disk(self.workshop, "write"):
            self.workshop.mkdir(parents=True, exist_ok=True)
        busy = RunError(
            f"a study is already running in {self.folder}",
            cause="it was started twice",
            next_step="wait until the other one has ended, or give this one another folder: --out FOLDER",
        )
        with held(self.workshop / "lock", busy=busy):
            yield
