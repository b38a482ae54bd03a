"""Several trainings of a classifier as one network: its score is the mean of theirs.

Trainings that differ in their random numbers alone disagree, above all where labels are few. The mean of their
probabilities varies less from one seed to the next, and costs one pass for each of them (Lakshminarayanan et al.,
Simple and scalable predictive uncertainty estimation using deep ensembles, NeurIPS 2017).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class AveragedClassifier(nn.Module):
    """The networks of several trainings. Its tensors are called `trainings.NUMBER.` and what they are called there."""

    def __init__(self, trainings: Iterable[nn.Module]) -> None:
        super().__init__()
        self.trainings = nn.ModuleList(trainings)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean probability of case (B,) of standardised images (B, 3, S, S)."""
        return torch.stack([torch.sigmoid(one(x)) for one in self.trainings]).mean(dim=0)
