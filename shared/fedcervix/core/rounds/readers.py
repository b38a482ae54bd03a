"""Who can read a model under seal, by the boxes that the ledger has (see docs/sealed-ring.md).

A site that made a model can read it, and so can each site for which there is a box. Any of them can pass the key on.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedcervix.core.events import Seal, UpdateStored
from fedcervix.core.rounds.state import Presence, Run, Site


def next_reader(sites: tuple[str, ...], site: str) -> str:
    """Return the site that the ring passes a model on to: in the first box of a model."""
    return sites[(sites.index(site) + 1) % len(sites)]


def seals(run: Run, model: str) -> tuple[tuple[str, Seal], ...]:
    """Return who has signed boxes with the key of a model, and what: whoever made the model first."""
    made = next(_made(run, model), None)
    passed_on = ((event.site, event.seal) for event in run.rewrapped if event.task.base == model)
    return (made, *passed_on) if made else ()


def _made(run: Run, model: str) -> Iterator[tuple[str, Seal]]:
    if model == run.layout and run.seal is not None:
        yield run.seeded_by, run.seal
    for update in _updates(run):
        if update.digest == model and update.seal is not None:
            yield update.site, update.seal


def _updates(run: Run) -> Iterator[UpdateStored]:
    for round_ in reversed(run.rounds):
        yield from (*reversed(round_.contributions), *round_.dropped)


def readers(run: Run, model: str) -> frozenset[str]:
    """Return the sites that can read a model under seal."""
    found = seals(run, model)
    return frozenset([*(site for site, _ in found[:1]), *(name for _, seal in found for name in seal.readers)])


def reading_sites(run: Run, model: str) -> tuple[Site, ...]:
    """Return the sites that can read a model and are not revoked: whoever made it first, then in roster order."""
    made_by = next((site for site, _ in seals(run, model)), "")
    can = readers(run, model)
    found = [site for site in run.sites if site.name in can and site.presence is not Presence.REVOKED]
    return tuple(sorted(found, key=lambda site: site.name != made_by))


def giver(run: Run, model: str) -> Site | None:
    """Return the site that is asked to pass the key of a model on; None where no site that can is there."""
    return next((site for site in reading_sites(run, model) if site.presence is Presence.PRESENT), None)


def earlier_models(run: Run) -> tuple[str, ...]:
    """Return the models that a ring can go back to, newest first: of this round's hops and of those before it."""
    rounds = run.rounds[-2:]
    hops = [update.digest for round_ in reversed(rounds) for update in reversed(round_.contributions)]
    first = [run.current.base, run.layout] if len(run.rounds) == 1 else [run.current.base]
    return tuple(dict.fromkeys([*hops, *first]))


def beginnings(run: Run, round_: int) -> tuple[str, ...]:
    """Return the models that a site may be given in a round, besides its hops; `run`: as it stands by a ledger.

    Of a round that is over by the ledger, that is its result; of a run in which only the result is left to be adopted,
    that one.
    """
    if run.outcome is not None:
        return (run.best.candidate,) if run.best_round else ()
    if not run.rounds or round_ < run.current.number:
        return (run.rounds[round_ - 1].candidate,) if 0 < round_ <= len(run.rounds) else ()
    return earlier_models(run)
