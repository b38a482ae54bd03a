"""What a site does with models under seal: it opens what it is given, seals what it made, and passes keys on.

Rules
1. What the coordinator shows of a model is checked before the model is fetched (`fedcervix.trust.seals`), and every
   byte before anything uses it. A model that comes in the open is never taken in a run under seal.
2. Made again after a kill, a seal is the same: its key follows from the run's secret and the header.
3. The header of a task's model is noted once it was checked: so training goes on while the coordinator is away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedcervix.core.events import Seal, Task, TaskKind
from fedcervix.core.formats import contents
from fedcervix.core.plan import Compression
from fedcervix.core.rounds.readers import beginnings, next_reader
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import read_kept
from fedcervix.errors import RemoteError, RunError
from fedcervix.json_text import parsed
from fedcervix.models.blobs import BlobStore
from fedcervix.models.rounding import Rounded, rebuild
from fedcervix.models.sealed_files import seal, unseal
from fedcervix.models.weights import vet_values
from fedcervix.trust.boxes import NamedKey, OwnKey
from fedcervix.trust.contexts import RunContext
from fedcervix.trust.key_texts import private_key
from fedcervix.trust.sealed_models import Header, content_key
from fedcervix.trust.seals import Given, Known, checked, opened_key, signed_seal
from fedcervix.trust.statements import PrivateKey
from fedcervix.trust.sum_roster import Opening, PinnedKeys, checked_roster, signed_opening
from site_agent.federation.context import AgentContext
from site_agent.federation.inbox import Participation
from site_agent.store.run_secrets import RunSecrets, SecretsFile

FILE = "given.json"


@dataclass(frozen=True, slots=True)
class RunKeys:
    """A site's keys of one run, and those of the others."""

    own: OwnKey
    secret: bytes = field(repr=False)
    """32 bytes: what the keys of its models derive from"""
    partners: Mapping[str, NamedKey]
    """of all sites of the plan, by name"""


class Sealing:
    """One agent's part in runs under seal. May be used from any thread."""

    def __init__(self, context: AgentContext, federation: str) -> None:
        self._context, self._federation = context, federation

    # --- the keys of a run ---

    def opening(self, run: Participation, images: int) -> Opening:
        """Return what this site opens a run with: the same each time. Raises StorageError.

        `images`: of its training, as it was counted first. A home that was restored has other secrets, if any.
        """
        file = SecretsFile(self._context.home, run.run)
        drawn = file.read()
        if drawn is None:
            drawn = RunSecrets.drawn(images)
            file.write(drawn)
        own, rho = drawn.own_key(self._context.site), bytes.fromhex(drawn.rho)
        return signed_opening(self._identity(), self._run_context(run), own, drawn.images, rho)

    def join(self, run: Participation, openings: Sequence[Opening]) -> None:
        """Check and keep the openings of all sites. Raises RemoteError, RunError, StorageError."""
        roster = checked_roster(self._run_context(run), run.plan.sites, openings, self._identities(run))
        file, drawn = SecretsFile(self._context.home, run.run), self._drawn(run)
        if not drawn.openings:
            file.write(drawn.told(roster.openings))

    def forget(self, run: Participation) -> None:
        """The run has ended: nobody opens a model of it with what is on this disk. Raises StorageError."""
        SecretsFile(self._context.home, run.run).forget()

    def _drawn(self, run: Participation) -> RunSecrets:
        drawn = SecretsFile(self._context.home, run.run).read()
        if drawn is None:
            raise RunError(
                f"this site has lost its secrets of run {run.run}, and cannot read the models of the run",
                cause="its home was restored from a backup, which never holds them",
                next_step="nothing can bring them back: this site takes part again from the next run on",
            )
        return drawn

    def _keys(self, run: Participation) -> RunKeys:
        drawn = self._drawn(run)
        if not drawn.openings:
            raise RunError(f"the keys of the other sites of run {run.run} have not come yet")
        openings = [held.opening() for held in drawn.openings]
        return RunKeys(
            drawn.own_key(self._context.site),
            bytes.fromhex(drawn.nonces),
            {opening.site: opening.key for opening in openings},
        )

    def _run_context(self, run: Participation) -> RunContext:
        return RunContext(federation=self._federation, run=run.run, plan=run.plan.digest)

    def _identities(self, run: Participation) -> PinnedKeys:
        return {**run.run_store.keys(), self._context.site: self._identity().public_key()}

    # --- what is given ---

    def bring(self, run: Participation, task: Task, fetch: Callable[[str], None]) -> None:
        """Have a task's model here, opened and found right. Raises RemoteError where it is refused, StorageError."""
        blobs, folder = self._context.blobs, run.run_store.folder
        if blobs.has(task.base) and _noted(folder, task) is not None:
            return
        given = self._given(run, task)
        if not blobs.has(task.base):
            key = self._key(run, given)
            fetch(given.seal.file)
            _open(blobs, given, key, run.plan.terms.compression)
        vet_values(blobs.path(task.base))
        noted = {"task": _name(task), "header": given.header.text}
        write_whole(folder / FILE, json.dumps(noted, allow_nan=False).encode())

    def _given(self, run: Participation, task: Task) -> Given:
        """Return what the coordinator shows of a task's model, checked. Raises RemoteError."""
        shown = self._context.link.sealed(task.base)
        given = checked(shown, task, self._known(run, task))
        if run.plan.terms.compression == "none" and given.header.content != given.header.digest:
            raise RemoteError(
                f"the sealed model of {task} is refused: it is packed, and the plan has no compression",
                cause=f"site {given.header.sender} has another version of the software, or changed it",
            )
        return given

    def _known(self, run: Participation, task: Task) -> Known:
        if self._context.ledger is None:
            raise RunError("a run under seal needs its ledger", cause="this agent keeps none")
        began = beginnings(self._context.ledger.verified(), task.round)
        return Known(self._federation, run.run, run.plan.digest, self._identities(run), began)

    def _key(self, run: Participation, given: Given) -> bytes:
        """Return the key of a model. Raises RemoteError where this site has no box for it."""
        keys, header = self._keys(run), given.header
        if header.sender == self._context.site:
            return content_key(keys.secret, header)
        site, box = given.passed_on or (header.sender, given.seal)
        return opened_key(keys.own, keys.partners[site], header, box)

    # --- what is made ---

    def seal(self, run: Participation, task: Task, made: Rounded) -> Seal:
        """Seal a model that was made, for the next site; the sealed file is in the store. Raises StorageError."""
        blobs, plan = self._context.blobs, run.plan
        keys, content = self._keys(run), made.packed or made.digest
        header = Header(
            federation=self._federation,
            run=run.run,
            plan=plan.digest,
            round=task.round,
            hop=_hop(run.run_store.folder, task),
            sender=self._context.site,
            base=task.base,
            digest=made.digest,
            content=content,
            size_bytes=blobs.size_bytes(content),
        )
        key, scratch = content_key(keys.secret, header), blobs.scratch(f"sealed-{task.kind}-{task.round}")
        file = seal(blobs.path(content), header, key, scratch)
        blobs.adopt(scratch, file)
        reader = keys.partners[next_reader(plan.sites, self._context.site)]
        return signed_seal(self._identity(), keys.own, header, file, key, [reader])

    def pass_on(self, run: Participation, task: Task) -> Seal:
        """Return boxes with the key of a task's model for its readers. Raises RemoteError where it is refused."""
        given, keys = self._given(run, task), self._keys(run)
        readers = [keys.partners[name] for name in task.readers if name in keys.partners]
        key = self._key(run, given)
        return signed_seal(self._identity(), keys.own, given.header, given.seal.file, key, readers)

    def _identity(self) -> PrivateKey:
        return private_key(self._context.home.pem("site.key"))


def _open(blobs: BlobStore, given: Given, key: bytes, packing: Compression) -> None:
    """Open a sealed file that is here, and keep the model. Raises RemoteError where it is another one, StorageError."""
    header, scratch = given.header, blobs.scratch("opened")
    if unseal(blobs.path(given.seal.file), key, scratch) != header:
        scratch.unlink(missing_ok=True)
        raise RemoteError("the sealed file has another header than the one that was signed")
    blobs.adopt(scratch, header.content)
    if header.content != header.digest and packing != "none":
        rebuild(blobs, header.content, header.digest, packing, "", name="unpacked")


def _hop(folder: Path, task: Task) -> int:
    """Return which hop of the round a task is: one more than that of the model that it begins with."""
    before = _noted(folder, task)
    if task.kind is TaskKind.SEED:
        return 0
    return before.hop + 1 if before is not None and before.round == task.round else 1


def _noted(folder: Path, task: Task) -> Header | None:
    """Return the header of a task's model; None where it was not checked yet. Raises StorageError."""
    file = folder / FILE
    next_step = f"delete it: rm {file}; the model of the task is then checked again"
    noted = read_kept(file, _note, missing=None, next_step=next_step)
    return noted[1] if noted is not None and noted[0] == _name(task) else None


def _note(content: bytes) -> tuple[list[object], Header] | None:
    found = contents("the note", parsed(content))
    return found["task"], Header.parse(found["header"])


def _name(task: Task) -> list[object]:
    return [str(task.kind), task.round, task.base]
