"""What the sites of each run have measured, as files: `paces/RUN.json` in the home. They are no part of a run's state.

What a site has said before the first round stands: a prediction is compared with the rounds that follow it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fedcervix.core.events import RUN_NAME
from fedcervix.core.formats import FIRST, KEY, contents
from fedcervix.core.pace import SitePace, pace_key
from fedcervix.core.plan import SITES_MAX
from fedcervix.core.rounds.state import Run
from fedcervix.disk.files import make_folder, write_whole
from fedcervix.disk.storage import damaged, disk, read_file
from fedcervix.errors import StorageError
from fedcervix.json_text import parsed
from fedcervix.runtime.budgets import Budget
from fedcervix.runtime.log import logger
from fedcervix.runtime.pace_lines import PaceLine
from fedcervix.runtime.typed_json import fields_of, from_json, to_text

AGAIN_PER_S, AGAIN_BURST = 1 / 60, 10
"""how often a site may measure again before the run has begun"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _PaceFile:
    """All that the sites of one run have measured."""

    sites: Annotated[tuple[PaceLine, ...], Field(max_length=SITES_MAX)]


class Paces:
    """What the sites of one run have measured. Thread-safe. Without a folder, it is kept in memory alone."""

    def __init__(self, run: str, folder: Path | None = None) -> None:
        self._file = folder / f"{run}.json" if folder else None
        self._lock = threading.Lock()
        self._log = logger(run=run)
        self._lines: dict[str, PaceLine] = {}
        self._budgets: dict[str, Budget] = {}
        if self._file is not None:
            with contextlib.suppress(StorageError):  # a damaged file costs the prediction, not the run
                self._lines = {line.site: line for line in stored(self._file)}

    @property
    def known(self) -> Mapping[str, SitePace]:
        """The paces, by site."""
        return {site: line.pace for site, line in self._lines.items()}

    def note(self, run: Run, site: str, pace: SitePace, at: float) -> None:
        """Keep what a site has measured, unless the run has begun with what it measured before.

        Nor where it measures too often: each time writes a file.
        """
        with self._lock:
            before = self._lines.get(site)
            if before is not None and (run.rounds or before.pace == pace or not self._budget(site).take(at)):
                return
            line = PaceLine(site=site, at=at, pace_key=pace_key(run.plan.recipe), pace=pace)
            self._lines = {**self._lines, site: line}
            if self._file is None:
                return
            try:
                make_folder(self._file.parent)
                write_whole(self._file, _text(self._lines.values()))
            except StorageError as error:
                self._log.warning("what a site has measured was not written down", site=site, what=error.what)

    def _budget(self, site: str) -> Budget:
        return self._budgets.setdefault(site, Budget(AGAIN_PER_S, AGAIN_BURST))


def _text(lines: Iterable[PaceLine]) -> bytes:
    return to_text({KEY: FIRST, **fields_of(_PaceFile(sites=tuple(lines)))}, indent=2).encode()


def stored(file: Path) -> tuple[PaceLine, ...]:
    """Return what is in a file of a run; nothing where there is none. Raises StorageError."""
    with disk(file, "read"):
        if not file.exists():
            return ()
    try:
        found = from_json(_PaceFile, contents("what sites have measured", parsed(read_file(file))), extra="ignore")
    except ValueError as error:
        raise damaged(file, error, next_step=f"delete it: rm {file}; nothing but a prediction is lost") from error
    return found.sites


def known(folder: Path, run: str) -> dict[str, SitePace]:
    """Return what the sites of a run have measured; of a file that cannot be read, nothing."""
    with contextlib.suppress(StorageError):
        return {line.site: line.pace for line in stored(folder / f"{run}.json")}
    return {}


def newest(folder: Path, sites: Iterable[str], key: str) -> dict[str, PaceLine]:
    """Return what each site has measured last with a recipe of this key. Raises StorageError."""
    with disk(folder, "read"):
        files = [file for file in folder.glob("*.json") if RUN_NAME.fullmatch(file.stem)]
    wanted, found = set(sites), dict[str, PaceLine]()
    for file in files:
        for line in stored(file):
            if line.site in wanted and line.pace_key == key:
                found[line.site] = max(found.get(line.site, line), line, key=lambda one: one.at)
    return found
