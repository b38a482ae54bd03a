"""Which process acts for each site, whether its stream is open, when it was heard last, and when its lease runs out.

Kept in memory only: a restarted coordinator lets in whoever comes first, and gives everyone a new lease.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.run.fencing import Acting, admit, is_answered, refusal
from coordinator.run.liveness import STOPPED, Line, Liveness
from coordinator.run.run_state import RunState
from coordinator.run.streams import Stream
from fedcervix.core.events import Answer, Event, SiteAttached, SiteSilent, Task
from fedcervix.core.rounds.instructions import Finish, Instruction, instruction
from fedcervix.core.rounds.state import Outcome, Presence, Run
from fedcervix.errors import DuplicateAgentError
from fedcervix.runtime.log import logger
from fedcervix.transport.codec import InstanceClaim, Progress
from fedcervix.transport.versions import HERE, Build, newest_common


class SiteStreams:
    """The sites of one run, as they are connected. Thread-safe: by the lock of the run's state.

    `submit` journals what follows: a site that is back, or that has fallen silent.
    """

    def __init__(
        self,
        state: RunState,
        submit: Callable[[Event], Answer],
        clock_s: Callable[[], float],
        steady_s: Callable[[], float],
    ) -> None:
        run = state.run
        self._state, self._submit, self._clock_s = state, submit, clock_s
        self._lease_s = run.plan.terms.lease_s
        self._log = logger(run=run.run)
        self._acting: dict[str, Acting] = {}
        self._streams: dict[str, Stream] = {}
        self._builds: dict[str, Build] = {}
        """what the software of each site is that was admitted"""
        self._dismissed: set[str] = set()
        """sites that were told to leave"""
        self._liveness = Liveness(run.plan.sites, self._lease_s, steady_s)

    # --- signs of life ---

    def heard(self, site: str, progress: Progress | None = None) -> None:
        """Note a sign of life; a site that had fallen silent is back.

        The lock is taken only where that changes something: each part of a model is a sign of life, and who holds the
        lock may wait for the disk.
        """
        # Nobody is woken: a lease that runs out later than the driving thread thinks is found out when it looks.
        self._liveness.heard(site, progress)
        run = self._state.run
        if run.site(site).presence is Presence.SILENT and not run.ended:
            with self._state.changed:
                self._submit(self.attached(site, self._clock_s()))

    def moved(self, site: str, *, received_bytes: int = 0, sent_bytes: int = 0) -> None:
        """Count bytes of a model that a site has sent, or was sent. No lock: a site has one transfer of a kind."""
        self._liveness.moved(site, received_bytes=received_bytes, sent_bytes=sent_bytes)

    def attached(self, site: str, at: float) -> SiteAttached:
        """Return the event that a site takes part, with the software that it has said it runs."""
        build = self._builds.get(site)
        return SiteAttached(site, at, build.software, build.numerics) if build else SiteAttached(site, at)

    def wire_version(self, site: str) -> int:
        """Return the version of the wire that is spoken with a site; before it was let in, the oldest there is."""
        build = self._builds.get(site)
        return newest_common(build, HERE) if build else HERE.wire_min

    def outdated(self, site: str, build: Build, upgrade: str) -> None:
        """Note what must be installed before a site is let in; nothing where another process of it is connected."""
        with self._state.changed:
            if not self._liveness.signs[site].connected:
                self._liveness.installed(site, build.software, upgrade=upgrade)
                self._state.tell()

    def stopped(self, site: str) -> None:
        """Note that a site's engineer has stopped its agent: its lease runs on, and what is said of it is true."""
        with self._state.changed:
            self._liveness.stopped(site)
            self._state.tell()

    def line(self, site: str) -> Line:
        """Return how a site's line is now. Called under the lock."""
        return self._liveness.line(site, working=self._working(site))

    # --- who acts for a site ---

    def admit(self, site: str, claim: InstanceClaim, build: Build | None = None) -> None:
        """Let a process of a site's agent act for it. Raises DuplicateAgentError where another one does.

        `build`: of its software, where it is known.
        """
        with self._state.changed:
            acting = self._acting.get(site)
            admitted = admit(acting, claim, alive=self._liveness.alive(site), at=self._clock_s())
            if admitted is None:
                raise self._refusal(site)
            if admitted is not acting:
                self._acting[site] = admitted
                self._stream_ended(site)
            if build is not None:
                self._builds[site] = build
                self._liveness.installed(site, build.software)
            self.heard(site)

    def check_instance(self, site: str, instance: str) -> None:
        """Note a sign of life of the process that acts for a site. Raises DuplicateAgentError if another one does."""
        if not is_answered(self._acting.get(site), instance):
            raise self._refusal(site)
        self.heard(site)

    def _refusal(self, site: str) -> DuplicateAgentError:
        return refusal(site, self._acting[site], self._lease_s)

    # --- streams ---

    def open_stream(self, stream: Stream) -> None:
        """Let a stream listen. Raises DuplicateAgentError.

        It ends an older one of its site: that a line was cut is noticed late. A stream that was closed before it could
        be opened stays closed.
        """
        with self._state.changed:
            self.check_instance(stream.site, stream.instance)
            if not stream.closed:
                self._streams[stream.site] = stream
                self._liveness.opened(stream.site)
                self._state.tell()

    def close_stream(self, stream: Stream, last: Instruction | None) -> None:
        """A stream has ended, on which this was sent last."""
        with self._state.changed:
            stream.closed = True
            if isinstance(last, Finish) and stream.site in self._state.run.adopted:
                # Who has the model leaves at once, or as soon as its line ends: it may not be known that it was sent.
                self.dismiss(stream.site)
            if self.listens(stream):
                self._stream_ended(stream.site)

    def listens(self, stream: Stream) -> bool:
        """Say whether a stream is its site's newest one, and open."""
        return self._streams.get(stream.site) is stream

    def dismiss(self, site: str) -> None:
        """The site has been told to leave."""
        with self._state.changed:
            self._dismissed.add(site)
            self._state.tell()

    def all_dismissed(self) -> bool:
        """Say whether nobody waits for a last word: a site that does not hear how the run ended waits for ever.

        An aborted run waits for nobody who is not on the line now. Called under the lock.
        """
        aborted = self._state.run.outcome is Outcome.ABORTED
        return self._dismissed.issuperset(self._streams if aborted else self._present())

    def _stream_ended(self, site: str) -> None:
        """The site's stream was cut, or another process acts for it now. Called under the lock."""
        if self._streams.pop(site, None) is not None:
            self._liveness.closed(site)
            self._log.info("site disconnected", site=site)
            self._state.tell()

    # --- leases (all called under the lock) ---

    def begin_leases(self, before: Run, after: Run) -> None:
        """A site that has just been asked something new has its whole lease before it."""
        for site in after.plan.sites:
            asked = instruction(after, site)
            if isinstance(asked, Task) and asked != instruction(before, site):
                self._liveness.begin_lease(site)

    def stood_still(self, seconds: float) -> None:
        """Give everyone a new lease, as after a restart: nobody could be heard for so long."""
        self._liveness.stood_still(seconds)
        for site in self._state.run.plan.sites:
            self._liveness.begin_lease(site)

    def note_silent(self) -> None:
        """Let it be known whose leases have run out."""
        for site in [site for site in self._present() if self._lease_left_s(site) <= 0]:
            reason = STOPPED if self._liveness.signs[site].stopped else ""
            self._submit(SiteSilent(site, self._clock_s(), reason))

    def next_lease_ends_in_s(self) -> float:
        """Return the seconds until a lease runs out; infinity where none runs."""
        return min(map(self._lease_left_s, self._present()), default=float("inf"))

    def _present(self) -> list[str]:
        return [site.name for site in self._state.run.sites if site.presence is Presence.PRESENT]

    def _lease_left_s(self, site: str) -> float:
        left = self._liveness.lease_ends_in_s(site, working=self._working(site))
        return float("inf") if left is None else left

    def _working(self, site: str) -> bool:
        run = self._state.run
        return not run.ended and isinstance(instruction(run, site), Task)
