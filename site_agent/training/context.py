"""What stays the same while a network trains: by which recipe, with whose random numbers, on which machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedcervix.core.plan import Recipe
from site_agent.network.devices import Machine
from site_agent.training.ddp import ALONE, Team


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingContext:
    """Of contrastive training, and of fine-tuning a classifier; the last three fields are for the first alone."""

    recipe: Recipe
    seed: int
    stream: str
    """whose random numbers are drawn, such as a site's name: two trainings of one stream see the same mini-batches"""
    machine: Machine
    clock: Callable[[], float] = time.monotonic
    team: Team = ALONE
    epochs_total: int | None = None
    """of the whole run, over which the learning rate is scheduled; None: the recipe's `epochs_max`"""
    one_site_batches: bool = False
    """no mini-batch of pooled images mixes the sites; validation mixes them all the same"""

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.machine.device
