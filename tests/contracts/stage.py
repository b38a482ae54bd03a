"""A coordinator and its sites in one process, over mutual TLS on loopback, one of them speaking at a time.

Everything is real but the training, which is arithmetic: service, engine, agents, line. The conversation is written
down where it passes the coordinator's seam (`Service.behaviours`), with the caller's name from the certificate.

What is free in reality is settled here, so that the same conversation comes out every time:
1. One speaks at a time (`Floor`): from the request to its answer nobody else is heard, nor does the run move.
2. A step of the run ends when every site has been told what it means for it, in roster order; so no instruction is
   overtaken by the next one, and those that a call brings about stand before its answer.
3. Where several sites have work at once, the first of the roster does and delivers its own first.
4. Progress reports go out once a second, whatever there is to say by then. Each site's first training waits for one;
   what an agent reports of itself besides (that it starts) is let through and not written down.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from coordinator.engine import Engine
from coordinator.founding import Founding
from coordinator.founding import create as create_home
from coordinator.home import Home
from coordinator.registry import Registry
from coordinator.service import Service, serve
from fedcervix import identity, rpc
from fedcervix.address import Address
from fedcervix.blobs import BlobStore
from fedcervix.events import Answer, Event, Task, TaskKind
from fedcervix.journal import Journal, RunRecord
from fedcervix.plan import Mode, Plan, Recipe, Terms
from fedcervix.rounds import Instruction, Leave, Presence, Run, instruction
from fedcervix.weights import read_tensors, write_tensors
from site_agent.agent import Agent
from site_agent.home import SiteHome
from site_agent.home import create as create_site
from site_agent.link import GrpcLink
from tests.contracts.transcript import Transcript

FEDERATION = "cervix"
SITES = ("nhs", "alts")
IMAGES = {"nhs": 10, "alts": 30}
PULL = {"nhs": 1.0, "alts": 3.0}
"""what a site's training adds to every weight; so the average of both adds 2"""
NUMBERS = 300_000
"""of the model: 1.2 MB, two chunks on the wire"""
STEPS = 5
WAIT_S = 30.0
OURS = "fedcervix-"
"""begins the names of headers that are ours"""

Keys = dict[str, bytes]


class Floor:
    """Where one speaks at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holder: int | None = None

    @contextlib.contextmanager
    def taken(self, mine: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Have the floor, as soon as it is free and one's turn; who has it may take it again."""
        me = threading.get_ident()
        if self._holder == me:
            yield
            return
        with self._changed:
            self._await(lambda: self._holder is None and mine())
            self._holder = me
        try:
            yield
        finally:
            with self._changed:
                self._holder = None
                self._changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; who brings it about says `change`."""
        with self._changed:
            self._await(condition)

    def change(self, what: Callable[[], None]) -> None:
        """Change what others may wait for."""
        with self._changed:
            what()
            self._changed.notify_all()

    def _await(self, condition: Callable[[], bool]) -> None:
        assert self._changed.wait_for(condition, WAIT_S), "nobody gave up the floor"


class PacedEngine(Engine):
    """The engine, whose steps end when every site was told what they mean for it."""

    def __init__(self, floor: Floor, journal: Journal, blobs: BlobStore, record: RunRecord) -> None:
        super().__init__(journal, blobs, record)
        self.floor = floor
        self.listening: set[str] = set()
        self._last_told: dict[str, Instruction] = {}

    def submit(self, event: Event) -> Answer:
        with self.floor.taken():
            answer = super().submit(event)
            self.floor.wait(lambda: not any(map(self._owed, self.run.plan.sites)))
            return answer

    def instructions(self, site: str, instance: str, is_active: Callable[[], bool]) -> Iterator[Instruction]:
        before = self.run.plan.sites[: self.run.plan.sites.index(site)]
        for news in super().instructions(site, instance, is_active):
            self.floor.wait(lambda: not any(map(self._owed, before)))
            yield news
            self.floor.change(lambda news=news: self._last_told.update({site: news}))  # type: ignore[misc]

    def _owed(self, site: str) -> bool:
        """Say whether a site has not been told yet what it should be doing now."""
        run = self.run
        listens = site in self.listening and (run.site(site).presence is Presence.PRESENT or run.ended)
        return listens and self._last_told.get(site) != instruction(run, site)

    def turn(self, site: str) -> bool:
        """Say whether no site before this one has work to do."""
        run = self.run
        before = run.plan.sites[: run.plan.sites.index(site)] if site in run.plan.sites else ()
        return not any(isinstance(instruction(run, other), Task) for other in before)


class WatchedContext:
    """A call's context that remembers what else travels with the answer: headers, and how the call ended."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self.metadata: dict[str, str] = {}
        self.ended: tuple[str, str] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def send_initial_metadata(self, metadata: Any) -> None:
        self.metadata |= dict(metadata)
        self._context.send_initial_metadata(metadata)

    def set_trailing_metadata(self, metadata: Any) -> None:
        self.metadata |= dict(metadata)
        self._context.set_trailing_metadata(metadata)

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.ended = (code.name, details)
        self._context.abort(code, details)


class RecordedService(Service):
    """The service, every word of which is written down."""

    def __init__(self, home: Home, engine: PacedEngine, blobs: BlobStore, transcript: Transcript) -> None:
        super().__init__(home, Registry(home.registry), engine, blobs)
        self._pace, self.transcript = engine, transcript
        self.reported = {site: threading.Event() for site in SITES}
        """set when a site's progress was written down"""

    def behaviours(self) -> dict[rpc.Method, Callable[..., Any]]:
        return {method: self._recorded(method, behaviour) for method, behaviour in super().behaviours().items()}

    def _recorded(self, method: rpc.Method, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        if method is rpc.ATTACH:
            return lambda request, context: self._stream(behaviour, request, context)
        if method is rpc.WATCH:
            return lambda request, context: self._first(behaviour, request, context)
        if method.shape == "unary_stream":
            return lambda request, context: iter(self._call(method, behaviour, request, context))
        return lambda request, context: self._call(method, behaviour, request, context)

    def _call(self, method: rpc.Method, behaviour: Callable[..., Any], request: Any, context: Any) -> Any:
        """Answer a call, having the floor; a stream of chunks is taken as a whole, on either side."""
        who, watched = caller(context), WatchedContext(context)
        asked = request if method.request else [*request]
        if method is rpc.REPORT and asked.WhichOneof("what") == "progress" and asked.progress.stage == "starting":
            return behaviour(asked, context)
        with self._pace.floor.taken(lambda: self._pace.turn(who.name)), self._ending(who, method, watched):
            self._note(f"{_name(who)} > coordinator  {_short(method)}", asked, dict(context.invocation_metadata()))
            answer = behaviour(asked if method.request else iter(asked), watched)
            answer = answer if method.reply else [*answer]
            self._note(f"coordinator > {_name(who)}  {_short(method)}", answer, watched.metadata)
        if method is rpc.REPORT and asked.WhichOneof("what") == "progress":
            self.reported[who.name].set()
        return answer

    def _stream(self, behaviour: Callable[..., Any], request: Any, context: Any) -> Iterator[Any]:
        """Answer an Attach: the welcome at once, then each instruction as it comes."""
        who, watched = caller(context), WatchedContext(context)
        head = f"coordinator > {_name(who)}  {_short(rpc.ATTACH)}"
        said = behaviour(request, watched)
        with self._pace.floor.taken(lambda: self._pace.turn(who.name)), self._ending(who, rpc.ATTACH, watched):
            metadata = dict(context.invocation_metadata())
            self._note(f"{_name(who)} > coordinator  {_short(rpc.ATTACH)}", request, metadata)
            welcome = next(said)
            self._note(head, welcome, watched.metadata)
            if not request.look:
                self._pace.floor.change(lambda: self._pace.listening.add(who.name))
        try:
            yield welcome
            for message in said:
                self._note(head, message, {})
                yield message
        finally:
            self._pace.floor.change(lambda: self._pace.listening.discard(who.name))

    def _first(self, behaviour: Callable[..., Any], request: Any, context: Any) -> Iterator[Any]:
        """Answer a Watch; what is shown after the first picture depends on the moment, and is not written down."""
        head = _name(caller(context)), _short(rpc.WATCH)
        pictures = behaviour(request, context)
        self._note(f"{head[0]} > coordinator  {head[1]}", request, {})
        self._note(f"coordinator > {head[0]}  {head[1]}", picture := next(pictures), {})
        yield picture
        yield from pictures

    @contextlib.contextmanager
    def _ending(self, who: identity.Identity, method: rpc.Method, watched: WatchedContext) -> Iterator[None]:
        """Write down how a call ended that was refused."""
        try:
            yield
        finally:
            if watched.ended is not None:
                self.transcript.refusal(f"coordinator > {_name(who)}  {_short(method)}", *watched.ended)

    def _note(self, head: str, said: Any, metadata: dict[str, str]) -> None:
        """Write down one message, or one stream of chunks, and the headers of ours with it."""
        ours = {key: value for key, value in metadata.items() if key.startswith(OURS)}
        write = self.transcript.chunks if isinstance(said, list) else self.transcript.message
        write(head, said, ours)


def caller(context: grpc.ServicerContext) -> identity.Identity:
    """Return who calls, by the verified certificate."""
    return identity.identify(context.auth_context()["x509_pem_cert"][0]).identity


def _name(who: identity.Identity) -> str:
    return f"{who.name}'s invitation" if who.role == "enroll" else who.name or who.role


def _short(method: rpc.Method) -> str:
    return method.path.removeprefix("/fedcervix.")


class ArithmeticWorker:
    """Stands in for `site_agent.worker.Worker`: training adds a site's number to every weight."""

    def __init__(self, home: SiteHome, site: str, reported: threading.Event) -> None:
        self._blobs, self._site, self._reported = BlobStore(home.blobs), site, reported

    def do(
        self, task: Task, _plan: Plan, on_progress: Callable[[dict[str, Any]], None], _cancelled: threading.Event
    ) -> dict[str, Any]:
        """Return a task's numbers."""
        if task.kind is TaskKind.SCORE:
            gauges = {"unit_std": 0.5, "zero_rows": 0.0}
            return {"loss_sum": 6.0 / task.round, "count": 4, "images": IMAGES[self._site], "gauges": gauges}
        if task.kind is TaskKind.TRAIN and task.round == 1:
            step = {"stage": "training", "done": 3, "of": STEPS, "unit": "steps", "loss": 2.5, "images_per_s": 16.0}
            on_progress(step)
            assert self._reported.wait(WAIT_S), "no progress was reported"
        model = model_of(1.0, 0) if task.kind is TaskKind.SEED else self._trained(task)
        return {"digest": keep(self._blobs, model), "images": IMAGES[self._site], "steps": STEPS} | {
            "loss": 2.0,
            "seconds": 0.25,
        }

    def cancel(self) -> None:
        """Nothing: no task takes long."""

    def _trained(self, task: Task) -> dict[str, Any]:
        base = read_tensors(self._blobs.path(task.base))
        return model_of(float(base["weight"][0]) + PULL[self._site], int(base["steps"]) + STEPS)


def model_of(weight: float, steps: int) -> dict[str, Any]:
    """Return a model: one float tensor, all of it the same number, and one counter."""
    return {"weight": np.full(NUMBERS, weight, np.float32), "steps": np.asarray(steps, np.int64)}


def keep(blobs: BlobStore, model: dict[str, Any]) -> str:
    """Put a model into a store; return its digest."""
    making = blobs.scratch("made")
    digest = write_tensors(making, model)
    blobs.adopt(making, digest)
    return digest


@dataclass(frozen=True, slots=True)
class Stage:
    """A coordinator that listens, and what it takes to be a site of it."""

    folder: Path
    home: Home
    engine: PacedEngine
    service: RecordedService
    address: str

    @property
    def transcript(self) -> Transcript:
        return self.service.transcript

    @property
    def run(self) -> Run:
        return self.engine.run

    def invitation(self, site: str) -> Keys:
        """Return the keys that an invitation holds."""
        key, who = identity.new_key(), identity.Identity(FEDERATION, "enroll", site)
        now, authority = datetime.now(UTC), self.home.authority()
        certificate = identity.issue(authority, identity.public_key(key), who, now, identity.INVITATION_LIFETIME)
        made = identity.identify(certificate)
        Registry(self.home.registry).invite(site, made.serial, made.not_after, now)
        return keys(authority.certificate_pem, certificate, key)

    def join(self, site: str) -> Keys:
        """Enrol a site, as `site-agent join` does; return its keys."""
        key, invitation = identity.new_key(), self.invitation(site)
        request = identity.request(key, identity.Identity(FEDERATION, "site", site))
        with self.link(invitation) as link:
            return keys(invitation["authority_pem"], link.enroll(request), key)

    def operator(self) -> Keys:
        """Return the keys of the coordinator's operator."""
        return keys(*(self.home.pem(name) for name in ("authority.crt", "operator.crt", "operator.key")))

    @contextlib.contextmanager
    def link(self, pems: Keys) -> Iterator[GrpcLink]:
        """Hold a line open."""
        link = GrpcLink(self.address, **pems)
        try:
            yield link
        finally:
            link.close()

    def wait_quiet(self) -> None:
        """Wait until no site listens: that a stream was given up is noticed in the coordinator's own time."""
        self.engine.floor.wait(lambda: not self.engine.listening)

    def until(self, condition: Callable[[Run], bool]) -> None:
        """Wait until the run is so, and nobody is speaking."""
        with self.engine.floor.taken(lambda: condition(self.run)):
            pass


def keys(authority_pem: bytes, certificate_pem: bytes, key_pem: bytes) -> Keys:
    return {"authority_pem": authority_pem, "certificate_pem": certificate_pem, "key_pem": key_pem}


@contextlib.contextmanager
def stage(folder: Path, mode: Mode, transcript: Transcript, *, given: bool = False) -> Iterator[Stage]:
    """Yield a coordinator that listens, and leave nothing of it running. `given`: with a first model made elsewhere."""
    home, now = Home(folder / "coordinator"), time.time()
    options = {"name": FEDERATION, "bind": "127.0.0.1:0", "advertise": "localhost:0"}
    create_home(home, Founding(**options, sites=SITES, profile="paper"), datetime.fromtimestamp(now, UTC))
    plan = Plan(mode=mode, sites=SITES, profile="paper", terms=Terms(rounds=2, lease_s=3600.0), recipe=Recipe())
    journal, blobs = Journal(home.journal), BlobStore(home.blobs)
    base = keep(blobs, model_of(1.0, 0)) if given else ""
    record = RunRecord(f"20300101-000000-{mode}-{plan.digest[:8]}", plan, base, now)
    journal.begin(record)
    engine = PacedEngine(Floor(), journal, blobs, record)
    service = RecordedService(home, engine, blobs, transcript)
    server, port = serve(home, service, to=Address("127.0.0.1", 0), sites=len(SITES))
    driver = threading.Thread(target=engine.drive)
    driver.start()
    try:
        yield Stage(folder, home, engine, service, f"localhost:{port}")
    finally:
        engine.stop()
        server.stop(None).wait(WAIT_S)
        driver.join(WAIT_S)
        journal.close()


@contextlib.contextmanager
def agent(stage: Stage, site: str, pems: Keys) -> Iterator[list[Leave]]:
    """Run a site's agent on a thread of its own; what it ended with is in the list."""
    home, ended = SiteHome(stage.folder / site), []
    create_site(home)
    worker = ArithmeticWorker(home, site, stage.service.reported[site])
    with stage.link(pems) as link:
        made = Agent(
            home,
            site,
            link,
            worker,  # type: ignore[arg-type]
            lambda *_: None,
            federation="cervix",
            sign_s=math.inf,
        )
        thread = threading.Thread(target=lambda: ended.append(made.run()))
        thread.start()
        try:
            yield ended
        finally:
            thread.join(WAIT_S)
