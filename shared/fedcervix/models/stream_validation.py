"""The values of a model, checked while it arrives: data in the processor's cache need not be read from the disk again.

Only a shortcut to what `weights.vet` and `step_norms.measure_groups` find. `sound` is True if the whole file passed by
and every number in it is one that a model can have; if anything is unusual (a damaged header, a transfer that continues
in the middle, a number split between two messages) it is False, and `vet` reads the file and reports what is wrong. So
does `measure_groups` where the model could not be measured here (`moved` is None), as one that comes packed.
"""

from __future__ import annotations

import struct
import threading
from pathlib import Path

from fedcervix.errors import RemoteError, StorageError
from fedcervix.models import weights
from fedcervix.models.step_norms import Group, Meter
from fedcervix.models.weights import DTYPES, PREFIX_BYTES, Layout, Tensor


class Arriving:
    """Checks the chunks of one file, from its first byte on. Thread-safe.

    `like`: the layout of the model that it should be; a header that is longer than that one allows is not parsed.
    `meter` measures how far it lies from its base.
    """

    def __init__(self, size_bytes: int, like: Layout | None = None, meter: Meter | None = None) -> None:
        self._size_bytes, self._like, self._meter = size_bytes, like, meter
        self._head_bytes_max = PREFIX_BYTES + weights.header_bytes_max(like)
        self._at = 0
        """bytes seen so far"""
        self._head: bytearray | None = bytearray()
        """received part of the header; None after it is read"""
        self._left: list[Tensor] = []
        """tensors that are not whole yet, the next one last"""
        self._doubt = False
        self._lock = threading.Lock()
        """whoever closes waits for a chunk that is being checked"""

    @property
    def sound(self) -> bool:
        """Whether the whole file was seen and is valid."""
        return not self._doubt and self._head is None and self._at == self._size_bytes

    def moved(self) -> tuple[Path, tuple[Group, ...]] | None:
        """Return how far a sound model lies from which one; None where that was not measured here."""
        with self._lock:
            if self._meter is None:
                return None
            try:
                return self._meter.base, self._meter.groups()
            except (RemoteError, StorageError):  # the base is no longer here: the model comes too late
                return None

    def close(self) -> None:
        """Let go of the base: what arrives from now on is not measured."""
        with self._lock:
            self._let_go()

    def see(self, chunk: bytes) -> None:
        """Look at the next chunk."""
        with self._lock:
            self._doubt = self._doubt or not self._look(chunk)

    def _look(self, chunk: bytes) -> bool:
        """Return whether no error was found so far."""
        start, self._at = self._at, self._at + len(chunk)
        if self._head is None:
            return self._check(memoryview(chunk), start)
        self._head += chunk
        if len(self._head) < PREFIX_BYTES:
            return True
        data_start = PREFIX_BYTES + struct.unpack_from("<Q", self._head)[0]
        if data_start > self._head_bytes_max:
            return False
        if len(self._head) < data_start:
            return True
        try:
            header = bytes(self._head[PREFIX_BYTES:data_start])
            layout = weights.parse_layout(header, self._size_bytes, self._like)
        except RemoteError:
            return False
        self._left = [tensor for tensor in reversed(layout.tensors) if tensor.count]
        values, self._head = memoryview(bytes(self._head[data_start:])), None
        return self._check(values, data_start)

    def _check(self, values: memoryview, start: int) -> bool:
        """Check bytes that begin at `start` of the file, where a number begins, or it is given up."""
        end = start + len(values)
        while self._left and self._left[-1].start < end:
            tensor = self._left[-1]
            first, last = max(tensor.start, start), min(tensor.end, end)
            item_bytes = DTYPES[tensor.dtype].itemsize
            if (first - tensor.start) % item_bytes or (last - tensor.start) % item_bytes:
                return False
            part = values[first - start : last - start]
            if not (self._measured(tensor, first - tensor.start, part) or weights.sound(part, tensor)):
                return False
            if last < tensor.end:
                break
            self._left.pop()
        return True

    def _measured(self, tensor: Tensor, start: int, part: memoryview) -> bool:
        """Measure a part; say whether it is known to be sound by that."""
        if self._meter is not None:
            try:
                return self._meter.add(tensor, start, part)
            except (RemoteError, StorageError):  # it is said when the model is reported
                self._let_go()
        return False

    def _let_go(self) -> None:
        if self._meter is not None:
            self._meter.close()
            self._meter = None
