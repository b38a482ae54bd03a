"""The floor: what a logistic regression of 25 numbers of colour and texture reaches, without any network.

Rules
1. Training images fit it, validation images choose its strength and its threshold, test images are unknown here.
2. Its numbers know nothing of cervices. A network that does no better has learned colour and sharpness, or nothing.
3. It draws no random number: the same images give the same bits on a machine.

Both classes count the same in fitting, as under the paper's reverse class weights: so its probabilities are those of a
population with as many cases as controls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedcervix.core.plan import check
from site_agent.metrics import best_threshold

if TYPE_CHECKING:
    from site_agent.data.image_sets import Labelled
    from site_agent.data.pixels import Pixels

Floats = NDArray[np.float64]

TINY = 1e-12

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""C of scikit-learn: the smaller, the more the numbers are held back; validation images choose"""
SCALES = (1, 2, 4)
"""pixels over which the picture is averaged before its gradient is taken"""
PALE_FROM = 0.6
"""of the darkest channel: a pixel so pale is white, acetic or specular"""
BATCH_IMAGES = 64

NAMES = (
    *(f"{channel} {what}" for channel in ("red", "green", "blue") for what in ("mean", "deviation", "10 %", "90 %")),
    *("red share mean", "red share deviation", "green share mean", "green share deviation"),
    *("saturation mean", "saturation deviation", "share of pale pixels"),
    *(f"gradient over {scale} px" for scale in SCALES),
    "sharpness",
    *("centre brighter than rim", "centre redder than rim"),
)
"""of the 25 numbers"""


def describe(pixels: Pixels) -> Floats:
    """Return the numbers of images, (n, 25), from bytes (n, S, S, 3), RGB."""
    batches = (np.arange(at, min(at + BATCH_IMAGES, len(pixels))) for at in range(0, len(pixels), BATCH_IMAGES))
    parts = [_describe(pixels[rows]) for rows in batches]
    return np.concatenate(parts) if parts else np.empty((0, len(NAMES)))


def _describe(pixels: NDArray[np.uint8]) -> Floats:
    colour = pixels.astype(np.float64) / 255  # (n, S, S, 3)
    grey, total = colour.mean(axis=3), colour.sum(axis=3) + 1e-6
    red, green = colour[..., 0] / total, colour[..., 1] / total
    saturation = (colour.max(axis=3) - colour.min(axis=3)) / (colour.max(axis=3) + 1e-6)
    columns = [
        *(number for channel in range(3) for number in _spread(colour[..., channel])),
        *_moments(red),
        *_moments(green),
        *_moments(saturation),
        (colour.min(axis=3) > PALE_FROM).mean(axis=(1, 2)),
        *(_gradient(grey, scale) for scale in SCALES),
        _sharpness(grey),
        _centre(grey),
        _centre(red),
    ]
    return np.stack(columns, axis=1)


def _moments(plane: Floats) -> tuple[Floats, Floats]:
    return plane.mean(axis=(1, 2)), plane.std(axis=(1, 2))


def _spread(plane: Floats) -> tuple[Floats, ...]:
    low, high = np.percentile(plane, (10, 90), axis=(1, 2))
    return (*_moments(plane), low, high)


def _gradient(grey: Floats, scale: int) -> Floats:
    """Return the mean absolute step between neighbours of pictures (n, S, S) averaged over squares of `scale`."""
    side = grey.shape[1] // scale
    small = grey[:, : side * scale, : side * scale].reshape(len(grey), side, scale, side, scale).mean(axis=(2, 4))
    return np.asarray(
        np.abs(np.diff(small, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(small, axis=2)).mean(axis=(1, 2))
    )


def _sharpness(grey: Floats) -> Floats:
    """Return the standard deviation of the Laplacian."""
    inner = grey[:, 1:-1, 1:-1]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return np.asarray((around - 4 * inner).std(axis=(1, 2)))


def _centre(plane: Floats) -> Floats:
    """Return the mean of the middle half of each side, less that of the whole."""
    quarter = plane.shape[1] // 4
    middle = plane[:, quarter:-quarter, quarter:-quarter]
    return np.asarray(middle.mean(axis=(1, 2)) - plane.mean(axis=(1, 2)))


@dataclass(frozen=True, slots=True, eq=False)
class Floor:
    """A fitted floor: case is likelier the larger bias + weights x (numbers - middle) / scale."""

    middle: Floats
    """(25,), mean of the training images"""
    scale: Floats
    """(25,), their standard deviation; 1 where they do not differ"""
    weights: Floats
    """(25,)"""
    bias: float

    def scores(self, numbers: Floats) -> Floats:
        """Return the probability of case of each image, from its numbers (n, 25)."""
        from scipy.special import expit  # scipy is loaded where there is something to compute

        return np.asarray(expit(self.bias + ((numbers - self.middle) / self.scale) @ self.weights), np.float64)

    def row(self) -> Floats:
        """Return everything as one row of numbers, which `of_row` takes."""
        return np.concatenate([self.middle, self.scale, self.weights, [self.bias]])

    @classmethod
    def of_row(cls, row: Floats) -> Floor:
        """Return the floor of a row. Raises ValueError where it is none."""
        check(row.shape == (3 * len(NAMES) + 1,), f"a floor has {3 * len(NAMES) + 1} numbers; found {row.shape}")
        middle, scale, weights = np.split(row[:-1], 3)
        return cls(middle, scale, weights, float(row[-1]))


@dataclass(frozen=True, slots=True, eq=False)
class FittedFloor:
    """A floor, and what validation images chose."""

    floor: Floor
    strength: float
    loss: float
    """of the validation images, in nats per image, both classes counting the same"""
    threshold: float
    """of the best balance"""


def fit(train: Labelled, valid: Labelled) -> FittedFloor:
    """Fit the floor. Raises ValueError where the training images are all of one class; DataError, the validation."""
    return fit_numbers(describe(train.pixels), train.labels, describe(valid.pixels), valid.labels)


def fit_numbers(
    train: Floats, train_labels: NDArray[np.int64], valid: Floats, valid_labels: NDArray[np.int64]
) -> FittedFloor:
    """Fit the floor to numbers (n, 25): of the strengths the one with the lowest validation loss."""
    fitted = {strength: regression(train, train_labels, strength) for strength in STRENGTHS}
    losses = {strength: loss(floor.scores(valid), valid_labels) for strength, floor in fitted.items()}
    best = min(losses, key=lambda strength: (losses[strength], strength))
    threshold = best_threshold(valid_labels, fitted[best].scores(valid))
    return FittedFloor(fitted[best], best, losses[best], threshold)


def loss(scores: Floats, labels: NDArray[np.int64]) -> float:
    """Return the cross-entropy of probabilities (n,), in nats per image, both classes counting the same."""
    own = np.where(labels == 1, scores, 1 - scores)
    return float(-np.mean([np.log(np.clip(own[labels == label], TINY, 1)).mean() for label in (0, 1)]))


def regression(numbers: Floats, labels: NDArray[np.int64], strength: float) -> Floor:
    """Fit one strength to numbers (n, 25)."""
    from sklearn.linear_model import LogisticRegression

    middle, deviation = numbers.mean(axis=0), numbers.std(axis=0)
    scale = np.where(deviation > TINY, deviation, 1.0)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    model.fit((numbers - middle) / scale, labels)
    return Floor(middle, scale, np.asarray(model.coef_[0], np.float64), float(model.intercept_[0]))
