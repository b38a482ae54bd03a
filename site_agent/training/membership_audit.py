"""What does an update tell about who was trained on? Membership inference against one's own update, before it leaves.

Rules
1. Training women stand against test women. Nobody else is disjoint from both the training and every choice: validation
   women choose the round. Only women with a label are taken: in a drawn split the two sides are then drawn alike, and
   differ in nothing but the training.
2. An image has ten views. How alike they are is the mean cosine of their 45 pairs (EncoderMI, Liu et al., CCS 2021);
   its loss is the mean of five pairs' in a mini-batch of the recipe's size, both sides mixed.
3. Alignment is the derivative of that loss along the update, at the base, with the other sign: how much the step does
   what this image's gradient asks for. It is exact (forward-mode differentiation), at the cost of one more pass.
4. Nothing is trained, and every random number comes from a seed: the same update has the same sheet.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, jvp

from fedcervix.core.seeds import derive
from fedcervix.errors import TrainingError
from site_agent.data.batches import Indices
from site_agent.data.dataset import joined
from site_agent.data.image_sets import Images
from site_agent.images.decode import OnCount, silent
from site_agent.network.augmentation import draw, pack
from site_agent.network.devices import autocast, place
from site_agent.network.encoder import apply_weights, unit_rows
from site_agent.network.loss import ROW_LOSSES
from site_agent.network.views import views
from site_agent.store.audit_sheets import WOMEN_MIN, Attack
from site_agent.training.context import TrainingContext
from site_agent.training.membership_scores import attack, by_woman

VIEWS = 10
PASSES = 3
"""over all images: base, update, alignment"""

Floats = NDArray[np.float64]
State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Sides:
    """The images of training women, and of women who trained and chose nothing."""

    members: Images
    others: Images

    def __post_init__(self) -> None:
        if both := set(self.members.patients) & set(self.others.patients):
            raise ValueError(f"{len(both)} women are on both sides")

    @property
    def women(self) -> tuple[int, int]:
        """How many."""
        return len(set(self.members.patients)), len(set(self.others.patients))

    @property
    def images(self) -> int:
        """Of both."""
        return len(self.members) + len(self.others)


def attacks(
    encoder: nn.Module,
    base: State,
    update: State,
    sides: Sides,
    context: TrainingContext,
    on_progress: OnCount = silent,
) -> tuple[Attack, ...]:
    """Try every attack on an update; none where there are too few women. `base`: what the training began with.

    `encoder` is the network of both, (B, 3, S, S) to (B, D); its weights are replaced. Raises ModelError where a state
    does not fit it, TrainingError where it gives no finite numbers.
    """
    if min(sides.women) < WOMEN_MIN:
        return ()
    measured = scores(encoder, base, update, sides, context, on_progress)
    women, count = (*sides.members.patients, *sides.others.patients), sides.women[0]
    found = []
    for name, of_images in measured.items():
        means = by_woman(of_images, women)
        values = np.array([means[woman] for woman in dict.fromkeys(women)])  # training women first
        if not np.isfinite(values).all():
            raise TrainingError(
                "the audit finds numbers that are not finite",
                cause="the update or the model that it began with has diverged",
                next_step="ask the coordinator's operator for a plan with a lower lr",
            )
        found.append(attack(name, values[:count], values[count:], derive(context.seed, "audit-draws", name)))
    return tuple(found)


def scores(
    encoder: nn.Module,
    base: State,
    update: State,
    sides: Sides,
    context: TrainingContext,
    on_progress: OnCount = silent,
) -> dict[str, Floats]:
    """Return the score of each image, training women's first, by attack; higher for an image that was trained on.

    Takes what `attacks` takes, and tells nothing of women. (n,) each. Raises ModelError.
    """
    return _Measured(encoder, sides, context, on_progress).scores(base, update)


class _Measured:
    """What is measured on each image, in the order training women, others."""

    def __init__(self, encoder: nn.Module, sides: Sides, context: TrainingContext, on_progress: OnCount) -> None:
        self._encoder, self._context, self._on_progress = encoder, context, on_progress
        self._feed = joined([sides.members, sides.others]).on(context.device)
        self._batches = _batches(sides.images, context.recipe.batch_images, derive(context.seed, "audit-order"))
        self._images, self._done = sides.images, 0
        place(encoder, context.device)

    def scores(self, base: State, update: State) -> dict[str, Floats]:
        """Return the scores (see above)."""
        self._load(base, "the model that the round began with")
        views_before, loss_before = self._pass(self._views_and_loss)
        step = {name: update[name].to(value) - value for name, value in _parameters(self._encoder).items()}
        [alignment] = self._pass(lambda views: self._alignment(views, step))
        self._load(update, "the update")
        views, loss = self._pass(self._views_and_loss)
        return {
            "views": views,
            "views-gained": views - views_before,
            "loss": -loss,
            "loss-gained": loss_before - loss,
            "alignment": alignment,
            "base-views": views_before,
            "base-loss": -loss_before,
        }

    def _load(self, state: State, what: str) -> None:
        apply_weights(self._encoder, state, what=what)
        self._encoder.eval()

    def _pass(self, measure: Callable[[Iterator[Tensor]], tuple[Tensor, ...]]) -> list[Floats]:
        """Return what is measured of each image, batch by batch: (n,) each."""
        found: list[list[NDArray[np.float64]]] = []
        for number, chosen in enumerate(self._batches):
            found.append([one.double().cpu().numpy() for one in measure(self._views(number, chosen))])
            self._done += len(chosen)
            self._on_progress(self._done, PASSES * self._images)
        order = np.argsort(np.concatenate(self._batches))
        return [np.concatenate(parts)[order] for parts in zip(*found, strict=True)]

    def _views(self, number: int, chosen: Indices) -> Iterator[Tensor]:
        """Yield the views of a batch two by two, all first ones before all second ones: (2N, 3, S, S) each."""
        recipe, count = self._context.recipe, len(chosen)
        generator = torch.Generator().manual_seed(derive(self._context.seed, "audit-views", number))
        packed = self._feed.send(pack(draw(VIEWS * count, recipe.augment, generator), recipe.image_px, recipe.image_px))
        pixels = self._feed.take(chosen)
        return (views(pixels, two) for two in torch.split(packed, 2 * count))

    @torch.no_grad()
    def _views_and_loss(self, pairs: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
        """Return how alike the views of each image are, and its loss: (N,) each."""
        seen, losses = [], []
        for x in pairs:
            with autocast(self._context.device, self._context.recipe.precision):
                f = self._encoder(x)
            seen.append(unit_rows(f).view(2, -1, f.shape[1]))
            losses.append(self._losses(f))
        total = torch.cat(seen).sum(dim=0).square().sum(dim=1)  # (N,): VIEWS and twice the cosine of every pair
        return (total - VIEWS) / (VIEWS * (VIEWS - 1)), torch.stack(losses).mean(dim=0)

    def _alignment(self, pairs: Iterator[Tensor], step: State) -> tuple[Tensor]:
        """Return how much the loss of each image falls along the step, at the base: (N,). In float32, on one pair."""
        x = next(pairs)

        def losses(parameters: dict[str, Tensor]) -> Tensor:
            return self._losses(functional_call(self._encoder, parameters, (x,)))

        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a part of torch that it loads for this
            slope: Tensor = jvp(losses, (_parameters(self._encoder),), (dict(step),))[1]
        return (-slope,)

    def _losses(self, f: Tensor) -> Tensor:
        """Return the loss of each image of a batch, in nats: (2N, D) to (N,), the mean over its two views."""
        recipe = self._context.recipe
        return ROW_LOSSES[recipe.loss](f, recipe.temperature).view(2, -1).mean(dim=0)


def _parameters(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in encoder.named_parameters()}


def _batches(images: int, batch_images: int, seed: int) -> list[Indices]:
    """Return all images in mini-batches of at least the recipe's size, both sides mixed."""
    return np.array_split(np.random.default_rng(seed).permutation(images), max(1, images // batch_images))
