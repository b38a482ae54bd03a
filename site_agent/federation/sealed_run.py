"""What a site does with models under seal: it opens what it is given, seals what it made, and passes keys on.

Rules
1. What the coordinator shows of a model is checked before the model is fetched (`fedcervix.trust.seals`), and every
   byte before anything uses it. A model that comes in the open is never taken in a run under seal.
2. Made again after a kill, a seal is the same: its key follows from the run's secret and the header.
3. The header of a task's model is noted once it was checked: so training goes on while the coordinator is away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fedcervix.core.events import Seal, Task, TaskKind
from fedcervix.core.formats import contents
from fedcervix.core.plan import Compression, Plan
from fedcervix.core.rounds.readers import beginnings, next_reader
from fedcervix.core.rounds.state import Run
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import read_kept
from fedcervix.errors import LinkError, RemoteError, RunError
from fedcervix.json_text import parsed
from fedcervix.models.blobs import BlobStore
from fedcervix.models.rounding import Rounded, rebuild
from fedcervix.models.sealed_files import seal, unseal
from fedcervix.models.weights import vet_values
from fedcervix.runtime.typed_json import from_json, to_text
from fedcervix.trust.boxes import NamedKey, OwnKey
from fedcervix.trust.contexts import RunContext
from fedcervix.trust.key_texts import private_key
from fedcervix.trust.sealed_models import Header, content_key
from fedcervix.trust.seals import Given, Known, Signed, checked, opened_key, signed_seal
from fedcervix.trust.sum_papers import Openings
from fedcervix.trust.sum_roster import Opening, PinnedKeys, checked_roster, signed_opening
from site_agent.home import SiteHome
from site_agent.store.run_secrets import RunSecrets, SecretsFile
from site_agent.store.run_store import RunStore

FILE = "given.json"


@dataclass(frozen=True, slots=True)
class RunKeys:
    """A site's keys of one run, and those of the others."""

    own: OwnKey
    secret: bytes = field(repr=False)
    """32 bytes: what the keys of its models derive from"""
    partners: Mapping[str, NamedKey]
    """of all sites of the plan, by name"""


class ShowsSeals(Protocol):
    """What a run needs of the line."""

    def sealed(self, digest: str) -> tuple[Signed, ...]:
        """Return what the coordinator shows of the task's model; nothing is checked yet."""


class TellsRun(Protocol):
    """What a run needs of the site's ledger."""

    def told(self) -> Run | None:
        """Return the run as it stands by the ledger that this site has verified; None: nothing is here."""


class Surroundings(Protocol):
    """What a run needs of the agent that takes part in it."""

    @property
    def home(self) -> SiteHome:
        """The site's home."""

    @property
    def site(self) -> str:
        """The site's name."""

    @property
    def blobs(self) -> BlobStore:
        """The site's models."""

    @property
    def link(self) -> ShowsSeals:
        """The line."""

    @property
    def ledger(self) -> TellsRun | None:
        """The site's ledger; None: this agent keeps none."""


class SealedRun:
    """One run at one site. `take` is called by the loop, the rest by one job at a time; `opening` from any thread."""

    def __init__(self, context: Surroundings, federation: str, plan: Plan, run_store: RunStore) -> None:
        self._context, self._plan, self._store = context, plan, run_store
        self._run = RunContext(federation=federation, run=run_store.folder.name, plan=plan.digest)
        self._identity = private_key(context.home.pem("site.key"))
        self._file = SecretsFile(context.home, self._run.run)

    # --- the keys of the run ---

    def opening(self, images: int) -> Opening:
        """Return what this site opens the run with: the same each time. Raises StorageError.

        `images`: of its training, as it was counted first. A home that was restored has other secrets, if any.
        """
        drawn = self._file.read()
        if drawn is None:
            drawn = RunSecrets.drawn(images)
            self._file.write(drawn)
        own, rho = drawn.own_key(self._context.site), bytes.fromhex(drawn.rho)
        return signed_opening(self._identity, self._run, own, drawn.images, rho)

    def take(self, openings: Openings) -> None:
        """Check the openings of all sites, and keep them. Raises RemoteError, RunError, StorageError."""
        roster, drawn = checked_roster(self._run, self._plan.sites, openings.openings, self._identities), self._drawn()
        if roster.of(self._context.site).key != drawn.own_key(self._context.site).public:
            raise self._lost()
        if not drawn.openings:
            self._file.write(drawn.told(roster.openings))

    def end(self) -> None:
        """The run has ended: nobody opens a model of it with what is on this disk. Raises StorageError."""
        self._file.forget()

    def _drawn(self) -> RunSecrets:
        drawn = self._file.read()
        if drawn is None:
            raise self._lost()
        return drawn

    def _lost(self) -> RunError:
        return RunError(
            f"this site has lost its secrets of run {self._run.run}, and cannot read the models of the run",
            cause="its home was restored from a backup, which never holds them",
            next_step="nothing can bring them back: this site takes part again from the next run on",
        )

    @property
    def _keys(self) -> RunKeys:
        drawn = self._drawn()
        if not drawn.openings:
            raise LinkError("the coordinator has not shown the keys of the other sites yet")
        partners = {held.site: held.opening().key for held in drawn.openings}
        return RunKeys(drawn.own_key(self._context.site), bytes.fromhex(drawn.nonces), partners)

    @property
    def _identities(self) -> PinnedKeys:
        """The keys that count: of a partner the pinned one, or the first one told if the policy asks for no pins."""
        return {**self._store.keys(), self._context.site: self._identity.public_key()}

    # --- what is given ---

    def bring(self, task: Task, fetch: Callable[[str], None]) -> None:
        """Have a task's model here, opened and found right. Raises RemoteError where it is refused, StorageError."""
        blobs = self._context.blobs
        if blobs.has(task.base) and self._noted(task) is not None:
            return
        given = self._given(task)
        if not blobs.has(task.base):
            key = self._key(given)
            fetch(given.seal.file)
            _open(blobs, given, key, self._plan.terms.compression)
        vet_values(blobs.path(task.base))
        write_whole(self._store.folder / FILE, to_text(GivenNote(_name(task), given.header.text)).encode())

    def _given(self, task: Task) -> Given:
        """Return what the coordinator shows of a task's model, checked. Raises RemoteError."""
        given = checked(self._context.link.sealed(task.base), task, self._known(task))
        if self._plan.terms.compression == "none" and given.header.content != given.header.digest:
            raise RemoteError(
                f"the sealed model of {task} is refused: it is packed, and the plan has no compression",
                cause=f"site {given.header.sender} has another version of the software, or changed it",
            )
        return given

    def _known(self, task: Task) -> Known:
        told = self._context.ledger.told() if self._context.ledger is not None else None
        if told is None:
            raise RunError("a run under seal needs its ledger, and there is none here yet")
        run = self._run
        return Known(run.federation, run.run, run.plan, self._identities, beginnings(told, task.round))

    def _key(self, given: Given) -> bytes:
        """Return the key of a model. Raises RemoteError where this site has no box for it."""
        keys, header = self._keys, given.header
        if header.sender == self._context.site:
            return content_key(keys.secret, header)
        site, box = given.passed_on or (header.sender, given.seal)
        return opened_key(keys.own, keys.partners[site], header, box)

    # --- what is made ---

    def seal(self, task: Task, made: Rounded) -> Seal:
        """Seal a model that was made, for the next site; the sealed file is in the store. Raises StorageError."""
        blobs, keys, content = self._context.blobs, self._keys, made.packed or made.digest
        header = Header(
            federation=self._run.federation,
            run=self._run.run,
            plan=self._run.plan,
            round=task.round,
            hop=self._hop(task),
            sender=self._context.site,
            base=task.base,
            digest=made.digest,
            content=content,
            size_bytes=blobs.size_bytes(content),
        )
        key, scratch = content_key(keys.secret, header), blobs.scratch(f"sealed-{task.kind}-{task.round}")
        file = seal(blobs.path(content), header, key, scratch)
        blobs.adopt(scratch, file)
        reader = keys.partners[next_reader(self._plan.sites, self._context.site)]
        return signed_seal(self._identity, keys.own, header, file, key, [reader])

    def pass_on(self, task: Task) -> Seal:
        """Return boxes with the key of a task's model for its readers. Raises RemoteError where it is refused."""
        given, keys = self._given(task), self._keys
        readers = [keys.partners[name] for name in task.readers if name in keys.partners]
        return signed_seal(self._identity, keys.own, given.header, given.seal.file, self._key(given), readers)

    def _hop(self, task: Task) -> int:
        """Return which hop of the round a task is: one more than that of the model that it begins with."""
        before = self._noted(task)
        if task.kind is TaskKind.SEED:
            return 0
        return before.hop + 1 if before is not None and before.round == task.round else 1

    def _noted(self, task: Task) -> Header | None:
        """Return the header of a task's model; None where it was not checked yet. Raises StorageError."""
        file = self._store.folder / FILE
        next_step = f"delete it: rm {file}; the model of the task is then checked again"
        noted = read_kept(file, _note, missing=None, next_step=next_step)
        return Header.parse(noted.header) if noted is not None and noted.task == _name(task) else None


def _open(blobs: BlobStore, given: Given, key: bytes, packing: Compression) -> None:
    """Open a sealed file that is here, and keep the model. Raises RemoteError where it is another one, StorageError."""
    header, scratch = given.header, blobs.scratch("opened")
    if unseal(blobs.path(given.seal.file), key, scratch) != header:
        scratch.unlink(missing_ok=True)
        raise RemoteError("the sealed file has another header than the one that was signed")
    blobs.adopt(scratch, header.content)
    if header.content != header.digest and packing != "none":
        rebuild(blobs, header.content, header.digest, packing, "", name="unpacked")


@dataclass(frozen=True, slots=True)
class GivenNote:
    """The header of a model that was checked for a task."""

    task: str
    header: str

    def __post_init__(self) -> None:
        Header.parse(self.header)


def _note(content: bytes) -> GivenNote | None:
    return from_json(GivenNote, contents("the note", parsed(content)))


def _name(task: Task) -> str:
    return f"{task.kind} {task.round} {task.base}"
