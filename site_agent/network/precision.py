"""Is bfloat16 faster on this machine? It is measured once per site, and the result is saved.

A CPU with bfloat16 instructions (AVX512-BF16, AMX) trains up to three times faster in it; one without is slower, and
nothing else shows the difference. So `auto` measures the kind of layer that a ResNet is made of. The result is saved
with the caches, under a name made of everything that it depends on: an interrupted run continues with the precision it
began with.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fedcervix.core.plan import Precision, Recipe
from fedcervix.disk.files import write_secret
from fedcervix.errors import StorageError
from fedcervix.json_text import parsed
from site_agent.network.devices import autocast

FASTER_FROM = 1.1
"""bfloat16 is taken if float32 takes at least so many times as long: less is not worth eight bits of digits"""
_REPEATS = 7


def resolve_precision(recipe: Recipe, device: torch.device, cache_folder: Path | None = None) -> Recipe:
    """Return the recipe with its precision settled: `auto` becomes bfloat16 where that is faster, else float32."""
    if recipe.precision != "auto":
        return recipe
    return dataclasses.replace(recipe, precision=_kept(device, cache_folder))


def faster(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> Precision:
    """Time forward and backward of a convolution both ways; return the faster precision (about a third of a second)."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 64, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
    w = torch.randn(64, 64, 3, 3, generator=generator).contiguous(memory_format=torch.channels_last).requires_grad_()
    seconds = {precision: _seconds(x, w, device, precision, clock) for precision in ("float32", "bfloat16")}
    return "bfloat16" if seconds["float32"] >= FASTER_FROM * seconds["bfloat16"] else "float32"


def _seconds(x: Tensor, w: Tensor, device: torch.device, precision: Precision, clock: Callable[[], float]) -> float:
    taken = []
    for _ in range(_REPEATS):
        started = clock()
        with autocast(device, precision):
            y = F.conv2d(x, w, padding=1)
        y.float().square().mean().backward()  # type: ignore[no-untyped-call]
        taken.append(clock() - started)
    return statistics.median(taken[2:])


def _kept(device: torch.device, cache_folder: Path | None) -> Precision:
    if cache_folder is None:
        return faster(device)
    file = cache_folder / "precision.json"
    where = f"torch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads, {_chip(device)}"
    known = _read(file)
    if where in known:
        return known[where]
    found = faster(device)
    try:
        cache_folder.mkdir(parents=True, exist_ok=True)
        write_secret(file, json.dumps({**known, where: found}, allow_nan=False).encode())
    except (OSError, StorageError):
        return found  # it is measured again next time
    return found


def _read(file: Path) -> dict[str, Precision]:
    """Return what was measured before: in other circumstances (another number of threads) also."""
    try:
        raw = parsed(file.read_text())
        return {where: found for where, found in raw.items() if found in ("float32", "bfloat16")}
    except (OSError, ValueError, AttributeError):
        return {}


def _chip(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.backends.cpu.get_cpu_capability())
