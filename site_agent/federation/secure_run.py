"""An agent's part in a run with secure sums: between its line, its ledger and its worker lies `SumSite`.

What the coordinator shows before a task (a *paper*) comes by the loop; work is done by the job's thread, which waits
for the paper that it needs. Papers are not kept: the coordinator shows them on each line anew. What was decided, and
what a site has trained, is on the disk.

Rules
1. A round's base, its head and the step before it are taken from the ledger that this site has verified (H6).
2. The first model is made here: from the plan's seed and the run's openings, so it was in no sum before. One that the
   coordinator gives is taken only where [policy] first_model has its digest.
3. A model that a sum gives is derived here, before it is scored or trained. A site that was away fetches the model with
   which the round before began: more than half of the sites have signed the head that names it (`check_begins`).
   Of the models of earlier rounds it adopts one from which sites have trained: each had checked it, and signed that.
4. Figures of training leave with three digits: it can be repeated, so a full loss would confirm a guess of the images.
   The losses of its batches do not leave: many losses with three digits would confirm a guess as well.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fedcervix.core.events import BoxesStored, CloseSigned, Masked, ReleaseStored, Task, TaskKind, UpdateStored
from fedcervix.core.formats import contents
from fedcervix.core.plan import Plan
from fedcervix.disk.files import write_whole
from fedcervix.disk.paths import Below
from fedcervix.disk.storage import disk, read_kept
from fedcervix.errors import FedcervixError, LedgerError, LinkError, ModelError, RemoteError
from fedcervix.json_text import parsed
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.typed_json import from_json, to_text
from fedcervix.transport import codec
from fedcervix.trust.contexts import RunContext
from fedcervix.trust.holder_rules import Proposal
from fedcervix.trust.key_texts import private_key
from fedcervix.trust.ledger_run import KnownRound
from fedcervix.trust.statements import PublicKey
from fedcervix.trust.sum_papers import AttemptShown, Boxes, Openings, SumShown
from fedcervix.trust.sum_reports import SumReport
from fedcervix.trust.sum_roster import Opening
from site_agent.federation.site_ledger import SiteLedger
from site_agent.federation.sum_site import SigningSite, SumSite, TrainedUpdate
from site_agent.home import SiteHome
from site_agent.store.run_store import RunStore
from site_agent.store.sum_journal import SumJournal
from site_agent.store.task_results import TrainResult

Fetch = Callable[[str], None]
"""brings a file of this digest here"""
PaperT = TypeVar("PaperT", Openings, Boxes, AttemptShown, SumShown)


@dataclass(frozen=True, slots=True)
class MadeUpdate:
    """What training gave, until its masked form has been delivered: it is not trained again after a kill."""

    task: Task
    result: TrainResult


@dataclass(frozen=True, slots=True)
class SecureParts:
    """What of an agent a run with secure sums needs."""

    home: SiteHome
    site: str
    blobs: BlobStore
    ledger: SiteLedger
    journal: SumJournal


class SecureRun:
    """One run. `take` is called by the loop, the rest by one job at a time; `opening` from any thread."""

    def __init__(self, parts: SecureParts, federation: str, plan: Plan, run_store: RunStore) -> None:
        self._parts, self._plan, self._store = parts, plan, run_store
        identity = private_key(parts.home.pem("site.key"))
        run = RunContext(federation=federation, run=run_store.folder.name, plan=plan.digest)
        self._site = SumSite(parts.home, SigningSite(parts.site, identity), run, plan, parts.journal)
        self._own_key = identity.public_key()
        self._papers: dict[type, object] = {}
        self._files = _Files(run_store.folder)
        self._lock = threading.Lock()

    # --- papers ---

    def take(self, paper: codec.Paper) -> None:
        """Keep what the coordinator shows."""
        self._papers[type(paper)] = paper

    def _paper(self, kind: type[PaperT], fits: Callable[[PaperT], bool] = lambda _: True) -> PaperT:
        """Return a paper. Raises LinkError before the coordinator has shown it: it does so on the next line."""
        found = self._papers.get(kind)
        if not isinstance(found, kind) or not fits(found):
            raise LinkError(f"the coordinator has not shown the {kind.__name__} of this task yet")
        return found

    @contextlib.contextmanager
    def _summing(self) -> Iterator[SumSite]:
        """Let one thread at a time act for the site, with the keys that its people and the run know."""
        with self._lock:
            self._site.keys = self._keys
            yield self._site

    @property
    def _keys(self) -> dict[str, PublicKey]:
        """The keys that count: of a partner the pinned one, or the first one told if the policy asks for no pins."""
        return {**self._store.keys(), self._parts.site: self._own_key}

    def check_begins(self, task: Task) -> None:
        """Raise LedgerError where too few sites have signed the ledger for a round to begin. By the loop."""
        if task.kind in BEGINS:
            self._parts.ledger.check_countersigned(task, self._plan.terms.colluders, self._keys)

    # --- S0 ---

    def opening(self, images: int) -> Opening:
        """Return this site's opening. Raises PolicyError where this home takes no part in the run."""
        with self._summing() as site:
            return site.opening(images)

    def box(self, task: Task) -> BoxesStored:
        """Check the openings of all sites, and put this site's secret bytes into boxes. Raises RemoteError."""
        openings = self._paper(Openings).openings
        with self._summing() as site:
            boxes, roster = site.join(openings), site.roster.digest
        told = tuple((reader, box.hex()) for reader, box in boxes.items())
        return BoxesStored(self._parts.site, task, roster, told, time.time())

    @property
    def roster(self) -> str:
        """The digest of the run's openings, from which the first model is made."""
        with self._summing() as site:
            return site.roster.digest

    # --- models ---

    def bring(self, task: Task, fetch: Fetch, make_first: Callable[[], str]) -> str:
        """Have the model of a task here; return what a person is told of it.

        `make_first` makes the run's first model in the blob store, and returns its digest. Raises RemoteError,
        ModelError, LedgerError.
        """
        self._check_base(task)
        if task.round == 1 and task.kind in BEGINS:
            return self._bring_first(task, fetch, make_first)
        shown = self._papers.get(SumShown)
        is_made = self._files.derived() == task.base and self._parts.blobs.has(task.base)
        if isinstance(shown, SumShown) and shown.model == task.base and not is_made:
            return self._learn(shown, fetch)
        if not self._is_known(task):
            raise RemoteError(
                f"asked to {task}, and no sum was shown that gives its model {task.base[:12]}",
                cause="the coordinator is faulty, or it is not honest",
                next_step="telephone the other sites, and compare from which model they train",
            )
        if not self._parts.blobs.has(task.base):
            fetch(task.base)
        return ""

    def _is_known(self, task: Task) -> bool:
        """Say whether this site may use a model although no sum is shown that gives it (rule 3)."""
        ledger = self._parts.ledger
        if task.kind is TaskKind.ADOPT:  # of a round that may be long over
            is_old = ledger.was_trained_from(task.base)
        else:
            is_old = ledger.began_with(task.base, task.round)
        return is_old or self._files.derived() == task.base

    def _check_base(self, task: Task) -> None:
        """Compare the model from which a round begins with the one that the ledger leads to (rule 1)."""
        if task.kind in BEGINS and task.base != (base := self._known(task.round).base):
            raise RemoteError(
                f"asked to {task} from model {task.base[:12]}; the ledger leads to model {base[:12]}",
                cause="the coordinator is faulty, or it is not honest",
                next_step="telephone the other sites, and compare from which model they train",
            )

    def _bring_first(self, task: Task, fetch: Fetch, make_first: Callable[[], str]) -> str:
        """Make the first model here, unless that was done, and compare; or fetch the one that people know (rule 2)."""
        parts = self._parts
        is_here, given = parts.blobs.has(task.base), parts.home.config().policy.first_model
        if task.base == given and not is_here:
            fetch(task.base)
        if task.base == given or (is_here and task.base in parts.journal.memory.vouched):
            return ""
        made = make_first()
        if made != task.base:
            config = self._parts.home.config_file
            raise ModelError(
                f"the first model of the run is {task.base}; this site makes {made} from the plan",
                cause="the run began with a given model; or another version of torch, or another processor, made it; "
                "or the coordinator chose it",
                next_step="compare by telephone what the other sites say; only where you know where the model comes "
                f'from: write first_model = "{task.base}" under [policy] in {config}',
            )
        with self._summing() as site:
            site.vouch(made)
        return "the run begins with the model that this site has made from the plan and the openings of all sites"

    def _learn(self, shown: SumShown, fetch: Fetch) -> str:
        """Check a sum and derive its model; return what a person is told."""
        known, blobs = self._known(shown.attempt.round), self._parts.blobs
        was_away = not blobs.has(known.base)
        for digest in (known.base, shown.total, *(known.last_step or ())):
            if not blobs.has(digest):
                fetch(digest)
        with self._summing() as site:
            self._open_boxes(site)
            proposal = site.proposal(known, shown.attempt)
            listed = site.listed(proposal, shown.attempt)
            derived = site.learn(known, proposal, listed, shown.releases, shown.total)
        if derived != shown.model:
            raise RemoteError(
                f"the sum of round {known.round} gives model {derived[:12]}; the coordinator says {shown.model[:12]}",
                cause="the coordinator is faulty, or it is not honest; or two processors round differently",
                next_step="telephone the other sites, and compare what each of them derived",
            )
        self._files.note_derived(derived)
        names = ", ".join(listed.sites)
        away = "; it was away, and has fetched the model before it" if was_away else ""
        return f"round {known.round}: this site has checked the sum of {names}, and made its model{away}"

    def _known(self, number: int) -> KnownRound:
        known = self._parts.ledger.known_round(number)
        if known is None:
            raise LedgerError(
                f"the ledger does not say from which model round {number} begins",
                cause="the coordinator keeps the ledger back from this site: it is faulty, or it is not honest",
                next_step="compare with the other sites and the coordinator's operator",
            )
        return known

    # --- a round ---

    def made(self, task: Task) -> TrainResult | None:
        """Return what training gave for a task before; None: it is to be trained."""
        kept = self._files.read()
        return kept.result if kept and kept.task == task and self._parts.blobs.has(kept.result.digest) else None

    def masked(self, task: Task, made: TrainResult) -> UpdateStored:
        """Mask what was trained; return the report of it. The masked vector lies in the blob store."""
        self._files.write(MadeUpdate(task, made))
        trained = TrainedUpdate(made.digest, made.steps, made.loss)
        report = self._attempted(task, lambda site, known, proposal, _: site.upload(known, proposal, trained))
        return UpdateStored(
            self._parts.site,
            task,
            report.upload,
            self._images(),
            report.steps,
            report.loss,
            made.seconds,
            time.time(),
            masked=_masked(report),
        )

    def release(self, task: Task) -> ReleaseStored:
        """Release this holder's masks; their sum lies in the blob store."""
        signed = self._attempted(
            task, lambda site, known, at, shown: site.release(known, at, site.listed(at, shown)), lists=True
        )
        return ReleaseStored(self._parts.site, task, signed.listed, signed.masks, signed.signature.hex(), time.time())

    def close(self, task: Task) -> CloseSigned:
        """Promise to release nothing in an attempt."""
        signed = self._attempted(
            task, lambda site, known, at, shown: site.close(known, at, shown.remaining), closes=True
        )
        return CloseSigned(self._parts.site, task, signed.remaining, signed.signature.hex(), time.time())

    def _attempted(
        self,
        task: Task,
        act: Callable[[SumSite, KnownRound, Proposal, AttemptShown], Signed],
        *,
        lists: bool = False,
        closes: bool = False,
    ) -> Signed:
        """Act in the attempt that a task is of. Raises LinkError before the coordinator has shown what is needed."""

        def fits(shown: AttemptShown) -> bool:
            is_it = (shown.round, shown.attempt) == (task.round, task.attempt)
            return is_it and (bool(shown.lines), bool(shown.remaining)) == (lists, closes)

        first = AttemptShown(task.round)
        needs_none = task.attempt == 1 and not (lists or closes)
        shown = first if needs_none else self._paper(AttemptShown, fits)
        known = self._known(task.round)
        with self._summing() as site:
            self._open_boxes(site)
            return act(site, known, site.proposal(known, shown), shown)

    def _open_boxes(self, site: SumSite) -> None:
        """Have the secret bytes of all sites. Raises LinkError before the coordinator has shown the boxes."""
        if not site.is_joined:
            site.take_boxes(self._paper(Boxes).boxes)

    def _images(self) -> int:
        with self._summing() as site:
            return site.roster.of(self._parts.site).images

    # --- the end ---

    def kept(self, task: Task) -> set[str]:
        """Return the models that a run in progress may still need besides those of the task that was delivered."""
        made = self._files.read()
        known = self._parts.ledger.known_round(task.round)
        return ({made.result.digest} if made else set()) | ({known.base, *(known.last_step or ())} if known else set())

    def end(self) -> None:
        """The run has ended: note what became of the last round, as far as it was shown; then the secrets go."""
        try:
            for conclude in (self._remember_sum, self._free):
                with contextlib.suppress(FedcervixError):  # what nobody has shown keeps its base from other runs
                    conclude()
        finally:
            with self._summing() as site:
                site.end()

    def _remember_sum(self) -> None:
        shown = self._paper(SumShown)
        known = self._known(shown.attempt.round)
        with self._summing() as site:
            proposal = site.proposal(known, shown.attempt)
            site.remember_sum(known, proposal, site.listed(proposal, shown.attempt), shown.releases)

    def _free(self) -> None:
        shown = self._paper(AttemptShown, lambda shown: bool(shown.earlier))
        known = self._known(shown.round)
        with self._summing() as site:
            site.free(known, site.proposal(known, shown))


Signed = TypeVar("Signed")
BEGINS = (TaskKind.TRAIN, TaskKind.RELEASE, TaskKind.CLOSE)
"""tasks whose model is the one that their round begins with"""


def _masked(report: SumReport) -> Masked:
    return Masked(report.commit, report.norm, report.before, report.signature.hex())


@dataclass(frozen=True, slots=True)
class _Files:
    """What a run's folder holds of it."""

    folder: Path
    _made = Below("made.json")
    _derived = Below("derived.txt")

    def read(self) -> MadeUpdate | None:
        next_step = f"delete it: rm {self._made}; the round is then trained again"
        return read_kept(self._made, _made, missing=None, next_step=next_step)

    def write(self, made: MadeUpdate) -> None:
        write_whole(self._made, to_text(made).encode())

    def derived(self) -> str:
        """Return the model that was derived last; empty before the first one."""
        with disk(self._derived, "read"):
            return self._derived.read_bytes().decode("ascii", "replace") if self._derived.exists() else ""

    def note_derived(self, digest: str) -> None:
        write_whole(self._derived, digest.encode())


def _made(content: bytes) -> MadeUpdate | None:
    return from_json(MadeUpdate, contents("the update", parsed(content)), extra="ignore")
