"""Where a step's images come from: the GPU's own memory if all fit there, else copied as they are needed.

A batch is gathered on the CPU while the GPU works on the steps before: nothing in between waits for the GPU, and the
copy takes its turn there. A pinned buffer may be let go of at once: torch uses it again only after the copy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from site_agent.data.batches import Indices
from site_agent.data.pixels import Pixels

RESIDENT_SHARE = 0.3
"""of the GPU's free memory that images may take; the rest is for activations"""
_ROWS = 4096


class Feed:
    """Batches of images on the device."""

    def __init__(self, pixels: Pixels, device: torch.device) -> None:
        self._pixels, self._device = pixels, device
        self._resident = self._load() if self._fits() else None

    def take(self, chosen: Indices) -> Tensor:
        """Return bytes (N, S, S, 3) on the device."""
        if self._resident is not None:
            return self._resident[self.send(torch.from_numpy(chosen))]
        return self.send(torch.from_numpy(self._pixels[chosen]))

    def send(self, tensor: Tensor) -> Tensor:
        """Return the tensor on the device; the copy to a GPU is not waited for."""
        if self._device.type == "cpu":
            return tensor
        return tensor.contiguous().pin_memory().to(self._device, non_blocking=True)

    def _fits(self) -> bool:
        if self._device.type != "cuda":
            return False
        free_bytes, _total = torch.cuda.mem_get_info(self._device)
        return int(np.prod(self._pixels.shape)) <= RESIDENT_SHARE * free_bytes

    def _load(self) -> Tensor:
        """Copy all images to the device, a few thousand at a time (they may be mapped from a file)."""
        resident = torch.empty(tuple(self._pixels.shape), dtype=torch.uint8, device=self._device)
        for start in range(0, len(self._pixels), _ROWS):
            rows: npt.NDArray[np.int64] = np.arange(start, min(start + _ROWS, len(self._pixels)))
            resident[start : start + _ROWS] = torch.from_numpy(self._pixels[rows]).to(self._device)
        return resident
