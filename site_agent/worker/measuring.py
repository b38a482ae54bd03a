"""What a round needs beside the network: the model's file written and read, images decoded from a cold disk."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from fedcervix.core.pace import NOTHING, Span
from fedcervix.core.plan import Recipe, Terms
from fedcervix.models.blobs import BlobStore
from fedcervix.models.quantization import Origin, pack
from fedcervix.models.secure_averages import Summed, derive
from fedcervix.models.secure_sums import check_sum, mask
from fedcervix.models.secure_updates import quantise
from fedcervix.models.secure_vectors import vector_form
from fedcervix.models.step_norms import vet_step
from fedcervix.models.weights import read_layout, vet, vet_values
from fedcervix.trust.fixed_point import Share
from fedcervix.trust.mask_streams import KEY_BYTES, MaskSecret
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

TIMED_MASKS = 4

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
    vector_bytes: int = 0
    """of the vector of a secure sum; 0 here and below where the plan has none"""
    vector_s: float = 0.0
    """of making a vector, and writing it without its masks and with them"""
    mask_s: float = 0.0
    """of one mask"""
    sum_s: float = 0.0
    """of checking a sum, and deriving its model"""


@dataclass(frozen=True, slots=True)
class Decoding:
    """What decoding the images takes that are not decoded yet."""

    seconds: Span
    size_bytes: int
    """of the squares that it will add to the disk"""


def model_file(blobs: BlobStore, state: Mapping[str, Tensor], terms: Terms, clock: Clock = time.monotonic) -> ModelFile:
    """Write a model, check it as a site does before and after training, and delete it. Raises StorageError."""
    made, packed = blobs.scratch("tried"), blobs.scratch("tried-packed")
    compression = terms.compression
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
        found = ModelFile(made.stat().st_size, packed_bytes, task_s, loaded_s - written_s)
        return _with_sum(blobs, made, terms, found, clock) if terms.secure_sum else found
    finally:
        for file in (made, packed):
            file.unlink(missing_ok=True)


def _with_sum(blobs: BlobStore, model: Path, terms: Terms, found: ModelFile, clock: Clock) -> ModelFile:
    """Add what a secure sum takes: of a model as the update of itself, under secrets of no meaning."""
    plain, masked, derived = (blobs.scratch(f"tried-{name}") for name in ("vector", "masked", "derived"))
    secret, alone = MaskSecret(bytes(KEY_BYTES), b"timing"), Share(1, 1)
    form = vector_form(read_layout(model))
    try:
        began_s = clock()
        quantise(model, model, plain, alone, terms.batch_norm, secret, round_=1)
        quantised_s = clock()
        mask(plain, masked, form.model, [])
        made_s = clock()
        mask(plain, masked, form.model, [secret] * TIMED_MASKS)
        masked_s = clock()
        check_sum(plain, model, 1, secret)
        derive(plain, model, derived, Summed(alone, 1), terms.batch_norm, round_=1)
        ended_s = clock()
    finally:
        for file in (plain, masked, derived):
            file.unlink(missing_ok=True)
    return replace(
        found,
        vector_bytes=form.bytes,
        vector_s=made_s - began_s,
        mask_s=max(0.0, (masked_s - made_s) - (made_s - quantised_s)) / TIMED_MASKS,
        sum_s=ended_s - masked_s,
    )


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
