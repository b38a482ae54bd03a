"""What a training step asks of a machine, and what the machine has: memory, arithmetic, traffic.

Bytes moved are an estimate: every operator reads each of its tensors once and writes its results once. Fused kernels
move less, operators that pass over their input twice (batch norm) more; caches are not considered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sides import synchronise

HEADROOM = 1.3
"""memory at the peak over what the forward pass keeps: gradients, workspaces, weights"""


@dataclass(frozen=True, slots=True)
class Work:
    """What one view costs, forward and backward."""

    flops: float
    moved_bytes: float
    kept_bytes: float
    """of the forward pass, for the backward pass"""


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all operands and results of what runs inside it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moved_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.moved_bytes += _bytes_of((args, kwargs, found))
        return found


def _bytes_of(values: Any) -> int:
    return sum(value.numel() * value.element_size() for value in tree_leaves(values) if isinstance(value, Tensor))


def kept_bytes(forward: Callable[[], Tensor]) -> int:
    """Return the bytes that a forward pass keeps for its backward pass; a memory kept twice counts once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not (tensor.is_leaf and tensor.requires_grad):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive = forward()
    del alive
    return sum(kept.values())


def work(forward: Callable[[], Tensor], views: int) -> Work:
    """Return what one of the `views` views of a step costs; `forward` ends in the loss."""
    kept = kept_bytes(forward)
    traffic = Traffic()
    with FlopCounterMode(display=False) as flops, traffic:
        forward().backward()  # type: ignore[no-untyped-call]
    return Work(flops.get_total_flops() / views, traffic.moved_bytes / views, kept / views)


def free_bytes(device: torch.device) -> float:
    """Return the memory that a step may take."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    found = {line.split(":")[0]: float(line.split()[1]) * 1024 for line in lines}
    return found.get("MemAvailable", float("inf"))


def copy_bytes_per_s(device: torch.device) -> float:
    """Return how many bytes a second this GPU's memory moves, read and written, when it only copies."""
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _seconds_each(lambda: target.copy_(source), device)


def matmul_flops_per_s(device: torch.device, dtype: torch.dtype, side: int = 8192) -> float:
    """Return how many floating-point operations a second this GPU does when it only multiplies large matrices."""
    a = torch.randn(side, side, dtype=dtype, device=device)
    return float(2 * side**3 / _seconds_each(lambda: a @ a, device))


def _seconds_each(work_once: Callable[[], object], device: torch.device, times: int = 20) -> float:
    for _ in range(3):
        work_once()
    synchronise(device)
    started = time.perf_counter()
    for _ in range(times):
        work_once()
    synchronise(device)
    return (time.perf_counter() - started) / times
