"""Which models this site must not use any more, and where it is asked before one is used.

A model that was made from a retired one counts as retired, too, as far as its start is known here. A retirement counts
whatever becomes of its signature: see `fedcervix.lineage.decision_store`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from fedcervix.core.plan import Plan, Recipe
from fedcervix.errors import FedcervixError
from fedcervix.lineage import shelf
from fedcervix.lineage.decision_store import DecisionStore
from fedcervix.lineage.decisions import SHORT, ModelStanding
from fedcervix.lineage.model_facts import ancestry
from fedcervix.runtime.printing import say
from site_agent.home import SiteHome
from site_agent.store import archive, model_store
from site_agent.store.model_store import CervixModel
from site_agent.store.run_store import federation_of


def own_name(home: SiteHome) -> str:
    """Return the site's name; empty before it has joined a federation. Raises StorageError, IdentityError."""
    return home.certificate().identity.name if home.key_file("site.crt").exists() else ""


def parents_of(home: SiteHome, model: CervixModel) -> dict[str, str]:
    """Return the digests of what a model was made from, and how each was used, as far as this home tells."""
    found = {model.recipe.start_model: "start of its recipe"}
    with contextlib.suppress(FedcervixError, ValueError):
        run = federation_of(home, model.run) if model.run else None
        if run and run.plan.digest == model.plan_digest and (rounds := run.run_store.ledger()):
            found.setdefault(rounds[0].base, "first model of the run")
    return {digest: role for digest, role in found.items() if digest}


def all_models(home: SiteHome) -> list[CervixModel]:
    """Return the cervix models of this home that can be read, present and earlier ones."""
    found = []
    for folder in (home.models, home.folder / archive.HISTORY / "models"):
        for place in archive.entries(folder, model_store.RECORD):
            with contextlib.suppress(FedcervixError):
                found.append(model_store.read(place))
    return found


def has_foreign_start(home: SiteHome, recipe: Recipe) -> bool:
    """Say whether a training began from weights that this home has no record of, or from what was made of such."""
    starts = {model.digest: model.recipe.start_model for model in all_models(home)}
    digest = recipe.start_model
    while digest in starts:
        digest = starts.pop(digest)
    return bool(digest)


def retired_among(home: SiteHome, digests: Iterable[str]) -> tuple[str, ModelStanding] | None:
    """Return the first retired model of several, or of those that they were made from. Raises StorageError."""
    stored = DecisionStore(home.decisions).read()
    if not (stored.decisions or stored.damaged):
        return None
    known = {model.digest: tuple(parents_of(home, model)) for model in all_models(home)}
    every = [one for digest in digests if digest for one in ancestry(digest, known)]
    return shelf.retired_among(stored, every, site=own_name(home))


def check_usable(home: SiteHome, what: str, digests: Iterable[str], *, again: str, forced: bool) -> None:
    """Raise ModelError where `what`, made from these models, is retired and nobody insists; else warn.

    `again`: the command that uses it all the same. Raises StorageError.
    """
    found = retired_among(home, digests)
    if found and not forced:
        raise shelf.refused(what, *found, again=again)
    if found:
        say(f"warning: {what} is retired: {shelf.reason(found[1])}", err=True)


def objection(home: SiteHome, plan: Plan) -> list[str]:
    """Return, as an objection to a plan, that it starts from a model that is retired here. Raises StorageError."""
    found = retired_among(home, [plan.recipe.start_model])
    if found is None:
        return []
    return [f"the plan starts from model {found[0][:SHORT]}, which is retired: {shelf.reason(found[1])}"]
