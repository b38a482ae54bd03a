"""The digests of a site's images: they say whether two collections hold the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from site_agent.data.collection import Collection, digest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The images of a site, as digests. SHA-256 each."""

    collection: str
    """pictures, women, labels and splits, in order"""
    learning: str
    """the same without the test images"""
    splits: str
    """which woman is in which part"""
    test_images: str
    """the pictures of the labelled test images, sorted"""


def data_of(collection: Collection) -> Data:
    """Return the digests of a collection."""
    splits = sorted({f"{image.woman}\x1f{image.split}" for image in collection.images})
    test = sorted(image.digest for image in collection.labelled("test"))
    return Data(
        collection=collection.digest,
        learning=digest_of(collection.images),
        splits=_sha256(splits),
        test_images=_sha256(test),
    )


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
