"""The loop around the round machine: journal, step, act, acknowledge.

Every decision is in `fedcervix.core.rounds`; this file owns the lock, the clock and the order of things:
1. `submit` journals an event before the new state is visible to anyone.
2. Whoever waits for a change is told: the driving thread by one condition, streams by `on_change`. No thread waits for
   a stream (see `coordinator.run.streams`).
3. What the coordinator itself has to do is asked of the state again after every change, and after a restart.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from coordinator.alarms.alarm_sources import new_alarms
from coordinator.limits.allowances import Allowances
from coordinator.run.fencing import Acting, admit, heeded, refusal
from coordinator.run.history import begin_of
from coordinator.run.incoming import Unreported, needed
from coordinator.run.liveness import STOPPED, Line, Liveness
from coordinator.run.refused import Refused
from coordinator.run.streams import Stream
from fedcervix.core.events import (
    AggregateStored,
    Answer,
    AverageUnusable,
    Event,
    RunAborted,
    SiteAttached,
    SiteRevoked,
    SiteSilent,
    Task,
    TaskKind,
    Tick,
    UpdateStored,
)
from fedcervix.core.measures import Measures, clip_scales
from fedcervix.core.rounds.averages import Aggregate, coordinator_work
from fedcervix.core.rounds.instructions import Finish, Instruction, instruction
from fedcervix.core.rounds.objections import objection
from fedcervix.core.rounds.state import Outcome, Presence, Run
from fedcervix.core.rounds.step import step
from fedcervix.core.rounds.waits import deadline
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.errors import BusyError, DuplicateAgentError, ModelError, RemoteError, RunError, StorageError
from fedcervix.models.aggregate import Clip, Momentum, aggregate
from fedcervix.models.blobs import BlobStore
from fedcervix.models.measuring import measure
from fedcervix.models.moves import vet_step
from fedcervix.models.rounding import Rounded, rebuild, round_model
from fedcervix.models.weights import Layout, read_layout, vet, vet_base, vet_layout
from fedcervix.network.backoff import Pauses
from fedcervix.network.codec import InstanceClaim, Progress
from fedcervix.runtime.log import logger

STORAGE_PAUSE_MOST_S = 10.0
"""how long the coordinator leaves a full disk alone, at most, before it tries again"""
STOOD_STILL_LEASES = 0.25
"""if the driving thread looks so much later than it meant to, the coordinator stood still: it has heard nobody"""


class Engine:
    """One run, from its journal to its end. Thread-safe."""

    def __init__(
        self,
        journal: Journal,
        blobs: BlobStore,
        record: RunRecord,
        *,
        clock_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal, self._blobs, self._clock_s, self._steady_s = journal, blobs, clock_s, steady_s
        self._log = logger(run=record.run)
        self._changed = threading.Condition()
        self._stopping = False
        self._listeners: list[Callable[[], None]] = []
        """called after every change"""
        self._trouble = ""
        self._reserve_words = ""
        self._dismissed: set[str] = set()
        """sites that were told to leave"""
        self._needs_purge = True
        """models may lie there that were put away, also by the process before this one"""
        self._allowances = Allowances(record.plan.sites)
        self._run = self._replayed(record)
        self._unreported = Unreported(blobs)
        self._acting: dict[str, Acting] = {}
        self._streams: dict[str, Stream] = {}
        self._sound: dict[str, str] = {}
        """by site, its model whose values were checked while it arrived"""
        self._vetting = {site: threading.Lock() for site in record.plan.sites}
        self._refused = {site: Refused() for site in record.plan.sites}
        self._first: tuple[str, Layout] | None = None
        """the run's first model, and what it holds"""
        self._liveness = Liveness(record.plan.sites, record.plan.terms.lease_s, steady_s)
        self._look_s = min(86_400.0, record.plan.terms.lease_s * STOOD_STILL_LEASES)  # a condition's wait has a bound
        """the driving thread looks so often, at least"""
        self._meant_s = steady_s()
        """when it means to look again"""

    @property
    def run(self) -> Run:
        """The state as it stands."""
        return self._run  # a value that is replaced: whoever only looks waits for no one who journals

    @property
    def stopping(self) -> bool:
        """Whether the process is to end, though the run has not."""
        return self._stopping

    @property
    def trouble(self) -> str:
        """What keeps the coordinator or a site from its work, in words; empty where nothing does."""
        found = (self._trouble, self._unreported.words(self.run), self._journal.reserve.words())
        return "\n".join(words for words in found if words)

    def lines(self) -> dict[str, Line]:
        """Return how each site's line is now."""
        with self._changed:
            return {site: self._line(site) for site in self._run.plan.sites}

    def _line(self, site: str) -> Line:
        line = self._liveness.line(site, working=self._working(site))
        return replace(line, set_aside=self._allowances.set_aside(site))

    def _replayed(self, record: RunRecord) -> Run:
        """Return the run as it stands by its journal, and count what the journal holds of each site."""
        run = begin_of(record)
        for event in self._journal.events(record.run):
            self._allowances.count(event, len(run.rounds))
            run, _ = step(run, event)
        return run

    # --- events ---

    def submit(self, event: Event) -> Answer:
        """Journal an event that changes something, take the step, wake whoever waits. Raises StorageError.

        One that is above the allowance of its site is set aside, and answered as if it had been said before.
        """
        with self._changed:
            before = self._run
            after, answer = step(before, event)
            if after is not before:
                if not self._allowances.allow(event, len(before.rounds), self._steady_s()):
                    return self._set_aside(event)
                self._journal.append(before.run, event)
                self._allowances.count(event, len(before.rounds))
                self._run = after
                self._tell()
                self._begin_leases(before, after)
                self._told(before, after, event)
            return answer

    def _set_aside(self, event: Event) -> Answer:
        """Let the log know now and then. Called under the lock."""
        site = str(getattr(event, "site", ""))
        if self._allowances.may_log(site, self._steady_s()):
            count = self._allowances.set_aside(site)
            self._log.warning("reports set aside", site=site, last=_words(event), since_start=count)
        return Answer.DUPLICATE

    def heard(self, site: str, progress: Progress | None = None) -> None:
        """Note a sign of life; a site that had fallen silent is back."""
        with self._changed:
            # Nobody is woken: a lease that runs out later than the driving thread thinks is found out when it looks.
            self._liveness.heard(site, progress)
            if self._run.site(site).presence is Presence.SILENT and not self._run.ended:
                self.submit(SiteAttached(site, self._clock_s()))

    def stopped(self, site: str) -> None:
        """Note that a site's engineer has stopped its agent: its lease runs on, and what is said of it is true."""
        with self._changed:
            self._liveness.stopped(site)
            self._tell()

    def take_update(self, update: UpdateStored) -> Answer:
        """Vet a model that has arrived, then submit it.

        Raises RemoteError where it is not fit to be averaged, BusyError while one of the site is looked at already.
        """
        run = self.run
        _, answer = step(run, update)
        if answer is not Answer.ACCEPTED and not objection(run, update):
            return answer  # a later state does not accept it either
        there = update.packed or update.digest
        if not self._blobs.brought(there, update.site):
            raise _not_here(there, update)
        if answer is Answer.REFUSED:  # only now: whoever has not sent a model is not told whether another site has
            self._log.warning("update refused", site=update.site, task=str(update.task), what=objection(run, update))
            return answer
        with self._alone(update.site):
            refused = self._refused[update.site]
            refused.check(update)
            try:
                update = self._vet(run, update)
            except RemoteError as error:
                refused.note(update, error)
                raise
            except StorageError as error:
                if not self._blobs.has(update.digest):  # it went while it was looked at
                    raise _not_here(there, update) from error
                raise
        with self._changed:  # no model goes from here on: see `expect`
            if not self._blobs.has(update.digest):
                raise _not_here(there, update)
            return self.submit(update)

    @contextlib.contextmanager
    def _alone(self, site: str) -> Iterator[None]:
        """Let one model of a site be looked at, at a time. Raises BusyError where one is.

        A report comes again where the first one is not answered in time. It does not wait here: the site's signs of
        life need the thread.
        """
        vetting = self._vetting[site]
        if not vetting.acquire(blocking=False):
            raise BusyError(
                f"a model of {site} is being looked at",
                cause="it is large, or the coordinator's disk is slow",
                next_step="no action is needed: it is tried again automatically",
            )
        try:
            yield
        finally:
            vetting.release()

    def _vet(self, run: Run, update: UpdateStored) -> UpdateStored:
        """Return the update with what was measured of it. Raises RemoteError where its model is not fit."""
        if update.packed:
            self._unpack(run, update)
        path = self._blobs.path(update.digest)
        if update.task.kind is TaskKind.SEED:
            vet_base(path)
        elif self._sound.get(update.site) == update.digest:
            vet_layout(path, self._layout(run))
        else:
            vet(path, self._layout(run))
        if update.task.kind is TaskKind.TRAIN:
            step_max = run.plan.terms.step_max
            moved = vet_step(path, self._blobs.path(update.task.base), step_max)
            update = replace(update, step=moved, measures=self._hop_measured(run, update))
        return update

    def _layout(self, run: Run) -> Layout:
        """Return what the run's first model holds, read once: every update has the same. Raises StorageError."""
        if self._first is None or self._first[0] != run.layout:
            self._first = run.layout, read_layout(self._blobs.path(run.layout))
        return self._first[1]

    def layout(self) -> Layout | None:
        """Return the same; None while there is no first model."""
        run = self.run
        return self._layout(run) if run.layout else None

    def expect(self, site: str, digest: str, size_bytes: int) -> int:
        """Return from which byte a model is wanted. Raises RunError where none is, StorageError."""
        with self._changed:
            self._unreported.offered(self._run, site, digest)
        return self._unreported.expect(site, digest, size_bytes)

    def arrived_sound(self, site: str, digest: str) -> None:
        """Note that the values of a site's model were checked while it arrived."""
        self._sound[site] = digest

    def _unpack(self, run: Run, update: UpdateStored) -> None:
        """Make a model that came packed. Raises RemoteError where this is not its packed form."""
        packing, seeds = run.plan.terms.compression, update.task.kind is TaskKind.SEED
        if packing == "none" or (seeds and packing == "int8"):
            raise RemoteError(
                "a compressed model came, but the plan has no compression",
                next_step="compare the versions of coordinator and site",
            )
        like, name = None if seeds else self._layout(run), f"unpacked-{update.site}"
        rebuild(self._blobs, update.packed, update.digest, packing, update.task.base, name=name, like=like)
        self._blobs.note_brought(update.digest, update.site)
        sizes = {"bytes": self._blobs.size_bytes(update.packed), "of": self._blobs.size_bytes(update.digest)}
        self._log.info("update unpacked", site=update.site, **sizes)

    def abort(self, reason: str) -> None:
        """End the run before its time."""
        self.submit(RunAborted(reason, self._clock_s()))

    def _begin_leases(self, before: Run, after: Run) -> None:
        """A site that has just been asked something new has its whole lease before it. Called under the lock."""
        for site in after.plan.sites:
            asked = instruction(after, site)
            if isinstance(asked, Task) and asked != instruction(before, site):
                self._liveness.begin_lease(site)

    def _told(self, before: Run, after: Run, event: Event) -> None:
        """Log what happened and forget what is no longer needed. Called under the lock."""
        site = getattr(event, "site", None)
        self._log.info(_words(event), phase=after.phase.value, **({"site": site} if site else {}))
        for alarm in new_alarms(before, after):
            self._log.warning("alarm", round=alarm.round, site=alarm.site, what=alarm.what, words=alarm.words)
        if len(after.rounds) != len(before.rounds):
            self._log.info("round begins", round=after.current.number, base=after.model[:12])
            with contextlib.suppress(OSError, StorageError):  # what cannot be deleted now can be at the next round
                self._blobs.retire(needed(after))
            self._needs_purge = True
        if after.ended or isinstance(event, SiteRevoked):
            self._needs_purge = True

    # --- who is told ---

    def on_change(self, tell: Callable[[], None]) -> None:
        """Have `tell` called after every change, from any thread and under the lock: it must be quick."""
        with self._changed:
            self._listeners.append(tell)

    def _tell(self) -> None:
        """Let whoever waits see a change. Called under the lock."""
        self._changed.notify_all()
        for tell in self._listeners:
            tell()

    # --- who acts for a site ---

    def admit(self, site: str, claim: InstanceClaim) -> None:
        """Let a process of a site's agent act for it. Raises DuplicateAgentError where another one does."""
        with self._changed:
            acting = self._acting.get(site)
            admitted = admit(acting, claim, alive=self._liveness.alive(site), at=self._clock_s())
            if admitted is None:
                raise self._refusal(site)
            if admitted is not acting:
                self._acting[site] = admitted
                self._stream_ended(site)
            self.heard(site)

    def check_instance(self, site: str, instance: str) -> None:
        """Note a sign of life of the process that acts for a site. Raises DuplicateAgentError if another one does."""
        with self._changed:
            if not heeded(self._acting.get(site), instance):
                raise self._refusal(site)
            self.heard(site)

    def _refusal(self, site: str) -> DuplicateAgentError:
        return refusal(site, self._acting[site], self._run.plan.terms.lease_s)

    # --- streams ---

    def open_stream(self, stream: Stream) -> None:
        """Let a stream listen. Raises DuplicateAgentError.

        It ends an older one of its site: that a line was cut is noticed late. A stream that was closed before it could
        be opened stays closed.
        """
        with self._changed:
            self.check_instance(stream.site, stream.instance)
            if not stream.closed:
                self._streams[stream.site] = stream
                self._liveness.opened(stream.site)
                self._tell()

    def close_stream(self, stream: Stream, last: Instruction | None) -> None:
        """A stream has ended, on which this was sent last."""
        with self._changed:
            stream.closed = True
            if isinstance(last, Finish) and stream.site in self._run.adopted:
                # Who has the model leaves at once, or as soon as its line ends: it may not be known that it was sent.
                self.dismiss(stream.site)
            if self.listens(stream):
                self._stream_ended(stream.site)

    def listens(self, stream: Stream) -> bool:
        """Say whether a stream is its site's newest one, and open."""
        return self._streams.get(stream.site) is stream

    def dismiss(self, site: str) -> None:
        """The site has been told to leave."""
        with self._changed:
            self._dismissed.add(site)
            self._tell()

    def _stream_ended(self, site: str) -> None:
        """The site's stream was cut, or another process acts for it now. Called under the lock."""
        if self._streams.pop(site, None) is not None:
            self._liveness.closed(site)
            self._log.info("line closed", site=site)
            self._tell()

    # --- the driving thread ---

    def drive(self) -> None:
        """Do the coordinator's own work until the run has ended or `stop` was called."""
        pauses = Pauses(most_s=STORAGE_PAUSE_MOST_S)
        while True:
            self._look_at_reserve()
            if self._needs_purge:
                self._clear()
            with self._changed:
                if self._stopping or self._run.ended:
                    self._changed.wait_for(self._may_go, timeout=self._run.plan.terms.lease_s)
                    return
                self._detect_stall()
                work, due_s = coordinator_work(self._run), self._due_in_s()
                if work is None and due_s > 0 and not self._needs_purge:
                    self._meant_s += due_s
                    self._changed.wait(due_s)
                    continue
            try:
                self._act(work)
                self._trouble = ""
                pauses.reset()
            except StorageError as error:
                self._is_in_trouble(error)
                with self._changed:
                    self._meant_s = self._steady_s() + (pause_s := pauses.next_s())
                    self._changed.wait_for(lambda: self._stopping, timeout=pause_s)

    def _look_at_reserve(self) -> None:
        """Make it whole where there is room again; let the log know once while it is not."""
        reserve = self._journal.reserve
        reserve.make_whole()
        was, self._reserve_words = self._reserve_words, reserve.words()
        if self._reserve_words and not was:
            self._log.warning("reserve in use", what=self._reserve_words)

    def _detect_stall(self) -> None:
        """Give everyone a new lease, as after a restart, if the coordinator stood still. Called under the lock.

        A process or a machine that was paused, or a disk that did not answer: what the sites said meanwhile waits to be
        read, and their leases ran out unheard.
        """
        late_s = self._steady_s() - self._meant_s
        if late_s > self._look_s:
            self._log.warning("stood still", seconds=round(late_s, 1))
            self._liveness.stood_still(late_s)
            for site in self._run.plan.sites:
                self._liveness.begin_lease(site)
        self._meant_s = self._steady_s()

    def _may_go(self) -> bool:
        """Say whether nobody waits for a last word: a site that does not hear how the run ended waits for ever.

        An aborted run waits for nobody who is not on the line now. Called under the lock.
        """
        aborted = self._run.outcome is Outcome.ABORTED
        heed = self._streams if aborted else {s.name for s in self._run.sites if s.presence is Presence.PRESENT}
        return self._stopping or self._dismissed.issuperset(heed)

    def _clear(self) -> None:
        """Delete what no round needs and no site is asked for any more, while the sites are at work."""
        self._needs_purge = False
        with contextlib.suppress(StorageError):  # what cannot be deleted now can be at the next round
            with self._changed:
                self._unreported.clear(self._run)
            self._blobs.purge()

    def _is_in_trouble(self, error: StorageError) -> None:
        """Let the operator know, once."""
        trouble = error.explain()
        if trouble != self._trouble:
            self._log.error("cannot go on yet", what=error.what, cause=error.cause, next_step=error.next_step)
            with self._changed:
                self._trouble = trouble
                self._tell()

    def stop(self) -> None:
        """Let `drive` and all streams end; the run goes on at the next start."""
        with self._changed:
            self._stopping = True
            self._tell()

    def _act(self, work: Aggregate | None) -> None:
        if work is not None:
            self._average_or_abort(work)
            return
        with self._changed:
            self._detect_stall()
            for site in self._silent_sites():
                reason = STOPPED if self._liveness.signs[site].stopped else ""
                self.submit(SiteSilent(site, self._clock_s(), reason))
        self.submit(Tick(self._clock_s()))

    def _average_or_abort(self, work: Aggregate) -> None:
        try:
            measures = self._measured(work)
            scales = clip_scales([found.norm for _, found in measures], self._run.plan.terms.clip)
            made = self._average(replace(work, scales=tuple(scales)))
        except RemoteError as error:  # the updates have no average; time does not mend that
            self._log.warning("no average", round=work.round, what=error.what)
            self.submit(AverageUnusable(work.round, work.attempt, self._clock_s()))
            return
        except ModelError as error:  # nor this: a restart would end here again
            self.abort(f"the round cannot be averaged: {error.what[:400]}")
            return
        self._meant_s = self._steady_s()  # it was at work, however long that took
        done = AggregateStored(work.round, made.digest, self._clock_s(), made.packed, made.residual, work.attempt)
        self.submit(replace(done, measures=measures))

    def _measured(self, work: Aggregate) -> tuple[tuple[str, Measures], ...]:
        """Return the measures of each site's update; the hops of a ring were measured when they came."""
        if self._run.plan.mode_rules.in_turns:
            return ()
        base = self._blobs.path(work.base)
        updates = [(self._blobs.path(digest), base) for digest, _ in work.updates]
        measures = measure(updates, self._layout(self._run), self._run.plan.terms.batch_norm)
        return tuple(zip(work.sites, measures, strict=True))

    def _hop_measured(self, run: Run, update: UpdateStored) -> Measures | None:
        """Measure the step of a ring's hop, beside that of the hop before it in this round."""
        if not run.plan.mode_rules.in_turns:
            return None
        hops = [(hop.digest, hop.task.base) for hop in (update, *run.current.contributions[-1:])]
        steps = [(self._blobs.path(digest), self._blobs.path(base)) for digest, base in hops]
        return measure(steps, self._layout(run), run.plan.terms.batch_norm)[0]

    def _average(self, work: Aggregate) -> Rounded:
        """Average the round's updates (paper, II-B: "we use weight averaging for model aggregation")."""
        updates = [(self._blobs.path(digest), weight) for digest, weight in work.updates]
        output = self._blobs.scratch(f"aggregate-{work.round}")
        layout = read_layout(self._blobs.path(work.layout))
        rule, momentum = self._run.plan.terms.batch_norm, self._momentum(work)
        clip = Clip(self._blobs.path(work.base), work.scales) if work.scales else None
        digest = aggregate(updates, layout, output, rule, momentum, clip=clip, trimmed=work.trimmed)
        if work.compression == "none":
            self._blobs.adopt(output, digest)
            return Rounded(digest)
        name = f"average-{work.round}"
        made = round_model(self._blobs, output, work.compression, work.base, work.residual, name=name)
        output.unlink()
        return made

    def _momentum(self, work: Aggregate) -> Momentum | None:
        if work.last_step is None:
            return None
        base, before = work.last_step
        return Momentum(self._run.plan.terms.server_momentum, self._blobs.path(base), self._blobs.path(before))

    def _working(self, site: str) -> bool:
        return not self._run.ended and isinstance(instruction(self._run, site), Task)

    def _silent_sites(self) -> list[str]:
        """Return whose leases have run out. Called under the lock."""
        present = [s.name for s in self._run.sites if s.presence is Presence.PRESENT]
        return [site for site in present if self._lease_left_s(site) <= 0]

    def _lease_left_s(self, site: str) -> float:
        left = self._liveness.lease_ends_in_s(site, working=self._working(site))
        return float("inf") if left is None else left

    def _due_in_s(self) -> float:
        """Return the seconds until a lease or a wait runs out; at most until the next look."""
        leases = [self._lease_left_s(s.name) for s in self._run.sites if s.presence is Presence.PRESENT]
        until = deadline(self._run)
        return min([self._look_s, *leases, *([] if until is None else [until - self._clock_s()])])


def _not_here(digest: str, update: UpdateStored) -> RunError:
    return RunError(f"the model {digest[:12]} of {update.task} is not here", next_step="send it again")


def _words(event: Event) -> str:
    """Return an event's name as words: UpdateStored is "update stored"."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(event).__name__).lower()
