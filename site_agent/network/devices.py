"""The choice of device, and the process-wide settings of torch, in one place."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from fedcervix.core.plan import Precision
from fedcervix.errors import TrainingError
from fedcervix.runtime.malloc_tuning import keep_freed_memory
from site_agent.home import HardwareSection

Device = Literal["auto", "cpu", "cuda"]
Acceleration = Literal["eager", "graph", "compile"]
Deterministic = Literal["auto", "on", "off"]
_LACKS_MEMORY = ("out of memory", "alloc_failed")
"""how CUDA, cuBLAS and cuDNN say that the memory they ask for themselves is not there"""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a process trains on, and how."""

    device: torch.device
    acceleration: Acceleration = "eager"


def ready(hardware: HardwareSection) -> Machine:
    """Set this process up as the site's configuration says. Raises TrainingError if a device is not there."""
    device = choose(hardware.device)
    prepare(device, hardware.threads or len(os.sched_getaffinity(0)), hardware.deterministic)
    return Machine(device, accelerate(hardware.acceleration, device))


def choose(device: Device) -> torch.device:
    """Return the device asked for; `auto` is the GPU where there is one. Raises TrainingError if it is not there."""
    present = torch.cuda.is_available()
    if device == "cuda" and not present:
        raise TrainingError(
            "device = cuda is set, but torch finds no GPU",
            cause="no NVIDIA driver, no GPU in this container, or a torch built for the CPU",
            next_step='run nvidia-smi; or set device = "auto" to train on the CPU',
        )
    return torch.device("cuda" if present and device != "cpu" else "cpu")


def name_of(device: torch.device) -> str:
    """Return what a GPU calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def accelerate(asked: Literal["auto"] | Acceleration, device: torch.device) -> Acceleration:
    """Return how a training step runs: `auto` is a CUDA graph on a GPU, and plain calls on a CPU.

    Raises TrainingError if a graph is asked for without a GPU.
    """
    if asked == "auto":
        return "graph" if device.type == "cuda" else "eager"
    if asked == "graph" and device.type != "cuda":
        raise TrainingError(
            "acceleration = graph is set, but training runs on the CPU",
            cause="CUDA graphs need an NVIDIA GPU",
            next_step='set acceleration = "auto"',
        )
    return asked


def prepare(device: torch.device, threads: int, deterministic: Deterministic = "auto") -> None:
    """Set this process up for training on `device`, with `threads` CPU threads. Call once, before the first tensor.

    Deterministic (`auto`: on a CPU) means that equal inputs and threads give equal bits; on a GPU that costs speed.
    On a GPU float32 means float32 (no TF32).
    """
    exact = deterministic == "on" or (deterministic == "auto" and device.type == "cpu")
    if exact and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    if device.type == "cpu":
        keep_freed_memory()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # vanishing momentum would otherwise slow the CPU down tenfold
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = not exact
    torch.backends.cudnn.deterministic = exact
    torch.use_deterministic_algorithms(exact)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass per tensor


def place(module: nn.Module, device: torch.device) -> None:
    """Move the module to `device` in place, channels last (which the convolutions of either device prefer)."""
    module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which the network runs at the recipe's precision (`auto` is settled before).

    A weight is used once in a step, so keeping its bfloat16 copy would gain nothing; in a CUDA graph it would be wrong.
    Raises ValueError.
    """
    if precision == "auto":
        raise ValueError(
            'precision "auto" is settled before training begins: site_agent.network.precision.resolve_precision'
        )
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=device.type == "cpu"
    )


def lacks_memory(error: RuntimeError) -> bool:
    """Say whether an error of torch means that the GPU's memory is too small.

    Torch's allocator has a class for it; CUDA and its libraries only have words. A CUDA graph whose capture broke for
    want of memory may raise what came of that: hence also the errors before it.
    """
    return any(
        isinstance(one, torch.OutOfMemoryError) or any(word in str(one).lower() for word in _LACKS_MEMORY)
        for one in _with_those_before(error)
    )


def free_tensors(error: BaseException) -> None:
    """Free the tensors a failed step held: an error keeps the variables of all functions it came through."""
    for one in _with_those_before(error):
        traceback.clear_frames(one.__traceback__)


def _with_those_before(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    before: BaseException | None = error
    while before is not None:
        found.append(before)
        before = before.__context__
    return found
