"""Models that sites bring: at most one of each site lies here unreported, and only while the site is asked for one.

Rules
1. A site that offers a model gives up the one that it brought before, unless the run counts with it.
2. Of a site that is asked for no model, nothing is kept that is on its way or was never reported. A site that has
   fallen silent may come back with its report: what it brought stays.
3. A model that two sites have brought stays for as long as either may report it. What a site is told does not depend on
   what others have brought (see fedcervix.models.blobs, rule 3).
4. A site whose model finds no room is named, with those whose models take the room.
"""

from __future__ import annotations

from fedcervix.core.compression import kept_form
from fedcervix.core.events import Task, TaskKind
from fedcervix.core.rounds.coordinator_work import last_step
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.readers import earlier_models, seals
from fedcervix.core.rounds.state import Presence, Run
from fedcervix.core.rounds.unusable import fallback
from fedcervix.errors import FullDiskError, RunError
from fedcervix.models.blobs import BlobStore

DERIVED_ROUNDS = 3
"""the round in progress, the one whose sum gave its base, and the one before that, where server momentum needs it"""


def needed(run: Run) -> set[str]:
    """Return the digests of the models that a run still needs."""
    kept = {run.layout, run.model}
    kept |= set(last_step(run) or ()) | derived_from(run)
    if run.rounds:
        kept |= {update.digest for update in (*run.current.contributions, *run.current.dropped)}
        kept |= {release.masks for release in run.current.releases}
        kept |= {run.current.candidate, run.current.base, fallback(run)}
    if run.best_round:
        kept.add(run.best.candidate)
    if run.plan.terms.sealed:
        return _sealed_files(run, kept)
    kept |= {form.digest for form in (kept_form(run, model) for model in kept) if form}
    kept |= {round_.residual for round_ in run.rounds[-2:]}
    return kept - {""}


def _sealed_files(run: Run, kept: set[str]) -> set[str]:
    """Return the files of models under seal: also of those that the ring may go back to."""
    models = {*kept, *(earlier_models(run) if run.rounds else ())}
    return {seal.file for model in models for _, seal in seals(run, model)[:1]}


def derived_from(run: Run) -> set[str]:
    """Return from what sites derive the model of a secure sum, those that were away too: sums, and models before."""
    if not run.plan.terms.secure_sum:
        return set()
    return {digest for round_ in run.rounds[-DERIVED_ROUNDS:] for digest in (round_.total, round_.base)} - {""}


def is_asked(run: Run, site: str) -> bool:
    """Say whether a site is asked for a model now, or for the masks of a round."""
    asked = instruction(run, site) if site in run.plan.sites and not run.ended else None
    return isinstance(asked, Task) and asked.kind in (TaskKind.SEED, TaskKind.TRAIN, TaskKind.RELEASE)


def may_report(run: Run, site: str) -> bool:
    """Say whether a report on a model that a site has brought may still count: now, or when the site is heard again."""
    silent = site in run.plan.sites and run.site(site).presence is Presence.SILENT
    return is_asked(run, site) or (silent and not run.ended)


class Unreported:
    """What becomes of models until they are reported, and who waits for room."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._waiting: dict[str, FullDiskError] = {}
        """by site, what its upload lacks"""

    def offered(self, run: Run, site: str, digest: str) -> None:
        """Make way for a model that a site offers. Raises RunError where none is wanted, StorageError.

        No report may be taken at the same time: what it would count with could be gone. Quick: what has lost its name
        here is deleted by `expect`.
        """
        if self._blobs.brought(digest, site):
            return
        if not is_asked(run, site):
            raise RunError("this site is not asked for a model now", cause="the run is at a later step")
        self.clear(run, site, digest)

    def clear(self, run: Run, site: str = "", digest: str = "") -> None:
        """Take its name from what nobody is asked for. `site` brings the model `digest`. Raises StorageError."""
        keep = needed(run)
        for sender in self._blobs.senders():
            if sender == site:
                self._blobs.forget(sender, part=digest, whole=keep)
            elif not may_report(run, sender):
                self._blobs.forget(sender, whole=keep)
        self._blobs.retire_unwanted(keep)

    def expect(self, site: str, digest: str, size_bytes: int) -> int:
        """Return from which byte a model is wanted. Raises StorageError where there is no room for it."""
        self._blobs.purge()
        try:
            offset = self._blobs.expect(digest, site, size_bytes=size_bytes)
        except FullDiskError as error:
            self._waiting[site] = error
            raise
        self._waiting.pop(site, None)
        return offset

    def words(self, run: Run) -> str:
        """Return which uploads wait for room and who takes it; empty where none waits."""
        waiting = {site: error for site, error in list(self._waiting.items()) if is_asked(run, site)}
        if not waiting:
            return ""
        error = next(iter(waiting.values()))
        what = f"waiting for room to send a model: {', '.join(waiting)}; {error.what}"
        return f"{what}\n  likely cause: {self._cause(run)}\n  next: {error.next_step}"

    def _cause(self, run: Run) -> str:
        """Say who fills the disk."""
        keep = needed(run)
        unreported = {site: self._blobs.unreported_bytes(site, keep) for site in self._blobs.senders()}
        most = sorted(((held, site) for site, held in unreported.items() if held), reverse=True)
        shares = "".join(f"; not reported yet, of {site}: {held:,} bytes" for held, site in most[:5])
        return f"the disk is (nearly) full; models of the run: {self._blobs.occupied_bytes(keep):,} bytes{shares}"
