"""The classifier: a site's own labels on top of the shared cervix model (sections III-B and III-D).

"We remove the dense layer and put a single output neuron with sigmoid activation. The output obtained from the sigmoid
layer is the case probability. The classification network is fully finetuned with the prepared cervix model."

Rules
1. Training images fit the weights, validation images choose the epoch, test images are unknown here.
2. Reverse class weights make both classes count the same in training; the validation loss is unweighted.
3. A last batch of one image joins the batch before it: batch norm cannot normalise a single image, and dropping it
   would leave labelled women out, of whom there are few. Every image is seen once in every epoch.
4. Every random number comes from (seed, purpose, stream, epoch, step): repeated on a CPU, a fit gives the same bits.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fedcervix.core.plan import Augment, ClassifierRecipe, Recipe
from fedcervix.core.seeds import derive
from fedcervix.errors import DataError, TrainingError
from site_agent.classifier.averaged import AveragedClassifier
from site_agent.classifier.ordered import OrderedThresholds, ordered_counts, ordinal_losses
from site_agent.classifier.weight_average import WeightAverage
from site_agent.data.device_batches import Feed
from site_agent.data.image_sets import Labelled
from site_agent.data.pixels import Pixels
from site_agent.network.augmentation import PACKED, apply, draw, pack, standardise, to_input
from site_agent.network.cuda_graph import Graphed, Step
from site_agent.network.devices import Acceleration, autocast, place
from site_agent.network.encoder import (
    BACKBONE,
    Loaded,
    apply_weights,
    backbone_state,
    build_encoder,
    feature_count,
    snapshot,
)
from site_agent.network.optimizer import changed_by, sgd
from site_agent.training.context import TrainingContext
from site_agent.training.epochs import EpochRecord, best_epoch, is_patience_over
from site_agent.training.memory_limit import memory_explained, out_of_memory

LIGHT = Augment(
    flip_horizontal=0.5,
    flip_vertical=0.0,
    rotation_deg=10.0,
    shift=0.05,
    zoom_min=1.0,
    zoom_max=1.0,
    gamma_min=1.0,
    gamma_max=1.0,
    brightness=0.0,
)
"""Classifier augmentation `light`: geometry alone, because acetowhite change is a matter of colour and brightness."""

VALIDATION_BATCH_IMAGES = 32
"""Batch size in eval mode, where no image depends on the others of its batch."""

OnEpoch = Callable[[EpochRecord], None]
OnStep = Callable[[int, int, int], None]
"""Called as on_step(epoch, step, steps), all counted from 1, after each step."""


@dataclass(frozen=True, slots=True, eq=False)
class Finetuned:
    """The outcome of a fit. `best_state` is the classifier's state after `best_epoch`, on the CPU."""

    best_state: dict[str, Tensor]
    history: tuple[EpochRecord, ...]
    best_epoch: int
    stopped: Literal["patience", "epochs"]
    is_probe: bool = False

    @property
    def valid_loss(self) -> float:
        """Validation loss of what was kept, in nats per image."""
        return self.history[self.best_epoch - 1].valid_loss


class Classifier(nn.Module):
    """The encoder's backbone and one output neuron; gives logits, the sigmoid of which is the probability of case.

    With K > 2 ordered classes the neuron is shared by K - 1 thresholds (`ordered`), and the logit of case is the one at
    the cut.
    """

    def __init__(self, backbone: nn.Module, neuron: nn.Linear, thresholds: OrderedThresholds | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.neuron = neuron
        self.thresholds = thresholds

    def levels(self, x: Tensor) -> Tensor:
        """Return logits of standardised images (B, 3, S, S): (B,); with K > 2 classes (B, K - 1), see `ordered`."""
        features = torch.flatten(self.backbone(x), 1)  # (B, F)
        logits: Tensor = self.neuron(features).squeeze(1)  # (B, 1) -> (B,)
        return logits if self.thresholds is None else self.thresholds(logits)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of case (B,) of standardised images (B, 3, S, S)."""
        levels = self.levels(x)
        return levels if self.thresholds is None else self.thresholds.at_cut(levels)


Network = Classifier | AveragedClassifier
"""what scores an image"""


def each_of(network: Network) -> tuple[Classifier, ...]:
    """Return the trainings of a classifier: several, or itself alone."""
    return (network,) if isinstance(network, Classifier) else cast("tuple[Classifier, ...]", tuple(network.trainings))


def build_classifier(
    recipe: Recipe, seed: int, start: Mapping[str, Tensor] | None, thresholds: OrderedThresholds | None = None
) -> tuple[Classifier, Loaded | None]:
    """Return a classifier that starts from an encoder's state, and how much of that state it took.

    `start` is a whole encoder (its `head.*` is dropped); without one the weights are random, drawn from `seed`.
    `thresholds` are those of more than two ordered classes.
    Raises ModelError unless the state holds every tensor of the backbone in its shape.
    """
    encoder = build_encoder(recipe, derive(seed, "classifier-backbone"))
    classifier = Classifier(encoder.backbone, _neuron(feature_count(recipe.architecture), seed), thresholds)
    if start is None:
        return classifier, None
    backbone = {name.removeprefix(BACKBONE): tensor for name, tensor in backbone_state(start).items()}
    return classifier, apply_weights(classifier.backbone, backbone, what="the classifier's starting model")


def _neuron(features: int, seed: int) -> nn.Linear:
    """Return the output neuron, drawn from `seed` alone: uniform within 1/sqrt(F), torch's own rule for a layer."""
    generator = torch.Generator().manual_seed(derive(seed, "classifier-neuron"))
    neuron = nn.Linear(features, 1, device="meta").to_empty(device="cpu")  # without a draw from the global generator
    bound = features**-0.5
    nn.init.uniform_(neuron.weight, -bound, bound, generator=generator)
    nn.init.uniform_(neuron.bias, -bound, bound, generator=generator)
    return neuron


def class_weights(labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return (weight of a control, weight of a case), n / (2 n_c): both classes then weigh n/2 (section III-D).

    Raises DataError where a class is absent.
    """
    cases = int(np.count_nonzero(labels))
    controls = len(labels) - cases
    if cases == 0 or controls == 0:
        raise DataError(
            f"the training images hold {cases} cases and {controls} controls; a classifier needs both",
            cause="the manifest's split or label column",
            next_step="site-agent data check",
        )
    return len(labels) / (2 * controls), len(labels) / (2 * cases)


def classifier_batches(count: int, batch_images: int, seed: int) -> list[NDArray[np.int64]]:
    """Return one epoch's batches of row numbers: all `count` of them once, shuffled by `seed`.

    The last batch may be smaller than the others, or larger by one: see rule 3.
    """
    order = np.random.default_rng(seed).permutation(count)
    starts = list(range(0, count, batch_images))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return np.split(order, starts[1:])


def finetune(
    classifier: Classifier,
    train: Labelled,
    valid: Labelled,
    context: TrainingContext,
    *,
    on_epoch: OnEpoch,
    on_step: OnStep | None = None,
) -> Finetuned:
    """Fit the whole network to `train`, keep the epoch with the lowest validation loss, and leave it in `classifier`.

    Stops after `patience_epochs` epochs without a lower validation loss. Raises DataError on unusable splits,
    TrainingError on a loss that is not finite.
    """
    recipe, terms, device = context.recipe, context.recipe.classifier, context.device
    check_valid(valid)
    _check_batch(terms)
    place(classifier, device)
    learnt = targets(classifier, train)
    weights = torch.from_numpy(training_weights(classifier, train, terms)).float().to(device)
    parameters = [{"params": list(classifier.parameters()), "weight_decay": terms.weight_decay}]
    optimiser = sgd(parameters, lr=terms.lr, momentum=terms.momentum, device=device)
    step = make_step(classifier, optimiser, recipe, weights, context.machine.acceleration)
    feed = Feed(train.pixels, device)
    history: list[EpochRecord] = []
    losses: list[float] = []
    best_state: dict[str, Tensor] = {}
    average = _average(classifier, terms)
    while len(losses) < terms.epochs_max and not is_patience_over(losses, terms.patience_epochs):
        epoch, started = len(losses) + 1, context.clock()
        epoch_seed = derive(context.seed, "classifier-epoch", context.stream, epoch)
        report = None if on_step is None else functools.partial(on_step, epoch)
        _to_training(classifier, terms)
        train_loss = _train_epoch(step, feed, learnt, recipe, epoch_seed, report)
        with _averaged(classifier, average):
            losses.append(validation_loss(classifier, valid, device=device))
            _check_finite(epoch, train_loss, losses[-1], terms.lr)
            if best_epoch(losses) == epoch:
                best_state = snapshot(classifier)
        history.append(EpochRecord(epoch, train_loss, losses[-1], context.clock() - started))
        on_epoch(history[-1])
    classifier.load_state_dict(best_state)
    stopped: Literal["patience", "epochs"] = "patience" if is_patience_over(losses, terms.patience_epochs) else "epochs"
    return Finetuned(best_state, tuple(history), best_epoch(losses), stopped)


def _average(classifier: Classifier, terms: ClassifierRecipe) -> WeightAverage | None:
    """Return the mean of weights that is judged and kept; None where it is the classifier's own after each epoch."""
    if terms.averaged_epochs == 1 and terms.tuned_share == 1:
        return None
    return WeightAverage(snapshot(classifier), terms.averaged_epochs, terms.tuned_share)


@contextlib.contextmanager
def _averaged(classifier: Classifier, average: WeightAverage | None) -> Iterator[None]:
    """Have the mean of its weights in the classifier for a while; training goes on from its own."""
    if average is None:
        yield
        return
    own = snapshot(classifier)
    classifier.load_state_dict(average.after(own))
    yield
    classifier.load_state_dict(own)


def _to_training(classifier: Classifier, terms: ClassifierRecipe) -> None:
    """Set the mode for an epoch. In `lp-ft` batch norm keeps the start's statistics.

    The probe was fitted to features that were computed with them; those of a batch of four images are others, and the
    first steps would only undo that (Kumar et al. 2022 fine-tune in evaluation mode, too).
    """
    classifier.train()
    if terms.method == "lp-ft":
        for module in classifier.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


@torch.no_grad()
def measure_statistics(classifier: Classifier, pixels: Pixels, device: torch.device) -> None:
    """Have batch norm hold the statistics of pixels (n, S, S, 3): the mean over batches of 32, not augmented.

    For weights that were drawn: each layer is measured with those before it as a batch in training sees them.
    """
    place(classifier, device)
    classifier.eval()
    norms = [module for module in classifier.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # of torch: the plain mean over batches
        norm.train()
    feed = Feed(pixels, device)
    for chosen in np.array_split(np.arange(len(pixels)), max(1, len(pixels) // VALIDATION_BATCH_IMAGES)):
        classifier.backbone(standardise(to_input(feed.take(chosen))))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    classifier.eval()


def targets(classifier: Classifier, labelled: Labelled) -> NDArray[np.int64]:
    """Return what a classifier learns of each image (n,): case or control, or the class of more than two."""
    return labelled.labels if classifier.thresholds is None else labelled.grades


def training_weights(classifier: Classifier, train: Labelled, terms: ClassifierRecipe) -> NDArray[np.float64]:
    """Return the weight of an image of each class (K,). Raises DataError where a class is absent."""
    if classifier.thresholds is None:
        return np.array(class_weights(train.labels) if terms.reverse_class_weights else (1.0, 1.0))
    counts = ordered_counts(train.grades, train.classes)
    return len(train.grades) / (len(counts) * counts) if terms.reverse_class_weights else np.ones(len(counts))


def validation_loss(classifier: Classifier, valid: Labelled, *, device: torch.device) -> float:
    """Return the unweighted cross-entropy per image, in nats, in eval mode; of several thresholds, their mean."""
    logits = torch.from_numpy(_logits(classifier, valid.pixels, device, VALIDATION_BATCH_IMAGES))
    if classifier.thresholds is not None:
        return float(ordinal_losses(logits, torch.from_numpy(valid.grades)).mean())
    return float(F.binary_cross_entropy_with_logits(logits, torch.from_numpy(valid.labels).double()))


def predict(
    classifier: Network, pixels: Pixels, *, device: torch.device, batch_images: int = 32
) -> NDArray[np.float64]:
    """Return the probability of case of each image: pixels (n, S, S, 3) uint8 -> (n,), in eval mode.

    Raises TrainingError where a probability is not finite.
    """
    if isinstance(classifier, AveragedClassifier):
        each = [predict(one, pixels, device=device, batch_images=batch_images) for one in each_of(classifier)]
        return np.asarray(np.mean(each, axis=0), np.float64)
    levels = predict_levels(classifier, pixels, device=device, batch_images=batch_images)
    return levels if classifier.thresholds is None else levels[:, classifier.thresholds.cut - 1]


def predict_levels(
    classifier: Classifier, pixels: Pixels, *, device: torch.device, batch_images: int = 32
) -> NDArray[np.float64]:
    """Return the sigmoids of what the network gives for each image, in eval mode: (n,) or, of K classes, (n, K - 1).

    Raises TrainingError where one is not finite.
    """
    place(classifier, device)
    logits = torch.from_numpy(_logits(classifier, pixels, device, batch_images))
    if not torch.isfinite(logits).all():
        raise TrainingError(
            "the classifier gives scores that are not numbers",
            cause="its weights diverged, or the weights file is damaged",
            next_step="site-agent finetune, with a lower lr",
        )
    return np.asarray(torch.sigmoid(logits).numpy(), dtype=np.float64)


@torch.no_grad()
def _logits(classifier: Classifier, pixels: Pixels, device: torch.device, batch_images: int) -> NDArray[np.float64]:
    """Return `levels` of pixels (n, S, S, 3), in eval mode and in float32 whatever the recipe trains in."""
    classifier.eval()
    feed = Feed(pixels, device)
    rows = [
        classifier.levels(standardise(to_input(feed.take(np.arange(start, min(start + batch_images, len(pixels)))))))
        for start in range(0, len(pixels), batch_images)
    ]
    return np.asarray(torch.cat(rows).double().cpu().numpy()) if rows else np.zeros(0)


@torch.no_grad()
def features(classifier: Classifier, pixels: Pixels, device: torch.device) -> NDArray[np.float32]:
    """Return what the output neuron sees: pixels (n, S, S, 3) to (n, F), in eval mode and float32."""
    place(classifier, device)
    classifier.eval()
    feed = Feed(pixels, device)
    rows = [
        torch.flatten(classifier.backbone(standardise(to_input(feed.take(chosen)))), 1).float()
        for chosen in np.array_split(np.arange(len(pixels)), max(1, len(pixels) // VALIDATION_BATCH_IMAGES))
    ]
    return np.asarray(torch.cat(rows).cpu().numpy(), np.float32)


def make_step(
    classifier: Classifier,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    weights: Tensor,
    acceleration: Acceleration,
) -> Step:
    """Return one step of fine-tuning: bytes (B, S, S, 3), labels (B,), packed draws (B or 0, PACKED) -> sum of losses.

    `weights` (2,) are those of the classes. As a graph, it is captured for the first batch's size; the last batch of
    an epoch, which may have another, runs as it is.
    """
    forward = torch.compile(classifier.levels, dynamic=False) if acceleration == "compile" else classifier.levels

    def step(pixels: Tensor, labels: Tensor, packed: Tensor) -> tuple[Tensor, ...]:
        images = to_input(pixels)  # (B, 3, S, S)
        if len(packed):
            images = apply(images, packed)
        with autocast(weights.device, recipe.precision):
            logits = forward(standardise(images)).float()  # (B,) or (B, K - 1)
        losses = ordinal_losses(logits, labels, weights)
        optimiser.zero_grad(set_to_none=True)
        losses.mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return (losses.detach().sum(),)

    return Graphed(step, lambda: changed_by(classifier, optimiser)) if acceleration == "graph" else step


def _train_epoch(
    step: Step,
    feed: Feed,
    labels: NDArray[np.int64],
    recipe: Recipe,
    epoch_seed: int,
    on_step: Callable[[int, int], None] | None,
) -> float:
    """Take every training image once; return the mean weighted loss, in nats per image."""
    batches = classifier_batches(len(labels), recipe.classifier.batch_images, derive(epoch_seed, "order"))
    total: Tensor | None = None  # summed on the device: reading it at every step would stall a GPU
    for number, rows in enumerate(batches, start=1):
        packed = _draws(len(rows), recipe, derive(epoch_seed, "augment", number))
        chosen = torch.from_numpy(labels[rows])
        setting, images = "recipe.classifier.batch_images", len(rows)
        with memory_explained(lambda: out_of_memory(images, recipe, setting)):  # noqa: B023 (called at once)
            (loss,) = step(feed.take(rows), feed.send(chosen), feed.send(packed))
        total = loss if total is None else total + loss
        if on_step is not None:
            on_step(number, len(batches))
    return float(total or 0.0) / len(labels)


def _draws(count: int, recipe: Recipe, seed: int) -> Tensor:
    """Return the packed augmentations of a batch; none where the recipe asks for none."""
    if recipe.classifier.augment == "none":
        return torch.empty(0, PACKED)
    generator = torch.Generator().manual_seed(seed)
    return pack(draw(count, LIGHT, generator), recipe.image_px, recipe.image_px)


def check_valid(valid: Labelled) -> None:
    """Refuse a fit without validation images. Raises DataError."""
    if len(valid.labels) == 0:
        raise DataError(
            "no labelled validation image: the classifier would not know when to stop",
            cause="the manifest's split or label column",
            next_step="site-agent data check",
        )


def _check_batch(terms: ClassifierRecipe) -> None:
    if terms.batch_images == 1:
        raise TrainingError(
            "a classifier batch of one image cannot be normalised (batch norm needs two)",
            next_step="set recipe.classifier.batch_images to 2 or more (the paper: 4)",
        )


def _check_finite(epoch: int, train_loss: float, valid_loss: float, lr: float) -> None:
    if not (np.isfinite(train_loss) and np.isfinite(valid_loss)):
        raise TrainingError(
            f"fine-tuning diverged in epoch {epoch}: training loss {train_loss}, validation loss {valid_loss}",
            cause=f"a learning rate of {lr} is too high for these weights and images",
            next_step="lower recipe.classifier.lr",
        )
