"""What does it cost to send fewer bytes? The same federations with and without compression, over seeds.

    python benchmarks/compression.py [--seeds 6] [--rounds 8] [--women 12] [--quick] [--json FILE]

Two phantom institutions train together (csfssl, one epoch a round) in this process, with the trainer, the rounding and
the average of the real roles; there is no network. Every seed draws a first model, an order of images and their
augmentation, and is trained once for each choice:

    none                    exact float32
    bfloat16                every model rounded to bfloat16
    int8                    8-bit differences to the base, what is rounded away carried on at either end
    int8 without feedback   the same, but it is lost: what the feedback is worth (no plan can ask for this)

After the last round the model is scored as in a run (contrastive loss on the sites' validation images, the mean of the
sites) and its features by a linear probe and nearest neighbours on the labelled training and validation women, in folds
by woman (see recipes.py). A difference is to `none` with the same seed, the mean over seeds with its 95 % interval (t).
On every site's line a model travels twice a round; its size is that of the form in which it does. Cells are kept in the
JSON file: what was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from benchmarks.command_line import command
from benchmarks.payloads import RESNET50, changed
from benchmarks.recipes import PROBES, Cells, Site, probe_auc, scores, sites_of, who
from benchmarks.sides import machine, table, write
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.profiles import PROFILES
from fedcervix.core.seeds import derive
from fedcervix.disk.files import digest_file
from fedcervix.models.aggregate import aggregate
from fedcervix.models.quantization import Feedback, Origin, pack, unpack
from fedcervix.models.weights import read_layout
from site_agent.data.image_sets import Images
from site_agent.network.devices import Machine, place, prepare
from site_agent.network.encoder import Encoder, apply_weights, build_encoder, load_weights, save_weights, snapshot
from site_agent.training.context import TrainingContext
from site_agent.training.loop import train_epochs, validation_loss
from site_agent.training.steps import make_learner

CPU = torch.device("cpu")
NONE = "none"
CHOICES = (NONE, "bfloat16", "int8", "int8 without feedback")
COORDINATOR = "coordinator"
MINUS = "minus none (95 %)"
TURNS = 5
ROUNDING = ("choice", "MB a model", "share", "s to round and pack", "s to unpack")
HEAD = ("choice", "MB a model", "share", "validation loss", MINUS, "linear probe AUC", MINUS, "k-NN AUC", MINUS)


@dataclass
class Maker:
    """A site or the coordinator: how it rounds what it makes, and what it carries on."""

    folder: Path
    choice: str
    carried: Path | None = None
    travelled: list[int] = field(default_factory=list)
    """bytes of every model it made"""

    def make(self, exact: Path, base: Path, to: Path) -> None:
        """Write the model that an exact one is rounded to."""
        if self.choice == NONE:
            exact.replace(to)
            self.travelled.append(to.stat().st_size)
            return
        packed, origin = self.folder / "packed", None if self.choice == "bfloat16" else Origin(digest_file(base), base)
        packing = "bfloat16" if origin is None else "int8"
        left = self.folder / f"left-{len(self.travelled)}"
        feeds = self.choice == "int8"
        pack(exact, packed, packing, origin, Feedback(self.carried, left) if feeds else None)
        unpack(packed, to, packing, origin)
        self.travelled.append(packed.stat().st_size)
        if feeds and self.carried is not None:
            self.carried.unlink()
        self.carried = left if feeds else None


@dataclass(frozen=True, slots=True)
class Part:
    """A site's images for training and for validation."""

    site: Site
    train: Images
    valid: Images


def parts(sites: Sequence[Site], recipe: Recipe) -> Iterator[Part]:
    for site in sites:
        chosen = site.collection.contrastive("valid")
        valid = Images(site.pixels(chosen, recipe), tuple(image.woman for image in chosen))
        yield Part(site, site.train(recipe), valid)


def federate(folder: Path, plan: Plan, choice: str, among: Sequence[Part]) -> tuple[Encoder, list[float], list[int]]:
    """Run a federation; return the last model, the validation loss after every round, the bytes of every model."""
    makers = {part.site.name: Maker(folder / part.site.name, choice) for part in among}
    makers[COORDINATOR] = Maker(folder / COORDINATOR, choice)
    for maker in makers.values():
        maker.folder.mkdir(parents=True)
    model, encoder = folder / "model-0", build_encoder(plan.recipe, derive(plan.terms.seed, "first-model"))
    place(encoder, CPU)
    save_weights(model, snapshot(encoder))
    losses = []
    for round_ in range(1, plan.rounds_max + 1):
        updates = [_update(part, makers[part.site.name], plan, encoder, model, round_) for part in among]
        exact, after = folder / "exact", folder / f"model-{round_}"
        aggregate([(update, 1.0) for update in updates], read_layout(model), exact, plan.terms.batch_norm)
        makers[COORDINATOR].make(exact, model, after)
        model.unlink()
        model = after
        _load(encoder, model)
        losses.append(statistics.mean(_loss(encoder, part, plan) for part in among))
    return encoder, losses, [size for maker in makers.values() for size in maker.travelled]


def _load(encoder: Encoder, model: Path) -> None:
    apply_weights(encoder, load_weights(model), what="the model of the round")


def _update(part: Part, maker: Maker, plan: Plan, encoder: Encoder, base: Path, round_: int) -> Path:
    """Train an epoch from the round's model, as `site_agent.worker.tasks` does."""
    _load(encoder, base)
    context = _context(part, plan)
    learner = make_learner(encoder, context)
    train_epochs(learner, part.train, context, range(round_, round_ + 1), on_step=lambda _step: None)
    exact, update = maker.folder / "exact", maker.folder / "update"
    save_weights(exact, snapshot(encoder))
    maker.make(exact, base, update)
    return update


def _loss(encoder: Encoder, part: Part, plan: Plan) -> float:
    return validation_loss(encoder, part.valid, _context(part, plan)).loss


def _context(part: Part, plan: Plan) -> TrainingContext:
    return TrainingContext(
        recipe=plan.recipe,
        seed=plan.terms.seed,
        stream=part.site.name,
        machine=Machine(CPU),
        epochs_total=plan.rounds_max,
    )


def cell(plan: Plan, choice: str, among: Sequence[Part]) -> dict[str, Any]:
    """Train one choice with one seed, and score it."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        encoder, losses, sizes = federate(Path(folder), plan, choice, among)
    found = {part.site.name: scores(part.site, encoder, plan.recipe, CPU) for part in among}
    seconds = round(time.monotonic() - started, 1)
    made = {"choice": choice, "seed": plan.terms.seed, "losses": losses, "model_bytes": statistics.mean(sizes)}
    return {**made, "scores": found, "seconds": seconds}


# --- what rounding takes -------------------------------------------------------------------------------------------


def rounding(folder: Path) -> Iterator[list[str]]:
    """Yield, by choice, a ResNet-50's bytes on the line, and the seconds to round and pack it and to unpack it."""
    base, exact, packed, model = (folder / name for name in ("base", "exact", "packed", "model"))
    RESNET50.write(base)
    changed(base, exact, 1.0)
    for choice, origin in (("bfloat16", None), ("int8", Origin(digest_file(base), base))):
        packs, unpacks = [], []
        for _ in range(TURNS):
            began_s = time.perf_counter()
            pack(exact, packed, choice, origin, Feedback(None, folder / "left") if origin else None)
            packed_s = time.perf_counter()
            unpack(packed, model, choice, origin)
            packs.append(packed_s - began_s)
            unpacks.append(time.perf_counter() - packed_s)
        sizes = packed.stat().st_size, base.stat().st_size
        seconds = [f"{statistics.median(times):.2f}" for times in (packs, unpacks)]
        yield [choice, f"{sizes[0] / 1e6:.1f}", f"{sizes[0] / sizes[1]:.1%}", *seconds]


# --- the table ----------------------------------------------------------------------------------------------------


def apart(values: Sequence[float]) -> str:
    """Return the mean of differences with its 95 % interval by Student's t, as text."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"


def line(cells: Cells, sites: Mapping[str, Any], choice: str) -> list[str]:
    """Return a choice's line of the table."""
    mine, plain = by_seed(cells, choice), by_seed(cells, NONE)
    model_bytes = statistics.mean(found["model_bytes"] for found in mine.values())
    share = model_bytes / statistics.mean(found["model_bytes"] for found in plain.values())
    cells_of = [choice, f"{model_bytes / 1e6:.1f}", f"{share:.1%}"]
    for measure in measures(sites):
        cells_of.append(f"{statistics.mean(map(measure, mine.values())):.4f}")
        pairs = [(mine[seed], plain[seed]) for seed in sorted(mine.keys() & plain.keys())]
        cells_of.append(apart([measure(one) - measure(two) for one, two in pairs]) if choice != NONE else "")
    return cells_of


def by_seed(cells: Cells, choice: str) -> dict[int, Mapping[str, Any]]:
    """Return the cells of a choice."""
    return {found["seed"]: found for found in cells.values() if found["choice"] == choice}


def measures(sites: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], float]]:
    """Yield what a cell is measured by: the last validation loss, and the sites' mean AUC by either probe."""
    yield lambda cell: cell["losses"][-1]
    for probe in PROBES:
        yield lambda cell, probe=probe: statistics.mean(probe_auc(cell, site, sites[site], probe) for site in sites)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", type=int, default=6)
    made.add_argument("--rounds", type=int, default=8)
    made.add_argument("--women", type=int, default=12, help="labelled women of each institution")
    made.add_argument("--px", type=int, default=32)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--only", action="append", choices=CHOICES)
    made.add_argument("--quick", action="store_true", help="two seeds, two rounds")
    made.add_argument("--json", type=Path, metavar="FILE", help="keep all figures here, after every cell")
    asked = made.parse_args()
    if asked.quick:
        asked.seeds, asked.rounds = 2, 2
    asked.phantoms, asked.collection = asked.women, []
    return asked


def plan_of(asked: argparse.Namespace, sites: Sequence[Site], seed: int) -> Plan:
    """Return what is trained: profile `recommended`, but small."""
    recommended = PROFILES["recommended"].recipe
    changed = {"architecture": "resnet18", "image_px": asked.px, "epochs_max": asked.rounds, "precision": "float32"}
    terms = Terms(rounds=asked.rounds, patience_rounds=asked.rounds, seed=seed)
    names = tuple(site.name for site in sites)
    recipe = replace(recommended, **changed)
    return Plan(mode="csfssl", sites=names, profile="recommended", terms=terms, recipe=recipe)


def main() -> None:
    """Fill the cells, and print the tables."""
    asked = arguments()
    prepare(CPU, asked.threads)
    kept: dict[str, Any] = {"program": "compression", "cells": {}}
    if asked.json and asked.json.exists():
        kept = json.loads(asked.json.read_text())
    kept |= {"arguments": command(), "machine": machine(CPU)}
    cells = kept["cells"]
    with tempfile.TemporaryDirectory() as folder:
        sites = list(sites_of(asked, Path(folder)))
        kept["sites"] = {site.name: who(site) for site in sites}
        among = list(parts(sites, plan_of(asked, sites, 0).recipe))
        print({part.site.name: (len(part.train), len(part.valid)) for part in among}, "images (train, valid)")
        for seed in range(asked.seeds):
            for choice in asked.only or CHOICES:
                key = f"{choice} / seed {seed}"
                if key not in cells:
                    cells[key] = cell(plan_of(asked, sites, seed), choice, among)
                    write(asked.json, kept)
                    print(f"{key}: loss {cells[key]['losses'][-1]:.4f}, {cells[key]['seconds']} s", flush=True)
        print(f"\nResNet-50\n{table(ROUNDING, list(rounding(Path(folder))))}")
    print(f"\n{command()}\n")
    print(table(HEAD, [line(cells, kept["sites"], choice) for choice in asked.only or CHOICES]))


if __name__ == "__main__":
    main()
