"""Running a study: prepare, make the grid, choose, make what follows, open the chosen test parts.

Rules
1. An existing cell is not computed again; so a killed study continues when it is started again.
2. study.json is written before the first cell, and whenever the list of cells or the state changes.
3. A cell that cannot be trained does not stop the others. A full disk, missing data or a bug does.
4. `selection` decides what may be opened, after the last cell is computed. Nothing is chosen afterwards.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cervix_study.data.preparation import Ground
from cervix_study.data.summary import summary
from cervix_study.execution import host, tasks
from cervix_study.execution.estimate import kind_of, paces, seconds_left
from cervix_study.execution.executors import Executor
from cervix_study.execution.progress_display import Screen
from cervix_study.execution.tasks import CellTask, Failed, TaskDone, TaskProgress, Work
from cervix_study.planning.cell_names import matches, named
from cervix_study.planning.grid import axes, expected_followers, followers, grid
from cervix_study.planning.registration import registered
from cervix_study.planning.selection import choose, to_open
from cervix_study.records import (
    CELLS_FOLDER,
    DATA_FILE,
    PREDICTIONS_FILE,
    SELECTION_FILE,
    STUDY_FILE,
    Cell,
    CellRecord,
    ProfileUsed,
    Selection,
    State,
    Study,
    StudySite,
    read_cell,
    read_predictions,
    read_study,
    write,
)
from cervix_study.settings import StudyConfig
from cervix_study.study_paths import Places
from fedcervix.errors import FedcervixError
from fedcervix.printable import printable_lines

NO_FOLD = "-"


@dataclass(slots=True)
class Running:
    """A study while it runs."""

    asked: StudyConfig
    places: Places
    ground: Ground
    executor: Executor
    screen: Screen
    pattern: str = "*"
    """which cells are to be made; the others wait for another time"""
    expected: int = 0
    """cells that the study will have"""
    cells: dict[str, Cell] = field(default_factory=dict)
    finished: dict[str, CellRecord] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _study: Study | None = None

    def run(self) -> State:
        """Run to the end, or to where the pattern allows. Raises what stops a study."""
        try:
            return self._run()
        except FedcervixError:
            self.stopped()
            raise

    def _run(self) -> State:
        write(self.places.folder / DATA_FILE, self.ground.data)
        for line in (*self.ground.remarks, *summary(self.ground.data)):
            self.screen.say(line)
        self.plan_grid()
        self._note("running")
        self.time()
        self._make(self.cells.values())
        if self._lacking():
            return self._leave("stopped")
        choices = choose(self.cells.values(), self.finished)
        self._plan(followers(self.asked, self.ground, choices, self.cells))
        self._note("running")
        self._make(self.cells.values())
        opened = to_open(choices, self.cells, self.asked.settings.named)
        before = self._opened_before({one.key for one in opened})
        write(self.places.folder / SELECTION_FILE, Selection(choices=choices, opened=opened, opened_before=before))
        self._open([one.key for one in opened if one.key in self.finished])
        return self._leave("stopped" if self._lacking() else "finished")

    def plan_grid(self) -> None:
        """Take up the grid, and what is there of it."""
        self._plan(grid(self.asked, self.ground))
        self.expected = len(self.cells) + expected_followers(self.asked, self.ground)

    def time(self) -> None:
        """Time what the cells are made of, for the estimate: one cell of each kind of which nothing is known."""
        if self.asked.settings.machine.executor != "here":
            return  # other machines will make them
        known, kinds = self._paces(), dict[str, Cell]()
        for key in self._lacking():
            kinds.setdefault(kind_of(self.cells[key]), self.cells[key])
        unknown = [cell for kind, cell in kinds.items() if kind not in known]
        for cell in unknown:
            self.places.put_plan(cell)
        self._carry_out([CellTask("time", cell, cell.key) for cell in unknown], self.screen.ended)

    def seconds_left(self) -> float | None:
        """Return how long the cells that are planned and not made will take."""
        cells = [self.cells[key] for key in self._lacking()]
        return seconds_left(cells, self._paces(), self.ground, self.asked.settings.machine.workers)

    def _paces(self) -> dict[str, float]:
        workers = self.asked.settings.machine.workers
        return {**self.places.timed(), **paces(self.finished.values(), self.ground, workers)}

    def _plan(self, cells: Iterable[Cell]) -> None:
        """Add cells to the study, and take up those that are there."""
        for cell in cells:
            key = cell.key
            self.cells.setdefault(key, cell)
            record = read_cell(self.places.folder, key)
            if record is not None:
                self.finished[key] = record

    def _lacking(self) -> list[str]:
        return [key for key in self.cells if key not in self.finished and key not in self.failed]

    # --- making and opening ---

    def _make(self, cells: Iterable[Cell]) -> None:
        wanted = wanted_keys(self.cells, self.pattern)
        waiting = [tasks.make(cell) for cell in cells if cell.key in wanted and cell.key not in self.finished]
        waiting = [task for task in waiting if task.key not in self.failed]
        for task in waiting:
            self.places.put_plan(task.cell)
        self._stand()
        self._carry_out(waiting, self._made)

    def _open(self, keys: Sequence[str]) -> None:
        """Open test parts that are not open yet."""
        shut = [key for key in keys if not is_open(self.places, key)]
        if shut:
            self.screen.say(f"opening the test part of {len(shut)} classifiers, chosen by validation")
        work: Work = "open" if self.asked.settings.machine.keep_weights else "open and drop weights"
        self._carry_out([CellTask(work, self.cells[key], key) for key in shut], self.screen.ended)

    def _opened_before(self, now: set[str]) -> tuple[str, ...]:
        others = (key for key, record in self.finished.items() if record.classifier and key not in now)
        return tuple(key for key in others if is_open(self.places, key))

    def _carry_out(self, waiting: list[CellTask], on_done: Callable[[CellTask], None]) -> None:
        """Do the tasks, as many at a time as there is room for, each when its inputs are there."""
        at_work = 0
        while waiting or at_work:
            self._give_up(waiting)
            for task in tasks.ready(waiting, self.finished):
                if self.executor.has_room(task):
                    waiting.remove(task)
                    self.executor.begin(task)
                    self.screen.begun(task)
                    at_work += 1
            if not at_work:
                return  # what is left waits for cells that the pattern leaves out
            match self.executor.wait():
                case TaskProgress(task, at):
                    self.screen.progress(task, at)
                case TaskDone(task):
                    at_work -= 1
                    on_done(task)
                case Failed(task, error, trace):
                    at_work -= 1
                    self._take_failure(Failed(task, error, trace))

    def _made(self, task: CellTask) -> None:
        record = read_cell(self.places.folder, task.key)
        assert record is not None, f"cell {task.key} was reported as done, but its folder is missing"
        self.finished[task.key] = record
        self._stand()
        self.screen.made(task, record)

    def _take_failure(self, told: Failed) -> None:
        """Go on without a cell that cannot be trained. Raises anything else."""
        self.screen.ended(told.task)
        self._log(told)
        if not tasks.passed_by(told.error):
            raise told.error
        if told.task.work == "time":
            return  # then there is no estimate; whether the cell can be made is seen when it is made
        self.failed[told.task.key] = told.error.what
        self.screen.say(f"{named(told.task.cell)} cannot be computed: {told.error.explain()}")
        self._note("running")

    def _log(self, told: Failed) -> None:
        with (self.places.logs / "failures.log").open("a", errors="backslashreplace") as out:
            out.write(printable_lines(f"{host.now()} {told.task.key} {named(told.task.cell)}\n{told.trace}\n"))

    def _give_up(self, waiting: list[CellTask]) -> None:
        lost = tasks.blocked(waiting, self.failed)
        for task in [task for task in waiting if task.key in lost]:
            waiting.remove(task)
            self.failed[task.key] = lost[task.key]
            self.screen.say(f"{named(task.cell)} cannot be computed: {lost[task.key]}")

    # --- telling ---

    def _stand(self) -> None:
        self.screen.stand(len(self.finished), max(len(self.cells), self.expected), self.seconds_left())

    def _leave(self, state: State) -> State:
        self._note(state)
        return state

    def stopped(self) -> None:
        """Note that the study was stopped before its end."""
        if self._study is not None:
            self._note("stopped")

    def _note(self, state: State) -> None:
        self._study = dataclasses.replace(
            self._study or self._begun(),
            state=state,
            cells=tuple(self.cells),
            failed=dict(self.failed),
            ended_at=host.now() if state == "finished" else "",
        )
        write(self.places.folder / STUDY_FILE, self._study)

    def _begun(self) -> Study:
        file = self.places.folder / STUDY_FILE
        before, now = read_study(self.places.folder) if file.exists() else None, host.now()
        sites = _sites(self.asked, self.ground)
        decided = _decided(self.asked.profiles, sites)
        return Study(
            name=self.asked.settings.name,
            state="running",
            sites=sites,
            profiles=dict(self.asked.profiles),
            axes=axes(self.asked),
            cells=(),
            command=host.command(),
            configuration=self.asked.text,
            versions=host.versions(),
            host=platform.node(),
            machine=host.processor(),
            cores=len(os.sched_getaffinity(0)),
            begun_at=before.begun_at if before else now,
            registered=registered(
                self.asked,
                before.registered if before else None,
                opened=any_open(self.places),
                same=before is not None and _decided(before.profiles, before.sites) == decided,
                commit=host.commit_of(self.asked.file),
                at=now,
            ),
        )


def _decided(profiles: Mapping[str, ProfileUsed], sites: Iterable[StudySite]) -> object:
    """Return what decides results and is not in STUDY.toml."""
    return dict(profiles), {site.name: site.digests for site in sites}


def _sites(asked: StudyConfig, ground: Ground) -> tuple[StudySite, ...]:
    return tuple(
        StudySite(
            name=site.name,
            manifest=str(ground.manifests[site.name]),
            phantom=site.phantom,
            digests={
                NO_FOLD if fold is None else str(fold): lot.whole
                for (name, fold), lot in ground.lots.items()
                if name == site.name
            },
        )
        for site in asked.settings.sites
    )


def wanted_keys(cells: Mapping[str, Cell], pattern: str) -> set[str]:
    """Return the cells that a pattern means, with all that they begin from."""
    wanted: set[str] = set()
    waiting = [key for key, cell in cells.items() if matches(cell, pattern)]
    while waiting:
        key = waiting.pop()
        if key not in wanted:
            wanted.add(key)
            waiting.extend(cells[key].inputs)
    return wanted


def any_open(places: Places) -> bool:
    """Return whether the test part of any classifier in the study's folder was opened."""
    found = (places.folder / CELLS_FOLDER).glob(f"*/{PREDICTIONS_FILE}")
    return any(is_open(places, file.parent.name) for file in found)


def is_open(places: Places, key: str) -> bool:
    """Return whether a classifier's test part was opened."""
    return any(row.split == "test" for row in read_predictions(places.folder, key))
