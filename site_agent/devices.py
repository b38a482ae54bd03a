"""Where the arithmetic happens: the choice of device, and the process-wide switches of torch, set in one place."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from fedcervix.errors import TrainingError
from fedcervix.plan import Precision

Device = Literal["auto", "cpu", "cuda"]


def choose(device: Device) -> torch.device:
    """Return the device asked for; `auto` is the GPU where there is one. Raises TrainingError if it is not there."""
    present = torch.cuda.is_available()
    if device == "cuda" and not present:
        raise TrainingError(
            "device = cuda was asked for, but torch sees no GPU",
            cause="no NVIDIA driver, no GPU in this container, or a torch built for the CPU",
            next_step='run nvidia-smi; or set device = "auto" to train on the CPU',
        )
    return torch.device("cuda" if present and device != "cpu" else "cpu")


def prepare(device: torch.device, threads: int) -> None:
    """Set this process up for training on `device`, with `threads` CPU threads. Call once, before the first tensor.

    On the CPU equal inputs and threads then give equal bits. On a GPU float32 means float32 (no TF32).
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # vanishing momentum would otherwise slow the CPU down tenfold
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass per tensor


def place(module: nn.Module, device: torch.device) -> None:
    """Move the module to `device` in place, channels last (which the convolutions of either device prefer)."""
    module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which the network runs at the recipe's precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
