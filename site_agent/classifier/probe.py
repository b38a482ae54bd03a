"""A linear probe: the output neuron is fitted to what the frozen encoder sees, and nothing else is changed.

Rules
1. The encoder is in evaluation mode. The features of each image are computed once; images are not augmented.
2. The fit is convex and starts from zero, so it depends on the images and the encoder alone: no seed, no order.
3. The penalty on the weights is one of `PENALTIES`: the one with the lowest validation loss, of equal ones the largest.
   Validation images choose it as they choose the epoch of fine-tuning.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedcervix.errors import TrainingError
from site_agent.classifier.finetune import (
    Classifier,
    Finetuned,
    OnEpoch,
    OnStep,
    check_valid,
    features,
    targets,
    training_weights,
    validation_loss,
)
from site_agent.data.image_sets import Labelled
from site_agent.network.devices import place
from site_agent.network.encoder import snapshot
from site_agent.training.context import TrainingContext
from site_agent.training.epochs import EpochRecord

Floats = NDArray[np.float64]

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""half of it times the squared length of the weights is added to the mean loss per image; features have variance 1"""
STEPS_MAX = 500
"""of L-BFGS"""


def fit_probe(
    classifier: Classifier,
    train: Labelled,
    valid: Labelled,
    context: TrainingContext,
    *,
    on_epoch: OnEpoch,
    on_step: OnStep | None = None,
) -> Finetuned:
    """Fit the output neuron to `train` and leave it in `classifier`; the backbone stays as it is.

    The history has one record. Raises DataError on unusable splits, TrainingError where a feature is no finite number.
    """
    check_valid(valid)
    started, device = context.clock(), context.device
    place(classifier, device)
    learnt = targets(classifier, train)
    by_class = training_weights(classifier, train, context.recipe.classifier)
    seen, scale = _standardised(features(classifier, train.pixels, device))
    asked = (features(classifier, valid.pixels, device) - scale[0]) / scale[1]
    tried, head = [], np.zeros(seen.shape[1] + len(by_class) - 1)
    for number, penalty in enumerate(PENALTIES, 1):
        head = fit_head(seen, learnt, by_class[learnt], penalty, begin=head)
        tried.append((head_loss(asked, targets(classifier, valid), head), number, head))
        if on_step is not None:
            on_step(1, number, len(PENALTIES))
    _, _, head = min(tried, key=lambda one: one[:2])
    _take(classifier, head, scale)
    losses = head_loss(seen, learnt, head, by_class[learnt]), validation_loss(classifier, valid, device=device)
    on_epoch(record := EpochRecord(1, *losses, context.clock() - started))
    return Finetuned(snapshot(classifier), (record,), 1, "epochs", is_probe=True)


def fit_head(seen: Floats, labels: NDArray[np.int64], weights: Floats, penalty: float, begin: Floats) -> Floats:
    """Return the head of features (n, F) and classes (n,) from 0 to K - 1.

    A head (F + K - 1,) is the weights, then for each threshold the bias of "worse than this class"; these fall. With
    two classes there is one, and it is logistic regression. `weights` (n,) are those of the images; the search begins
    at `begin`. Biases are not penalised.
    """
    from scipy.optimize import minimize  # loaded where there is something to fit
    from scipy.special import expit

    width = seen.shape[1]
    signs = np.where(labels[:, None] > np.arange(len(begin) - width), 1.0, -1.0)  # (n, K - 1)
    share = weights[:, None] / signs.size

    def loss(head: Floats) -> tuple[float, Floats]:
        weight = head[:width]
        margins = signs * ((seen @ weight)[:, None] + head[width:])
        by_logit = -share * signs * expit(-margins)  # (n, K - 1)
        gradient = np.append(by_logit.sum(axis=1) @ seen + penalty * weight, by_logit.sum(axis=0))
        return float((share * np.logaddexp(0.0, -margins)).sum() + penalty / 2 * (weight @ weight)), gradient

    return np.asarray(minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": STEPS_MAX}).x)


def head_loss(seen: Floats, labels: NDArray[np.int64], head: Floats, weights: Floats | float = 1.0) -> float:
    """Return the mean loss of a head in nats, over images and thresholds; `weights` (n,) are those of the images."""
    width = seen.shape[1]
    signs = np.where(labels[:, None] > np.arange(len(head) - width), 1.0, -1.0)
    losses = np.logaddexp(0.0, -signs * ((seen @ head[:width])[:, None] + head[width:]))
    return float(np.mean(weights * losses.mean(axis=1)))


def _standardised(found: NDArray[np.float32]) -> tuple[Floats, tuple[Floats, Floats]]:
    """Return features (n, F) of mean 0 and variance 1, and their means and deviations; a constant one becomes 0."""
    if not np.isfinite(found).all():
        raise TrainingError(
            "the encoder gives features that are not finite numbers",
            cause="its weights diverged, or the weights file is damaged",
            next_step="choose another start from: site-agent history",
        )
    middle, spread = found.mean(axis=0, dtype=np.float64), found.std(axis=0, dtype=np.float64)
    spread[spread < 1e-8] = np.inf
    return (found - middle) / spread, (middle, spread)


@torch.no_grad()
def _take(classifier: Classifier, head: Floats, scale: tuple[Floats, Floats]) -> None:
    """Write a head for standardised features into the output neuron, which sees features as they are."""
    middle, spread = scale
    weight, biases = head[: len(middle)] / spread, head[len(middle) :]
    classifier.neuron.weight.copy_(torch.from_numpy(weight)[None])
    classifier.neuron.bias.copy_(torch.from_numpy(biases[:1] - weight @ middle))
    if classifier.thresholds is not None:
        classifier.thresholds.set_values(biases[0] - biases)
