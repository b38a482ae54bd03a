"""The models and classifiers that a site keeps, as values: for `models`, the dossier and the bill of materials."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fedcervix.core.plan import Plan
from fedcervix.errors import FedcervixError, ModelError
from fedcervix.lineage.decision_store import DecisionStore
from fedcervix.lineage.decisions import ModelStanding
from fedcervix.lineage.model_facts import Contributor, ModelFacts, Parent, contributors
from fedcervix.lineage.shelf import Shelf
from fedcervix.runtime.record import RecordedRun
from site_agent.classifier import classifier_store
from site_agent.classifier.classifier_store import StoredClassifier
from site_agent.home import SiteHome
from site_agent.store import archive, leak_guard, model_store
from site_agent.store.model_store import CervixModel
from site_agent.store.retired_models import own_name, parents_of
from site_agent.store.run_store import federation_of


def kept_models(home: SiteHome, *, earlier: bool) -> tuple[list[ModelFacts], dict[str, FedcervixError]]:
    """Return what a site keeps, oldest first, and by its folder what is wrong with the rest.

    `earlier`: also what was moved into the history.
    """
    tops = (home.folder, home.folder / archive.HISTORY) if earlier else (home.folder,)
    unread: dict[str, FedcervixError] = {}
    models: dict[str, ModelFacts] = {}
    found = []
    for place in (place for top in tops for place in archive.entries(top / "models", model_store.RECORD)):
        with _noted(unread, home, place):
            one = _model(home, model_store.read(place))
            found.append(one)
            models.setdefault(one.digest, one)
    for place in (place for top in tops for place in archive.entries(top / "classifiers", classifier_store.RECORD)):
        with _noted(unread, home, place):
            found.append(_classifier(home, classifier_store.read(place), models))
    return sorted(found, key=lambda one: (one.made_at, one.name)), unread


@contextlib.contextmanager
def _noted(unread: dict[str, FedcervixError], home: SiteHome, place: Path) -> Iterator[None]:
    try:
        yield
    except FedcervixError as error:
        unread[_below(home, place)] = error


def _below(home: SiteHome, place: Path) -> str:
    return place.relative_to(home.folder).as_posix()


def _model(home: SiteHome, model: CervixModel) -> ModelFacts:
    record, plan = _recorded(home, model)
    return ModelFacts(
        name=_below(home, model.folder),
        start=model.start,
        digest=model.digest,
        architecture=model.recipe.architecture,
        run=model.run,
        made_at=model.made_at,
        is_classifier=False,
        plan=model.plan_digest,
        software=model.software,
        round=model.round or 0,
        rounds=len(record.ledger) if record else 0,
        contributors=contributors(record, plan) if record and plan else _unknown(model.sites),
        parents=tuple(Parent(digest, role) for digest, role in parents_of(home, model).items()),
        pictures=_pictures(home, model.folder),
    )


def _recorded(home: SiteHome, model: CervixModel) -> tuple[RecordedRun | None, Plan | None]:
    """Return the record of the run that made a model, where this home has the one of that very plan, and the plan."""
    with contextlib.suppress(FedcervixError, ValueError):
        run = federation_of(home, model.run) if model.run else None
        record = run.run_store.record() if run and run.plan.digest == model.plan_digest else None
        if run and record and record.ledger:
            return record, run.plan
    return None, None


def _unknown(sites: tuple[str, ...]) -> tuple[Contributor, ...]:
    return tuple(Contributor(site, None, 0) for site in sites)


def _pictures(home: SiteHome, folder: Path) -> int | None:
    """Return how many images of this site a model was made with; None where that is not known."""
    if not home.key_file(leak_guard.KEY).exists():
        return None
    with contextlib.suppress(ModelError):
        return len(leak_guard.read(folder, leak_guard.site_key(home), next_step="").pictures)
    return None


def _classifier(home: SiteHome, one: StoredClassifier, models: Mapping[str, ModelFacts]) -> ModelFacts:
    """Return what is known of a classifier; of its start, what the model says."""
    made = one.provenance
    start = models.get(made.start.weights)
    facts = ModelFacts(
        name=_below(home, one.folder),
        start=one.start,
        digest=made.weights,
        architecture=one.recipe.architecture,
        run=made.start.run,
        made_at=made.made_at,
        is_classifier=True,
        epsilon=one.epsilon,
        plan=made.start.plan,
        software=one.software,
        contributors=_unknown(made.start.sites),
        parents=(Parent(made.start.weights, "its start"),) if made.start.weights else (),
        pictures=_pictures(home, one.folder),
    )
    if start is None:
        return facts
    return dataclasses.replace(facts, round=start.round, rounds=start.rounds, contributors=start.contributors)


def faults(home: SiteHome, one: ModelFacts) -> list[str]:
    """Return, in sentences, what does not hold of a model: its file, its record, who made it, its run."""
    folder = home.folder / one.name
    try:
        if one.is_classifier:
            classifier_store.read(folder).check()
        else:
            model_store.read(folder).check()
        if home.key_file(leak_guard.KEY).exists():
            leak_guard.read(folder, leak_guard.site_key(home), next_step="")
    except FedcervixError as error:
        return [error.what]
    except OSError as error:
        return [f"{folder} cannot be read: {error.strerror}"]
    return _faults_of_run(home, one) if one.run and not one.is_classifier else []


def _faults_of_run(home: SiteHome, one: ModelFacts) -> list[str]:
    """Return in what a model is not the result of the run that it names, as this site heard of its end."""
    try:
        run = federation_of(home, one.run)
        if run is None:
            return []
        if run.plan.digest != one.plan:
            return [f"its record names another plan than run {one.run} had here"]
        record = run.run_store.record()
    except FedcervixError as error:
        return [error.what]
    except ValueError as error:
        return [f"the record of run {one.run} cannot be read: {error}"]
    if record and record.model and record.model != one.digest:
        return [f"it is not the result of run {one.run}, which is {record.model}"]
    return []


def shelf(home: SiteHome) -> Shelf:
    """Return the models of a site, present and earlier ones, with what was decided on them. Raises StorageError."""
    found, unread = kept_models(home, earlier=True)
    authority = home.pem("authority.crt") if home.key_file("site.crt").exists() else b""
    store = DecisionStore(home.decisions)
    return Shelf(tuple(found), tuple(unread.values()), store, own_name(home), authority, home.command)


def standings(home: SiteHome, models: Iterable[ModelFacts]) -> dict[str, ModelStanding]:
    """Return how models stand, by digest. Raises StorageError."""
    known = shelf(home)
    return {one.digest: known.standing(one) for one in models}
