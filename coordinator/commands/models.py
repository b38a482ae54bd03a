"""The commands `models`: what the runs have made, where it comes from, and what the operator has decided on it."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from coordinator.home.founding import certify_self
from coordinator.home.home import Home
from coordinator.run import history, results
from coordinator.run.made_models import check_file, made_models
from fedcervix.core.plan import Plan
from fedcervix.disk.journal import Journal
from fedcervix.errors import FedcervixError
from fedcervix.lineage import model_commands
from fedcervix.lineage import shelf as shelves
from fedcervix.lineage.decision_store import DecisionStore
from fedcervix.lineage.decisions import SHORT, Word
from fedcervix.lineage.model_facts import ModelFacts, ancestry
from fedcervix.lineage.shelf import Shelf, Voice
from fedcervix.runtime.printing import say
from fedcervix.transport import identity
from fedcervix.trust.ledger_run import result_of


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
    nothing = f"no run has made a model yet; next: {home.command('runs')}"
    model_commands.list_models(shelf(home), as_json=as_json, nothing=nothing)


def show(home: Home, model: str, *, as_bill: bool) -> None:
    """Show one model, or its bill of materials."""
    model_commands.show(shelf(home), model, as_bill=as_bill)


def verify(home: Home, model: str | None) -> None:
    """Check files, records and decisions of a model, or of all. Raises ModelError where something does not hold."""
    own = f"fedcervix://{home.config().federation.name}/operator"
    model_commands.verify(shelf(home), partial(_faults, home), model, own)


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
    known, voice = shelf(home), _voice(home, datetime.now(UTC))
    made = model_commands.decide(
        known, voice, partial(_faults, home), decision, model, reason=reason, person=person, replaced_by=replaced_by
    )
    file = known.store.file(made)
    say(f"no site knows it yet: send both files to each site; there: site-agent models import {file.name}")


def take_in(home: Home, file: Path) -> None:
    """Store a decision of a site, or of this operator from a copy. Raises IdentityError, StorageError."""
    model_commands.take_in(partial(shelf, home), file, lambda _certificate: None)


def check_start(home: Home, plan: Plan, base: str, *, forced: bool, again: str) -> None:
    """Raise ModelError where a new run would begin from a retired model, and nobody insists. Raises StorageError.

    `base`: digest of its first model, empty where a site makes it. What such a model was made from counts, too.
    `again`: the command that begins it all the same.
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
            again=again,
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
