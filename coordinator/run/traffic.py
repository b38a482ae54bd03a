"""What moved in each round: bytes of models, by site. For people, beside the prediction; no part of a run's state.

A round has what moved from the end of the one before it to its own end; the first one has the first model, too. Ended
rounds are lines of `paces/RUN.moved.jsonl` in the home. Where a coordinator was stopped in a round, that round has two
lines, which add up; what moved before it was killed is lost.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from fedcervix.disk.files import append_line, make_folder
from fedcervix.disk.storage import disk, read_file
from fedcervix.errors import StorageError
from fedcervix.json_text import parsed
from fedcervix.runtime.log import logger
from fedcervix.runtime.record import COUNT_MAX, RoundTraffic, SiteTraffic
from fedcervix.runtime.typed_json import from_json, to_text


class RunTraffic:
    """What moves in one run. Thread-safe. Without a folder, it is kept in memory alone."""

    def __init__(self, run: str, folder: Path | None = None) -> None:
        self._file = _file(folder, run) if folder else None
        self._lock = threading.Lock()
        self._log = logger(run=run)
        self._ended = list(stored(folder, run)) if folder else []
        self._down, self._up = Counter[str](), Counter[str]()

    @property
    def rounds(self) -> tuple[RoundTraffic, ...]:
        """What was written down, in order."""
        return tuple(self._ended)

    def moved(self, site: str, *, down_bytes: int = 0, up_bytes: int = 0) -> None:
        """Count bytes of a model that a site was sent, or has sent."""
        with self._lock:
            self._down[site] += down_bytes
            self._up[site] += up_bytes

    def keep(self, number: int) -> None:
        """Write down what moved in a round, which has ended or which is broken off now."""
        with self._lock:
            found = _lines(self._down, self._up)
            self._down.clear()
            self._up.clear()
        if not found:
            return
        line = RoundTraffic(round=number, sites=found)
        self._ended = _added((*self._ended, line))
        if self._file is None:
            return
        try:
            make_folder(self._file.parent)
            append_line(self._file, to_text(line), sync=False)
        except StorageError as error:
            self._log.warning("what moved in a round was not written down", round=line.round, what=error.what)


def stored(folder: Path, run: str) -> tuple[RoundTraffic, ...]:
    """Return what moved in the rounds of a run, in order; of a line that cannot be read, nothing."""
    found = list[RoundTraffic]()
    with contextlib.suppress(StorageError):
        with disk(file := _file(folder, run), "read"):
            lines = read_file(file).splitlines() if file.exists() else []
        for line in filter(None, lines):
            with contextlib.suppress(ValueError):
                found.append(from_json(RoundTraffic, parsed(line), extra="ignore"))
    return tuple(_added(found))


def _file(folder: Path, run: str) -> Path:
    return folder / f"{run}.moved.jsonl"


def _added(lines: Iterable[RoundTraffic]) -> list[RoundTraffic]:
    """Return one line a round: a site's bytes of all its lines together."""
    down, up = dict[int, Counter[str]](), dict[int, Counter[str]]()
    for line in lines:
        for one in line.sites:
            down.setdefault(line.round, Counter())[one.site] += one.down_bytes
            up.setdefault(line.round, Counter())[one.site] += one.up_bytes
    return [RoundTraffic(round=number, sites=_lines(moved, up[number])) for number, moved in sorted(down.items())]


def _lines(down: Counter[str], up: Counter[str]) -> tuple[SiteTraffic, ...]:
    return tuple(SiteTraffic(site, *(min(way[site], COUNT_MAX) for way in (down, up))) for site in sorted(down))
