"""A line between a site and its coordinator that does as a test tells it, and what is said on it."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fedcervix.core.compression import Packed
from fedcervix.core.events import Answer, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import Finish, Instruction
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import FedcervixError, RunError
from fedcervix.models.blobs import BlobStore
from fedcervix.transport import codec
from fedcervix.trust.seals import Signed
from site_agent.federation.link import OnBytes

RUN = "20300101-000000-csfssl-00000000"
OVER = Finish(Outcome.OK, "all rounds done")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


BASE = b"the model to work on"
TRAINED = b"the model after training"
SEED = Task(RUN, TaskKind.SEED, 0, "")
TRAIN = Task(RUN, TaskKind.TRAIN, 1, digest(BASE))
TRAIN_2 = Task(RUN, TaskKind.TRAIN, 2, digest(TRAINED))
SCORE = Task(RUN, TaskKind.SCORE, 1, digest(TRAINED))
ADOPT = Task(RUN, TaskKind.ADOPT, 1, digest(TRAINED))


def plan(**terms: Any) -> Plan:
    return Plan(mode="csfssl", sites=("nhs", "alts"), profile="demo", terms=Terms(**terms), recipe=Recipe())


class Cut:
    """The line ends here; the next `attach` hears what comes after it."""


class FakeLink:
    """A line on which the test speaks; what the agent tells is in `told`, in order.

    `wait_s`: how long the agent may take to tell something; 0 where it is stepped on the test's own thread.
    """

    def __init__(self, wait_s: float = 0.0) -> None:
        self._wait_s = wait_s
        self._said: queue.Queue[codec.Welcome | Instruction | Cut | FedcervixError] = queue.Queue()
        self.told: list[Any] = []
        self.bounds: list[int] = []
        """how long a model might be, at each fetch"""
        self.models = {digest(content): content for content in (BASE, TRAINED)}
        self.seals: tuple[Signed, ...] = ()
        self.forms: dict[str, Packed] = {}
        self.answers: Callable[[codec.Report], tuple[Answer, str]] = lambda _report: (Answer.ACCEPTED, "")
        self.arrived: set[str] = set()
        """the models that the coordinator does not want again"""
        self.push_chunks: Callable[[int, OnBytes], None] = lambda size, on_bytes: on_bytes(size, size)
        self.before_fetch: Callable[[], None] = lambda: None
        self.chunk_bytes = 1 << 20
        self.renews: Callable[[bytes], bytes] = lambda _request: b""
        self._changed = threading.Condition()

    def say(self, *what: codec.Welcome | Instruction | Cut | FedcervixError) -> None:
        for one in what:
            self._said.put(one)

    def attach(self) -> Iterator[codec.Welcome | Instruction]:
        while not isinstance(what := self._said.get(), Cut):
            if isinstance(what, FedcervixError):
                raise what
            yield what

    def report(self, report: codec.Report) -> tuple[Answer, str]:
        self._tell(report)
        return self.answers(report)

    def sign(self, report: codec.Heartbeat) -> None:
        self.report(report)

    def fetch(self, digest: str, blobs: BlobStore, on_bytes: OnBytes, *, bytes_max: int = 8 * 2**30) -> None:
        self._tell(("fetch", digest))
        self.before_fetch()
        self.bounds.append(bytes_max)
        if digest not in self.models:
            raise RunError("the model is not for this site now")
        size, have = len(self.models[digest]), blobs.resume_at(digest, "coordinator")
        assert blobs.expect(digest, "coordinator", size_bytes=size) == have
        blobs.receive(digest, "coordinator", self._chunks(digest, have, on_bytes), offset=have, size_bytes=size)

    def _chunks(self, digest: str, have: int, on_bytes: OnBytes) -> Iterator[bytes]:
        content = self.models[digest]
        for start in range(have, len(content), self.chunk_bytes):
            chunk = content[start : start + self.chunk_bytes]
            on_bytes(start + len(chunk), len(content))
            yield chunk

    def push(self, digest: str, blobs: BlobStore, on_bytes: OnBytes, *, task: Task | None = None) -> None:
        del task
        size = blobs.size_bytes(digest)
        if digest not in self.arrived:
            on_bytes(0, size)
        self._tell(("push", digest))
        assert hashlib.sha256(blobs.path(digest).read_bytes()).hexdigest() == digest
        if digest not in self.arrived:
            self.push_chunks(size, on_bytes)
            self.arrived.add(digest)

    def packed(self, digest: str) -> Packed | None:
        return self.forms.get(digest)

    def sealed(self, _digest: str) -> tuple[Signed, ...]:
        return self.seals

    def renew(self, request_pem: bytes) -> bytes:
        self._tell(("renew", request_pem))
        return self.renews(request_pem)

    def use(self, certificate_pem: bytes) -> None:
        self._tell(("use", certificate_pem))

    def _tell(self, what: Any) -> None:
        with self._changed:
            self.told.append(what)
            self._changed.notify_all()

    def hears(self, condition: Callable[[list[Any]], Any]) -> None:
        """Assert that what was told fulfils a condition, or soon does."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.told), self._wait_s), self.told

    @property
    def reports(self) -> list[Any]:
        """What was told, but progress and readiness."""
        return [what for what in self.told if not isinstance(what, codec.Ready | codec.Progress)]


def kinds(reports: list[Any]) -> list[str]:
    """Return what reports are, by their names."""
    return [what[0] if isinstance(what, tuple) else type(what).__name__ for what in reports]


def update(task: Task) -> Callable[[list[Any]], bool]:
    """Return the condition that a task's update was told."""
    return lambda told: any(isinstance(what, UpdateStored) and what.task == task for what in told)
