"""The commands `models`: what the runs have made, where it comes from, and what the operator has decided on it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from coordinator.home.founding import certify_self
from coordinator.home.home import Home
from coordinator.run import history, results
from coordinator.run.made_models import check_file, made_models
from fedcervix.core.plan import Plan
from fedcervix.disk.journal import Journal
from fedcervix.errors import FedcervixError, ModelError
from fedcervix.lineage import shelf as shelves
from fedcervix.lineage.decision_store import SIGNATURE, DecisionStore
from fedcervix.lineage.decisions import SHORT, ModelDecision, Word, speaker
from fedcervix.lineage.model_bill import model_bill
from fedcervix.lineage.model_facts import ModelFacts, ancestry
from fedcervix.lineage.shelf import Shelf, Voice
from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.printing import say
from fedcervix.runtime.typed_json import to_text
from fedcervix.transport import identity
from fedcervix.trust.ledger_run import result_of

NOTHING_WRONG = "all of it holds"


def shelf(home: Home) -> Shelf:
    """Return the models of a home with what was decided on them. Raises StorageError."""
    found, unread = made_models(home.results)
    store = DecisionStore(home.decisions)
    return Shelf(tuple(found), tuple(unread), store, None, home.pem("authority.crt"), home.command)


def _voice(home: Home, now: datetime) -> Voice:
    """Return the operator's; where its certificate has expired and no coordinator runs, it is renewed here.

    Raises IdentityError, ConfigError, StorageError.
    """
    if identity.identify(home.pem("operator.crt")).not_after < now and not home.is_running():
        certify_self(home, now)
    return Voice.of(home.pem("operator.key"), home.pem("operator.crt"), now)


def list_models(home: Home, *, as_json: bool) -> None:
    """List the models of all ended runs."""
    known = shelf(home)
    if as_json:
        say(to_text([{"model": one, "standing": known.stands(one.digest)} for one in known.models], indent=2))
        return
    if known.models:
        from fedcervix.lineage.model_table import model_table  # with rich

        stdout_console().print(model_table(known))
    else:
        say(f"no run has made a model yet; next: {home.command('runs')}")
    for error in (*known.unread, *known.stored.damaged):
        say(error.explain(), err=True)


def show(home: Home, model: str, *, as_bill: bool) -> None:
    """Show one model, or its bill of materials."""
    known = shelf(home)
    one = known.find(model)
    if as_bill:
        say(model_bill([one], {one.digest: known.stands(one.digest)}, one.name).rstrip())
        return
    for line in shelves.lines(known, one):
        say(line)


def verify(home: Home, model: str | None) -> None:
    """Check files, records and decisions of a model, or of all. Raises ModelError where something does not hold."""
    known = shelf(home)
    models = known.models if model is None else (known.find(model),)
    found = [] if model else [error.what for error in known.unread]
    for one in models:
        faults = _faults(home, one)
        say(f"{one.name} {one.digest[:SHORT]}: {'; '.join(faults) or NOTHING_WRONG}")
        found += faults
    own = f"fedcervix://{home.config().federation.name}/operator"
    shelves.end_of_verify(known, found, own)


def _faults(home: Home, one: ModelFacts) -> list[str]:
    """Return what does not hold of a run's model: its file, and its record beside the journal."""
    found = []
    try:
        check_file(home.results, one)
    except FedcervixError as error:
        found.append(error.what)
    if home.has(home.journal):
        with closing(Journal(home.journal, read_only=True)) as journal:
            record = next((record for record in journal.runs() if record.run == one.run), None)
            try:
                run = history.replayed(journal, record) if record else None
            except FedcervixError as error:
                return [*found, error.what]
        if run is None:
            found.append("the journal has no such run")
        elif (result_of(run), run.plan.digest) != (one.digest, one.plan):
            found.append("its record.json is not what happened by the journal: it was edited or exchanged")
    return found


def decide(home: Home, decision: Word, model: str, reason: str, person: str, replaced_by: str = "") -> None:
    """Approve or retire a model. Raises ModelError, RunError, ConfigError, IdentityError, StorageError."""
    now, known = datetime.now(UTC), shelf(home)
    voice, digest = _voice(home, now), known.digest_of(model)
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
    say(f"{made.decision}: model {made.model} of {one.name if one else 'no run of this home'}")
    _say_files(known, made)


def _check_whole(home: Home, one: ModelFacts | None, model: str) -> None:
    """Raise ModelError unless the model is here and is what its record says: nobody approves an exchanged file."""
    if one is None:
        raise ModelError(
            f"model {model} cannot be approved: it is not here",
            cause="no run of this home has made it",
            next_step=home.command("models list"),
        )
    if faults := _faults(home, one):
        raise ModelError(
            f"model {one.name} cannot be approved: {'; '.join(faults)}",
            cause="a file was exchanged, edited or deleted after the run",
            next_step=home.command(f"models verify {one.name}"),
        )


def _say_files(known: Shelf, made: ModelDecision) -> None:
    file = known.store.file(made)
    say(f"wrote {file}")
    say(f"wrote {file.with_suffix(SIGNATURE)}")
    say(f"no site knows it yet: send both files to each site; there: site-agent models import {file.name}")


def take_in(home: Home, file: Path) -> None:
    """Store a decision of a site, or of this operator from a copy. Raises IdentityError, StorageError."""
    known = shelf(home)
    said, is_new = shelves.take_in(known, file, lambda _certificate: None)
    say(f"{'stored' if is_new else 'known already'}: {said.decision} by {speaker(said)}: {said.why}")
    shelves.say_standing(shelf(home), said)


def check_start(home: Home, plan: Plan, base: str, *, forced: bool) -> None:
    """Raise ModelError where a new run would begin from a retired model, and nobody insists. Raises StorageError.

    `base`: digest of its first model, empty where a site makes it. What such a model was made from counts, too.
    """
    stored = DecisionStore(home.decisions).read()
    if not (stored.decisions or stored.damaged):
        return
    known = {one.digest: [parent.digest for parent in one.parents] for one in made_models(home.results)[0]}
    digests = [one for start in (base, plan.recipe.start_model) if start for one in ancestry(start, known)]
    found = shelves.retired_among(stored, digests, site=None)
    if found and not forced:
        raise shelves.refused(
            f"no run was begun: the model {found[0][:SHORT]}, from which it would start,",
            *found,
            again=home.command(f"start --mode {plan.mode} --force-retired"),
        )
    if found:
        say(f"warning: the run begins from a retired model: {shelves.reason(found[1])}", err=True)


def export_decisions(home: Home, run: str, folder: Path) -> None:
    """Copy what was decided on the model of a run beside it; say it where it is retired. Raises StorageError."""
    model, stored = results.read(home.results, run).model, DecisionStore(home.decisions).read()
    beside = DecisionStore(folder / home.decisions.name)
    for one in stored.of(model or ""):
        beside.add(one)
        say(f"wrote {beside.file(one.decision)}")
    if found := shelves.retired_among(stored, [model] if model else [], site=None):
        say(f"warning: the model of run {run} is retired: {shelves.reason(found[1])}", err=True)
