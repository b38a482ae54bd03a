"""What goes with a sealed model: its key in a box for each reader, and a signature over header, file and boxes.

    seal        signed by whoever made the model, with a box for the site that is next
    passed on   the same header and file, signed by a site that can read the model, with boxes for others

Rules
1. A seal counts only under a key that the receiver has pinned, and under the name that its header gives.
2. A site uses a model only if it can be the one of its task: a model from which the round may begin by the ledger that
   the site has verified; or a hop of this round, with the seals of all hops before it, each from the model of the one
   before. So no model of another run, of an earlier round or of another base is taken for it.
3. A header that does not hold is refused before anything is opened, and what is opened before anything uses it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from fedcervix.core.events import Seal, Task, TaskKind, UpdateStored
from fedcervix.core.plan import check
from fedcervix.core.rounds.readers import next_reader, seals
from fedcervix.core.rounds.state import Run
from fedcervix.errors import RemoteError
from fedcervix.trust import boxes
from fedcervix.trust.boxes import NamedKey, OwnKey
from fedcervix.trust.sealed_models import Header, differences
from fedcervix.trust.statements import PrivateKey, PublicKey, holds, sign

SEAL = "fedcervix seal 1"
MODEL_KEY = "fedcervix model key 1"

Signed = tuple[str, Seal]
"""a site, and a seal that it has signed"""


def texts_of(site: str, seal: Seal) -> tuple[str, ...]:
    """Return what a site signs of a seal."""
    return (site, seal.header, seal.file, *(text for pair in seal.boxes for text in pair))


def signed_seal(
    identity: PrivateKey, own: OwnKey, header: Header, file: str, key: bytes, readers: Sequence[NamedKey]
) -> Seal:
    """Return a seal with the key (32 bytes) of a sealed model in a box for each reader; `file`: digest of the file."""
    context = header.hash.encode()
    made = tuple((reader.name, boxes.boxed(own, reader, MODEL_KEY, context, key).hex()) for reader in readers)
    bare = Seal(header.text, file, made, "00")
    return replace(bare, signature=sign(identity, SEAL, *texts_of(own.name, bare)).hex())


def opened_key(own: OwnKey, sender: NamedKey, header: Header, seal: Seal) -> bytes:
    """Return the key of a sealed model from the box that `sender` made for this site. Raises RemoteError."""
    box = dict(seal.boxes).get(own.name, "")
    return boxes.opened(own, sender, MODEL_KEY, header.hash.encode(), bytes.fromhex(box))


def is_signed(site: str, seal: Seal, key: PublicKey | None) -> bool:
    """Say whether a seal was signed by a site with this key; None: it is not known."""
    return key is not None and holds(key, bytes.fromhex(seal.signature), SEAL, *texts_of(site, seal))


# --- at the coordinator, which has no key ---------------------------------------------------------------------------


def hop_after(run: Run, base: str, round_: int) -> int:
    """Return the number of the hop that is trained from a model in a round: one more than that of the model."""
    made = seals(run, base)
    before = Header.parse(made[0][1].header) if made else None
    return before.hop + 1 if before and before.round == round_ else 1


def update_faults(run: Run, federation: str, update: UpdateStored, key: PublicKey | None) -> list[str]:
    """Return what is wrong with the seal of an update, in words; `key`: of the site, None where it is not known."""
    if update.seal is None:
        return ["its model is not under seal"]
    header, task = Header.parse(update.seal.header), update.task
    hop = 0 if task.kind is TaskKind.SEED else hop_after(run, task.base, task.round)
    expected = replace(
        header,
        federation=federation,
        run=run.run,
        plan=run.plan.digest,
        round=task.round,
        hop=hop,
        sender=update.site,
        base=task.base,
        digest=update.digest,
    )
    found = [f"its header has another {name}" for name in differences(header, expected)]
    if update.seal.readers != (reader := next_reader(run.plan.sites, update.site),):
        found.append(f"it is to have one box, for {reader}")
    return found + _signature_faults(update.site, update.seal, key)


def passed_on_faults(run: Run, site: str, model: str, seal: Seal, key: PublicKey | None) -> list[str]:
    """Return what is wrong with a seal of a model that was passed on, in words."""
    made = seals(run, model)
    same = bool(made) and (made[0][1].header, made[0][1].file) == (seal.header, seal.file)
    return ([] if same else ["it is of another model"]) + _signature_faults(site, seal, key)


def _signature_faults(site: str, seal: Seal, key: PublicKey | None) -> list[str]:
    return [] if is_signed(site, seal, key) else [f"it is not signed by {site}"]


def shown_to(run: Run, site: str, model: str) -> tuple[Signed, ...]:
    """Return what a reader is shown of a model: the hops up to it, and who has passed its key on to the site."""
    made = seals(run, model)
    hops = run.current.contributions if run.rounds else ()
    digests = [update.digest for update in hops]
    before = hops[: digests.index(model)] if model in digests else ()
    chain = [(update.site, update.seal) for update in before if update.seal is not None]
    to_site = [one for one in made[1:] if site in one[1].readers][:1]
    return (*chain, *made[:1], *to_site)


# --- at the receiver ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Known:
    """What a site knows by itself of the run in which it is given a model."""

    federation: str
    run: str
    plan: str
    """digest"""
    keys: Mapping[str, PublicKey]
    """the identity keys of the plan's sites, each checked against its pin; the site's own is among them"""
    beginnings: Collection[str]
    """the models from which the round may begin, by the ledger that the site has verified"""


@dataclass(frozen=True, slots=True)
class Given:
    """A model that was found to be the one of a task. Nothing is opened yet."""

    header: Header
    seal: Seal
    """by whoever made it"""
    passed_on: Signed | None = None
    """the seal with the box, where somebody else has passed the key on"""


def checked(shown: Sequence[Signed], task: Task, known: Known) -> Given:
    """Return the model that a site is given for a task. Raises RemoteError where it cannot be the one of the task."""
    try:
        return _checked(shown, task, known)
    except ValueError as error:
        raise RemoteError(
            f"the sealed model of {task} is refused: {error}",
            cause="the coordinator sends another model than the one of this task, or a site has made it wrongly",
            next_step="nothing was opened; compare the ledger with the other sites: site-agent verify",
        ) from error


def _checked(shown: Sequence[Signed], task: Task, known: Known) -> Given:
    headers = [_header(site, seal, known) for site, seal in shown]
    own = [number for number, header in enumerate(headers) if header.digest == task.base]
    check(bool(own), "it is another model")
    first = own[0]
    header, (maker, seal) = headers[first], shown[first]
    check(header.sender == maker, "it is not signed by the site that its header names")
    check(own == [*range(first, len(shown))] and len(own) <= 2, "there are more seals than belong to it")
    passed_on = shown[first + 1] if len(own) == 2 else None
    check(passed_on is None or _is_same(passed_on[1], seal), "the seal that was passed on is of another file")
    if task.base not in known.beginnings:
        _check_chain(headers[: first + 1], [site for site, _ in shown[: first + 1]], task, known)
    return Given(header, seal, passed_on)


def _header(site: str, seal: Seal, known: Known) -> Header:
    header = Header.parse(seal.header)
    check(header.federation == known.federation, "it is of another federation")
    check(header.run == known.run and header.plan == known.plan, "it is of another run")
    check(is_signed(site, seal, known.keys.get(site)), f"it is not signed by the pinned key of {site}")
    return header


def _is_same(one: Seal, other: Seal) -> bool:
    return (one.header, one.file) == (other.header, other.file)


def _check_chain(headers: Sequence[Header], sites: Sequence[str], task: Task, known: Known) -> None:
    """Check that headers are those of the first hops of the round, each from the model of the one before it."""
    base = headers[0].base
    check(base in known.beginnings, "it does not come from a model from which this round may begin")
    check(len({*sites}) == len(sites), "a site has two hops in one round")
    for number, (site, header) in enumerate(zip(sites, headers, strict=True), start=1):
        check(header.sender == site, "it is not signed by the site that its header names")
        check((header.round, header.hop) == (task.round, number), "it is of another round, or a hop is missing")
        check(header.base == base, "it was trained from another model than that of the hop before it")
        base = header.digest
