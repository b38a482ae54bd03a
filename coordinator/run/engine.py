"""The loop around the round machine: journal, step, act, acknowledge.

Every decision is in `fedcervix.core.rounds`; this file owns the journal, the clock and the order of things:
1. `submit` journals an event before the new state is visible to anyone.
2. Whoever waits for a change is told: the driving thread by one condition, streams by `RunState.on_change`. No thread
   waits for a stream (see `coordinator.run.streams`).
3. What the coordinator itself has to do is asked of the state again after every change, and after a restart.

Its parts share the run's state and its lock (`run_state`): the sites as they are connected (`site_streams`), and the
models (`model_work`, `round_average`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from coordinator.alarms.alarm_sources import new_alarms
from coordinator.limits.allowances import Allowances
from coordinator.run.history import begin_of
from coordinator.run.liveness import Line
from coordinator.run.model_work import ModelWork
from coordinator.run.paces import Paces
from coordinator.run.prediction import ended_rounds, prediction, words_of
from coordinator.run.round_average import average_round
from coordinator.run.round_sum import sum_round
from coordinator.run.run_ledger import RunLedger
from coordinator.run.run_state import RunState
from coordinator.run.secure_rounds import SecureRounds
from coordinator.run.site_streams import SiteStreams
from coordinator.run.streams import Stream
from coordinator.run.traffic import RunTraffic
from fedcervix.core.events import Answer, AverageUnusable, Event, RunAborted, Tick
from fedcervix.core.rounds.coordinator_work import AverageWork, coordinator_work
from fedcervix.core.rounds.state import Presence, Run
from fedcervix.core.rounds.step import step
from fedcervix.core.rounds.waits import deadline
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.errors import ModelError, RemoteError, StorageError
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.log import logger
from fedcervix.transport.backoff import Pauses
from fedcervix.trust.ledger import NOT_SIGNED, Signed

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
        paces: Paces | None = None,
        traffic: RunTraffic | None = None,
    ) -> None:
        self.paces, self.traffic = paces or Paces(record.run), traffic or RunTraffic(record.run)
        self._journal, self._blobs, self._clock_s, self._steady_s = journal, blobs, clock_s, steady_s
        self._log = logger(run=record.run)
        self._allowances = Allowances(record.plan.sites)
        self._state = state = RunState(self._replayed(record))
        self.ledger = RunLedger(journal, record.run)
        self.sites = SiteStreams(state, self.submit, clock_s, steady_s)
        self.models = ModelWork(state, blobs, self.ledger, self.submit)
        self.secrets = SecureRounds(state, self.ledger, self.models.layout_of)
        self._stopping = False
        self._trouble = ""
        self._reserve_words = ""
        self._look_s = min(86_400.0, record.plan.terms.lease_s * STOOD_STILL_LEASES)  # a condition's wait has a bound
        """the driving thread looks so often, at least"""
        self._meant_s = steady_s()
        """when it means to look again"""

    @property
    def run(self) -> Run:
        """The state as it stands."""
        return self._state.run

    @property
    def stopping(self) -> bool:
        """Whether the process is to end, though the run has not."""
        return self._stopping

    @property
    def trouble(self) -> str:
        """What keeps the coordinator or a site from its work, in words; empty where nothing does."""
        found = (self._trouble, self.models.trouble(), self._journal.reserve.words())
        return "\n".join(words for words in found if words)

    def lines(self) -> dict[str, Line]:
        """Return how each site's line is now."""
        with self._state.changed:
            sites = self.run.plan.sites
            return {site: replace(self.sites.line(site), set_aside=self._allowances.set_aside(site)) for site in sites}

    def moved(self, site: str, *, received_bytes: int = 0, sent_bytes: int = 0) -> None:
        """Count bytes of a model that a site has sent, or was sent. From any thread."""
        self.sites.moved(site, received_bytes=received_bytes, sent_bytes=sent_bytes)
        self.traffic.moved(site, down_bytes=sent_bytes, up_bytes=received_bytes)

    def listens(self, stream: Stream) -> bool:
        """Say whether a stream is its site's newest one, and open."""
        return self.sites.listens(stream)

    def on_change(self, tell: Callable[[], None]) -> None:
        """Have `tell` called after every change, from any thread and under the lock: it must be quick."""
        self._state.on_change(tell)

    def _replayed(self, record: RunRecord) -> Run:
        """Return the run as it stands by its journal, and count what the journal holds of each site."""
        run = begin_of(record)
        for event in self._journal.events(record.run):
            self._allowances.count(event, len(run.rounds))
            run, _ = step(run, event)
        return run

    # --- events ---

    def submit(self, event: Event, signed: Signed = NOT_SIGNED) -> Answer:
        """Journal an event that changes something, take the step, wake whoever waits. Raises StorageError.

        One that is above the allowance of its site is set aside, and answered as if it had been said before.
        `signed`: what the site has signed with it.
        """
        with self._state.changed:
            before = self.run
            after, answer = step(before, event)
            if after is not before:
                if not self._allowances.allow(event, len(before.rounds), self._steady_s()):
                    return self._set_aside(event)
                self.ledger.append(after, event, signed)
                self._allowances.count(event, len(before.rounds))
                self._state.run = after
                self._state.tell()
                self.sites.begin_leases(before, after)
                self._say(before, after, event)
                self.models.retire(before, after, event)
            return answer

    def note_certificates(self, certificates: Mapping[str, str]) -> None:
        """Write down which keys of sites were certified (site -> PEM), where that is new. Raises StorageError.

        A site that was revoked takes part from the next run on: a key with which it has joined again is not of this
        one, and partners that have pinned the one before go on.
        """
        run = self.run
        here = {site for site in run.plan.sites if run.site(site).presence is not Presence.REVOKED}
        self.ledger.note_certificates({site: pem for site, pem in certificates.items() if site in here})

    def _set_aside(self, event: Event) -> Answer:
        """Let the log know now and then. Called under the lock."""
        site = str(getattr(event, "site", ""))
        if self._allowances.may_log(site, self._steady_s()):
            count = self._allowances.set_aside(site)
            self._log.warning("reports set aside", site=site, last=_words(event), since_start=count)
        return Answer.DUPLICATE

    def abort(self, reason: str) -> None:
        """End the run before its time."""
        self.submit(RunAborted(reason, self._clock_s()))

    def _say(self, before: Run, after: Run, event: Event) -> None:
        """Log what happened. Called under the lock."""
        site = getattr(event, "site", None)
        self._log.info(_words(event), phase=after.phase.value, **({"site": site} if site else {}))
        for alarm in new_alarms(before, after):
            self._log.warning("alarm", round=alarm.round, site=alarm.site, what=alarm.what, words=alarm.words)
        if (number := ended_rounds(after)) > ended_rounds(before):
            self.traffic.keep(number)
        if len(after.rounds) != len(before.rounds):
            self._log.info("round begins", round=after.current.number, base=after.model[:12])
            if not before.rounds:
                self._say_prediction(after)

    def _say_prediction(self, run: Run) -> None:
        """Log what the run is predicted to take, once, and who the others will wait for."""
        found = prediction(run, self.paces.known)
        if found is None or found.run_low_s is None:
            return
        self._log.info("prediction", words=words_of(found, run.plan.rounds_max))
        for site in found.sites:
            if site.straggler:
                self._log.warning("straggler", site=site.site, words=site.straggler)

    # --- the driving thread ---

    def drive(self) -> None:
        """Do the coordinator's own work until the run has ended or `stop` was called."""
        changed, pauses = self._state.changed, Pauses(most_s=STORAGE_PAUSE_MOST_S)
        while True:
            self._look_at_reserve()
            self.models.purge()
            with changed:
                if self._stopping or self.run.ended:
                    changed.wait_for(self._may_go, timeout=self.run.plan.terms.lease_s)
                    return
                self._detect_stall()
                work, due_s = coordinator_work(self.run), self._due_in_s()
                if work is None and due_s > 0 and not self.models.needs_purge:
                    self._meant_s += due_s
                    changed.wait(due_s)
                    continue
            try:
                self._act(work)
                self._trouble = ""
                pauses.reset()
            except StorageError as error:
                self._is_in_trouble(error)
                with changed:
                    self._meant_s = self._steady_s() + (pause_s := pauses.next_s())
                    changed.wait_for(lambda: self._stopping, timeout=pause_s)

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
            self._log.warning("coordinator was stalled", seconds=round(late_s, 1))
            self.sites.stood_still(late_s)
        self._meant_s = self._steady_s()

    def _may_go(self) -> bool:
        return self._stopping or self.sites.all_dismissed()

    def _due_in_s(self) -> float:
        """Return the seconds until a lease or a wait runs out; at most until the next look."""
        until = deadline(self.run)
        waits = [] if until is None else [until - self._clock_s()]
        return min(self._look_s, self.sites.next_lease_ends_in_s(), *waits)

    def _is_in_trouble(self, error: StorageError) -> None:
        """Let the operator know, once."""
        trouble = error.explain()
        if trouble != self._trouble:
            self._log.error("cannot continue yet", what=error.what, cause=error.cause, next_step=error.next_step)
            with self._state.changed:
                self._trouble = trouble
                self._state.tell()

    def stop(self) -> None:
        """Let `drive` and all streams end; the run goes on at the next start."""
        with self._state.changed:
            self._stopping = True
            self._state.tell()

    def _act(self, work: AverageWork | None) -> None:
        if work is not None:
            self._average_or_abort(work)
            return
        with self._state.changed:
            self._detect_stall()
            self.sites.note_silent()
        self.submit(Tick(self._clock_s()))

    def _average_or_abort(self, work: AverageWork) -> None:
        run, layout = self.run, self.models.layout_of(self.run)
        try:
            if run.plan.terms.secure_sum:
                done = sum_round(run, self._blobs, layout, work, self._clock_s())
            else:
                done = average_round(run, self._blobs, layout, work, self._clock_s())
        except RemoteError as error:  # the updates have no average; time does not mend that
            self._log.warning("no average", round=work.round, what=error.what)
            self.submit(AverageUnusable(work.round, work.attempt, self._clock_s()))
            return
        except ModelError as error:  # nor this: a restart would end here again
            self.abort(f"the round cannot be averaged: {error.what[:400]}")
            return
        self._meant_s = self._steady_s()  # it was at work, however long that took
        self.submit(done)


def _words(event: Event) -> str:
    """Return an event's name as words: UpdateStored is "update stored"."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(event).__name__).lower()
