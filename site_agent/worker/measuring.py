"""What a round needs beside the network: the model's file written and read, images decoded from a cold disk."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fedcervix.core.pace import NOTHING, Span
from fedcervix.core.plan import Compression, Recipe
from fedcervix.models.blobs import BlobStore
from fedcervix.models.quantization import Origin, pack
from fedcervix.models.step_norms import vet_step
from fedcervix.models.weights import read_layout, vet, vet_values
from site_agent.data import dataset, pixel_cache
from site_agent.data.collection import Collection, Image
from site_agent.data.pixel_store import Kind, opened
from site_agent.home import SiteHome
from site_agent.images.preparation import PLAIN, Preparation
from site_agent.network.encoder import load_weights, save_weights
from site_agent.training.step_timing import around

DECODED_IMAGES, DECODED_AT_ONCE = 200, 50
DECODING_S_MOST = 30.0
"""of trying; a slow disk is tried with fewer images"""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a model is as a file."""

    size_bytes: int
    packed_bytes: int
    """0 where the plan does not compress"""
    task_s: float
    """of loading a model, checking it, writing the next one and checking that"""
    load_s: float


@dataclass(frozen=True, slots=True)
class Decoding:
    """What decoding the images takes that are not decoded yet."""

    seconds: Span
    size_bytes: int
    """of the squares that it will add to the disk"""


def model_file(
    blobs: BlobStore, state: Mapping[str, Tensor], compression: Compression, clock: Clock = time.monotonic
) -> ModelFile:
    """Write a model, check it as a site does before and after training, and delete it. Raises StorageError."""
    made, packed = blobs.scratch("tried"), blobs.scratch("tried-packed")
    try:
        began_s = clock()
        digest = save_weights(made, state)
        written_s = clock()
        vet_values(made)
        load_weights(made)
        loaded_s = clock()
        vet(made, read_layout(made))
        vet_step(made, made, 1.0)
        if compression != "none":
            pack(made, packed, compression, Origin(digest, made) if compression == "int8" else None)
        task_s = clock() - began_s
        packed_bytes = packed.stat().st_size if compression != "none" else 0
        return ModelFile(made.stat().st_size, packed_bytes, task_s, loaded_s - written_s)
    finally:
        for file in (made, packed):
            file.unlink(missing_ok=True)


def decoding(
    home: SiteHome,
    collection: Collection,
    chosen: Sequence[Image],
    recipe: Recipe,
    on_progress: Callable[[int, int], None],
    clock: Clock = time.monotonic,
) -> Decoding:
    """Decode some of the images that are not decoded yet, as from a disk that nobody has read; predict the others.

    Raises DataError, StorageError.
    """
    how = dataset.preparations(home, collection, chosen, recipe) or (PLAIN,) * len(chosen)
    with opened(home.cache, kind := Kind(recipe.image_px, recipe.fit)) as store:
        absent = [(i, p) for i, p in zip(chosen, how, strict=True) if not store.holds(p.key(bytes.fromhex(i.digest)))]
    some, each_s, began_s, done = _spread(absent, DECODED_IMAGES), list[float](), clock(), 0
    while done < len(some) and (not each_s or clock() - began_s < DECODING_S_MOST):
        few = some[done : done + DECODED_AT_ONCE]
        for image, _ in few:
            _forget(collection.folder / image.path)
        started_s = clock()
        pixel_cache.load(
            collection.folder,
            [image for image, _ in few],
            recipe.image_px,
            recipe.fit,
            home.cache,
            prepared=[prepared for _, prepared in few],
        )
        each_s.append((clock() - started_s) / len(few))
        done += len(few)
        on_progress(done, len(some))
    left = len(absent) - done
    return Decoding(around(each_s).times(left) if left else NOTHING, left * kind.record_bytes)


def _spread(absent: Sequence[tuple[Image, Preparation]], most: int) -> Sequence[tuple[Image, Preparation]]:
    """Return some of the images, from all parts of the manifest: its cameras may differ."""
    return absent[:: max(1, -(-len(absent) // most))]


def _forget(file: Path) -> None:
    """Have the system read a file from the disk again, where it can."""
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
