"""Which classifiers one evaluation compares, and on which run and models its numbers are based."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedcervix.errors import ModelError
from fedcervix.lineage.shelf import reason
from site_agent.classifier import classifier_store
from site_agent.classifier.classifier_store import StoredClassifier
from site_agent.data.collection import Collection
from site_agent.data.digests import data_of
from site_agent.home import SiteHome
from site_agent.store import model_store, provenance
from site_agent.store.model_store import CervixModel
from site_agent.store.provenance import Again
from site_agent.store.retired_models import has_foreign_start, retired_among


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparable:
    """Classifiers that may be compared on the test images of today."""

    stored: tuple[StoredClassifier, ...]
    """in the paper's order"""
    federated: StoredClassifier | None
    """the one from the federation's model"""
    starts: tuple[CervixModel, ...]
    """the models that they started from, in the same order; not Random, not ImageNet"""
    differences: tuple[str, ...]
    """how they were trained differently, a sentence each: then no comparison has a conclusion"""
    reservations: tuple[str, ...] = ()
    """what a reader should know of the comparison, a sentence each"""

    @property
    def run(self) -> str:
        """The federation's run that the numbers are about; empty where there is none."""
        return self.federated.provenance.start.run if self.federated else ""


def comparable(home: SiteHome, collection: Collection, *, name: str = "", run: str = "") -> Comparable:
    """Return the classifiers of the set `name` that are compared, about `run` or the newest run.

    Raises ModelError where there are none, or where they cannot be compared on these images.
    """
    stored, broken = tuned(home, name)
    kept, lost = model_store.found(home)
    told = [one.provenance for one in stored]
    known = [model.kept for model in kept if retired_among(home, [model.digest]) is None]
    provenance.check(told, known, data_of(collection), again=Again(home.command(), name), run=run)
    classifier_store.check_unseen_by_classifiers(
        home, stored, (image for image in collection.images if image.split == "test")
    )
    classifier_store.check_colours(home, stored)
    about = provenance.headline(told, known, run)
    return Comparable(
        stored=tuple(stored),
        federated=next((one for one in stored if one.provenance is about), None),
        starts=tuple(model for one in stored for model in kept if model.digest == one.provenance.start.weights),
        differences=(*provenance.differences(told, known, run), *_privacy(stored)),
        reservations=(
            *provenance.reservations(told, known, run),
            *_retired(home, stored),
            *from_outside(home, stored),
            *(f"Not compared: the classifier {one}, which cannot be used (why: site-agent history)." for one in broken),
            *(f"Not compared: the model {one}, which cannot be used (why: site-agent history)." for one in lost),
        ),
    )


def _retired(home: SiteHome, stored: Sequence[StoredClassifier]) -> Iterator[str]:
    """Yield, in a sentence each, which classifiers must not be used any more."""
    for one in stored:
        if found := retired_among(home, [one.provenance.weights, one.provenance.start.weights]):
            yield f"The classifier {one.start} is retired: {reason(found[1])}."


def from_outside(home: SiteHome, stored: Sequence[StoredClassifier]) -> Iterator[str]:
    """Yield, in a sentence each, which classifiers go back to weights whose women this site cannot know."""
    for one in stored:
        if one.provenance.start.recipe and has_foreign_start(home, one.provenance.start.recipe):
            yield (
                f"The classifier {one.start} goes back to weights that this site has no record of. Nobody here knows "
                "whose images made them: women of the test part may be among them."
            )


def _privacy(stored: Sequence[StoredClassifier]) -> tuple[str, ...]:
    """Return, in a sentence, that some heads have noise and others less or none."""
    found = {one.start: one.epsilon for one in stored}
    if len(set(found.values())) <= 1:
        return ()
    said = (f"{start} {'no' if epsilon is None else f'epsilon {epsilon:.3g}'}" for start, epsilon in found.items())
    return (f"The heads were trained with different privacy: {', '.join(said)}.",)


def tuned(home: SiteHome, name: str = "") -> tuple[list[StoredClassifier], dict[str, ModelError]]:
    """Return the classifiers of the set `name`, and by name what is wrong with those that cannot be read.

    No image is looked at. Raises ModelError where there are none.
    """
    stored, broken = classifier_store.found(home, name)
    if not stored:
        raise next(iter(broken.values()), None) or _nothing(home, name)
    return stored, broken


def _nothing(home: SiteHome, name: str) -> ModelError:
    sets = ", ".join(found or "the one without a name" for found in classifier_store.names(home))
    return ModelError(
        f"there is no classifier to evaluate{f' in the set {name}' if name else ''}",
        cause=f"the sets here: {sets}" if sets else "none was fine-tuned yet",
        next_step=home.command(f"finetune --name {name}" if name else "finetune"),
    )
