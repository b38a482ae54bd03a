"""A federation in one thread: the real `rounds`, `session` and `Liveness` over a pretended network, clock and disk.

One seed is one history. Everything that is not a decision is pretended here after coordinator/run/engine.py and
site_agent/federation/agent.py: who journals when, who tries again, what a cut line loses. After every step of the
coordinator the invariants of `oracle` are checked; what breaks one is raised as `ViolationError`, with the seed and the
trace.

Time is in seconds. Requests may be lost, doubled, delayed past their time-out (so that they arrive out of order); a
stream keeps its order but can be cut, and each end notices in its own time. A crash of the coordinator leaves it its
journal and its blobs; a crash of a site leaves it its journal (`session.PersistentState`) and the models that are
there.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace

from coordinator.run.fencing import Acting, admit, is_answered
from coordinator.run.incoming import may_report, needed
from coordinator.run.liveness import Liveness
from fedcervix.core import compression as economy
from fedcervix.core import session
from fedcervix.core.events import (
    AggregateStored,
    Answer,
    AverageUnusable,
    Event,
    ModelAdopted,
    ModelUnusable,
    Rewrapped,
    ScoreReported,
    Seal,
    SiteAttached,
    SiteFailed,
    SiteOpened,
    SiteRevoked,
    SiteSilent,
    Task,
    TaskKind,
    Tick,
    UpdateStored,
    event_from_json,
    event_to_json,
)
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.coordinator_work import AverageWork, coordinator_work
from fedcervix.core.rounds.instructions import Finish, Instruction, instruction
from fedcervix.core.rounds.readers import next_reader, readers, seals
from fedcervix.core.rounds.state import Presence, Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.core.rounds.waits import deadline, waits
from fedcervix.transport.codec import SUCCEEDS_MAX, InstanceClaim
from tests.simulation.oracle import (
    averaged,
    digest_of,
    drawn,
    faults_of_ledger,
    faults_of_outcome,
    images_of,
    left_of,
    loss_of,
    packed_of,
    rounded,
    seeded,
    trained,
)

RUN = "simulated"
THREAD_S = 0.002
"""a woken thread runs within this time: who is first, the streams or the driving thread, is left to the dice"""
FORGOTTEN_S = 400.0
"""more than the longest freeze and a few calls that were lost: a site that is in order for so long shows it"""
CALL_S = 30.0
KEEPALIVE_S = 30.0
PAUSE_S = 5.0
RESTART_S = 60.0
"""after which the service starts an agent again that was refused as a twin"""
SEND_AGAIN = "send it again"
"""what a site is told of a model that is not there any more"""
STEPS_MAX = 50_000


class ViolationError(AssertionError):
    """A history in which the design does not hold."""


class CrashedError(Exception):
    """The coordinator's process is gone; whoever was talking to it gets no answer."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad the world is. Rates are per message, call or journaled event unless they say otherwise."""

    delay_s: float = 0.05
    loss: float = 0.0
    double: float = 0.0
    straggle: float = 0.0
    """share of requests and replies that take up to 100 s, so that they arrive late and out of order"""
    cuts_per_hour: float = 0.0
    """of a site's line: for up to two minutes nothing passes"""
    coordinator_crash: float = 0.0
    """per journaled event, just before or just after it is written"""
    site_crashes_per_hour: float = 0.0
    freezes_per_hour: float = 0.0
    """a site's machine stands still for up to two minutes, and then goes on as if nothing had been"""
    work_failure: float = 0.0
    """work at a site breaks; it says so and stops, and its engineer starts it again; or it hangs, and the site says so
    and begins it again by itself"""
    twins_per_hour: float = 0.0
    """of a site: somebody starts a second agent on a copy of its home folder, and ends it by `until_s`"""
    until_s: float = 1800.0
    """from then on the world is sound: all faults above are transient"""
    lost: tuple[tuple[str, float], ...] = ()
    """sites that are gone for good, and from when"""
    revoked: tuple[tuple[str, float], ...] = ()
    culprits: tuple[str, ...] = ()
    """sites whose updates make the model unusable in half of the rounds, and that say nothing of it"""
    liars: tuple[str, ...] = ()
    """sites that say of every third model that they cannot use it"""
    crash_at: frozenset[tuple[int, bool]] = frozenset()
    """(journal position, whether the event is written): the coordinator crashes exactly there"""
    site_crash_at: frozenset[tuple[str, int, bool]] = frozenset()
    """(site, position of its journal, whether that is written): the site crashes exactly there"""


@dataclass(frozen=True, slots=True)
class Rules:
    """The parts under test; a test plants a bug by replacing one."""

    step: Callable[[Run, Event], tuple[Run, Answer]] = step
    admit: Callable[..., Acting | None] = admit
    work_of: Callable[[Run], AverageWork | None] = coordinator_work
    needed: Callable[[Run], set[str]] = needed
    append: Callable[[list[str], Event], None] = lambda journal, event: journal.append(event_to_json(event))
    answered: Callable[[economy.ErrorFeedback, UpdateStored, Answer], economy.ErrorFeedback] = economy.answered
    undecided: Callable[[economy.ErrorFeedback, Task], UpdateStored | None] = economy.undecided
    packed_form: Callable[[Run, str, str], economy.Packed | None] = economy.packed_form
    lease_begins_when_asked: bool = True
    listens: frozenset[Presence] = frozenset({Presence.PRESENT, Presence.REVOKED})
    """A silent site is told nothing: it goes on with what it does, and its next word brings it back. Were it told to
    stand, it would have nothing more to say, and nobody would ever know that it is there."""


@dataclass(slots=True)
class Stream:
    """One Attach stream: ordered, until it is cut."""

    site: Site
    begun_at: float
    last: Instruction | None = None
    woken: bool = False
    delivered_at: float = 0.0
    open_here: bool = True
    open_there: bool = True

    def sound_for_s(self, since: float) -> float:
        """How long after `since` the stream and the site behind it have been in order."""
        site = self.site
        if not (self.open_here and self.open_there and site.up and site.stream is self):
            return 0.0
        return site.world.now - max(since, self.begun_at, site.frozen_until)


@dataclass(slots=True)
class Job:
    """What a site is busy with."""

    action: session.Action
    cancelled: bool = False


class World:
    """The clock, the network and the dice."""

    def __init__(self, plan: Plan, faults: Faults, seed: int, *, base: str = "", rules: Rules | None = None) -> None:
        self.faults, self.dice, self.now = faults, random.Random(seed), 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.crashes_due: set[tuple[int, bool]] = set(faults.crash_at)
        self.site_crashes_due = set(faults.site_crash_at)
        self.trace: list[str] = []
        self.coordinator = Coordinator(self, plan, base, rules or Rules())
        self.processes = 0
        self.spoilt: set[str] = set()
        """models that give no finite loss"""
        self.sites = {name: Site(self, name, self.dice.choice([3.0, 20.0, 150.0])) for name in plan.sites}
        self.twins: list[Site] = []
        gone = dict(faults.lost)
        for site in self.sites.values():
            if gone.get(site.name, 1.0) > 0:
                self.after(self.dice.uniform(0, 30), site.start)
            if site.name in gone:
                self.at(gone[site.name], site.lose)
            if faults.twins_per_hour > 0:
                self._twin_later(site)
        for name, at in faults.revoked:
            self.at(at, lambda name=name: self.coordinator.revoke(name))

    def _twin_later(self, site: Site) -> None:
        """Somebody sets up a second machine for a site, from a copy of the first one's home folder."""

        def start() -> None:
            if self.now < self.faults.until_s and not site.done:
                self.twins.append(twin := site.copied())
                self.say(f"a twin of {site.name} is started")
                twin.start()
                self.at(self.faults.until_s, twin.lose)
                self._twin_later(site)

        self.after(self.dice.expovariate(self.faults.twins_per_hour / 3600), start)

    def instance(self) -> str:
        """Return a token for a process."""
        self.processes += 1
        return f"{self.processes:032x}"

    def clock(self) -> float:
        return self.now

    def at(self, when: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, action))

    def after(self, pause_s: float, action: Callable[[], None]) -> None:
        self.at(self.now + pause_s, action)

    def chance(self, rate: float) -> bool:
        return rate > 0 and self.now < self.faults.until_s and self.dice.random() < rate

    def latency_s(self) -> float:
        if self.chance(self.faults.straggle):
            return self.dice.uniform(0, 100)
        return self.dice.uniform(0, self.faults.delay_s)

    def cannot_use(self, site: str, task: Task) -> bool:
        """Say whether a site reports that its task's model cannot be used. Training hides that of every third one."""
        if site in self.faults.liars:
            return drawn(3, "lie", site, task.base) == 0
        seen = task.kind is TaskKind.SCORE or drawn(3, "hidden", site, task.base) > 0
        return task.base in self.spoilt and seen and site not in self.faults.culprits

    def spoil(self, site: str, update: UpdateStored) -> None:
        """Note whether a model that was just trained can be used."""
        culprit = site in self.faults.culprits and drawn(2, "spoils", site, update.task.round) == 0
        if update.task.kind is TaskKind.TRAIN and (culprit or update.task.base in self.spoilt):
            self.spoilt.add(update.digest)

    def step_of(self, update: UpdateStored) -> float:
        """Return what is measured of an update; not everything that spoils a model lies far from its base."""
        far = update.digest in self.spoilt and drawn(2, "far", update.digest) == 0
        return 50.0 if far else drawn(100, "step", update.digest) / 100

    def say(self, text: str) -> None:
        self.trace.append(f"{self.now:10.2f}  {text}")

    def run(self, until_s: float) -> Run:
        """Let things happen until the run has ended and every living site knows it. Raises ViolationError."""
        coordinator = self.coordinator
        for _ in range(STEPS_MAX):
            if coordinator.run.ended and all(site.done for site in self.sites.values()):
                return coordinator.run
            when, _, action = heapq.heappop(self._heap)
            if when > until_s:
                break
            self.now = when
            action()
        raise ViolationError(
            f"the run does not end: {coordinator.run.phase}, waits for {[str(w) for w in waits(coordinator.run)]}, "
            f"sites that have not left: {[site.name for site in self.sites.values() if not site.done]}"
        )


class Coordinator:
    """The order of things in coordinator.run.engine: journal, step, act, acknowledge."""

    def __init__(self, world: World, plan: Plan, base: str, rules: Rules) -> None:
        self.world, self.plan, self.rules = world, plan, rules
        self.first = begin(RUN, plan, base=base, at=0.0)
        self.journal: list[str] = []
        self.blobs: set[str] = {base} - {""}
        self.brought: dict[str, set[str]] = {site: set() for site in plan.sites}
        """by site, the models that it brought last"""
        self.displaced: dict[str, set[str]] = {site: set() for site in plan.sites}
        """by site, the models that gave way to another of its own: a call of an earlier one may arrive late"""
        self.generation = 0
        self._start()

    def _start(self) -> None:
        self.up, self.generation = True, self.generation + 1
        self._become(self.replayed())
        self.liveness = Liveness(self.plan.sites, self.plan.terms.lease_s, self.world.clock)
        self.streams: list[Stream] = []
        self.acting: dict[str, Acting] = {}
        self._drive_at = float("inf")
        self._clear()
        self._look()

    def _clear(self) -> None:
        """As coordinator.run.incoming: what nobody is asked for goes, at any time."""
        kept = [site for site in self.plan.sites if may_report(self.run, site)]
        self.brought = {site: self.brought[site] if site in kept else set() for site in self.plan.sites}
        self.blobs &= self.rules.needed(self.run) | set().union(*self.brought.values())

    def replayed(self) -> Run:
        """What the journal says; `rounds.replay` itself where no bug is planted."""
        run = self.first
        for event in map(event_from_json, self.journal):
            run, _ = self.rules.step(run, event)
        return run

    def _become(self, run: Run) -> None:
        self.run = run
        self.work, self.deadline = self.rules.work_of(run), deadline(run)
        self.wanted = {site: instruction(run, site) for site in self.plan.sites}

    def _asks(self, site: str) -> bool:
        return isinstance(self.wanted[site], Task)

    def crash(self) -> None:
        self.world.say("coordinator crashes")
        self.up = False
        for stream in self.streams:
            stream.open_here = False
            self.world.after(self.world.dice.uniform(0, 2), lambda stream=stream: stream.site.line_down(stream))
        self.world.after(self.world.dice.uniform(0.5, 40), self._start)

    # --- events ---

    def submit(self, event: Event) -> Answer:
        before = self.run
        after, answer = self.rules.step(before, event)
        if after is before:
            return answer
        self._crash_point(written=False)
        self.rules.append(self.journal, event)
        self._crash_point(written=True)
        wanted = self.wanted
        self._become(after)
        self.world.say(f"{type(event).__name__} {_short(event)} -> {answer}, {after.phase}")
        self._told(before, after, [site for site in self.plan.sites if self.wanted[site] != wanted[site]])
        return answer

    def _crash_point(self, *, written: bool) -> None:
        position = (len(self.journal) - written, written)
        due = position in self.world.crashes_due
        self.world.crashes_due.discard(position)
        if due or self.world.chance(self.world.faults.coordinator_crash / 2):
            raise CrashedError

    def _told(self, before: Run, after: Run, asked: list[str]) -> None:
        if len(after.rounds) != len(before.rounds):
            self.blobs &= self.rules.needed(after)
        if self.rules.lease_begins_when_asked:
            for site in asked:
                self.liveness.begin_lease(site)
        self._check(before, after)
        self._look()

    def _check(self, before: Run, after: Run) -> None:
        found = list(faults_of_ledger(after, self.first.model or seeded(self.plan)) if after.layout else ())
        for old, new in zip(before.rounds, after.rounds, strict=False):
            if {*old.contributions, *old.dropped} - {*new.contributions, *new.dropped}:
                found.append(f"round {old.number}: an accepted update is gone")
        found.extend(self._faults_of_blame(after))
        wanted = {self._file(task.base) for task in self.wanted.values() if isinstance(task, Task) and task.base}
        if not wanted <= self.blobs:
            found.append(f"sites are asked for models that are not kept: {wanted - self.blobs}")
        found.extend(self._faults_of_forms(after))
        if not after.ended and not waits(after) and self.work is None:
            found.append(f"{after.phase}: nothing is waited for and nothing is to be done")
        for stream in self.streams:
            known = after.site(stream.site.name)
            if known.presence is Presence.SILENT and stream.sound_for_s(known.since) > FORGOTTEN_S:
                found.append(f"{known.name} listens, but is taken for silent since {known.since:.0f}")
        _check(found)

    def _file(self, model: str) -> str:
        """Return which file there is of a model: the sealed one, where the plan seals."""
        return seals(self.run, model)[0][1].file if self.plan.terms.sealed else model

    def _faults_of_blame(self, run: Run) -> Iterator[str]:
        """Yield whom the ledger of a finished round blames though it did nothing, where nobody lies.

        Not where those who can use a spoilt model outvoted the others: its base, or its own one, shows that.
        """
        for round_ in run.rounds:
            outvoted = {round_.base, round_.candidate} & self.world.spoilt
            told = bool(round_.ended_at) and not self.world.faults.liars and not outvoted
            for missing in round_.missing if told else ():
                if missing.suspected and missing.site not in self.world.faults.culprits:
                    yield f"round {round_.number}: {missing.site} is blamed: {missing.reason}"

    def _faults_of_forms(self, run: Run) -> Iterator[str]:
        """Yield what is wrong with the packed forms that sites may have of the models they are asked to work on.

        After a void round the run may come back to a model whose form is gone: the model itself travels then (see
        `Service._form`).
        """
        came_back = any(round_.void for round_ in run.rounds)
        for site, task in self.wanted.items():
            if self.plan.terms.sealed and isinstance(task, Task) and task.base and site not in readers(run, task.base):
                yield f"{site} is asked to {task}, and cannot read the model"
            form = self.rules.packed_form(run, site, task.base) if isinstance(task, Task) and task.base else None
            if form is not None and form.digest not in self.blobs and not came_back:
                yield f"{site} may have a packed form that is not kept"
            if form is not None and form.base and form.base not in self.world.sites[site].held:
                yield f"{site} may have the difference to a model that it never held"

    # --- calls ---

    def handle(self, site: Site, instance: str, request: object) -> object:
        """Answer a unary call; may raise CrashedError."""
        if self.run.site(site.name).presence is Presence.REVOKED or not is_answered(
            self.acting.get(site.name), instance
        ):
            return None  # either is tried again, until the stream says more
        self._heard(site.name)
        match request:
            case "ready":
                if self.plan.hides_from_coordinator:
                    self.submit(SiteOpened(site.name, digest_of("key", site.name), 10, digest_of("rho"), "30", 0.0))
                return self.submit(SiteAttached(site.name, self.world.now))
            case ("fetch", digest):
                return bool(self._readable(site.name, str(digest)))
            case ("push", digest):
                self.displaced[site.name] = (self.displaced[site.name] | self.brought[site.name]) - {str(digest)}
                self.brought[site.name] = {str(digest)}
                self._clear()
                self.blobs.add(str(digest))
                return True
            case UpdateStored() | ScoreReported() | ModelUnusable() | ModelAdopted() | Rewrapped() | SiteFailed():
                return self._take(replace(request, at=self.world.now))
            case _:
                return True

    def _readable(self, site: str, model: str) -> bool:
        if not self.plan.terms.sealed:
            return model in self.blobs
        return site in readers(self.run, model) and self._file(model) in self.blobs

    def _heard(self, name: str) -> None:
        self.liveness.heard(name)  # the lease runs out later than the driving thread thinks: it will see
        if self.run.site(name).presence is Presence.SILENT and not self.run.ended:
            self.submit(SiteAttached(name, self.world.now))

    def _take(self, report: Event) -> Answer | str:
        if isinstance(report, UpdateStored) and not self.run.ended:
            expected, pushed = self.wanted[report.site] == report.task, report.packed or report.digest
            if expected and pushed not in self.blobs:
                if pushed in self.displaced[report.site]:
                    return SEND_AGAIN
                raise ViolationError(f"{report.task} of {report.site}: the model pushed before the report is gone")
            self.blobs.add(report.packed if report.seal else report.digest)
            self.brought[report.site].add(report.packed if report.seal else report.digest)
            report = replace(report, step=self.world.step_of(report))
        return self.submit(report)

    def revoke(self, name: str) -> None:
        self.world.say(f"operator revokes {name}")
        for site in (self.world.sites[name], *self.world.twins):
            if site.name == name:
                site.lose()
        if not self.up:
            self.world.after(10, lambda: self.revoke(name))
            return
        self._guarded(lambda: self.submit(SiteRevoked(name, self.world.now)))

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except CrashedError:
            self.crash()

    # --- streams ---

    def attach(self, site: Site) -> Stream | None:
        """Open a stream, and end an older one of the site; None for a twin. May raise CrashedError."""
        name = site.name
        alive, acting = self.liveness.alive(name), self.acting.get(name)
        admitted = self.rules.admit(acting, site.claim, alive=alive, at=self.world.now)
        if admitted is None:
            return None
        sound = [
            s.site for s in self.streams if s.site.name == name and s.site is not site and s.site.up and s.open_there
        ]
        if sound:
            raise ViolationError(f"a second agent of {name} was let in beside one that is connected")
        self.acting[name] = admitted
        self._heard(name)
        for older in [stream for stream in self.streams if stream.site.name == name]:
            self.notice_cut(older)
            self.world.after(self.world.latency_s(), lambda older=older: older.site.line_down(older))
        stream = Stream(site, self.world.now)
        self.streams.append(stream)
        self.liveness.opened(name)
        self.world.after(0, self._look)
        return stream

    def notice_cut(self, stream: Stream) -> None:
        stream.open_there = False
        if self.up and stream.open_here and stream in self.streams:
            self.streams.remove(stream)
            self.liveness.closed(stream.site.name)
            self._look()
        stream.open_here = False

    def _look(self) -> None:
        """Wake whoever waits for a change: the streams and the driving thread."""
        for stream in self.streams:
            if not stream.woken and self._news(stream) is not None:
                stream.woken = True
                self.world.after(self.world.dice.uniform(0, THREAD_S), lambda stream=stream: self._push(stream))
        if self.run.ended:
            return
        when = self.world.now + max(0.0, self._due_in_s()) + self.world.dice.uniform(0, THREAD_S)
        if when < self._drive_at:
            self._drive_at = when
            self.world.at(when, lambda generation=self.generation: self._drive(generation, when))

    def _news(self, stream: Stream) -> Instruction | None:
        name = stream.site.name
        listens = self.run.ended or self.run.site(name).presence in self.rules.listens
        return self.wanted[name] if listens and self.wanted[name] != stream.last else None

    def _push(self, stream: Stream) -> None:
        stream.woken = False
        if not self.up or stream not in self.streams or (news := self._news(stream)) is None:
            return
        stream.last = news
        stream.delivered_at = max(stream.delivered_at, self.world.now + self.world.latency_s())
        self.world.at(stream.delivered_at, lambda: stream.site.instructed(stream, news))

    # --- the driving thread ---

    def _drive(self, generation: int, when: float) -> None:
        if generation != self.generation or not self.up or when != self._drive_at:
            return
        self._drive_at = float("inf")
        self._guarded(self._act)
        if self.up:
            self._look()

    def _act(self) -> None:
        if self.run.ended or self._due_in_s() > 0:
            return
        if (work := self.work) is not None:
            step = work.last_step or ()
            if not {*step, *(digest for digest, _ in work.updates)} <= self.blobs:
                raise ViolationError(f"round {work.round}: a model to be averaged is gone")
            if work.compression == "int8" and not {work.base, work.residual} - {""} <= self.blobs:
                raise ViolationError(f"round {work.round}: what the average is rounded with is gone")
            spoilt = bool({digest for digest, _ in work.updates} & self.world.spoilt)
            if spoilt and drawn(3, "no average", work.updates) == 0:
                self.submit(AverageUnusable(work.round, work.attempt, self.world.now))
                return
            digest = rounded(work.compression, averaged(work.updates, step), work.residual)
            self.world.spoilt |= {digest} if spoilt else set()
            packed, left = packed_of(work.compression, digest), left_of(work.compression, digest)
            self.blobs |= {digest, packed, left} - {""}
            self.submit(AggregateStored(work.round, digest, self.world.now, packed, left, work.attempt))
            return
        for site in self.run.sites:
            if site.presence is Presence.PRESENT and self._lease_left_s(site.name) <= 0:
                self.submit(SiteSilent(site.name, self.world.now))
        self.submit(Tick(self.world.now))

    def _due_in_s(self) -> float:
        if self.work is not None:
            return 0.0
        leases = [self._lease_left_s(s.name) for s in self.run.sites if s.presence is Presence.PRESENT]
        return min([86_400.0, *leases, *([] if self.deadline is None else [self.deadline - self.world.now])])

    def _lease_left_s(self, site: str) -> float:
        left = self.liveness.lease_ends_in_s(site, working=self._asks(site))
        return float("inf") if left is None else left


class Site:
    """The loop of site_agent.federation.agent around the real session."""

    def __init__(self, world: World, name: str, work_s: float) -> None:
        self.world, self.name, self.work_s = world, name, work_s
        self.journal = session.PersistentState()
        self.position = 0
        """of the journal: how often it was written"""
        self.models: set[str] = set()
        self.session = session.resumed(name, self.journal)
        self.stream: Stream | None = None
        self.job: Job | None = None
        self.ran: list[str] = []
        """instances on this home folder, newest first"""
        self.carried = economy.ErrorFeedback()
        self.held: set[str] = set()
        """the models that ever were here"""
        self.trained_from: dict[int, str] = {}
        """by round, the model from which an update has left (see site_agent.federation.asked)"""
        self.up = self.lost = self.done = False
        self.outcome: Finish | None = None
        self.is_copy = False
        self.life = 0
        self.cut_until = self.frozen_until = 0.0

    # --- life and death ---

    def start(self) -> None:
        """Start the process; what it knows is what lies in its journal, and with that it goes on at once."""
        if self.up or self.lost or self.done:
            return
        self.up, self.life = True, self.life + 1
        self.claim = InstanceClaim(self.world.instance(), tuple(self.ran[:SUCCEEDS_MAX]))
        self.ran.insert(0, self.claim.instance)
        self.session, self.stream, self.job = session.resumed(self.name, self.journal), None, None
        self._change(lambda s: s)
        self._attach()
        for rate, happens in (
            (self.world.faults.site_crashes_per_hour, self.crash),
            (self.world.faults.cuts_per_hour, self._cut),
            (self.world.faults.freezes_per_hour, self._freeze),
        ):
            if rate > 0:
                self._later(self.world.dice.expovariate(rate / 3600), happens)

    def crash(self) -> None:
        """Die (kill -9) and come back."""
        if self.up and self.world.now < self.world.faults.until_s:
            self.world.say(f"{self.name} crashes")
            self._die(self.world.dice.uniform(1, 120))

    def lose(self) -> None:
        """Die for good."""
        self.lost = self.done = True
        if self.up:
            self.world.say(f"{self.name} is lost")
            self._die(None)

    def copied(self) -> Site:
        """Return a site with what lies in this one's home folder, which may be a result that waits to be told."""
        twin = Site(self.world, self.name, self.work_s)
        twin.journal, twin.carried, twin.is_copy = self.journal, self.carried, True
        twin.models, twin.held = set(self.models), set(self.held)
        twin.trained_from = dict(self.trained_from)
        return twin

    def _refused(self) -> None:
        """Another agent acts for the site. A service tries again later; whoever started a second one thinks again."""
        if self.is_copy:
            self.lose()
            return
        if self.world.coordinator.acting[self.name].instance in self.ran:
            raise ViolationError(f"{self.name} was refused because of its own earlier process")
        self.world.say(f"{self.name} is refused")
        self._die(RESTART_S)

    def _die(self, back_in_s: float | None) -> None:
        self.up, self.life = False, self.life + 1
        if self.stream is not None:
            self._hang_up(self.stream)
        if back_in_s is not None:
            self.world.after(back_in_s, self.start)

    def _later(self, pause_s: float, action: Callable[[], None]) -> None:
        """Do something later, if this process still lives then."""
        life = self.life

        def act() -> None:
            if self.world.now < self.frozen_until:
                self.world.at(self.frozen_until + self.world.dice.uniform(0, 1), act)
            elif self.up and life == self.life:
                action()

        self.world.after(pause_s, act)

    def _leave(self, leave: Finish) -> None:
        self.done, self.outcome = True, leave
        self.world.say(f"{self.name} leaves: {leave.outcome}")
        self._die(None)

    # --- the line ---

    def _cut(self) -> None:
        if self.world.now < self.world.faults.until_s:
            self.cut_until = self.world.now + self.world.dice.uniform(1, 120)
            self.world.say(f"line of {self.name} is cut for {self.cut_until - self.world.now:.0f} s")
            if self.stream is not None:
                stream = self.stream
                self._hang_up(stream)
                self._later(self.world.dice.uniform(0, KEEPALIVE_S), lambda: self.line_down(stream))
        self._later(self.world.dice.expovariate(self.world.faults.cuts_per_hour / 3600), self._cut)

    def _freeze(self) -> None:
        if self.world.now < self.world.faults.until_s:
            self.frozen_until = self.world.now + self.world.dice.uniform(1, 120)
            self.world.say(f"{self.name} freezes for {self.frozen_until - self.world.now:.0f} s")
            if self.stream is not None and self.frozen_until - self.world.now > KEEPALIVE_S:  # it answers no pings
                stream = self.stream
                self.world.after(KEEPALIVE_S, lambda: self.world.coordinator.notice_cut(stream))
                self._later(KEEPALIVE_S, lambda: self.line_down(stream))
        self._later(self.world.dice.expovariate(self.world.faults.freezes_per_hour / 3600), self._freeze)

    def _hang_up(self, stream: Stream) -> None:
        """Nothing passes on this stream from now on; the coordinator's end notices in its own time."""
        stream.open_there = False
        coordinator = self.world.coordinator
        self.world.after(self.world.dice.uniform(0, KEEPALIVE_S), lambda: coordinator.notice_cut(stream))

    def _attach(self) -> None:
        if self._reaches():
            try:
                self.stream = self.world.coordinator.attach(self)
            except CrashedError:
                self.world.coordinator.crash()
                self._later(self.world.dice.uniform(0.2, PAUSE_S), self._attach)
                return
            if self.stream is None:
                self._refused()
                return
            self._call_again("ready", lambda _: None)
            self._rest(self.stream)
            self._change(session.attached)
        else:
            self._later(self.world.dice.uniform(0.2, PAUSE_S), self._attach)

    def _reaches(self) -> bool:
        return self.world.coordinator.up and self.world.now >= self.cut_until

    def line_down(self, stream: Stream) -> None:
        """This end has noticed that the stream is gone."""
        stream.open_there = False
        if not self.up or self.stream is not stream:
            return
        self.stream = None
        if self.session.settled is not None and self.session.settled.kind is TaskKind.ADOPT:
            self._leave(Finish(self.world.coordinator.run.outcome, "the coordinator has closed the connection"))
            return
        self._change(session.cut)
        self._later(self.world.dice.uniform(0.2, PAUSE_S), self._attach)

    def _call(self, request: object, then: Callable[[object], None]) -> None:
        """Call once; `then` gets the answer, or None where the line failed."""
        world, answered = self.world, [False]

        def reply(answer: object) -> None:
            if not answered[0]:
                answered[0] = True
                then(answer)

        def answer(value: object) -> None:
            if not world.chance(world.faults.loss) and world.now >= self.cut_until:
                self._later(world.latency_s(), lambda: reply(value))

        if self._reaches():
            self._send(request, answer)
            self._later(CALL_S, lambda: reply(None))
        else:
            self._later(0.1, lambda: reply(None))

    def _tell(self, request: object) -> None:
        """Call once, whatever comes of it."""
        if self._reaches():
            self._send(request, lambda _: None)

    def _send(self, request: object, answer: Callable[[object], None]) -> None:
        coordinator, instance = self.world.coordinator, self.claim.instance

        def arrive() -> None:
            if not coordinator.up:
                return
            try:
                said = coordinator.handle(self, instance, request)
            except CrashedError:
                coordinator.crash()
                return
            answer(said)

        for _ in range(1 + self.world.chance(self.world.faults.double)):
            if not self.world.chance(self.world.faults.loss):
                self.world.after(self.world.latency_s(), arrive)

    def _call_again(self, request: object, then: Callable[[object], None], job: Job | None = None) -> None:
        """Call until there is an answer, or the job is cancelled."""

        def got(answer: object) -> None:
            if answer is not None:
                then(answer)
            elif job is not None and job.cancelled:
                self._end(job, lambda s: s)
            else:
                pause_s = self.world.dice.uniform(0.2, PAUSE_S)
                self._later(pause_s, lambda: self._call_again(request, then, job))

        self._call(request, got)

    # --- the loop ---

    def instructed(self, stream: Stream, news: Instruction) -> None:
        """The stream says something."""
        if self.world.now < self.frozen_until:
            self.world.at(self.frozen_until, lambda: self.instructed(stream, news))
        elif self.up and stream is self.stream and stream.open_there:
            self._change(lambda s: session.instructed(s, news))

    def _change(self, change: Callable[[session.Session], session.Session]) -> None:
        self.session = change(self.session)
        if not self._remember():
            return
        wanted = session.next_action(self.session, self.models.__contains__)
        if isinstance(wanted, session.Done):
            self._leave(wanted.leave)
        elif self.job is not None:
            self._maybe_cancel(self.job, wanted)
        elif not isinstance(wanted, session.Rest):
            self._begin(Job(wanted))

    def _remember(self) -> bool:
        """Write the journal where it has changed; returns whether the process has survived that."""
        kept = session.persistent_state(self.session)
        if kept == self.journal:
            return True
        if self._crashes(written=False):
            return False
        self.journal, self.position = kept, self.position + 1
        return not self._crashes(written=True)

    def _crashes(self, *, written: bool) -> bool:
        place = (self.name, self.position - written, written)
        due = place in self.world.site_crashes_due
        self.world.site_crashes_due.discard(place)
        if due:
            self.world.say(f"{self.name} crashes at its journal")
            self._die(self.world.dice.uniform(1, 120))
        return due

    def _maybe_cancel(self, job: Job, wanted: session.Action) -> None:
        if job.action != wanted and not job.cancelled:
            job.cancelled = True
            if isinstance(job.action, session.Work):  # the worker is killed
                self._end(job, lambda s: s)

    def _end(self, job: Job, change: Callable[[session.Session], session.Session]) -> None:
        if self.job is job:
            self.job = None
            self._change(change)

    def _begin(self, job: Job) -> None:
        self.job = job
        match job.action:
            case session.Work(task):
                if task.kind is TaskKind.TRAIN and self.trained_from.get(task.round, task.base) != task.base:
                    raise ViolationError(f"{self.name} is asked to {task} again, from another model")
                self._beat(job)
                if task.base and task.base not in self.models and task.kind is not TaskKind.REWRAP:
                    self._call_again(("fetch", task.base), lambda found: self._fetched(job, task, found), job)
                else:
                    self._settle_earlier(job, task)
            case session.Deliver(UpdateStored() as update):
                self.trained_from[update.task.round] = update.task.base
                self._push(job, update)
            case session.Deliver(result):
                self._report(job, result)

    def _time_s(self) -> float:
        return self.world.dice.uniform(0.5, 1) * self.work_s

    def _beat(self, job: Job) -> None:
        """Say how far the work is, so that the lease holds."""
        if self.job is job and not job.cancelled:
            self._tell("progress")
            self._later(self.world.coordinator.plan.terms.lease_s / 4, lambda: self._beat(job))

    def _rest(self, stream: Stream) -> None:
        """Say at rest, too, that it is there; less often than in truth, for nothing may hang on its being often."""
        if self.stream is stream:
            if self.job is None:
                self._tell("progress")
            self._later(3 * self.world.coordinator.plan.terms.lease_s, lambda: self._rest(stream))

    def _fetched(self, job: Job, task: Task, found: object) -> None:
        if found:
            self.models.add(task.base)
            self.held.add(task.base)
            self._settle_earlier(job, task)
        else:  # the run is at a later step: something else will be asked
            self._later(PAUSE_S, lambda: self._end(job, lambda s: s))

    def _settle_earlier(self, job: Job, task: Task) -> None:
        """Ask whether the last update counted, where its answer was lost."""
        update = self.world.coordinator.rules.undecided(self.carried, task) if task.kind is TaskKind.TRAIN else None
        if update is None:
            self._later(self._time_s(), lambda: self._work(job, task))
            return

        def got(answer: object) -> None:
            self._settle(update, answer)
            self._later(self._time_s(), lambda: self._work(job, task))

        self._call_again(update, got, job)

    def _settle(self, update: UpdateStored, answer: object) -> None:
        assert isinstance(answer, Answer)
        self.carried = self.world.coordinator.rules.answered(self.carried, update, answer)

    def _work(self, job: Job, task: Task) -> None:
        if self.job is not job or job.cancelled:
            return
        if self.world.chance(self.world.faults.work_failure):
            self._break(job, task)
            return
        if task.kind in (TaskKind.TRAIN, TaskKind.SCORE) and self.world.cannot_use(self.name, task):
            result: session.Result = ModelUnusable(self.name, task, 0, 0.0)
        else:
            result = _result(self.name, task, self.world.coordinator.plan, self.carried)
        if isinstance(result, UpdateStored):
            self.world.spoil(self.name, result)
            self.models.add(result.digest)
            self.held.add(result.digest)
            left = left_of(self.world.coordinator.plan.terms.compression, result.digest)
            self.carried = economy.made(self.carried, result, left) if left and task.round else self.carried
        self._end(job, lambda s: session.finished(s, result))

    def _break(self, job: Job, task: Task) -> None:
        incident, hangs = f"INC-{self.life}-{self.world.now}", self.world.dice.random() < 0.5
        self.world.say(f"{self.name} {'hangs' if hangs else 'breaks'} at {task}")
        self._tell(SiteFailed(self.name, "training", "out of memory", incident, 0.0, "TrainingError", hangs))
        if hangs:
            self._end(job, lambda s: s)
        else:
            self._die(self.world.dice.uniform(1, 300))

    def _push(self, job: Job, update: UpdateStored) -> None:
        self._call_again(("push", update.packed or update.digest), lambda _: self._report(job, update), job)

    def _report(self, job: Job, result: session.Result) -> None:
        def answered(answer: object) -> None:
            if answer == SEND_AGAIN and isinstance(result, UpdateStored):
                self._push(job, result)
                return
            if answer is Answer.REFUSED:
                raise ViolationError(f"{result.task} of {self.name} is refused: a correct site taken for a wrong one")
            self.models &= {result.task.base} | ({result.digest} if isinstance(result, UpdateStored) else set())
            if isinstance(result, UpdateStored):
                self._settle(result, answer)
            self._end(job, lambda s: session.answered(s, result.task))

        self._call_again(result, answered, job)


def _result(site: str, task: Task, plan: Plan, carried: economy.ErrorFeedback) -> session.Result:
    """Do a task: a pure function of task, site, and what the site carries on."""
    compression = plan.terms.compression
    match task.kind:
        case TaskKind.SEED:
            packed = "" if compression == "int8" else packed_of(compression, seeded(plan))
            return _sealed(plan, UpdateStored(site, task, seeded(plan), 0, 0, 0.0, 1.0, 0.0, packed))
        case TaskKind.TRAIN:
            residual = economy.residual_for(carried, task.round)
            model = rounded(compression, trained(task.base, site, task.round), residual)
            packed = packed_of(compression, model)
            return _sealed(plan, UpdateStored(site, task, model, images_of(site), 1, 0.5, 1.0, 0.0, packed))
        case TaskKind.REWRAP:
            return Rewrapped(site, task, _seal(task.base, task.readers), 0.0)
        case TaskKind.SCORE:
            return ScoreReported(site, task, 8 * loss_of(task.base, site), 8, images_of(site), (), 0.0)
        case TaskKind.ADOPT:
            return ModelAdopted(site, task, 0.0)


def _sealed(plan: Plan, update: UpdateStored) -> UpdateStored:
    """Return an update with its seal, where the plan seals."""
    if not plan.terms.sealed:
        return update
    seal = _seal(update.digest, (next_reader(plan.sites, update.site),))
    return replace(update, packed=seal.file, seal=seal)


def _seal(model: str, names: tuple[str, ...]) -> Seal:
    return Seal("header", digest_of("sealed", model), tuple((name, "b0" * 48) for name in names), "5e")


def _short(event: Event) -> str:
    task = getattr(event, "task", "")
    return " ".join(str(part) for part in (getattr(event, "site", ""), task, getattr(event, "hint", "")) if part)


# --- histories ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class History:
    """How one history went."""

    plan: Plan
    faults: Faults
    base: str
    run: Run
    journal: tuple[str, ...]
    site_positions: tuple[tuple[str, int], ...]
    """how often each site's journal was written"""
    trace: tuple[str, ...] = field(repr=False)


def simulate(plan: Plan, faults: Faults, seed: int, *, base: str = "", rules: Rules | None = None) -> History:
    """Let one history happen and hold its end against the design. Raises ViolationError with the trace."""
    world = World(plan, faults, seed, base=base, rules=rules)
    horizon_s = faults.until_s + 3 * plan.terms.give_up_s + 10_000 * plan.rounds_max
    try:
        run = world.run(horizon_s)
        _check([*faults_of_outcome(run), *_faults_of_journal(world.coordinator)])
    except ViolationError as violation:
        violation.add_note("\n".join([str(plan), str(faults), *world.trace[-60:]]))
        raise
    positions = tuple((site.name, site.position) for site in world.sites.values())
    return History(plan, faults, base, run, tuple(world.coordinator.journal), positions, tuple(world.trace))


def _check(found: list[str]) -> None:
    if found:
        raise ViolationError("; ".join(found))


def _faults_of_journal(coordinator: Coordinator) -> Iterator[str]:
    if coordinator.replayed() != coordinator.run:
        yield "the journal does not give the state"
    json.dumps(asdict(coordinator.run), allow_nan=False, default=sorted)
