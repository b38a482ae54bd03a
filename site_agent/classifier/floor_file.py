"""A floor as a file of weights, like every other classifier of a study."""

from __future__ import annotations

from pathlib import Path

import torch

from site_agent.classifier.floor import Floor
from site_agent.network.encoder import load_weights, save_weights

TENSOR = "floor"


def save(file: Path, floor: Floor) -> str:
    """Write a floor; return the SHA-256 of its file. Raises StorageError."""
    return save_weights(file, {TENSOR: torch.from_numpy(floor.row())})


def load(file: Path) -> Floor:
    """Return the floor of a file. Raises ModelError, StorageError; ValueError where the file holds something else."""
    return Floor.of_row(load_weights(file).get(TENSOR, torch.empty(0)).numpy())
