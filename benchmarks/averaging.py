"""What measuring the updates costs beside averaging them: both in turn, in one run, on models the size of ResNet-50.

    python -m benchmarks.averaging FOLDER

Prints medians of the seconds of each, and their ratio, for 2 and 8 updates; and of a clipped and a trimmed average.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.payloads import RESNET50, Payload
from fedcervix.models.aggregate import Clip, aggregate
from fedcervix.models.step_similarity import measure_steps
from fedcervix.models.weights import read_layout, read_tensors, write_tensors
from fedcervix.runtime.printing import say

TURNS = 7
COUNTS = (2, 8)
NOISE = 0.01


def main(folder: Path) -> None:
    """Write the models, and take turns."""
    base, paths = models(folder, max(COUNTS), RESNET50)
    for count in COUNTS:
        taken: dict[str, list[float]] = {}
        for _ in range(TURNS):
            for name, way in _ways(base, paths[:count], folder / "out").items():
                taken.setdefault(name, []).append(_seconds(way))
        middle = {name: statistics.median(times) for name, times in taken.items()}
        words = (f"{name} {seconds:.2f} s ({seconds / middle['average']:.2f})" for name, seconds in middle.items())
        say(f"{count} updates: {', '.join(words)}")


def _ways(base: Path, paths: list[Path], out: Path) -> dict[str, Callable[[], object]]:
    layout, updates = read_layout(base), [(path, 1.0) for path in paths]
    average = partial(aggregate, updates, layout, out, "mean")
    ways: dict[str, Callable[[], object]] = {
        "average": average,
        "measure": partial(measure_steps, [(path, base) for path in paths], layout, "mean"),
    }
    if len(paths) > 2:
        ways["clipped average"] = partial(average, clip=Clip(base, [1.0] * (len(paths) - 1) + [0.5]))
        ways["trimmed mean"] = partial(average, trimmed=1)
    return ways


def models(folder: Path, count: int, payload: Payload) -> tuple[Path, list[Path]]:
    """Write a model, and so many updates of it; return their paths."""
    payload.write(folder / "base")
    tensors = read_tensors(folder / "base")
    paths = [folder / f"update-{index}" for index in range(count)]
    for index, path in enumerate(paths):
        chance = np.random.default_rng(index)
        moved = {
            name: value + np.float32(NOISE) * np.abs(chance.standard_normal(value.shape, np.float32))
            for name, value in tensors.items()
            if value.dtype == np.float32
        }
        write_tensors(path, tensors | moved)
    return folder / "base", paths


def _seconds(way: Callable[[], object]) -> float:
    begun = time.perf_counter()
    way()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(Path(sys.argv[1]))
