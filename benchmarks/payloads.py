"""Models for benchmarks that move and average: the tensors of ResNet-50, many of them, or hardly any.

No torch: the coordinator's side and its clients are light. The values are small random numbers, which no compression
shortens; what is measured depends on their number alone.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcervix.disk.files import opened, read_at, writing
from fedcervix.models.weights import BLOCK_BYTES, read_layout, write_tensors

Shapes = Iterator[tuple[str, tuple[int, ...]]]

SEED = 0
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""width and number of the bottlenecks in each stage of ResNet-50 (He et al. 2016, table 1)"""
EXPANSION = 4
SMALL_NUMBERS = 25_000
"""100 KB"""


@dataclass(frozen=True, slots=True)
class Payload:
    """A model by name: so many copies of ResNet-50's encoder, or a small vector where there are none."""

    name: str
    copies: int

    @property
    def size_bytes(self) -> int:
        """How long the file is, but for its header."""
        return 4 * (self.copies * sum(math.prod(shape) for _, shape in resnet50() if shape) or SMALL_NUMBERS)

    def write(self, path: Path) -> str:
        """Write the first model of a run; return its SHA-256. Copies share their values, and so their memory."""
        if not self.copies:
            return write_tensors(path, _filled(iter([("weight", (SMALL_NUMBERS,))])))
        one = _filled(resnet50())
        return write_tensors(path, {f"part{copy}.{name}": one[name] for copy in range(self.copies) for name in one})


SMALL = Payload("100 KB", 0)
RESNET50 = Payload("ResNet-50", 1)
LARGE = Payload("3 GB", 32)


def resnet50() -> Shapes:
    """Yield name and shape of every tensor of ResNet-50's encoder, as torchvision names them."""
    yield from _normed("conv1", "bn1", (64, 3, 7, 7))
    entering = 64
    for stage, (width, blocks) in enumerate(STAGES, 1):
        for block in range(blocks):
            yield from _bottleneck(f"layer{stage}.{block}.", entering, width, first=block == 0)
            entering = width * EXPANSION


def _bottleneck(prefix: str, entering: int, width: int, *, first: bool) -> Shapes:
    leaving = width * EXPANSION
    yield from _normed(f"{prefix}conv1", f"{prefix}bn1", (width, entering, 1, 1))
    yield from _normed(f"{prefix}conv2", f"{prefix}bn2", (width, width, 3, 3))
    yield from _normed(f"{prefix}conv3", f"{prefix}bn3", (leaving, width, 1, 1))
    if first:
        yield from _normed(f"{prefix}downsample.0", f"{prefix}downsample.1", (leaving, entering, 1, 1))


def _normed(convolution: str, norm: str, kernel: tuple[int, ...]) -> Shapes:
    yield f"{convolution}.weight", kernel
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{norm}.{part}", kernel[:1]
    yield f"{norm}.num_batches_tracked", ()


def _filled(shapes: Shapes) -> dict[str, NDArray[Any]]:
    chance = np.random.default_rng(SEED)
    drawn = {
        name: chance.standard_normal(shape, np.float32) if shape else np.zeros((), np.int64) for name, shape in shapes
    }
    return {name: np.abs(value) if name.endswith("running_var") else value for name, value in drawn.items()}


def changed(base: Path, to: Path, value: float) -> str:
    """Write `base` with one of its numbers changed, durably; return the SHA-256: the update of a site that is quick."""
    place = number_at(base)
    block = memoryview(bytearray(BLOCK_BYTES))
    with opened(base) as source, writing(to, sole_writer=True) as sink:
        size_bytes = base.stat().st_size
        for start in range(0, size_bytes, BLOCK_BYTES):
            view = block[: min(BLOCK_BYTES, size_bytes - start)]
            read_at(source, start, view)
            if start <= place < start + len(view):
                view[place - start : place - start + 4] = struct.pack("<f", value)
            sink.write(view)
    return sink.digest


def number_at(model: Path) -> int:
    """Return where the number lies that an update changes: the first float32, which is never cut by a block's end."""
    tensor = next(tensor for tensor in read_layout(model).tensors if tensor.dtype == "F32" and tensor.count)
    assert tensor.start % 4 == 0
    return tensor.start
