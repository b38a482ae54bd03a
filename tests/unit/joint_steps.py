"""A few training steps, alone or as one of a team: `python joint_steps.py FOLDER` under MASTER_ADDR, RANK and so on.

Every rank writes what it came to; `test_team` compares that with the same steps taken by one process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fedcervix.core.plan import Recipe
from site_agent.data.batches import batches
from site_agent.data.image_sets import Images
from site_agent.manifest.details import ImageDetails
from site_agent.network.augmentation import apply, standardise, to_input
from site_agent.network.devices import Machine
from site_agent.network.encoder import Encoder, build_encoder, unit_rows
from site_agent.network.loss import LOSSES
from site_agent.network.optimizer import make_optimiser
from site_agent.network.views import training_draws
from site_agent.training.context import TrainingContext
from site_agent.training.ddp import Team, agreed, assemble, gather_views, hear, share, share_rows, tell, wrap
from site_agent.training.pairing import training_pairs
from site_agent.training.sync_batch_norm import join_batch_norm

CPU = torch.device("cpu")
IMAGES, PX, STEPS = 24, 32, 3
"""three batches of eight: one epoch"""
SMALL: dict[str, Any] = {
    "architecture": "resnet18",
    "image_px": PX,
    "batch_images": 8,
    "temperature": 0.5,
    "avoid_same_patient": True,
}
RECIPES = {
    "one-augmented": Recipe(**SMALL),
    "both-augmented": Recipe(  # has a BatchNorm1d, too; women meet themselves, and are paired
        **SMALL | {"avoid_same_patient": False},
        views="both-augmented",
        head="mlp",
        loss="dcl",
        positives="same-stage-visit",
    ),
}
REQUEST = "train: Zervix, шейка матки"


class Exact(nn.Module):
    """The encoder without its last step to float32."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        f: Tensor = self.encoder.head(self.encoder.features(x))
        return unit_rows(f)


def both_views(pixels: Tensor, packed: Tensor, partners: Tensor | None = None) -> Tensor:
    """As `views.views`, in float64."""
    originals, packed = to_input(pixels).double(), packed.double()
    others = originals if partners is None else to_input(partners).double()
    if len(packed) == len(pixels):
        return standardise(torch.cat([originals, apply(others, packed)]))
    return standardise(apply(torch.cat([originals, others]), packed))


def train(recipe: Recipe, team: Team) -> dict[str, Tensor]:
    """Take the steps; return the losses, the weights, and the representations of the last joint batch."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, PX, PX, 3), np.uint8)
    women = tuple(f"w{image // 3}" for image in range(IMAGES))
    images = Images(pixels, women, details=(ImageDetails(stage="acetic", visit="1"),) * IMAGES)
    context = TrainingContext(recipe=recipe, seed=4, stream="nhs", machine=Machine(CPU), team=team)
    encoder = build_encoder(recipe, 1).double().train()
    optimiser = make_optimiser(encoder, recipe)
    join_batch_norm(encoder, team)
    network = wrap(Exact(encoder), team, CPU)
    order = batches(IMAGES, recipe.batch_images, 2, patients=women, avoid_same_patient=recipe.avoid_same_patient)
    losses, f = [], torch.empty(0)
    for step, chosen in enumerate(order[:STEPS]):
        drawn = training_draws(len(chosen), recipe, seed=3, stream="nhs", epoch=1, step=step)
        pairs = training_pairs(images, chosen, context, epoch=1, step=step)
        mine = torch.from_numpy(pixels[share(chosen, team)])
        x = both_views(mine, share_rows(drawn, len(chosen), team), *pairs[:1])
        f = gather_views(network(x), team)
        loss = LOSSES[recipe.loss](f.double(), recipe.temperature, *pairs[1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    weights = {f"model.{name}": tensor.detach().clone() for name, tensor in encoder.state_dict().items()}
    return {"losses": torch.stack(losses), "f": f.detach(), **weights}


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    team = assemble(CPU)
    for name, recipe in RECIPES.items():
        safetensors.torch.save_file(train(recipe, team), Path(sys.argv[1]) / f"{name}-{team.rank}.safetensors")
    if team.leads:
        tell(REQUEST, team)
    else:
        assert hear(team) == REQUEST
    assert agreed(f"of rank {team.rank}", team) == "of rank 0"
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
