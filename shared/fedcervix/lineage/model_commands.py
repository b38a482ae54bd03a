"""What the commands `models` do, which is the same at a coordinator and at a site."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fedcervix.errors import ModelError
from fedcervix.lineage import shelf as shelves
from fedcervix.lineage.decision_store import SIGNATURE
from fedcervix.lineage.decisions import SHORT, ModelDecision, Word, speaker
from fedcervix.lineage.model_bill import model_bill
from fedcervix.lineage.model_facts import ModelFacts
from fedcervix.lineage.shelf import Shelf, Voice
from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.printing import say
from fedcervix.runtime.typed_json import to_text
from fedcervix.transport.identity import Certificate

NOTHING_WRONG = "all of it holds"
Faults = Callable[[ModelFacts], list[str]]
"""returns, in sentences, what does not hold of a model: its file, its record, its run"""


def list_models(known: Shelf, *, as_json: bool, nothing: str) -> None:
    """List the models of a home. `nothing`: what is said where there is none. Raises StorageError."""
    if as_json:
        say(to_text([{"model": one, "standing": known.standing(one)} for one in known.models], indent=2))
        return
    if known.models:
        from fedcervix.lineage.model_table import model_table  # with rich

        stdout_console().print(model_table(known))
    else:
        say(nothing)
    for error in (*known.unread, *known.stored.damaged):
        say(error.explain(), err=True)


def show(known: Shelf, model: str, *, as_bill: bool) -> None:
    """Show one model, or its bill of materials. Raises ModelError, StorageError."""
    one = known.find(model)
    if as_bill:
        say(model_bill([one], {one.digest: known.standing(one)}, one.name).rstrip())
        return
    for line in shelves.lines(known, one):
        say(line)


def verify(known: Shelf, faults: Faults, model: str | None, own: str) -> None:
    """Check files, records and decisions of a model, or of all. `own`: URI of who decides here.

    Raises ModelError where something does not hold, StorageError.
    """
    models = known.models if model is None else (known.find(model),)
    found = [] if model else [error.what for error in known.unread]
    for one in models:
        wrong = faults(one)
        say(f"{one.name} {one.digest[:SHORT]}: {'; '.join(wrong) or NOTHING_WRONG}")
        found += wrong
    shelves.end_of_verify(known, found, own)


def decide(
    known: Shelf,
    voice: Voice,
    faults: Faults,
    decision: Word,
    model: str,
    *,
    reason: str,
    person: str,
    replaced_by: str,
) -> ModelDecision:
    """Approve or retire a model; say what was written, and what it means for others here.

    Raises ModelError, RunError, ConfigError, StorageError.
    """
    digest = known.digest_of(model)
    one = next((found for found in known.models if found.digest == digest), None)
    if decision == "approved":
        _check_approvable(known, faults, one, model)
    ruling = shelves.ruled(
        decision,
        digest,
        why=reason,
        made_at=datetime.now(UTC),
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
    if decision == "retired" and (after := known.made_from(digest)):
        say(f"made from it, and refused from now on, too: {', '.join(found.name for found in after)}")
    return made


def _check_approvable(known: Shelf, faults: Faults, one: ModelFacts | None, model: str) -> None:
    """Raise ModelError unless a model is here, is what its record says, and was made from none that is retired."""
    if one is None:
        raise ModelError(
            f"model {model} cannot be approved: it is not here",
            cause="no model of this home has this digest",
            next_step=known.command("models list"),
        )
    if wrong := faults(one):
        raise ModelError(
            f"{one.name} cannot be approved: {'; '.join(wrong)}",
            cause="a file was exchanged, edited or deleted after it was made",
            next_step=known.command(f"models verify {one.name}"),
        )
    if above := known.retired_parent(one):
        raise ModelError(
            f"{one.name} cannot be approved: it was made from model {above[0][:SHORT]}, which is retired: "
            f"{shelves.reason(above[1])}",
            cause="what was made from a retired model counts as retired, too",
            next_step=f"approve another model: {known.command('models list')}",
        )


def take_in(shelf: Callable[[], Shelf], file: Path, known_key: Callable[[Certificate], None]) -> None:
    """Store a decision that came from elsewhere, and say what it changes.

    Raises IdentityError, ConfigError, StorageError.
    """
    said, is_new = shelves.take_in(shelf(), file, known_key)
    say(f"{'stored' if is_new else 'known already'}: {said.decision} by {speaker(said)}: {said.why}")
    shelves.say_standing(shelf(), said)
