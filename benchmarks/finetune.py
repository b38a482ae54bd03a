"""How fast is the classifier's fine-tuning at the paper's batch of 4? Ours, a plain torchvision loop, the bare step.

    python benchmarks/finetune.py [--quick] [--json FILE] [--rows resnet18/64 ...] [--precision bfloat16]

The sides, which take turns in one process, with the same threads, network, batch, precision and SGD:

    ours         site_agent.classifier.finetune.finetune on images decoded once. An epoch's steps count, its validation
    does not.
    bare         forward, loss, backward, optimiser on one tensor that is in its place: the limit.
    torchvision  ImageFolder, Resize, ToTensor, Normalize, DataLoader, BCEWithLogitsLoss, on the folder of 2-megapixel
                 JPEG files; worker count and memory format chosen in its favour, row by row; without our determinism.

Neither augments (the paper's classifier does not). A row is ARCHITECTURE/PX.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from benchmarks import command_line
from benchmarks.command_line import PRECISIONS, Timing, begins_with, command
from benchmarks.loaders import Batches, Choice, as_it_comes, best_choice, worker_counts
from benchmarks.photographs import Pixels, repeated
from benchmarks.sides import (
    Run,
    Side,
    cast,
    cores,
    in_turn,
    medians,
    overhead,
    pace,
    ratio,
    steps_for,
    synchronise,
    table,
    turns_for,
    warmed,
    write,
)
from fedcervix.core.plan import Architecture, ClassifierRecipe, Precision, Recipe
from site_agent.classifier.finetune import build_classifier, finetune
from site_agent.data.collection import Image
from site_agent.data.image_sets import Labelled
from site_agent.network.augmentation import IMAGENET_MEAN, IMAGENET_STD
from site_agent.network.devices import Machine, place
from site_agent.network.encoder import build_backbone, feature_count
from site_agent.training.context import TrainingContext

SHAPES: tuple[tuple[Architecture, int], ...] = (
    ("resnet18", 64),
    ("resnet18", 128),
    ("resnet50", 224),
    ("efficientnet_lite0", 128),
)
QUICK = ("resnet18/64",)
ROW_S = 20.0
SEED = 0
CLASSES = ("control", "case")


@dataclass(frozen=True, slots=True)
class Row:
    """What is compared on."""

    architecture: Architecture
    px: int
    precision: Precision

    @property
    def name(self) -> str:
        return f"{self.architecture}/{self.px}"

    @property
    def recipe(self) -> Recipe:
        return Recipe(architecture=self.architecture, image_px=self.px, precision=self.precision)


@dataclass(frozen=True, slots=True)
class Bench:
    """How this run measures."""

    device: torch.device
    files: Path
    """a folder of images for each class"""
    pixels: dict[int, Pixels]
    timing: Timing


def ours(row: Row, pixels: Pixels, device: torch.device) -> Run:
    """Return our side: so many steps of an epoch, after a first one that does not count.

    The one place that knows how our classifier is told to run its step. On a GPU the second epoch counts: what is
    made once (a CUDA graph) is made in the first. Labels take turns: what the images show does not matter here.
    """
    epochs = 2 if device.type == "cuda" else 1
    recipe = dataclasses.replace(row.recipe, classifier=ClassifierRecipe(epochs_max=epochs))
    classifier, _ = build_classifier(recipe, SEED, None)
    valid = Labelled(pixels[:2], np.array([0, 1]), ("a", "b"))
    ends: list[float] = []

    def mark(_epoch: int, step: int, steps: int) -> None:
        if step in (1, steps):
            synchronise(device)
            ends.append(time.perf_counter())

    def run(steps: int) -> float:
        count = (1 + steps) * recipe.classifier.batch_images
        train = Labelled(repeated(pixels, count), np.arange(count) % 2, tuple(map(str, range(count))))
        finetune(
            classifier,
            train,
            valid,
            TrainingContext(recipe=recipe, seed=SEED, stream="benchmark", machine=Machine(device)),
            on_epoch=lambda _record: None,
            on_step=mark,
        )
        return ends[-1] - ends[-2]

    return run


def bare(row: Row, device: torch.device) -> Run:
    """Return the limit: the step alone."""
    terms = row.recipe.classifier
    classifier, _ = build_classifier(row.recipe, SEED, None)
    place(classifier.train(), device)
    optimiser = torch.optim.SGD(
        classifier.parameters(), lr=terms.lr, momentum=terms.momentum, weight_decay=terms.weight_decay
    )
    x = torch.randn(terms.batch_images, 3, row.px, row.px, generator=torch.Generator().manual_seed(SEED))
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    y = (torch.arange(terms.batch_images, device=device) % 2).float()

    def run(steps: int) -> None:
        for _ in range(steps):
            with cast(device, row.precision):
                logits = classifier(x).float()
            loss = F.binary_cross_entropy_with_logits(logits, y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        synchronise(device)

    return run


@contextmanager
def plain_torchvision(row: Row, files: Path, choice: Choice, device: torch.device) -> Iterator[Run]:
    """Yield the loop that every tutorial shows."""
    terms = row.recipe.classifier
    transform = Compose([Resize((row.px, row.px)), ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    batches = Batches(ImageFolder(str(files), transform), terms.batch_images, choice.workers, pin=device.type == "cuda")
    model = nn.Sequential(build_backbone(row.architecture), nn.Linear(feature_count(row.architecture), 1))
    model.to(device=device, memory_format=choice.memory_format).train()
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=terms.lr, momentum=terms.momentum, weight_decay=terms.weight_decay
    )

    def run(steps: int) -> None:
        total = torch.zeros((), device=device)
        with as_it_comes():
            for x, y in batches.take(steps):
                x = x.to(device, memory_format=choice.memory_format, non_blocking=True)
                y = y.to(device, non_blocking=True).float()
                with cast(device, row.precision):
                    loss: Tensor = criterion(model(x).squeeze(1).float(), y)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += loss.detach()
            synchronise(device)

    try:
        yield run
    finally:
        batches.close()


def measure(row: Row, bench: Bench) -> dict[str, Any]:
    """Measure one row."""
    batch, device, turn_s = row.recipe.classifier.batch_images, bench.device, bench.timing.turn_s
    sides = []
    for name, run in (
        ("ours", ours(row, bench.pixels[row.px], device)),
        ("bare", bare(row, device)),
    ):
        sides.append(Side(name, run, batch, steps_for(warmed(run, device), turn_s)))

    def rate(choice: Choice) -> float:
        with plain_torchvision(row, bench.files, choice, device) as run:
            run(choice.burst)
            return batch * pace(run, choice.burst, turn_s)

    choice, tried = best_choice(rate, worker_counts(cores()))
    with plain_torchvision(row, bench.files, choice, device) as run:
        run(choice.burst)
        steps = steps_for(batch / max(tried.values()), turn_s, multiple=choice.burst)
        sides.append(Side("torchvision", run, batch, steps))
        turns = turns_for(3 * turn_s, ROW_S, bench.timing.turns_fewest, bench.timing.turns_most)
        rates = in_turn(sides, turns)
    return {
        "row": row.name,
        **asdict(row),
        "batch": batch,
        "images_per_s": medians(rates),
        "each_turn": rates,
        "turns": turns,
        "data_path": overhead(rates, "ours", "bare"),
        "times_torchvision": ratio(rates, "ours", "torchvision"),
        "torchvision": {"choice": str(choice), "tried": tried},
    }


def columns(found: dict[str, Any]) -> list[str]:
    """Return one row of the table."""
    middle = found["images_per_s"]
    return [
        found["row"],
        found["precision"],
        f"{middle['ours']:.1f}",
        f"{middle['bare']:.1f}",
        f"{100 * found['data_path']:+.1f} %",
        f"{middle['torchvision']:.1f} ({found['torchvision']['choice']})",
        f"{found['times_torchvision']:.2f}",
        str(found["turns"]),
    ]


HEAD = ("row", "precision", "ours", "bare", "data path costs", "torchvision", "ours / torchvision", "turns")


def by_class(folder: Path, files: Path, images: Sequence[Image]) -> Path:
    """Lay the labelled files out as ImageFolder wants them, a folder for each class, without copying."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for image in images:
        assert image.label is not None
        (folder / CLASSES[image.label] / Path(image.path).name).symlink_to((files / image.path).resolve())
    return folder


def main() -> None:
    """Measure and print."""
    asked = command_line.parser(__doc__).parse_args()
    device, found = command_line.begin("finetune", asked)
    patterns = asked.rows or (QUICK if asked.quick else None)
    rows = [Row(*shape, kind) for shape in SHAPES for kind in PRECISIONS if asked.precision in (None, kind)]
    rows = [row for row in rows if begins_with(row.name, patterns)]
    with tempfile.TemporaryDirectory() as folder:
        drawn = command_line.draw(asked, Path(folder) / "nhs", found)
        labelled = [image for image in drawn.collection.images if image.label is not None]
        bench = Bench(
            device,
            by_class(Path(folder) / "classes", drawn.folder, labelled),
            command_line.squares(drawn, labelled, [row.px for row in rows], found),
            command_line.timing(asked),
        )
        found["rows"] = []
        for row in rows:
            found["rows"].append(measure(row, bench))
            write(asked.json, found)
            print(" | ".join(columns(found["rows"][-1])), flush=True)
    print(f"\nImages per second at a batch of 4, medians over turns; {command()}\n")
    print(table(HEAD, [columns(row) for row in found["rows"]]))


if __name__ == "__main__":
    main()
