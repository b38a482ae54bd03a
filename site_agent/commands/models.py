"""The commands `models`: what this site keeps, where it comes from, and what was decided on it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from fedcervix.errors import IdentityError
from fedcervix.lineage import model_commands
from fedcervix.lineage.decisions import Word
from fedcervix.lineage.shelf import Voice
from fedcervix.runtime.printing import say
from fedcervix.transport.identity import Certificate
from fedcervix.trust.fingerprints import Fingerprint
from site_agent.classifier.kept_models import faults, shelf
from site_agent.home import SiteHome


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
    nothing = f"there are no models or classifiers yet; next: {home.command('finetune')}"
    model_commands.list_models(shelf(home), as_json=as_json, nothing=nothing)


def show(home: SiteHome, model: str, *, as_bill: bool) -> None:
    """Show one model or classifier, or its bill of materials."""
    model_commands.show(shelf(home), model, as_bill=as_bill)


def verify(home: SiteHome, model: str | None) -> None:
    """Check files, records and decisions of a model, or of all. Raises ModelError where something does not hold."""
    known = shelf(home)
    own = home.certificate().identity.uri if known.site else ""
    model_commands.verify(known, partial(faults, home), model, own)


def decide(home: SiteHome, decision: Word, model: str, reason: str, person: str, replaced_by: str = "") -> None:
    """Approve or retire a model here. Raises ModelError, RunError, ConfigError, IdentityError, StorageError."""
    known, voice = shelf(home), _own_voice(home, datetime.now(UTC), decision)
    made = model_commands.decide(
        known, voice, partial(faults, home), decision, model, reason=reason, person=person, replaced_by=replaced_by
    )
    if voice.said_by:
        say("it holds at this site; to tell the coordinator, send both files; there:")
        say(f"coordinator models import {known.store.file(made).name}")
    else:
        say("it holds at this site, and is not signed: this site has no valid certificate of a federation")
    if decision == "retired":
        say("programs that use a copy of its files are not stopped by this: ONNX exports, copied folders")


def take_in(home: SiteHome, file: Path) -> None:
    """Store a decision of the operator or of another site. Raises IdentityError, StorageError, ConfigError."""
    model_commands.take_in(partial(shelf, home), file, partial(_check_key, home))


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
