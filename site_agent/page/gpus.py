"""How full and how busy this machine's GPUs are, by NVIDIA's management library (package nvidia-ml-py).

What a GPU does not tell is left out and is not 0: a GPU that is divided (MIG) has no number for how busy it is, and a
part of it may not show the memory of the whole. Without the package or a driver there are no GPUs to show.

A driver can hang, so a thread of its own asks it (`Watched`); the page then says that the GPUs do not answer.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

READ_S = 2.0
"""from one look to the next"""
SILENT_S = 20.0
"""after which a driver does not answer"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU, or one part of a divided one. None: it does not tell."""

    name: str
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    busy: float | None = None
    """share of the last moments in which it computed, 0 to 1"""
    degrees: int | None = None
    """Celsius"""


def library() -> Any | None:
    """Return NVIDIA's library, ready to be asked; None where it or its driver is missing."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def read_gpus(nvml: Any) -> tuple[Gpu, ...]:
    """Return the GPUs; of a divided one, its parts. `nvml` is the module `pynvml`, or what stands in its place."""
    return tuple(_gpus(nvml))


def _gpus(nvml: Any) -> Iterator[Gpu]:
    for number in range(_told(nvml, nvml.nvmlDeviceGetCount) or 0):
        device = _told(nvml, nvml.nvmlDeviceGetHandleByIndex, number)
        if device is None:
            yield Gpu(name=f"GPU {number}")
            continue
        parts = list(_parts(nvml, device, number))
        yield from parts or (_gpu(nvml, device, f"GPU {number}", is_divided=_is_divided(nvml, device)),)


def _is_divided(nvml: Any, device: Any) -> bool:
    mode = _told(nvml, nvml.nvmlDeviceGetMigMode, device)
    return mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE


def _parts(nvml: Any, device: Any, number: int) -> Iterator[Gpu]:
    if not _is_divided(nvml, device):
        return
    for part in range(_told(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, device) or 0):
        handle = _told(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, device, part)
        if handle is not None:
            yield _gpu(nvml, handle, f"GPU {number}, part {part}", is_divided=True)


def _gpu(nvml: Any, device: Any, title: str, *, is_divided: bool) -> Gpu:
    memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, device)
    rates = None if is_divided else _told(nvml, nvml.nvmlDeviceGetUtilizationRates, device)
    degrees = None if is_divided else _told(nvml, nvml.nvmlDeviceGetTemperature, device, nvml.NVML_TEMPERATURE_GPU)
    kind = _told(nvml, nvml.nvmlDeviceGetName, device)
    kind = kind.decode(errors="replace") if isinstance(kind, bytes) else kind
    return Gpu(
        name=f"{title}: {kind}" if kind else title,
        memory_bytes=int(memory.total) if memory else None,
        memory_used_bytes=int(memory.used) if memory else None,
        busy=rates.gpu / 100 if rates else None,
        degrees=degrees,
    )


def _told(nvml: Any, ask: Callable[..., Any], *arguments: Any) -> Any | None:
    with contextlib.suppress(nvml.NVMLError):
        return ask(*arguments)
    return None


class Watched:
    """The GPUs as they were a moment ago; asking for them never waits."""

    def __init__(self, nvml: Any | None, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._nvml, self._clock_s = nvml, clock_s
        self._found: tuple[Gpu, ...] = ()
        self._asked_s = clock_s()

    def watch(self, stop: threading.Event) -> None:
        """Look again and again, until told to stop; returns at once where there is no library."""
        while self._nvml is not None:
            self._found, self._asked_s = read_gpus(self._nvml), self._clock_s()
            if stop.wait(READ_S):
                return

    def now(self) -> tuple[Gpu, ...]:
        """Return what was found last."""
        return self._found

    def silent_s(self) -> float:
        """Return for how long the driver has not answered; 0 where it does, or there is none."""
        silent_s = self._clock_s() - self._asked_s
        return silent_s if self._nvml is not None and silent_s > SILENT_S else 0.0
