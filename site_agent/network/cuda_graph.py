"""A training step as a CUDA graph: captured once, then replayed.

At the paper's batch of 16 views a GPU spends most of a step waiting for the launch of the next of some hundred kernels.
A graph is launched once. Rules of capture: shapes are fixed, inputs are copied into tensors that stay, nothing in the
step reads a value back, and what the step changes (weights, momentum, running statistics) keeps its place in memory.

Source: PyTorch's notes on CUDA graphs ("whole-network capture").
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Step = Callable[..., tuple[Tensor, ...]]

WARM_UP_STEPS = 3
"""before capture, so that libraries have chosen their kernels and made their workspaces"""


class Graphed:
    """A step that replays a graph for inputs of the shapes it was first called with; others run as they are."""

    def __init__(self, step: Step, changed: Callable[[], Sequence[Tensor]]) -> None:
        """`changed` returns every tensor that the step changes: they are put back after the warm-up."""
        self._step, self._changed = step, changed
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Take one step; return copies of what it returns."""
        if self._graph is None:
            self._capture(inputs)
        if [x.shape for x in inputs] != [x.shape for x in self._inputs]:
            return self._step(*inputs)
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given, non_blocking=True)
        assert self._graph is not None
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(x.clone() for x in inputs)
        graph = torch.cuda.CUDAGraph()
        with restored(self._changed()):
            self._warm_up()
            with torch.cuda.graph(graph):
                self._outputs = self._step(*self._inputs)
        self._graph = graph

    def _warm_up(self) -> None:
        here, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(here)
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_STEPS):
                    self._step(*self._inputs)
        finally:
            here.wait_stream(side)


@contextlib.contextmanager
def restored(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Leave the tensors as they were, also where the memory was too small: a checkpoint is kept of them then."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
