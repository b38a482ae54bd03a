"""A coordinator and its sites in one process, over mutual TLS on loopback, one of them speaking at a time.

Everything is real but the training, which is arithmetic: service, engine, agents, line. The conversation is written
down where it passes the coordinator's seams (`behaviours`, `Dispatcher`), with the caller's name from the certificate.

What is free in reality is settled here, so that the same conversation comes out every time:
1. One speaks at a time (`Floor`): from the request to its answer nobody else is heard, nor does the run move.
2. A step of the run ends when every site has been told what it means for it, in roster order; so no instruction is
   overtaken by the next one, and those that a call brings about stand before its answer.
3. Where several sites have work at once, the first of the roster does and delivers its own first.
4. Progress reports go out once a second, whatever there is to say by then. Each site's first training waits for one;
   what an agent reports of itself besides (that it starts) is let through and not written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.calls.calls import Call
from coordinator.calls.control import Control, Outside
from coordinator.calls.dispatch import Dispatcher
from coordinator.calls.local_sockets import reachable
from coordinator.calls.service import Service
from coordinator.calls.serving import Serving
from coordinator.home.founding import Founding
from coordinator.home.founding import create as create_home
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from coordinator.home.standing import RegistryReader
from coordinator.run.engine import Engine
from coordinator.run.run_ledger import first_entries
from coordinator.run.streams import Bell, KeysChanged, RosterKeys, Stream, instructions
from fedcervix.core.events import Answer, Event, Task, TaskKind
from fedcervix.core.modes import Mode
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import Finish, Instruction, instruction
from fedcervix.core.rounds.state import Presence, Run
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.errors import FedcervixError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.weights import read_tensors, write_tensors
from fedcervix.runtime.worker_protocol import OnProgress, WorkProgress
from fedcervix.transport import identity, invitations, rpc
from fedcervix.transport.address import Address
from fedcervix.transport.versions import HERE, Build
from fedcervix.trust.fingerprints import Fingerprint
from fedcervix.trust.key_texts import private_key, public_pem
from fedcervix.trust.ledger import NOT_SIGNED, Signed
from site_agent.federation.agent import Agent, Checks, Waits
from site_agent.federation.context import AgentContext
from site_agent.federation.link import Books, GrpcLink
from site_agent.federation.site_ledger import SiteLedger
from site_agent.home import SiteHome, pin
from site_agent.home import create as create_site
from site_agent.store.sum_journal import SumJournal
from site_agent.store.task_results import ScoreResult, TaskResult, TrainResult
from tests.contracts.transcript import Transcript
from tests.e2e.light_site import found
from tests.unit.agents import nothing

FEDERATION = "cervix"
SITES = ("nhs", "alts")
THREE = (*SITES, "via")
"""the fewest of whom a coordinator may learn a sum"""
IMAGES = {"nhs": 10, "alts": 30, "via": 20}
PULL = {"nhs": 1.0, "alts": 3.0, "via": 5.0}
"""what a site's training adds to every weight; so the average of both adds 2"""
NUMBERS = 300_000
"""of the model: 1.2 MB, two chunks on the wire"""
STEPS = 5
WAIT_S = 30.0
OURS = "fedcervix-"
"""begins the names of headers that are ours"""

Keys = dict[str, bytes]
CALL: ContextVar[object] = ContextVar("CALL", default=None)
"""the call on the event loop that has the floor"""


class Floor:
    """Where one speaks at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holder: object = None

    @contextlib.contextmanager
    def taken(self, mine: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Have the floor, as soon as it is free and one's turn; whoever has it may take it again."""
        me = CALL.get() or threading.get_ident()
        if self._holder == me:
            yield
            return
        self._take(me, mine)
        try:
            yield
        finally:
            self._give()

    @contextlib.asynccontextmanager
    async def taken_by_call(self, mine: Callable[[], bool] = lambda: True) -> AsyncIterator[None]:
        """The same for what goes on for long, on the event loop."""
        me = object()
        await asyncio.to_thread(self._take, me, mine)
        before = CALL.set(me)  # its work on other threads has the floor, too
        try:
            yield
        finally:
            CALL.reset(before)
            self._give()

    def _take(self, me: object, mine: Callable[[], bool]) -> None:
        with self._changed:
            self._await(lambda: self._holder is None and mine())
            self._holder = me

    def _give(self) -> None:
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

    def submit(self, event: Event, signed: Signed = NOT_SIGNED) -> Answer:
        with self.floor.taken():
            answer = super().submit(event, signed)
            self.floor.wait(lambda: not any(map(self._owed, self.run.plan.sites)))
            return answer

    async def told(
        self, site: str, news: AsyncIterator[Instruction | KeysChanged]
    ) -> AsyncIterator[Instruction | KeysChanged]:
        """Yield what a site is told, after those before it in the roster were told what they mean."""
        before = self.run.plan.sites[: self.run.plan.sites.index(site)]
        async for one in news:
            await asyncio.to_thread(self.floor.wait, lambda: not any(map(self._owed, before)))
            yield one
            if isinstance(one, KeysChanged):
                continue
            self.floor.change(lambda one=one: self._last_told.update({site: one}))  # type: ignore[misc]

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


class Recorder:
    """Writes down what is said, one call after the other."""

    def __init__(self, engine: PacedEngine, transcript: Transcript) -> None:
        self._pace, self.transcript = engine, transcript
        self.reported = {site: threading.Event() for site in engine.run.plan.sites}
        """set when a site's progress was written down"""

    def small(self, method: rpc.Method, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Answer a call of one message, having the floor."""

        def answer(request: Any, call: Call) -> Any:
            is_progress = method is rpc.REPORT and request.WhichOneof("what") == "progress"
            if is_progress and request.progress.stage == "starting":
                return behaviour(request, call)
            with self._pace.floor.taken(lambda: self._pace.turn(call.site)), self._heard(method, request, call):
                reply = behaviour(request, call)
                self._say(method, reply, call)
            if is_progress:
                self.reported[call.site].set()
            return reply

        return answer

    def asked(self, method: rpc.Method, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """The same on the event loop; a stream of chunks is taken as a whole."""

        async def answer(request: Any, call: Call) -> Any:
            whole = request if method.request else [chunk async for chunk in request]
            async with self._pace.floor.taken_by_call(lambda: self._pace.turn(call.site)):
                with self._heard(method, whole, call):
                    reply = await behaviour(whole if method.request else _each(whole), call)
                    self._say(method, reply, call)
            return reply

        return answer

    def given(self, method: rpc.Method, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Give a stream of chunks as a whole."""

        async def answer(request: Any, call: Call) -> AsyncIterator[Any]:
            async with self._pace.floor.taken_by_call(lambda: self._pace.turn(call.site)):
                with self._heard(method, request, call):
                    headers, *chunks = [one async for one in behaviour(request, call)]
                    self._say(method, chunks, call, headers)
            yield headers
            for chunk in chunks:
                yield chunk

        return answer

    def attached(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Answer an Attach: the welcome at once, then each instruction as it comes."""

        async def answer(request: Any, call: Call) -> AsyncIterator[Any]:
            async with contextlib.aclosing(behaviour(request, call)) as said:
                yield (headers := await anext(said))
                async with self._pace.floor.taken_by_call(lambda: self._pace.turn(call.site)):
                    with self._heard(rpc.ATTACH, request, call):
                        welcome = await anext(said)
                        self._say(rpc.ATTACH, welcome, call, headers)
                    if not request.look:
                        self._pace.floor.change(lambda: self._pace.listening.add(call.site))
                try:
                    yield welcome
                    async for message in said:
                        self._say(rpc.ATTACH, message, call)
                        yield message
                finally:
                    self._pace.floor.change(lambda: self._pace.listening.discard(call.site))

        return answer

    def watched(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """Answer a Watch; what is shown after the first picture depends on the moment, and is not written down."""

        async def answer(request: Any, call: Call) -> AsyncIterator[Any]:
            async with contextlib.aclosing(behaviour(request, call)) as pictures:
                with self._heard(rpc.WATCH, request, call):
                    picture = await anext(pictures)
                    self._say(rpc.WATCH, picture, call)
                yield picture
                async for picture in pictures:
                    yield picture

        return answer

    def refused(self, who: identity.Identity, method: rpc.Method | None, error: FedcervixError) -> None:
        """Write down how a call ended."""
        code, details = rpc.status(error)
        title = _short(method) if method else "(a method that is not there)"
        self.transcript.refusal(f"coordinator > {_name(who)}  {title}", code.name, details)

    @contextlib.contextmanager
    def _heard(self, method: rpc.Method, asked: Any, call: Call) -> Iterator[None]:
        """Write down what was asked, and how it ended if it was refused."""
        who = call.certificate.identity
        self._note(f"{_name(who)} > coordinator  {_short(method)}", asked, call.headers)
        try:
            yield
        except FedcervixError as error:
            self.refused(who, method, error)
            raise

    def _say(self, method: rpc.Method, said: Any, call: Call, headers: Mapping[str, str] | None = None) -> None:
        self._note(f"coordinator > {_name(call.certificate.identity)}  {_short(method)}", said, headers or {})

    def _note(self, head: str, said: Any, headers: Mapping[str, str]) -> None:
        """Write down one message, or one stream of chunks, and the headers of ours with it."""
        ours = {key: value for key, value in headers.items() if key.startswith(OURS)}
        write = self.transcript.chunks if isinstance(said, list) else self.transcript.message
        write(head, said, ours)


async def _each(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


class RecordedService(Service):
    """The service, every word of which is written down."""

    def __init__(
        self, home: Home, registry: Registry, engine: PacedEngine, blobs: BlobStore, recorder: Recorder
    ) -> None:
        super().__init__(home, registry, engine, blobs)
        self._pace, self._recorder = engine, recorder

    def behaviours(self, bell: Bell, standing: RegistryReader) -> dict[rpc.Method, Any]:
        table, recorder = super().behaviours(bell, standing), self._recorder
        special = {
            rpc.ATTACH: recorder.attached(table[rpc.ATTACH]),
            rpc.PUSH: recorder.asked(rpc.PUSH, table[rpc.PUSH]),
            rpc.FETCH: recorder.given(rpc.FETCH, table[rpc.FETCH]),
            rpc.PROBE_DOWN: recorder.given(rpc.PROBE_DOWN, table[rpc.PROBE_DOWN]),
            rpc.PROBE_UP: recorder.asked(rpc.PROBE_UP, table[rpc.PROBE_UP]),
        }
        return {method: recorder.small(method, behaviour) for method, behaviour in table.items()} | special

    def _news(
        self, stream: Stream, bell: Bell, call: Call, roster: RosterKeys
    ) -> AsyncIterator[Instruction | KeysChanged]:
        return self._pace.told(stream.site, instructions(self._pace, stream, bell, call.insist, roster, calm_s=0.0))


class RecordedControl(Control):
    """The same for the operator."""

    def __init__(self, engine: PacedEngine, recorder: Recorder) -> None:
        super().__init__(engine)
        self._recorder = recorder

    def behaviours(self, bell: Bell, outside: Outside) -> dict[rpc.Method, Any]:
        table, recorder = super().behaviours(bell, outside), self._recorder
        asked = {method: recorder.asked(method, behaviour) for method, behaviour in table.items()}
        return asked | {rpc.WATCH: recorder.watched(table[rpc.WATCH])}


class RecordedServing(Serving):
    """The listeners, of which is written down whom they refuse."""

    def __init__(self, recorder: Recorder, *parts: Any) -> None:
        super().__init__(*parts)

        class Recorded(Dispatcher):
            async def _admitted(self, method: rpc.Method | None, context: Any, peer: str) -> Any:
                try:
                    return await super()._admitted(method, context, peer)
                except FedcervixError as error:
                    recorder.refused(
                        identity.identify(context.auth_context()["x509_pem_cert"][0]).identity, method, error
                    )
                    raise

        self.dispatcher = Recorded


def _name(who: identity.Identity) -> str:
    return f"{who.name}'s invitation" if who.role == "enroll" else who.name or who.role


def _short(method: rpc.Method) -> str:
    return method.path.removeprefix("/fedcervix.")


class ArithmeticWorker:
    """Stands in for `site_agent.worker.worker.Worker`: training adds a site's number to every weight."""

    def __init__(self, home: SiteHome, site: str, reported: threading.Event) -> None:
        self._blobs, self._site, self._reported = BlobStore(home.blobs), site, reported

    def do(self, task: Task, _plan: Plan, on_progress: OnProgress, _cancelled: threading.Event, **_: str) -> TaskResult:
        """Return what a task gave."""
        if task.kind is TaskKind.SCORE:
            gauges = {"unit_std": 0.5, "zero_rows": 0.0}
            return ScoreResult(loss_sum=6.0 / task.round, count=4, images=IMAGES[self._site], gauges=gauges)
        if task.kind is TaskKind.TRAIN and task.round == 1:
            on_progress(WorkProgress("training", 3, STEPS, "steps", loss=2.5, images_per_s=16.0))
            assert self._reported.wait(WAIT_S), "no progress was reported"
        model = model_of(1.0, 0) if task.kind is TaskKind.SEED else self._trained(task)
        digest, images = keep(self._blobs, model), IMAGES[self._site]
        return TrainResult(digest=digest, images=images, steps=STEPS, loss=2.0, seconds=0.25)

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
    recorder: Recorder
    address: str
    operator_address: str

    @property
    def transcript(self) -> Transcript:
        return self.recorder.transcript

    @property
    def run(self) -> Run:
        return self.engine.run

    def invitation(self, site: str) -> Keys:
        """Return the keys that an invitation holds."""
        key, who = identity.new_key(), identity.Identity(FEDERATION, "enroll", site)
        now, authority = datetime.now(UTC), self.home.authority()
        certificate = identity.issue(authority, identity.public_key(key), who, now, invitations.LIFETIME)
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
    def link(self, pems: Keys, here: Build = HERE, ledger: SiteLedger | None = None) -> Iterator[GrpcLink]:
        """Hold a line open. `here`: what the software at its site's end speaks."""
        link = GrpcLink(self.address, here=here, books=Books(ledger), **pems)
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
def stage(
    folder: Path, mode: Mode, transcript: Transcript, *, given: bool = False, sites: Sequence[str] = SITES, **terms: Any
) -> Iterator[Stage]:
    """Yield a coordinator that listens, and leave nothing of it running. `given`: with a first model made elsewhere."""
    home, now = Home(folder / "coordinator"), time.time()
    options = {"name": FEDERATION, "bind": "127.0.0.1:0", "advertise": "localhost:0"}
    create_home(home, Founding(**options, sites=tuple(sites), profile="paper"), datetime.fromtimestamp(now, UTC))
    agreed = Terms(**{"rounds": 2, "lease_s": 3600.0, **terms})
    plan = Plan(mode=mode, sites=tuple(sites), profile="paper", terms=agreed, recipe=Recipe())
    journal, blobs = Journal(home.journal), BlobStore(home.blobs)
    base = keep(blobs, model_of(1.0, 0)) if given else ""
    record = RunRecord(f"20300101-000000-{mode}-{plan.digest[:8]}", plan, base, now)
    own = public_pem(private_key(home.pem("ledger.key")).public_key())
    journal.begin(record, (0, first_entries(record, FEDERATION, home.pem("authority.crt").decode(), own)))
    engine = PacedEngine(Floor(), journal, blobs, record)
    recorder = Recorder(engine, transcript)
    registry = Registry(home.registry)
    service, control = RecordedService(home, registry, engine, blobs, recorder), RecordedControl(engine, recorder)
    serving = RecordedServing(recorder, home, registry, engine, service, control)
    serving.start(Address("127.0.0.1", 0))
    driver = threading.Thread(target=engine.drive)
    driver.start()
    try:
        with reachable(serving.operator) as name:
            yield Stage(folder, home, engine, recorder, f"localhost:{serving.port}", f"unix:{name}")
    finally:
        engine.stop()
        serving.stop(None)
        driver.join(WAIT_S)
        journal.close()


@contextlib.contextmanager
def agent(
    stage: Stage, site: str, pems: Keys, version: int, pins: Mapping[str, Fingerprint] | None = None
) -> Iterator[list[Finish]]:
    """Run a site's agent, which speaks a version, on a thread of its own; what it ended with is in the list.

    `pins`: keys of partners that its people have compared.
    """
    home, ended = SiteHome(stage.folder / site), []
    create_site(home)
    worker = ArithmeticWorker(home, site, stage.recorder.reported[site])
    for name, part in (("authority.crt", "authority_pem"), ("site.crt", "certificate_pem"), ("site.key", "key_pem")):
        home.key_file(name).write_bytes(pems[part])
    for partner, fingerprint in (pins or {}).items():
        pin(home, partner, fingerprint)
    ledger = SiteLedger(home, site)
    with stage.link(pems, replace(HERE, wire_min=version, wire_max=version), ledger) as link:
        made = Agent(
            AgentContext(home, site, link, lambda *_: None, ledger=ledger, journal=SumJournal(home)),
            worker,  # type: ignore[arg-type]
            federation="cervix",
            checks=Checks(nothing, nothing, lambda *_: found(IMAGES[site])),
            waits=Waits(sign_s=math.inf),
        )
        thread = threading.Thread(target=lambda: ended.append(made.run()))
        thread.start()
        try:
            yield ended
        finally:
            thread.join(WAIT_S)
