"""A classifier of more than two ordered classes: normal, low grade, high grade.

Rules
1. One neuron is shared by all thresholds: the logit of "worse than class k" is the neuron's output minus threshold k
   (CORAL: Cao, Mirjalili, Raschka, Rank consistent ordinal regression for neural networks, Pattern Recognition Letters
   2020). With two classes this is the paper's classifier.
2. Thresholds ascend by construction, so the probabilities of the classes are never negative.
3. The loss of an image is the mean over the thresholds of the cross-entropy of "worse or not". An image weighs by its
   class, n / (K n_k): all classes count the same.
4. The probability of case is that of "worse" at the cut that the site names (`Classes.case_from`).
5. A class without a training image cannot be learned: such labels are refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fedcervix.errors import DataError
from site_agent.manifest.classes import Classes

GAP = 1.0
"""between neighbouring thresholds before training"""
GAP_MIN = 1e-3


class OrderedThresholds(nn.Module):
    """K - 1 thresholds of K classes: the first is 0 (the neuron has a bias), each further one lies above the last."""

    def __init__(self, classes: int, cut: int) -> None:
        """`cut`: how many of the classes are controls."""
        super().__init__()
        self.gaps = nn.Parameter(torch.full((classes - 2,), _before_softplus(GAP)))
        self.register_buffer("controls", torch.tensor(cut))
        self.cut = cut

    def values(self) -> Tensor:
        """Return the thresholds (K - 1,), ascending."""
        return torch.cat([torch.zeros_like(self.gaps[:1]), torch.cumsum(F.softplus(self.gaps), dim=0)])

    def set_values(self, ascending: NDArray[np.float64]) -> None:
        """Take thresholds (K - 1,) whose first is 0; where two are nearly the same, they are set a little apart."""
        gaps = np.maximum(np.diff(ascending), GAP_MIN)
        with torch.no_grad():
            self.gaps.copy_(torch.tensor([_before_softplus(gap) for gap in gaps.tolist()]))

    def forward(self, outputs: Tensor) -> Tensor:
        """Return the logits of "worse than class k" (B, K - 1) of the neuron's outputs (B,)."""
        return outputs[:, None] - self.values().to(outputs.dtype)

    def at_cut(self, levels: Tensor) -> Tensor:
        """Return the logits of case (B,) of logits (B, K - 1)."""
        return levels[:, self.cut - 1]


def kept_thresholds(state: Mapping[str, Tensor]) -> OrderedThresholds | None:
    """Return thresholds of the form that a classifier's state has, to be filled with it; None where it has none."""
    found = {name.rpartition(".")[2]: tensor for name, tensor in state.items() if "thresholds." in name}
    return (
        OrderedThresholds(len(found["gaps"]) + 2, int(found["controls"]))
        if found.keys() >= {"gaps", "controls"}
        else None
    )


def _before_softplus(value: float) -> float:
    return float(np.log(np.expm1(value)))


def ordinal_losses(logits: Tensor, grades: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the loss of each image (B,), in nats: of logits (B,) or (B, K - 1), classes (B,), weights (K,)."""
    weight = None if weights is None else weights[grades]
    if logits.ndim == 1:
        return F.binary_cross_entropy_with_logits(logits, grades.to(logits.dtype), weight=weight, reduction="none")
    worse = grades[:, None] > torch.arange(logits.shape[1], device=grades.device)
    losses = F.binary_cross_entropy_with_logits(logits, worse.to(logits.dtype), reduction="none").mean(dim=1)
    return losses if weight is None else losses * weight


def ordered_counts(grades: NDArray[np.int64], classes: Classes) -> NDArray[np.int64]:
    """Return the images of each class (K,). Raises DataError where a class has none."""
    counts = np.bincount(grades, minlength=len(classes.names))
    if (counts == 0).any():
        missing = ", ".join(name for name, count in zip(classes.names, counts.tolist(), strict=True) if count == 0)
        raise DataError(
            f"no training image has the class {missing}: a classifier cannot learn it",
            cause="the class is rare or unused, or its women are in validation and test",
            next_step="join it with its neighbour: the same name in the manifest, and one name less in classes of "
            'site.toml; or labels = "binary" in table [classifier] of the recipe',
        )
    return counts


def class_probabilities(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability of each class (n, K) of those of "worse than class k" (n, K - 1); these fall in a row."""
    edges = np.column_stack([np.ones(len(levels)), levels, np.zeros(len(levels))])
    return np.asarray(edges[:, :-1] - edges[:, 1:])
