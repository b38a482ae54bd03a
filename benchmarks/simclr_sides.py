"""The sides of the contrastive benchmark: our trainer, the bare step, and lightly's SimCLR. See trainer.py."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.loaders import Batches, Choice, as_it_comes
from benchmarks.photographs import Pixels, repeated
from benchmarks.sides import Run, cast, synchronise
from fedcervix.core.plan import Architecture, Precision, Recipe
from site_agent.data.image_sets import Images
from site_agent.network.devices import Acceleration, Machine, place
from site_agent.network.encoder import Encoder, build_backbone, build_encoder, feature_count
from site_agent.network.loss import LOSSES
from site_agent.network.optimizer import make_optimiser
from site_agent.training.context import TrainingContext
from site_agent.training.loop import TrainedEpoch, train_epochs
from site_agent.training.steps import make_learner

PAPER_IMAGES, PAPER_EPOCHS = 5_174, 50
SEED = 0


@dataclass(frozen=True, slots=True)
class Row:
    """What is compared on."""

    architecture: Architecture
    px: int
    n: int
    precision: Precision

    @property
    def name(self) -> str:
        return f"{self.architecture}/{self.px}/{self.n}"

    @property
    def group(self) -> tuple[str, int, str]:
        """Rows of one group differ in N alone."""
        return self.architecture, self.px, self.precision

    @property
    def views(self) -> int:
        return 2 * self.n

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            architecture=self.architecture,
            image_px=self.px,
            batch_images=self.n,
            precision=self.precision,
            views="both-augmented",
        )


OneEpoch = Callable[[Images], TrainedEpoch]


def our_trainer(recipe: Recipe, device: torch.device, acceleration: Acceleration) -> OneEpoch:
    """Return our trainer with a fresh encoder: each call trains one epoch more, with one and the same step."""
    machine = Machine(device, acceleration)
    context = TrainingContext(recipe=recipe, seed=SEED, stream="benchmark", machine=machine)
    learner = make_learner(build_encoder(recipe, SEED), context)
    epochs = itertools.count(1)

    def train(images: Images) -> TrainedEpoch:
        number = next(epochs)
        [record] = train_epochs(learner, images, context, range(number, number + 1), on_step=lambda _step: None)
        return record

    return train


def images_of(pixels: Pixels, count: int) -> Images:
    """Return `count` images, each of another woman."""
    return Images(repeated(pixels, count), tuple(map(str, range(count))))


def ours(row: Row, pixels: Pixels, device: torch.device, acceleration: Acceleration) -> Run:
    """Return our side: so many steps are one epoch of as many images as that takes."""
    train = our_trainer(row.recipe, device, acceleration)
    known: dict[int, Images] = {}

    def run(steps: int) -> None:
        if steps not in known:
            known[steps] = images_of(pixels, steps * row.n)
        train(known[steps])

    return run


def bare(row: Row, device: torch.device, acceleration: Acceleration) -> Run:
    """Return the limit: the step alone."""
    recipe = row.recipe
    encoder = build_encoder(recipe, SEED).train()
    place(encoder, device)
    optimiser = make_optimiser(encoder, recipe)
    forward = bare_forward(encoder, row, device)

    def step() -> None:
        loss = forward()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    take = captured(step) if acceleration == "graph" else step

    def run(steps: int) -> None:
        for _ in range(steps):
            take()
        synchronise(device)

    return run


def bare_forward(encoder: Encoder, row: Row, device: torch.device) -> Callable[[], Tensor]:
    """Return the way from a tensor in its place to the loss."""
    x = torch.randn(row.views, 3, row.px, row.px, generator=torch.Generator().manual_seed(SEED))
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    recipe = row.recipe

    def forward() -> Tensor:
        with torch.autocast(
            device.type,
            dtype=torch.bfloat16,
            enabled=row.precision == "bfloat16",
            cache_enabled=False,  # a weight is used once in a step; in a CUDA graph a kept copy would be wrong
        ):
            f = encoder(x)
        return LOSSES[recipe.loss](f, recipe.temperature)

    return forward


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return the step as a CUDA graph."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class SimCLR(nn.Module):
    """The model of lightly's documentation, with a head like the paper's, so that both sides train one network."""

    def __init__(self, row: Row) -> None:
        from lightly.models.modules.heads import ProjectionHead  # here, so that --help needs no lightly

        super().__init__()
        self.backbone = build_backbone(row.architecture)
        self.projection_head = ProjectionHead([(feature_count(row.architecture), row.recipe.width, None, nn.ReLU())])

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.projection_head(self.backbone(x))
        return found


@contextmanager
def lightly(row: Row, files: Path, choice: Choice, device: torch.device) -> Iterator[Run]:
    """Yield lightly's side: the loop of its documentation."""
    from lightly.data import LightlyDataset
    from lightly.loss import NTXentLoss
    from lightly.transforms.simclr_transform import SimCLRTransform

    dataset = LightlyDataset(str(files), transform=SimCLRTransform(input_size=row.px))
    batches = Batches(dataset, row.n, choice.workers, pin=device.type == "cuda")
    model = SimCLR(row).to(device=device, memory_format=choice.memory_format)  # type: ignore[call-overload]
    recipe = row.recipe
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    criterion = NTXentLoss(temperature=recipe.temperature)

    def run(steps: int) -> None:
        total = torch.zeros((), device=device)
        with as_it_comes():
            for (x0, x1), _, _ in batches.take(steps):
                x0 = x0.to(device, memory_format=choice.memory_format, non_blocking=True)
                x1 = x1.to(device, memory_format=choice.memory_format, non_blocking=True)
                with cast(device, row.precision):
                    loss = criterion(model(x0), model(x1))
                total += loss.detach()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            synchronise(device)

    try:
        yield run
    finally:
        batches.close()


def paper_training(
    pixels: Pixels,
    device: torch.device,
    acceleration: Acceleration,
    row: Row,
    *,
    images: int = PAPER_IMAGES,
    epochs: int = PAPER_EPOCHS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Time the paper's whole contrastive training from a fresh encoder, capture or compilation included.

    Without validation, and on images that are decoded already (said beside it).
    """
    train = images_of(pixels, images)
    started = clock()
    one_epoch = our_trainer(row.recipe, device, acceleration)
    records = [one_epoch(train) for _ in range(epochs)]
    taken = clock() - started
    steps = sum(record.steps for record in records)
    return {
        "row": row.name,
        "precision": row.precision,
        "acceleration": acceleration,
        "images": images,
        "epochs": epochs,
        "steps": steps,
        "seconds": taken,
        "views_per_s": steps * row.views / taken,
        "first_loss": records[0].loss,
        "last_loss": records[-1].loss,
    }
