"""The commands `models`: what this site keeps, where it comes from, and what was decided on it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fedcervix.errors import IdentityError, ModelError
from fedcervix.lineage import shelf as shelves
from fedcervix.lineage.decision_store import SIGNATURE
from fedcervix.lineage.decisions import SHORT, Word, speaker
from fedcervix.lineage.model_bill import model_bill
from fedcervix.lineage.model_facts import ModelFacts
from fedcervix.lineage.shelf import Shelf, Voice
from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.printing import say
from fedcervix.runtime.typed_json import to_text
from fedcervix.transport.identity import Certificate
from fedcervix.trust.fingerprints import Fingerprint
from site_agent.classifier.kept_models import faults, shelf
from site_agent.home import SiteHome

NOTHING_WRONG = "all of it holds"


def _voice(home: SiteHome, now: datetime) -> Voice:
    """Return this site's; without a key before it has joined. Raises IdentityError where its certificate has ended."""
    if not home.key_file("site.crt").exists():
        return Voice()
    certificate, key = home.own_files()
    return Voice.of(key.read_bytes(), certificate.read_bytes(), now)


def _own_voice(home: SiteHome, now: datetime, decision: Word) -> Voice:
    """Return in whose name this site decides. To stop using a model it needs no certificate, and none that is valid."""
    try:
        return _voice(home, now)
    except IdentityError as error:
        if decision == "approved":
            raise
        say(f"note: {error.explain()}", err=True)
        return Voice()


def list_models(home: SiteHome, *, as_json: bool) -> None:
    """List what this site keeps, present and earlier ones."""
    known = shelf(home)
    if as_json:
        say(to_text([{"model": one, "standing": known.stands(one.digest)} for one in known.models], indent=2))
        return
    if known.models:
        from fedcervix.lineage.model_table import model_table  # with rich

        stdout_console().print(model_table(known))
    else:
        say(f"there are no models or classifiers yet; next: {home.command('finetune')}")
    for error in (*known.unread, *known.stored.damaged):
        say(error.explain(), err=True)


def show(home: SiteHome, model: str, *, as_bill: bool) -> None:
    """Show one model or classifier, or its bill of materials."""
    known = shelf(home)
    one = known.find(model)
    if as_bill:
        say(model_bill([one], {one.digest: known.stands(one.digest)}, one.name).rstrip())
        return
    for line in shelves.lines(known, one):
        say(line)


def verify(home: SiteHome, model: str | None) -> None:
    """Check files, records and decisions of a model, or of all. Raises ModelError where something does not hold."""
    known = shelf(home)
    models = known.models if model is None else (known.find(model),)
    found = [] if model else [error.what for error in known.unread]
    for one in models:
        wrong = faults(home, one)
        say(f"{one.name} {one.digest[:SHORT]}: {'; '.join(wrong) or NOTHING_WRONG}")
        found += wrong
    own = home.certificate().identity.uri if known.site else ""
    shelves.end_of_verify(known, found, own)


def decide(home: SiteHome, decision: Word, model: str, reason: str, person: str, replaced_by: str = "") -> None:
    """Approve or retire a model here. Raises ModelError, RunError, ConfigError, IdentityError, StorageError."""
    now, known = datetime.now(UTC), shelf(home)
    voice, digest = _own_voice(home, now, decision), known.digest_of(model)
    one = next((found for found in known.models if found.digest == digest), None)
    if decision == "approved":
        _check_whole(home, one, model)
    ruling = shelves.ruled(
        decision,
        digest,
        why=reason,
        made_at=now,
        said_by=voice.said_by,
        person=person,
        run=one.run if one else "",
        plan=one.plan if one else "",
        replaced_by=known.digest_of(replaced_by) if replaced_by else "",
    )
    made = shelves.decide(known, voice, ruling).decision
    say(f"{made.decision}: model {made.model}, {one.name if one else 'which is not here'}")
    file = known.store.file(made)
    say(f"wrote {file}")
    if voice.said_by:
        say(f"wrote {file.with_suffix(SIGNATURE)}")
        say("it holds at this site; to tell the coordinator, send both files; there:")
        say(f"coordinator models import {file.name}")
    else:
        say("it holds at this site, and is not signed: this site has no valid certificate of a federation")
    if decision == "retired":
        _say_what_follows(home, known, digest)


def _say_what_follows(home: SiteHome, known: Shelf, digest: str) -> None:
    """Say what else cannot be used now, and what no program can do."""
    made_from = [one.name for one in known.models if (found := shelf(home).retired_parent(one)) and found[0] == digest]
    if made_from:
        say(f"made from it, and refused from now on, too: {', '.join(made_from)}")
    say("programs that use a copy of its files are not stopped by this: ONNX exports, copied folders")


def _check_whole(home: SiteHome, one: ModelFacts | None, model: str) -> None:
    """Raise ModelError unless the model is here and is what its record says: nobody approves an exchanged file."""
    if one is None:
        raise ModelError(
            f"model {model} cannot be approved: it is not here",
            cause="no model or classifier of this home has this digest",
            next_step=home.command("models list"),
        )
    if wrong := faults(home, one):
        raise ModelError(
            f"{one.name} cannot be approved: {'; '.join(wrong)}",
            cause="a file was exchanged, edited or deleted after it was made",
            next_step=home.command(f"models verify {one.name}"),
        )


def take_in(home: SiteHome, file: Path) -> None:
    """Store a decision of the operator or of another site. Raises IdentityError, StorageError, ConfigError."""
    known = shelf(home)
    said, is_new = shelves.take_in(known, file, lambda certificate: _check_key(home, certificate))
    say(f"{'stored' if is_new else 'known already'}: {said.decision} by {speaker(said)}: {said.why}")
    shelves.say_standing(shelf(home), said)


def _check_key(home: SiteHome, found: Certificate) -> None:
    """Raise IdentityError where a site's certificate has another key than the one that is known here.

    The authority is the coordinator's, so it could certify a key of its own in the name of any site.
    """
    who, key = found.identity, Fingerprint.parse(found.key_fingerprint)
    own = home.certificate()
    if who.role != "site":
        return
    if who.name != own.identity.name:
        home.pins().check(who.name, key)
    elif key.hex != own.key_fingerprint:
        raise IdentityError(
            f"the decision is in the name of this site, and was not signed with its key ({key.groups})",
            cause="somebody else has a certificate of this name, or it was signed before this site got its present key",
            next_step=f"if nobody here has said it, tell the other sites; compare keys: {home.command('identity')}",
        )
