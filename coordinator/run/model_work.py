"""Models that sites send: wanted or not, checked, unpacked, measured, counted; and deleted once nothing needs them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from coordinator.run.incoming import Unreported, needed
from coordinator.run.refused import Refused
from coordinator.run.round_average import hop_measured
from coordinator.run.run_ledger import RunLedger
from coordinator.run.run_state import RunState
from coordinator.run.sealed_updates import check_passed_on, check_sealed
from fedcervix.core.events import (
    Answer,
    Event,
    ReleaseStored,
    Rewrapped,
    SiteRevoked,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.objections import objection
from fedcervix.core.rounds.state import Run
from fedcervix.core.rounds.step import answer_to
from fedcervix.errors import BusyError, RemoteError, RunError, StorageError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.rounding import rebuild
from fedcervix.models.secure_sums import vet_vector
from fedcervix.models.secure_vectors import vector_form
from fedcervix.models.step_norms import Group, Meter, check_steps, measure_groups
from fedcervix.models.stream_validation import Arriving
from fedcervix.models.weights import Layout, read_layout, vet, vet_base, vet_layout
from fedcervix.runtime.log import logger
from fedcervix.transport import codec
from fedcervix.trust.ledger import NOT_SIGNED, Signed


@dataclass(frozen=True, slots=True)
class _Sound:
    """What was found of a model while it arrived."""

    digest: str
    moved: tuple[Path, tuple[Group, ...]] | None
    """how far it lies from which model; None where it was not measured"""


@dataclass(eq=False, slots=True)
class _Uploads:
    """What is known of one site's models."""

    vetting: threading.Lock = field(default_factory=threading.Lock)
    refused: Refused = field(default_factory=Refused)
    sound: _Sound | None = None
    """the newest one whose values were checked while it arrived; replaced whole, for a report may be read meanwhile"""


class ModelWork:
    """The models of one run. Thread-safe; `submit` journals an update that is fit."""

    def __init__(
        self, state: RunState, blobs: BlobStore, ledger: RunLedger, submit: Callable[[Event, Signed], Answer]
    ) -> None:
        self._state, self._blobs, self._ledger, self._submit = state, blobs, ledger, submit
        self._log = logger(run=state.run.run)
        self._unreported = Unreported(blobs)
        self._uploads = {site: _Uploads() for site in state.run.plan.sites}
        self._first: tuple[str, Layout] | None = None
        """the run's first model, and what it holds"""
        self.needs_purge = True
        """models may lie there that were put away, also by the process before this one"""

    # --- a model comes ---

    def expect(self, site: str, digest: str, size_bytes: int) -> int:
        """Return from which byte a model is wanted. Raises RunError where none is, StorageError."""
        with self._state.changed:
            self._unreported.offered(self._state.run, site, digest)
        return self._unreported.expect(site, digest, size_bytes)

    def arriving(self, site: str, size_bytes: int) -> Arriving:
        """Return what looks at a model of a site while it arrives; it is to be closed. Raises StorageError."""
        run = self._state.run
        if run.plan.terms.sealed:
            return Arriving(size_bytes)  # which finds nothing in it
        task = instruction(run, site)
        base = task.base if isinstance(task, Task) and task.kind is TaskKind.TRAIN else ""
        like = self.layout_of(run) if run.layout else None
        return Arriving(size_bytes, like, Meter(self._blobs.path(base), like) if base else None)

    def note_arrived(self, site: str, digest: str, seen: Arriving) -> None:
        """Note that a site's model was found to be sound while it arrived."""
        self._uploads[site].sound = _Sound(digest, seen.moved())

    def layout_of(self, run: Run) -> Layout:
        """Return what the run's first model holds, read once: every update has the same. Raises StorageError."""
        if self._first is None or self._first[0] != run.layout:
            self._first = run.layout, read_layout(self._blobs.path(run.layout))
        return self._first[1]

    def bytes_max(self, run: Run) -> int:
        """Return how long what a site sends may be. Raises StorageError."""
        if not run.layout:
            return codec.model_bytes_max(0)
        bound = codec.model_bytes_max(self._blobs.size_bytes(run.seal.file if run.seal else run.layout))
        return max(bound, vector_form(self.layout_of(run)).bytes) if run.plan.terms.secure_sum else bound

    # --- it is reported ---

    def take_update(self, update: UpdateStored, signed: Signed = NOT_SIGNED) -> Answer:
        """Vet a model that has arrived, then submit it, with what the site has signed.

        Raises RemoteError where it is not fit to be averaged, BusyError while one of the site is looked at already.
        """
        run = self._state.run
        answer = answer_to(run, update)
        if answer is not Answer.ACCEPTED and not objection(run, update):
            return answer  # a later state does not accept it either
        if not self._blobs.brought(update.packed or update.digest, update.site):
            raise _not_here(update.packed or update.digest, update.task)
        if answer is Answer.REFUSED:  # only now: whoever has not sent a model is not told whether another site has
            self._log.warning("update refused", site=update.site, task=str(update.task), what=objection(run, update))
            return answer
        with self._alone(update.site) as uploads:
            uploads.refused.check(update)
            try:
                update = self._vet(run, update, uploads)
            except RemoteError as error:
                uploads.refused.note(update, error)
                raise
            except StorageError as error:
                if not self._blobs.has(_stored(update)):  # it went while it was looked at
                    raise _not_here(update.packed or update.digest, update.task) from error
                raise
        with self._state.changed:  # no model goes from here on: see `expect`
            if not self._blobs.has(_stored(update)):
                raise _not_here(update.packed or update.digest, update.task)
            return self._submit(update, signed)

    def take_passed_on(self, event: Rewrapped, signed: Signed) -> Answer:
        """Check boxes for the key of a model, then submit them. Raises RemoteError, StorageError."""
        answer = answer_to(self._state.run, event)
        if answer is not Answer.ACCEPTED:
            return answer
        check_passed_on(self._state.run, self._ledger.known, event)
        return self._submit(event, signed)

    def take_release(self, release: ReleaseStored, signed: Signed = NOT_SIGNED) -> Answer:
        """Vet a holder's masks that have arrived, then submit them. Raises RemoteError, RunError, StorageError."""
        if not self._blobs.brought(release.masks, release.site):
            raise _not_here(release.masks, release.task)
        vet_vector(self._blobs.path(release.masks), self._blobs.path(release.task.base))
        with self._state.changed:  # as above
            if not self._blobs.has(release.masks):
                raise _not_here(release.masks, release.task)
            return self._submit(release, signed)

    @contextlib.contextmanager
    def _alone(self, site: str) -> Iterator[_Uploads]:
        """Let one model of a site be looked at, at a time. Raises BusyError where one is.

        A report comes again where the first one is not answered in time. It does not wait here: the site's signs of
        life need the thread.
        """
        uploads = self._uploads[site]
        if not uploads.vetting.acquire(blocking=False):
            raise BusyError(
                f"a model of {site} is still being checked",
                cause="it is large, or the coordinator's disk is slow",
                next_step="no action is needed: it is tried again automatically",
            )
        try:
            yield uploads
        finally:
            uploads.vetting.release()

    def _vet(self, run: Run, update: UpdateStored, uploads: _Uploads) -> UpdateStored:
        """Return the update with what was measured of it. Raises RemoteError where its model is not fit."""
        if run.plan.terms.sealed:
            check_sealed(run, self._ledger.known, self._blobs, update)
            return update
        if update.packed:
            self._unpack(run, update)
        path, sound = self._blobs.path(update.digest), uploads.sound
        seen = sound if sound is not None and sound.digest == update.digest else None
        if update.masked is not None:
            vet_vector(path, self._blobs.path(update.task.base))
            return update
        if update.task.kind is TaskKind.SEED:
            vet_base(path)
        elif seen:
            vet_layout(path, self.layout_of(run))
        else:
            vet(path, self.layout_of(run))
        if update.task.kind is TaskKind.TRAIN:
            base = self._blobs.path(update.task.base)
            measured_from, groups = (seen.moved if seen else None) or (None, ())
            groups = groups if measured_from == base else measure_groups(path, base)
            moved = check_steps(groups, run.plan.terms.step_max)
            measures = hop_measured(run, self._blobs, self.layout_of(run), update)
            update = replace(update, step=moved, measures=measures)
        return update

    def _unpack(self, run: Run, update: UpdateStored) -> None:
        """Make a model that came packed. Raises RemoteError where this is not its packed form."""
        packing, seeds = run.plan.terms.compression, update.task.kind is TaskKind.SEED
        if packing == "none" or (seeds and packing == "int8"):
            raise RemoteError(
                "a compressed model was received, but the plan has no compression",
                next_step="compare the versions of coordinator and site",
            )
        like, name = None if seeds else self.layout_of(run), f"unpacked-{update.site}"
        rebuild(self._blobs, update.packed, update.digest, packing, update.task.base, name=name, like=like)
        self._blobs.note_brought(update.digest, update.site)
        sizes = {"bytes": self._blobs.size_bytes(update.packed), "of": self._blobs.size_bytes(update.digest)}
        self._log.info("update unpacked", site=update.site, **sizes)

    # --- it goes ---

    def retire(self, before: Run, after: Run, event: Event) -> None:
        """Put away what a new round does not need. Called under the lock, after a step."""
        if begins := _step_of(after) != _step_of(before):
            with contextlib.suppress(OSError, StorageError):  # what cannot be deleted now can be at the next round
                self._blobs.retire(needed(after))
        self.needs_purge = self.needs_purge or begins or after.ended or isinstance(event, SiteRevoked)

    def purge(self) -> None:
        """Delete what no round needs and no site is asked for any more, while the sites are at work."""
        if self.needs_purge:
            self.needs_purge = False
            with contextlib.suppress(StorageError):  # what cannot be deleted now can be at the next round
                with self._state.changed:
                    self._unreported.clear(self._state.run)
                self._blobs.purge()

    def trouble(self) -> str:
        """Return which uploads wait for room, or that the next one would, in words; empty where all is well."""
        return self._unreported.words(self._state.run) or self._no_room()

    def _no_room(self) -> str:
        """Return that a site's next model would not fit; before anything failed, also at night."""
        run = self._state.run
        if run.outcome or not run.rounds:
            return ""
        try:
            full = self._blobs.no_room(self._blobs.size_bytes(run.current.base))
        except OSError:  # of a model that is not here the size is not known
            return ""
        if full is None:
            return ""
        next_step = full.next_step.partition(";")[0]
        return f"{full.cause}; nothing has failed yet: {full.what}\n  next: {next_step}"


def _stored(update: UpdateStored) -> str:
    """Return which file must be here once an update counts."""
    return update.packed if update.seal else update.digest


def _step_of(run: Run) -> tuple[int, int]:
    """Return round and attempt: with the next one, models of the one before are not needed any more."""
    return len(run.rounds), len(run.current.closed) if run.rounds else 0


def _not_here(digest: str, task: Task) -> RunError:
    return RunError(f"the model {digest[:12]} of {task} is not at the coordinator", next_step="send it again")
