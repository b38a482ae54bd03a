"""Can a linear probe tell from a representation which site an image comes from? Test women take no part.

Devices differ, so a representation that knows its site has learned the device. Whether that harms is another question:
this says how much is there. Random weights are probed as well, for comparison.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from cervix_study.execution.classifiers import start_of
from cervix_study.execution.worker_context import WorkerContext
from cervix_study.records import Cell, ProbeResults
from fedcervix.core.plan import Recipe
from fedcervix.core.seeds import derive
from site_agent.network.devices import place
from site_agent.network.encoder import BACKBONE, Encoder, apply_weights, backbone_state, build_encoder
from site_agent.training.knn_probe import embed, linear_predictions

PARTS: tuple[Literal["train"], Literal["valid"]] = ("train", "valid")


def probe(bench: WorkerContext, cell: Cell) -> ProbeResults:
    """Fit the probe on training women's images of all sites, ask it for those of validation women."""
    recipe = bench.settled(cell.recipe, cell.sites[0], cell.fold)
    device = bench.machine(cell.sites[0], cell.fold).device
    encoder = _starting(bench, cell, recipe)
    place(encoder, device)
    features, sites = {}, {}
    for part in PARTS:
        parts = [bench.images((site,), cell.fold, recipe, part) for site in cell.sites]
        features[part] = np.concatenate([embed(encoder, images.pixels, device) for images in parts])
        sites[part] = np.concatenate([np.full(len(images), k) for k, images in enumerate(parts)])
    told = linear_predictions(features["train"], sites["train"], features["valid"])
    recall = {site: float(np.mean(told[sites["valid"] == number] == number)) for number, site in enumerate(cell.sites)}
    return ProbeResults(
        balanced_accuracy=float(np.mean(list(recall.values()))),
        chance=1 / len(cell.sites),
        recall=recall,
        images={site: int(np.count_nonzero(sites["valid"] == number)) for number, site in enumerate(cell.sites)},
    )


def _starting(bench: WorkerContext, cell: Cell, recipe: Recipe) -> Encoder:
    """Return what a classifier of this start begins from; random weights are those that it draws itself."""
    encoder = build_encoder(recipe, derive(cell.seed, "classifier-backbone"))
    state = start_of(bench, cell, recipe)
    if state is not None:
        backbone = {name.removeprefix(BACKBONE): tensor for name, tensor in backbone_state(state).items()}
        apply_weights(encoder.backbone, backbone, what=f"the start of cell {cell.key}")
    return encoder
