"""A classifier as its recipe asks for it: by which method, and of how many trainings.

Rules
1. The first training's random numbers are those of a classifier of one training. The further ones have their own.
2. A classifier has one score for an image: with several trainings the mean of their probabilities. Threshold,
   validation loss and everything after it belong to that score.
3. `lp-ft` fits the probe, then fine-tunes everything from there. A probe of a given encoder is the same each time. It
   is kept as it is where no epoch of fine-tuning has a lower validation loss.
4. `probe` and `lp-ft` use the encoder's statistics of batch norm. Random weights have none, so these are measured on
   the training images first: without them such a network is not normalised at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcervix.core.plan import ClassifierMethod, ClassifierRecipe, Recipe
from fedcervix.core.seeds import derive
from site_agent.classifier.averaged import AveragedClassifier
from site_agent.classifier.finetune import (
    Classifier,
    Finetuned,
    Network,
    OnEpoch,
    OnStep,
    build_classifier,
    each_of,
    finetune,
    measure_statistics,
    predict_levels,
    targets,
)
from site_agent.classifier.ordered import OrderedThresholds, kept_thresholds
from site_agent.classifier.ordered import class_probabilities as of_classes
from site_agent.classifier.probe import fit_probe
from site_agent.data.image_sets import Labelled
from site_agent.data.pixels import Pixels
from site_agent.manifest.classes import Classes
from site_agent.network.encoder import Loaded, apply_weights, snapshot
from site_agent.training.context import TrainingContext


class Fit(Protocol):
    """Changes a classifier, and says how it went."""

    def __call__(
        self,
        classifier: Classifier,
        train: Labelled,
        valid: Labelled,
        context: TrainingContext,
        *,
        on_epoch: OnEpoch,
        on_step: OnStep | None = None,
    ) -> Finetuned:
        """Leave what was found in `classifier`."""
        ...


METHODS: dict[ClassifierMethod, tuple[Fit, ...]] = {
    "full": (finetune,),
    "probe": (fit_probe,),
    "lp-ft": (fit_probe, finetune),
}
"""what is done one after the other, each from where the one before has ended"""

LOSS_MAX = 100.0
"""of one image in nats, as torch's cross-entropy of probabilities has it"""

StepsOf = Callable[[int], OnStep]
"""returns what is told of the steps of a training, counted from 1"""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedClassifier:
    """A classifier, and how each of its trainings went."""

    network: Network
    fits: tuple[Finetuned, ...]
    loaded: Loaded | None
    """how much of the start was taken; None: random weights"""
    validation_loss: float
    """unweighted cross-entropy of the score, in nats per image"""

    @property
    def state(self) -> dict[str, Tensor]:
        """Its weights, on the CPU."""
        return self.fits[0].best_state if len(self.fits) == 1 else snapshot(self.network)

    @property
    def epochs(self) -> int:
        """Epochs of all trainings."""
        return sum(len(one.history) for one in self.fits)


def train(
    start: Mapping[str, Tensor] | None,
    train: Labelled,
    valid: Labelled,
    context: TrainingContext,
    steps_of: StepsOf = lambda _training: lambda *_: None,
) -> TrainedClassifier:
    """Make a classifier from an encoder's state, or from random weights.

    Raises DataError on unusable splits, ModelError where the state does not fit, TrainingError where a fit fails.
    """
    networks, fits, loaded = [], [], None
    for number in range(context.recipe.classifier.trainings):
        seed = derive(context.seed, "classifier-training", number) if number else context.seed
        network, loaded = build_classifier(context.recipe, seed, start, _thresholds(context.recipe, train.classes))
        if start is None and context.recipe.classifier.method != "full":
            measure_statistics(network, train.pixels, context.device)
        fits.append(_fitted(network, train, valid, replace(context, seed=seed), steps_of(number + 1)))
        networks.append(network)
    return TrainedClassifier(_as_one(networks), tuple(fits), loaded, _validation_loss(networks, fits, valid, context))


def restore(recipe: Recipe, state: Mapping[str, Tensor], *, what: str) -> Network:
    """Return the classifier of this recipe with a state that was kept. Raises ModelError, naming `what`."""
    network = _as_one(
        [build_classifier(recipe, 0, None, kept_thresholds(state))[0] for _ in range(recipe.classifier.trainings)]
    )
    apply_weights(network, state, what=what)
    return network


def _thresholds(recipe: Recipe, classes: Classes) -> OrderedThresholds | None:
    """Return fresh thresholds where there are more than two classes and the recipe learns all of them."""
    asked = recipe.classifier.labels == "ordered" and classes.ordered
    return OrderedThresholds(len(classes.names), classes.cut) if asked else None


def class_probabilities(network: Network, pixels: Pixels, *, device: torch.device) -> NDArray[np.float64] | None:
    """Return the probability of each ordered class (n, K) of pixels (n, S, S, 3); None where it learned only two.

    Of several trainings it is the mean. The columns from the cut on add up to the probability of case.
    """
    networks = each_of(network)
    if networks[0].thresholds is None:
        return None
    levels = [predict_levels(one, pixels, device=device) for one in networks]
    return of_classes(np.mean(levels, axis=0))


def stage(terms: ClassifierRecipe, training: int, epoch: int) -> str:
    """Return in words how far it is."""
    return f"epoch {epoch}" if terms.trainings == 1 else f"training {training} of {terms.trainings}, epoch {epoch}"


def _as_one(networks: Sequence[Classifier]) -> Network:
    return networks[0] if len(networks) == 1 else AveragedClassifier(networks)


def _fitted(
    network: Classifier, train: Labelled, valid: Labelled, context: TrainingContext, on_step: OnStep
) -> Finetuned:
    """Fit by all steps of the method; keep the one of the lowest validation loss, of equal ones the earlier."""
    *before, last = METHODS[context.recipe.classifier.method]
    found = [fit(network, train, valid, context, on_epoch=lambda _epoch: None) for fit in before]
    found.append(last(network, train, valid, context, on_epoch=lambda _epoch: None, on_step=on_step))
    best = min(found, key=lambda one: one.valid_loss)
    network.load_state_dict(best.best_state)
    return best


def _validation_loss(
    networks: Sequence[Classifier], fits: Sequence[Finetuned], valid: Labelled, context: TrainingContext
) -> float:
    if len(fits) == 1:
        return fits[0].valid_loss
    levels = np.mean([predict_levels(one, valid.pixels, device=context.device) for one in networks], axis=0)
    levels = levels.reshape(len(levels), -1)  # (n, K - 1)
    worse = targets(networks[0], valid)[:, None] > np.arange(levels.shape[1])
    with np.errstate(divide="ignore"):  # a score of exactly 0 or 1 that is wrong
        losses = -np.where(worse, np.log(levels), np.log1p(-levels))
    return float(np.minimum(losses, LOSS_MAX).mean())
