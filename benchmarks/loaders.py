"""The other side's images: a torch DataLoader that runs on between its turns, and is tuned in its favour.

A loader with workers only shows its true rate once it has been running for a while, which at large batches is dear to
wait for in every turn. So one loader lives as long as its row, and its workers stand still while another side is
measured: a gate before each image. A turn then goes on where the last one stopped.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

START = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
ENDLESS = 10**9


@dataclass(frozen=True, slots=True)
class Choice:
    """How a loop of the other side is set up."""

    workers: int
    channels_last: bool

    @property
    def burst(self) -> int:
        """Batches that arrive together: a turn is a multiple of it, else it would begin and end at another point."""
        return max(1, self.workers)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __str__(self) -> str:
        return f"{self.workers} workers{'' if self.channels_last else ', contiguous'}"


def worker_counts(cores: int) -> list[int]:
    """Return the counts that are tried: 0, 1, 2, 4, ... up to one for each core."""
    return [0, *itertools.takewhile(lambda count: count <= cores, (2**k for k in range(10)))]


def best_choice(rate: Callable[[Choice], float], workers: Sequence[int]) -> tuple[Choice, dict[str, float]]:
    """Try every worker count, then the best one without channels_last; return the best, and all rates."""
    rates = {choice: rate(choice) for choice in (Choice(count, channels_last=True) for count in workers)}
    fastest = max(rates, key=rates.__getitem__)
    contiguous = Choice(fastest.workers, channels_last=False)
    rates[contiguous] = rate(contiguous)
    return max(rates, key=rates.__getitem__), {str(choice): found for choice, found in rates.items()}


class Gated(Dataset[Any]):
    """A dataset that gives nothing while its gate is shut, and an error once it is over."""

    def __init__(self, dataset: Any, gate: Event, over: Event) -> None:
        self._dataset, self._gate, self._over = dataset, gate, over

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, place: int) -> Any:
        self._gate.wait()
        if self._over.is_set():
            raise IndexError("the row is over")
        return self._dataset[place]


class Batches:
    """Shuffled batches of a dataset, epoch after epoch, as many as are taken."""

    def __init__(self, dataset: Any, batch: int, workers: int, *, pin: bool) -> None:
        context = multiprocessing.get_context(START)
        self._gate, self._over = context.Event(), context.Event()
        gated = Gated(dataset, self._gate, self._over)
        loader = DataLoader(
            gated,
            batch_size=batch,
            sampler=RandomSampler(gated, num_samples=ENDLESS, generator=torch.Generator().manual_seed(0)),
            num_workers=workers,
            multiprocessing_context=context if workers else None,
            pin_memory=pin,
        )
        self._batches: Iterator[Any] = iter(loader)

    def take(self, count: int) -> Iterator[Any]:
        """Yield the next `count` batches; the workers run until the last has been dealt with."""
        self._gate.set()
        try:
            yield from itertools.islice(self._batches, count)
        finally:
            self._gate.clear()

    def close(self) -> None:
        """End the workers."""
        self._over.set()
        self._gate.set()
        self._batches = iter(())


@contextmanager
def as_it_comes() -> Iterator[None]:
    """Run without the determinism that our side keeps on a CPU, and with cuDNN's own tuning: in the other's favour."""
    exact, tuned = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(exact)
        torch.backends.cudnn.benchmark = tuned
