"""What an institution knows of a model that it keeps: what it is, who took part in making it, what it was made from.

Nothing of a patient: of images there is only their number, and that of women is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedcervix.core.plan import Plan
from fedcervix.runtime.record import RecordedRun


@dataclass(frozen=True, slots=True)
class Contributor:
    """What a site of a run gave to the model."""

    site: str
    rounds: int | None
    """in which it counts, up to the one that made the model; None where that is not known"""
    images: int
    """that it trained on, the most in a round; 0 where that is not told"""
    adopted: bool = False
    """whether it has the model"""


@dataclass(frozen=True, slots=True)
class Parent:
    """A model that this one was made from."""

    digest: str
    role: str
    """in words: how it was used"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model or a classifier."""

    name: str
    """the run that made it, or its folder below the home"""
    start: str
    """Random, SSL, CSFSSL, PPFSSL_NHS ..."""
    digest: str
    architecture: str
    run: str
    """of a federation; empty for what a site made itself"""
    made_at: str
    """UTC, ISO 8601"""
    is_classifier: bool
    epsilon: float | None = None
    """how much a classifier's head tells of one woman, at most; None where nothing is promised"""
    plan: str = ""
    """digest of the run's plan"""
    software: str = ""
    round: int = 0
    """of the run, that made it; 0: not known"""
    rounds: int = 0
    """of the run"""
    contributors: tuple[Contributor, ...] = ()
    parents: tuple[Parent, ...] = ()
    pictures: int | None = None
    """of this site, that it was made with; None where that is not known here"""
    is_sealed: bool = False
    """whether its file is with the sites alone"""

    @property
    def kind(self) -> str:
        """In a word."""
        return "classifier" if self.is_classifier else "model"


def contributors(record: RecordedRun, plan: Plan) -> tuple[Contributor, ...]:
    """Return what each site of a run's plan gave to the model: later rounds than the best one made another."""
    given = [one for line in record.ledger if line.round <= record.best_round for one in line.contributions]
    images = {site: [one.images for one in given if one.site == site] for site in plan.sites}
    return tuple(
        Contributor(site, len(counts), max(counts, default=0), site in record.adopted)
        for site, counts in images.items()
    )


def parents(record: RecordedRun, plan: Plan) -> tuple[Parent, ...]:
    """Return what the model of a run was made from."""
    first = record.ledger[0].base if record.ledger else ""
    found = (Parent(first, "first model of the run"), Parent(plan.recipe.start_model, "start of its recipe"))
    return tuple(one for one in found if one.digest)


def ancestry(digest: str, known: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return a model and all that it was made from, as far as it is known; `known`: model -> what it was made from."""
    found: dict[str, None] = {}
    todo = [digest]
    while todo:
        if (one := todo.pop()) not in found:
            found[one] = None
            todo.extend(known.get(one, ()))
    return tuple(found)
