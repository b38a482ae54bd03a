"""The models of one institution, with what was decided on them: found, listed, shown, checked, approved, retired.

A coordinator and a site do the same with their models; they differ in where these lie (`Shelf.models`), whose word
binds them (`Shelf.site`) and whose key signs (`Voice`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

from fedcervix.core.bounds import DIGEST
from fedcervix.errors import ConfigError, FedcervixError, ModelError, RunError
from fedcervix.lineage.decision_store import SIGNATURE, DecisionStore, StoredDecisions, binds, read_decision
from fedcervix.lineage.decisions import SHORT, ModelDecision, ModelStanding, Ruling, Word, forks, gaps, speaker
from fedcervix.lineage.model_facts import ModelFacts, ancestry
from fedcervix.lineage.signed_decisions import SignedDecision, checked_speaker, signed
from fedcervix.runtime.printing import say
from fedcervix.transport.identity import Certificate

PREFIX_MIN = 6
"""digits of a digest that name a model"""


@dataclass(frozen=True, slots=True)
class Voice:
    """In whose name this home decides."""

    said_by: str = ""
    """URI; empty where the home has no key: its decisions are not signed"""
    key: bytes = field(default=b"", repr=False)
    certificate: bytes = b""

    @classmethod
    def of(cls, key_pem: bytes, certificate_pem: bytes, now: datetime) -> Voice:
        """Return the voice of a certificate. Raises IdentityError where it is not valid now."""
        return cls(checked_speaker(key_pem, certificate_pem, now).uri, key_pem, certificate_pem)

    def sign(self, decision: ModelDecision) -> SignedDecision:
        """Return a decision as this home says it."""
        return signed(decision, self.key, self.certificate) if self.key else SignedDecision(decision, b"")


@dataclass(frozen=True)
class Shelf:
    """The models of a home."""

    models: tuple[ModelFacts, ...]
    """oldest first"""
    unread: tuple[FedcervixError, ...]
    """what is wrong with those that cannot be read"""
    store: DecisionStore
    site: str | None
    """the site whose home it is; empty before it has joined; None: a coordinator's home"""
    authority: bytes
    """certificate of the federation's authority (PEM); empty where this home knows none"""
    command: Callable[[str], str]
    """returns a command to type that means this home"""

    @cached_property
    def stored(self) -> StoredDecisions:
        """What was decided, as far as it is known here. Raises StorageError."""
        return self.store.read()

    @cached_property
    def faults(self) -> Mapping[str, str]:
        """Why the signature of a decision does not hold, by its text."""
        found = {one.decision.text: self.fault(one) for one in self.stored.decisions}
        return {text: why for text, why in found.items() if why}

    def fault(self, one: SignedDecision) -> str:
        """Return why the signature of a decision does not hold; empty where it does, or where there need be none."""
        if not one.decision.said_by and not one.signature:
            return ""
        if not self.authority:
            return "this home knows no authority of a federation: it has not joined one"
        try:
            one.signer(self.authority)
        except FedcervixError as error:
            return error.what
        return ""

    def stands(self, digest: str) -> ModelStanding:
        """Return how a model stands, by itself."""
        proved = [one.decision.text for one in self.stored.decisions if one.decision.text not in self.faults]
        return self.stored.standing(digest, site=self.site, proved=proved)

    def retired_parent(self, one: ModelFacts) -> tuple[str, ModelStanding] | None:
        """Return a retired model that this one was made from, and how it stands."""
        for digest in ancestry(one.digest, self._parents)[1:]:
            if (stands := self.stands(digest)).state == "retired":
                return digest, stands
        return None

    def standing(self, one: ModelFacts) -> ModelStanding:
        """Return how a model stands: as itself, or retired where it was made from a retired one."""
        own = self.stands(one.digest)
        above = None if own.state == "retired" else self.retired_parent(one)
        return above[1] if above else own

    def made_from(self, digest: str) -> tuple[ModelFacts, ...]:
        """Return what was made from a model, in one step or in several."""
        known = self._parents
        return tuple(one for one in self.models if digest in ancestry(one.digest, known)[1:])

    @cached_property
    def _parents(self) -> Mapping[str, Sequence[str]]:
        return {one.digest: [parent.digest for parent in one.parents] for one in self.models}

    def find(self, word: str) -> ModelFacts:
        """Return the model of this name, or of this digest or beginning of one. Raises ModelError."""
        named = [one for one in self.models if word in (one.name, one.name.partition("/")[2])]
        by_digest = [one for one in self.models if len(word) >= PREFIX_MIN and one.digest.startswith(word)]
        found = {one.digest: one for one in reversed(named or by_digest)}
        if len(found) == 1:
            return next(iter(found.values()))
        names = ", ".join(one.name for one in (found.values() if found else self.models))
        raise ModelError(
            f"{word!r} names {len(found)} models here" if found else f"there is no model {word!r} here",
            cause=f"models here: {names}" if names else "this home has no model yet",
            next_step=self.command("models list"),
        )

    def digest_of(self, word: str) -> str:
        """Return the digest that a person means: of a model here, or any whole digest. Raises ModelError."""
        return word if DIGEST.fullmatch(word) else self.find(word).digest


# --- deciding -----------------------------------------------------------------------------------------------------


def decide(shelf: Shelf, voice: Voice, ruling: Ruling) -> SignedDecision:
    """Write down an approval or a retirement, signed. Raises RunError where it says nothing new, StorageError."""

    def allowed(before: StoredDecisions) -> None:
        stands = before.standing(ruling.model, site=shelf.site)
        if stands.state != "retired":
            return
        already = reason(stands)
        if ruling.decision == "retired":
            raise RunError(
                f"model {ruling.model[:SHORT]} is retired already: {already}",
                cause="somebody has done it before; a retirement is final, and needs no second one",
                next_step=shelf.command(f"models show {ruling.model}"),
            )
        raise RunError(
            f"model {ruling.model[:SHORT]} cannot be approved: it is retired: {already}",
            cause="a retirement is final: nobody can take it back",
            next_step=f"approve another model: {shelf.command('models list')}",
        )

    return shelf.store.decide(ruling, voice.sign, allowed)


def ruled(decision: Word, model: str, *, why: str, made_at: datetime, **more: str) -> Ruling:
    """Return what a person says. Raises ConfigError where a text of it is too long or says nothing."""
    try:
        return Ruling(decision=decision, model=model, why=why, made_at=made_at.isoformat(timespec="seconds"), **more)
    except ValueError as error:
        raise ConfigError(
            f"nothing was written: {error}",
            cause="what is given with --reason, --by or --replaced-by is stored with the model, and sent on",
            next_step="give the command again with other words",
        ) from error


def take_in(shelf: Shelf, file: Path, known_key: Callable[[Certificate], None]) -> tuple[ModelDecision, bool]:
    """Store a decision that came from elsewhere; return it, and whether it is new here.

    `known_key` raises where a certificate is another one than that which people here have compared.
    Raises IdentityError where nobody proves that it was said, StorageError where a file is damaged.
    """
    one = read_decision(_text_file(file), under_its_name=False)
    if not shelf.authority:
        raise ConfigError(
            "this home cannot tell who has signed a decision",
            cause="it has not joined a federation, so it knows no authority",
            next_step=shelf.command("models retire DIGEST --reason WORDS"),
        )
    known_key(one.signer(shelf.authority))
    return one.decision, shelf.store.add(one)


def _text_file(file: Path) -> Path:
    """Return the file of the text, where a person names that of the signature."""
    return file.with_suffix(".json") if file.suffix == SIGNATURE else file


# --- what is said -------------------------------------------------------------------------------------------------


def reason(stands: ModelStanding) -> str:
    """Return why a model is retired or approved, by whom, and what to use instead, in one line."""
    if stands.by is None:
        return "the file of its retirement is damaged, so nobody can say who did it and why"
    said = stands.by
    instead = f"; use instead: model {said.replaced_by}" if said.replaced_by else ""
    return f"{said.why} (by {speaker(said)}, {when(said)}){instead}"


def when(said: Ruling) -> str:
    """Return when it was said, as a person reads it."""
    return f"{said.moment:%Y-%m-%d %H:%M} {said.moment.tzname()}"


def state(shelf: Shelf, one: ModelFacts) -> str:
    """Return how a model stands, in a few words for a table."""
    stands = shelf.stands(one.digest)
    if stands.state == "retired":
        return str(stands)
    above = shelf.retired_parent(one)
    others = [each.decision for each in shelf.stored.of(one.digest) if not binds(each.decision, shelf.site)]
    parts = [
        str(stands),
        *([f"made from {above[0][:SHORT]}, which is retired"] if above else []),
        *dict.fromkeys(f"{said.decision} at {speaker(said)}" for said in others),
    ]
    return "; ".join(parts)


def lines(shelf: Shelf, one: ModelFacts) -> Iterator[str]:
    """Yield what is known of a model."""
    stands = shelf.stands(one.digest)
    yield f"{one.kind} {one.digest}"
    yield f"  name: {one.name}; start {one.start}, {one.architecture}"
    yield f"  state: {stands.state}{f': {reason(stands)}' if stands.state != 'candidate' else ''}"
    if above := shelf.retired_parent(one):
        yield f"  made from model {above[0]}, which is retired: {reason(above[1])}"
    yield f"  made: {one.made_at or 'not known'}{f', by {one.software}' if one.software else ''}"
    if one.run:
        yield f"  run: {one.run}{f', round {one.round} of {one.rounds}' if one.round else ''}"
        yield f"  plan: {one.plan}"
    if one.is_sealed:
        yield "  file: the run was under seal, so the sites alone have the model until they release it"
    for parent in one.parents:
        yield f"  made from: {parent.digest} ({parent.role}; {_known(shelf, parent.digest)})"
    yield from _people(one)
    yield from _decisions(shelf, one)


def _known(shelf: Shelf, digest: str) -> str:
    names = [one.name for one in shelf.models if one.digest == digest]
    return f"here: {names[0]}" if names else "not kept here"


def _people(one: ModelFacts) -> Iterator[str]:
    """Yield whose images the model has learned from, without a name of anybody."""
    if one.contributors:
        yield "  sites:"
    for site in one.contributors:
        images = f", up to {site.images:,} images in a round" if site.images else ""
        has = "; has the model" if site.adopted else ""
        rounds = (
            "in which rounds is not known here" if site.rounds is None else f"in {site.rounds} of {one.round} rounds"
        )
        yield f"    {site.site}: {rounds}{images}{has}"
    if one.pictures is not None:
        yield f"  images of this site: {one.pictures:,}; of which women, only this site can tell (women.json)"


def _decisions(shelf: Shelf, one: ModelFacts) -> Iterator[str]:
    found = shelf.stored.of(one.digest)
    yield "  decisions:" if found else "  decisions: none"
    for each in found:
        said = each.decision
        holds = shelf.faults.get(said.text) or ("signature holds" if each.signature else "not signed")
        other = "" if binds(said, shelf.site) else "; it does not bind here"
        yield f"    {said.decision} {when(said)} by {speaker(said)}: {said.why}"
        yield f"      {shelf.store.file(said)} ({holds}{other})"


def decision_faults(shelf: Shelf, own: str) -> list[str]:
    """Return, in sentences, what is wrong with the decisions of this home. `own`: who decides here (URI)."""
    found = [error.what for error in shelf.stored.damaged]
    found += [f"{_short(one)}: {why}" for one in shelf.stored.decisions if (why := shelf.faults.get(one.decision.text))]
    return [*found, *gaps(shelf.stored.by(own)), *(gaps(shelf.stored.by("")) if own else ())]


def _short(one: SignedDecision) -> str:
    return f"{one.decision.name}.json"


def end_of_verify(shelf: Shelf, models: Sequence[str], own: str) -> None:
    """Say what is wrong with the decisions. `own`: URI of who decides here; `models`: faults of the models.

    Raises ModelError where anything does not hold.
    """
    decisions = decision_faults(shelf, own)
    for line in [*decisions, *forks(shelf.stored.by(own))]:
        say(line)
    told = (_counted(len(shelf.stored.decisions), "decision"), _counted(len(decisions), "fault"))
    say(f"{told[0]} in {shelf.store.folder}: {told[1]}")
    wrong = [*models, *decisions]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelError(
            f"this does not hold: {wrong[0]}{more}",
            cause="a file was exchanged, edited or deleted, or a backup was restored in part",
            next_step=f"compare with a backup and with the copies of others; what stands here: "
            f"{shelf.command('models list')}",
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def say_standing(shelf: Shelf, said: ModelDecision) -> None:
    """Say what a decision that came in has changed."""
    here = next((one.name for one in shelf.models if one.digest == said.model), "no model of this home")
    stands = shelf.stands(said.model)
    say(f"model {said.model} ({here}) is {stands.state}{f': {reason(stands)}' if stands.state != 'candidate' else ''}")
    if not binds(said, shelf.site):
        say(
            f"note: what {speaker(said)} says does not bind here; it is shown by: {shelf.command('models show')} "
            f"{said.model[:SHORT]}"
        )


# --- using --------------------------------------------------------------------------------------------------------


def retired_among(
    stored: StoredDecisions, digests: Iterable[str], *, site: str | None
) -> tuple[str, ModelStanding] | None:
    """Return the first retired model of several, and how it stands. It asks for no signature: that is the safe side."""
    for digest in digests:
        if (stands := stored.standing(digest, site=site)).state == "retired":
            return digest, stands
    return None


def refused(what: str, digest: str, stands: ModelStanding, *, again: str) -> ModelError:
    """Return the error for a model that must not be used. `again`: the command that uses it all the same.

    `what` has its digest, in short. Where another one is retired, it was made from that one.
    """
    above = f" It was made from model {digest[:SHORT]}." if digest[:SHORT] not in what else ""
    return ModelError(
        f"{what} is retired: {reason(stands)}.{above}",
        cause="people have decided that this model is not used any more",
        next_step=f"use another model; only where you must, and can answer for it: {again}",
    )
