"""What an audit of an update costs: seconds to score 500 images, by network. The statistics take a second more.

    python benchmarks/audit.py [--images 500] [--threads 2] [--only NAME ...] [--json FILE]

Random pictures of as many training women as test women, one image of each. `cpu` is the time that all threads worked,
divided by their number: on a machine that others use too, it is nearer to the seconds of a quiet one than `wall` is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch

from fedcervix.core.plan import Precision, Recipe
from site_agent.data.image_sets import Images
from site_agent.network.devices import Machine, prepare
from site_agent.network.encoder import build_encoder, snapshot
from site_agent.training.context import TrainingContext
from site_agent.training.membership_audit import PASSES, VIEWS, Sides, scores

NETWORKS: dict[str, Recipe] = {
    "ResNet-18, 64 px": Recipe(architecture="resnet18", image_px=64, batch_images=16),
    "ResNet-18, 224 px": Recipe(architecture="resnet18", image_px=224),
    "ResNet-50, 224 px": Recipe(),
}


def main() -> None:
    asked = _arguments()
    device = torch.device("cpu")
    prepare(device, asked.threads)
    print(f"{asked.images} images, {VIEWS} views, {PASSES} passes, {asked.threads} threads, {asked.precision}")
    print("network              wall s     cpu s")
    found: dict[str, dict[str, float]] = {}
    for name in asked.only or NETWORKS:
        found[name] = _measured(NETWORKS[name], asked.images, asked.threads, asked.precision)
        print(f"{name:20s}{found[name]['wall_s']:7.1f}{found[name]['cpu_s']:10.1f}", flush=True)
    if asked.json:
        Path(asked.json).write_text(json.dumps(found, indent=1))


def _measured(recipe: Recipe, images: int, threads: int, precision: Precision) -> dict[str, float]:
    """Return the seconds of one audit."""
    recipe = dataclasses.replace(recipe, precision=precision)
    rng = np.random.default_rng(0)
    sides = []
    for side in ("train", "test"):
        pixels = rng.integers(0, 256, (images // 2, recipe.image_px, recipe.image_px, 3), np.uint8)
        sides.append(Images(pixels, tuple(f"{side}-{woman}" for woman in range(images // 2))))
    base, update = (snapshot(build_encoder(recipe, seed)) for seed in (1, 2))
    machine = Machine(torch.device("cpu"))
    context = TrainingContext(recipe=recipe, seed=0, stream="site", machine=machine)
    wall, cpu = time.perf_counter(), time.process_time()
    scores(build_encoder(recipe, 0), base, update, Sides(*sides), context)
    return {"wall_s": time.perf_counter() - wall, "cpu_s": (time.process_time() - cpu) / threads}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS))
    parser.add_argument("--json", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
