"""What has happened to an agent and waits to be handled, in order; and the threads that put it there."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from fedcervix.core import session
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.instructions import Instruction
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import FedcervixError, LinkError, StorageError
from fedcervix.transport import codec
from site_agent.federation.heartbeat import Hung
from site_agent.federation.sealed_run import SealedRun
from site_agent.federation.secure_run import SecureRun
from site_agent.store.run_store import RunStore


@dataclass(frozen=True, slots=True)
class Participation:
    """One run that this site takes part in."""

    plan: Plan
    run_store: RunStore
    secure: SecureRun | None = field(default=None, compare=False)
    """None: the plan has no secure sums"""
    sealed: SealedRun | None = field(default=None, compare=False)
    """None: models travel in the open"""
    over: threading.Event = field(default_factory=threading.Event, compare=False)
    """set: the agent has ended, or takes part in another run"""

    @property
    def run(self) -> str:
        """The run's name."""
        return self.run_store.folder.name


@dataclass(eq=False, slots=True)
class Job:
    """One action and the run that it is for: another run may begin before the job has ended."""

    action: session.Work | session.Deliver
    run: Participation
    cancelled: threading.Event = field(default_factory=threading.Event)
    at_work: bool = False
    """the worker has it, not the line: giving it up is a kill"""
    withdrawn: bool = False
    """the coordinator wants something else"""


# --- what happens -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CoordinatorSaid:
    """The coordinator has said something."""

    what: codec.Welcome | codec.LedgerPart | codec.Paper | Instruction


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The line is cut, or the coordinator has no room to serve it; the listener tries again by itself."""

    error: LinkError | StorageError


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job has ended; `then` is what it found out, as a change of the session of its run."""

    job: Job
    then: Callable[[session.Session], session.Session] = lambda unchanged: unchanged
    outcome: Outcome | None = None
    """how the run ended, where the coordinator has said so in an answer"""


@dataclass(frozen=True, slots=True)
class Broken:
    """Something has failed for good."""

    error: FedcervixError
    job: Job | None = None
    """in which it failed"""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The person or the system wants the agent to end: what can be kept is kept first."""


@dataclass(frozen=True, slots=True)
class StopOverdue:
    """Training was asked to stop and has not ended in time."""


Item = CoordinatorSaid | ConnectionLost | JobEnded | Broken | Hung | StopRequested | StopOverdue


# --- the inbox ----------------------------------------------------------------------------------------------------


SAID_MAX = 256
"""number of things that a coordinator has said and that are not handled yet; then its connection waits"""


class Inbox:
    """One queue, taken from by one loop."""

    def __init__(self) -> None:
        self._items: queue.Queue[Item] = queue.Queue()
        self._room_for_said = threading.Semaphore(SAID_MAX)
        self._lock = threading.Lock()
        self._next: dict[str, Callable[[], object] | None] = {}
        """of what is being done by `start_alone`: what follows it"""

    def put(self, item: Item) -> None:
        """Something has happened. From any thread; waits where it is the coordinator that has said too much."""
        if isinstance(item, CoordinatorSaid):
            self._room_for_said.acquire()
        self._items.put(item)

    def take(self, timeout_s: float | None = None) -> Item:
        """Return what happened next; waits for it. Raises queue.Empty after `timeout_s`."""
        item = self._items.get(timeout=timeout_s)
        if isinstance(item, CoordinatorSaid):
            self._room_for_said.release()
        return item

    def start(self, name: str, target: Callable[[], object]) -> threading.Thread:
        """Do something beside the loop. What it raises ends the agent: it would otherwise wait for ever."""
        thread = threading.Thread(target=lambda: self.watch(name, target), name=name, daemon=True)
        thread.start()
        return thread

    def start_alone(self, name: str, target: Callable[[], object]) -> None:
        """The same, but one at a time of a name. Of those that are started meanwhile only the last one follows."""
        with self._lock:
            at_work = name in self._next
            self._next[name] = target
        if not at_work:
            self.start(name, lambda: self._do_in_turn(name))

    def _do_in_turn(self, name: str) -> None:
        while target := self._take_next(name):
            target()

    def _take_next(self, name: str) -> Callable[[], object] | None:
        with self._lock:
            target = self._next[name]
            self._next[name] = None
            if target is None:
                del self._next[name]
            return target

    def watch(self, name: str, target: Callable[[], object]) -> None:
        """Do something; what it raises goes into the inbox."""
        try:
            target()
        except Exception as error:  # noqa: BLE001  (a thread that ends unheard would leave the agent waiting)
            self.put(Broken(FedcervixError(f"{name}: {error!r}", cause="a bug", next_step="report it")))
