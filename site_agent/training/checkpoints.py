"""Checkpoints: what a training needs to go on, in one file that is there whole or not at all.

Rules
1. One file holds everything: weights, momentum, the representations that the gauges will see, where training stood.
   Random numbers need no place in it: they derive from the seed and the step.
2. The file's name is its digest, so a damaged one is recognised and passed over. A new one is written and synced
   before the older one goes.
3. A checkpoint is for one `contract` (recipe, seed, images, base model..., and the versions that compute as this one
   does) and never used for another. Of other contracts the newest few stay: a training that was left can be taken up
   again.
4. Keeping costs under one percent of the time: the next one waits at least a hundred times as long as the last one
   took, and at least a minute. It takes from `due` on: the GPU catches up before `keep`. A disk that is full costs the
   checkpoint, not the run.
5. Tensors go from the device to the disk one at a time: keeping takes no memory for a second model.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
from torch import Tensor

from fedcervix.core.numerics import FIRST_ALIKE
from fedcervix.disk.files import digest_file, replacing, sync_path
from fedcervix.errors import StorageError
from fedcervix.json_text import parsed
from fedcervix.runtime.log import logger
from site_agent.network.encoder import state_parts

INTERVAL_S = 60.0
COST_SHARE = 0.01
FILES_MAX = 3
"""in one folder: one for each of the contracts that were last worked on"""
_FACTS = "facts"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors by name, and what else must be known, as values JSON can hold."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, object]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose name begins with `prefix`, without it."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}


class Checkpoints:
    """The checkpoints of one training in one folder."""

    def __init__(
        self,
        folder: Path,
        contract: str,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._clock, self._interval_s = folder, clock, interval_s
        named = hashlib.sha256(f"{FIRST_ALIKE} {contract}".encode()).hexdigest()[:16]
        self._stem = f"checkpoint-{named}"
        self._asked_s = clock()
        self._next_s = self._asked_s + interval_s

    def due(self) -> bool:
        """Return whether it is time to keep another."""
        self._asked_s = self._clock()
        return self._asked_s >= self._next_s

    def keep(self, checkpoint: Checkpoint) -> bool:
        """Write a checkpoint, then drop older ones. A disk that does not take it is logged; then it returns False."""
        kept = self._put(checkpoint)
        now = self._clock()
        self._next_s = now + max(self._interval_s, (now - self._asked_s) / COST_SHARE)
        return kept

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole; None if there is none."""
        for file in _newest_first(self._files()):
            try:
                if file.stem.rpartition("-")[2] == digest_file(file):
                    return _read(file)
                logger().warning("checkpoint_damaged", file=file.name)
            except StorageError as error:
                logger().warning("checkpoint_unreadable", file=file.name, reason=error.cause)
        return None

    def drop(self) -> None:
        """The training is over: its checkpoints are not needed any more."""
        for file in self._files():
            file.unlink(missing_ok=True)

    def drop_others(self) -> None:
        """No other training in this folder will go on, and none is writing a checkpoint now."""
        unfinished = self._folder.glob(".*checkpoint-*")  # of a process that was killed
        for file in {*self._folder.glob("checkpoint-*"), *unfinished} - set(self._files()):
            file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return list(self._folder.glob(f"{self._stem}-*.safetensors"))

    def _put(self, checkpoint: Checkpoint) -> bool:
        try:
            self._replace(checkpoint)
        except OSError as error:
            logger().warning("checkpoint_not_kept", reason=error.strerror or type(error).__name__)
            return False
        return True

    def _replace(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; its name is known when it is written. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        whole = self._folder / f".{self._stem}.whole"
        metadata = {_FACTS: json.dumps(checkpoint.facts, sort_keys=True, allow_nan=False)}
        with replacing(whole, sole_writer=True) as out:
            for part in state_parts(checkpoint.tensors, metadata):
                out.write(part)
        file = self._folder / f"{self._stem}-{out.digest}.safetensors"
        older = [found for found in self._files() if found != file]
        others = [found for found in _newest_first(self._folder.glob("checkpoint-*")) if found not in (file, *older)]
        whole.replace(file)
        sync_path(self._folder)
        for found in (*older, *others[FILES_MAX - 1 :]):
            found.unlink(missing_ok=True)


def _newest_first(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)


def _read(file: Path) -> Checkpoint:
    """Read a checkpoint whose digest was right. Its tensors are pages of the file, also once that is deleted."""
    with safetensors.safe_open(file, "pt") as found:
        facts = parsed(found.metadata()[_FACTS])
        return Checkpoint({name: found.get_tensor(name) for name in found.keys()}, facts)  # noqa: SIM118 (no dict)
