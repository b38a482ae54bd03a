"""A new model, rounded as the plan says, and restored at the other end: files of a blob store.

Both roles use this: a site for its update, the coordinator for its average. The arithmetic is in `quantization`. Done
again after a crash, the same inputs give the same files under the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedcervix.disk.files import digest_file
from fedcervix.errors import StorageError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.quantization import Feedback, Origin, Packing, pack, unpack
from fedcervix.models.weights import Layout


@dataclass(frozen=True, slots=True)
class Rounded:
    """Digests of what a model was rounded to; empty where there is no such file."""

    digest: str
    """of the model"""
    packed: str = ""
    """of its packed form, which travels in its place"""
    residual: str = ""
    """of what was rounded away"""


def round_model(blobs: BlobStore, exact: Path, packing: Packing, base: str, residual: str, *, name: str) -> Rounded:
    """Round a model and keep all that comes of it; `exact` stays as it is.

    `base`: digest of the model that it was made from. `residual`: of what was rounded away the last time, or empty.
    `name` is that of the files in the making. Raises as `pack`, and StorageError where the residual is gone.
    """
    packed, rounded, left = (blobs.scratch(f"{name}-{part}") for part in ("packed", "rounded", "residual"))
    origin = _origin(blobs, packing, base)
    form = pack(exact, packed, packing, origin, Feedback(_kept(blobs, residual), left) if origin else None)
    digest = unpack(packed, rounded, packing, origin)
    blobs.adopt(packed, form)
    blobs.adopt(rounded, digest)
    if origin is None:
        return Rounded(digest, form)
    carried = digest_file(left)
    blobs.adopt(left, carried)
    return Rounded(digest, form, carried)


def _kept(blobs: BlobStore, residual: str) -> Path | None:
    if residual and not blobs.has(residual):
        raise StorageError(
            f"{blobs.path(residual)} is missing: the rounding remainder of the last model",
            cause="it was deleted, or the folder comes from an older backup",
            next_step="restore it from a backup; a site may also delete runs/RUN/carried.json and continue",
        )
    return blobs.path(residual) if residual else None


def rebuild(
    blobs: BlobStore, packed: str, digest: str, packing: Packing, base: str, *, name: str, like: Layout | None = None
) -> None:
    """Make a model from its packed form, which is here, and keep it if it has this digest.

    `base`: digest of the model to which int8 packs the difference. Raises as `unpack`.
    """
    scratch = blobs.scratch(name)
    unpack(blobs.path(packed), scratch, packing, _origin(blobs, packing, base), digest=digest, like=like)
    blobs.adopt(scratch, digest)


def _origin(blobs: BlobStore, packing: Packing, base: str) -> Origin | None:
    return Origin(base, blobs.path(base)) if packing == "int8" else None
