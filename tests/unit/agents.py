"""A site's agent between a line and a worker that do as a test tells them, stepped on the test's thread or threaded."""

from __future__ import annotations

import dataclasses
import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedcervix.core.events import Answer, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.instructions import Finish, Instruction
from fedcervix.errors import FedcervixError, LinkError, StorageError
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.worker_protocol import OnProgress, WorkProgress
from fedcervix.transport import codec
from site_agent.federation import shown
from site_agent.federation.agent import Agent, Checks, Waits
from site_agent.federation.context import AgentContext
from site_agent.federation.inbox import ConnectionLost, CoordinatorSaid, Inbox, Item
from site_agent.federation.readiness import Examine
from site_agent.home import SiteHome
from site_agent.home import create as create_home
from site_agent.store.audit_sheets import AuditSheet
from site_agent.store.run_store import RunStore
from site_agent.store.task_results import ScoreResult, TaskResult, TrainResult
from site_agent.worker.worker import CancelledError
from tests.unit.fake_link import RUN, TRAIN, TRAINED, Cut, FakeLink, digest, plan

WAIT_S = 60.0
ENDLESS = ("listener", "reporter", "deadline")
"""what only a thread can do; where an agent is stepped, the test speaks in their place"""


def nothing(*_: object) -> None:
    """Find nothing wrong."""


class FakeWorker:
    """A worker that ends a task when the test lets it; `begun` lists what it was asked."""

    def __init__(self, home: SiteHome, wait_s: float = 0.0) -> None:
        self._blobs, self._wait_s = BlobStore(home.blobs), wait_s
        self.begun: list[Task] = []
        self.go = threading.Event()
        self.go.set()
        self.meanwhile: list[Callable[[], object]] = []
        """what happens while it is at work; one for each task"""
        self.ends_with: Exception | None = None
        self._killed = threading.Event()
        self._changed = threading.Condition()
        self.audit: AuditSheet | None = None
        self.cancels = self.stops = 0
        self.on_stop: Callable[[], None] = lambda: self._killed.set()

    def do(
        self, task: Task, _plan: Plan, on_progress: OnProgress, cancelled: threading.Event, *, roster: str = ""
    ) -> TaskResult:
        del roster
        if cancelled.is_set():
            raise CancelledError
        killed = self._killed = threading.Event()  # its own: one that was killed must not live on with the next
        with self._changed:
            self.begun.append(task)
            self._changed.notify_all()
        on_progress(WorkProgress("training", 1, 2, "steps"))
        if self.meanwhile:
            self.meanwhile.pop(0)()
        while not self.go.wait(0.01):
            if killed.is_set():
                break
        if killed.is_set():  # also where it was let go after that: the dead make no model
            raise CancelledError
        if self.ends_with is not None:
            raise self.ends_with
        if task.kind is TaskKind.SCORE:
            return ScoreResult(loss_sum=2.0, count=4, images=9, gauges={"unit_std": 0.5, "private": 4711.0})
        making = self._blobs.scratch("made")
        making.write_bytes(TRAINED)
        self._blobs.adopt(making, digest(TRAINED))
        private = {"private": 4711.0}
        return TrainResult(
            digest=digest(TRAINED), images=9, steps=3, loss=1.5, seconds=0.1, gauges=private, audit=self.audit
        )

    def stop(self) -> None:
        self.stops += 1
        self.on_stop()

    def cancel(self) -> None:
        self.cancels += 1
        self._killed.set()

    def begins(self, count: int) -> None:
        """Assert that it was asked so many tasks, or soon is."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.begun) >= count, self._wait_s), self.begun


class Later(threading.Thread):
    """What was started beside the loop, and begins when the test lets it, on the test's thread."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self._do: Callable[[], object] | None = do

    def join(self, timeout: float | None = None) -> None:
        del timeout
        do, self._do = self._do, None
        if do is not None:
            do()


class SteppedInbox(Inbox):
    """Starts no thread: what goes on beside the loop waits in `later`."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[Later] = []

    def start(self, name: str, target: Callable[[], object]) -> threading.Thread:
        later = Later(lambda: self.watch(name, target))
        if name not in ENDLESS:
            self.later.append(later)
        return later


class Site:
    """An agent, its home, line and worker, stepped: what it was told is done when a method returns.

    While the worker is at work (`worker.meanwhile`), or a model or report is on its way, the test may go on speaking.
    """

    wait_s = 0.0

    def __init__(self, folder: Path) -> None:
        self.home = SiteHome(folder)
        create_home(self.home)
        self.begin()

    def begin(self, examine: Examine = nothing, **waits: float) -> None:
        """Make an agent on this home, as after a restart of the process."""
        self.link, self.worker = FakeLink(self.wait_s), FakeWorker(self.home, self.wait_s)
        self.shown: list[tuple[str, dict[str, Any]]] = []
        self._shown = threading.Condition()
        self._inbox, self._busy = SteppedInbox(), False
        self._ended: list[Finish | BaseException] = []
        self.agent = self._agent(examine, Waits(**waits), self._inbox)
        self._part = self.agent.taking_part()

    def _agent(self, examine: Examine, waits: Waits, inbox: Inbox) -> Agent:
        return Agent(
            AgentContext(self.home, "nhs", self.link, self._show, inbox),
            self.worker,  # type: ignore[arg-type]
            federation="cervix",
            checks=Checks(nothing, nothing, examine),
            waits=waits,
        )

    def _show(self, event: shown.Shown) -> None:
        what = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(event).__name__).lower()  # TaskFinished: "task finished"
        with self._shown:
            self.shown.append((what, {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}))
            self._shown.notify_all()

    def shows(self, what: str, **values: Any) -> None:
        """Assert that the agent has told a person something, or soon does."""

        def was_shown() -> bool:
            return any(name == what and values.items() <= found.items() for name, found in self.shown)

        with self._shown:
            assert self._shown.wait_for(was_shown, self.wait_s), self.shown

    # --- steps ---

    def alone(self) -> None:
        """Begin; what the line does, the test says."""
        try:
            self._part.__enter__()
        except (FedcervixError, KeyboardInterrupt) as error:
            self._ended.append(error)
        self._settle()

    def attach(self, *said: Instruction, **terms: Any) -> None:
        """Begin; the coordinator says welcome, and then this."""
        self.alone()
        self.says(codec.Welcome("cervix", RUN, plan(**terms)), *said)

    def says(self, *what: codec.Welcome | Instruction) -> None:
        """The coordinator says this."""
        self.handle(*map(CoordinatorSaid, what))

    def line_down(self, *why: LinkError | StorageError) -> None:
        """The line is cut."""
        self.handle(*(ConnectionLost(error) for error in why or (LinkError("no line"),)))

    def stop(self) -> None:
        """The person wants the agent to end."""
        self.agent.stop()
        self._settle()

    def handle(self, *items: Item) -> None:
        """Let this happen, and whatever follows from it."""
        for item in items:
            self._inbox.put(item)
        self._settle()

    def _settle(self) -> None:
        """Let the agent handle what has happened; then let what goes on beside it happen, until nothing more does."""
        while not self._ended:
            try:
                self._handle(self._inbox.take(0.0))
            except queue.Empty:
                if self._busy or not self._inbox.later:
                    return
                self._busy = True  # until this is done nothing else of the kind begins
                try:
                    self._inbox.later.pop(0).join()
                finally:
                    self._busy = False

    def _handle(self, item: Item) -> None:
        error: BaseException | None = None
        try:
            self.agent.handle(item)
        except (FedcervixError, KeyboardInterrupt) as raised:
            error = raised
        if error is None and self.agent.over is None:
            return
        over = self.agent.over
        self._ended.append(error or over)  # type: ignore[arg-type]  # one of the two there is
        try:
            self._part.__exit__(type(error) if error else None, error, None)
        except (FedcervixError, KeyboardInterrupt) as raised:  # while it wrote down how it ended
            self._ended[0] = raised

    def end(self) -> Any:
        """Return what the agent has returned or raised."""
        assert self._ended, f"the agent goes on; told: {self.link.told}"
        return self._ended[0]

    def run_store(self) -> RunStore:
        return RunStore(self.home.run_folder(RUN))


class ThreadedSite(Site):
    """The same with all its threads; the test speaks on the line (`link.say`)."""

    wait_s = WAIT_S

    def begin(self, examine: Examine = nothing, **waits: float) -> None:
        super().begin()
        self.agent = self._agent(examine, Waits(**waits), Inbox())
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._ended.append(self.agent.run())
        except (FedcervixError, KeyboardInterrupt) as error:
            self._ended.append(error)

    def alone(self) -> None:
        self._thread.start()

    def says(self, *what: codec.Welcome | Instruction) -> None:
        self.link.say(*what)

    def end(self) -> Any:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), f"the agent goes on; told: {self.link.told}"
        self.link.say(Cut())  # lets the listener's thread end
        return super().end()


def cutting(site: Site) -> Callable[[codec.Report], tuple[Answer, str]]:
    """Return what a line answers that is cut while a result is on its way."""

    def answer(report: codec.Report) -> tuple[Answer, str]:
        if isinstance(report, UpdateStored):
            site.line_down()
            raise LinkError("cut")
        return Answer.ACCEPTED, ""

    return answer


def interrupted(site: Site, **terms: Any) -> None:
    """Let an agent be ended while it trains."""
    site.worker.meanwhile = [site.stop]
    site.attach(TRAIN, **terms)
    assert isinstance(site.end(), KeyboardInterrupt)
    site.begin()
