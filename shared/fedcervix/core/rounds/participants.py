"""Which sites a phase is waiting for, and how sites are listed in a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.rounds.holders import all_opened, has_boxed, unclosed, unreleased
from fedcervix.core.rounds.readers import earlier_models, giver, readers, reading_sites
from fedcervix.core.rounds.state import Phase, Presence, Round, Run, Site
from fedcervix.core.sum_plan import sites_min


def open_sites(run: Run) -> tuple[Site, ...]:
    """Return the sites that the phase is waiting for, in roster order."""
    if (passing_on := rewrap(run)) is not None:
        return _who_can_pass_on(run, passing_on.base)
    if run.phase in _SECURE:
        return _SECURE[run.phase](run)
    if run.phase is Phase.GATHERING:
        boxing = all_opened(run)
        return tuple(site for site in run.sites if not _is_here(site) or (boxing and not has_boxed(run, site.name)))
    if run.phase is Phase.SEEDING:
        present = tuple(site for site in run.sites if site.presence is Presence.PRESENT)
        return present[:1] or run.sites
    if run.phase is Phase.TRAINING:
        return untrained(run)[:1] if run.plan.mode_rules.in_turns else untrained(run)
    if run.phase is Phase.SCORING:
        judged = judges(run.current)
        left = [site for site in run.sites if site.name not in judged]
        return tuple([site for site in left if may_read(run, site.name, run.current.candidate)])
    return tuple(site for site in run.sites if site.name not in run.adopted)


def rewrap(run: Run) -> Task | None:
    """Return the task to pass on the key of a model under seal, without which the run does not go on; None: none.

    In a ring the site that is to train must read the model; at the end all must that are not revoked.
    """
    if not run.plan.terms.sealed or run.phase not in (Phase.TRAINING, Phase.PUBLISHING):
        return None
    if run.phase is Phase.TRAINING:
        model, number = run.model, run.current.number
        want = [site.name for site in untrained(run)[:1] if site.presence is Presence.PRESENT]
    else:
        model, number = run.best.candidate, run.best_round
        want = [site.name for site in run.sites if site.presence is not Presence.REVOKED]
    can = readers(run, model)
    lacking = tuple(name for name in want if name not in can)
    return Task(run.run, TaskKind.REWRAP, number, model, readers=lacking) if lacking else None


def _who_can_pass_on(run: Run, model: str) -> tuple[Site, ...]:
    """Return the site that passes the key on; where none is there, those that could, with this model or another."""
    if (site := giver(run, model)) is not None:
        return (site,)
    models = (model, *earlier_models(run)) if run.phase is Phase.TRAINING else (model,)
    return tuple(dict.fromkeys(site for one in models for site in reading_sites(run, one)))


def may_read(run: Run, site: str, model: str) -> bool:
    """Say whether a site can read a model: any model, where the plan does not seal."""
    return not run.plan.terms.sealed or site in readers(run, model)


def _is_here(site: Site) -> bool:
    return site.presence is Presence.PRESENT


def _releasing(run: Run) -> tuple[Site, ...]:
    """Return the holders that are waited for: until the first release those that are away, for all are asked at once.

    A holder that has released cannot close the attempt any more; so none is asked while one of them may be lost.
    """
    left = unreleased(run)
    away = tuple(site for site in left if not _is_here(site))
    return left if run.current.releases or not away else away


_SECURE: Mapping[Phase, Callable[[Run], tuple[Site, ...]]] = {Phase.RELEASING: _releasing, Phase.CLOSING: unclosed}


def updates_needed(run: Run) -> int:
    """Return how many updates a round's model needs."""
    terms = run.plan.terms
    return terms.quorum or (sites_min(len(run.plan.sites), terms.colluders) if terms.secure_sum else 1)


def untrained(run: Run) -> tuple[Site, ...]:
    """Return the sites to which the round is still open, in roster order. In a ring the first one holds the model."""
    closed = run.current.closed_to
    return tuple([site for site in run.sites if site.name not in closed])


def judges(round_: Round) -> frozenset[str]:
    """Return the sites that have scored the round's model, or have said that it cannot be used."""
    return frozenset([score.site for score in round_.scores] + [said.site for said in round_.unusable])


def trainers(round_: Round) -> frozenset[str]:
    """Return the sites that did what they were asked, whether their updates count or not."""
    answered = [missing.site for missing in round_.missing if missing.answered]
    return frozenset([*answered, *(update.site for update in round_.contributions)])


def names_of(sites: tuple[Site, ...]) -> frozenset[str]:
    """Return the names of some sites."""
    return frozenset([site.name for site in sites])


def listed(sites: Iterable[Site]) -> str:
    """Return the names of some sites as a text."""
    return ", ".join(site.name for site in sites) or "nobody"


NAMES_SHOWN = 3


def first_few(names: list[str]) -> str:
    """Return the first of some names as a text, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{', '.join(names[:NAMES_SHOWN])}{more}"


def ring_training(run: Run) -> bool:
    """Say whether the sites train one after the other at present."""
    return run.phase is Phase.TRAINING and run.plan.mode_rules.in_turns
