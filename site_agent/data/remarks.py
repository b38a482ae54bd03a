"""What a site should know of its manifest and its pictures: nothing of it stops the work."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass

from site_agent.data.collection import Collection
from site_agent.images.quality import CHECKS, Check
from site_agent.manifest.reading import at_most


@dataclass(frozen=True, slots=True)
class Remark:
    """One kind of thing that was found."""

    heading: str
    items: tuple[str, ...]
    """one by one; they name patients or columns"""

    def short(self) -> str:
        """Return heading and first items on one line."""
        return f"{self.heading}: {', '.join(at_most(self.items))}" if self.items else self.heading


def remarks(collection: Collection) -> tuple[Remark, ...]:
    """Return what was found, the gravest first."""
    doubtful = {doubt.patient for doubt in collection.doubts}
    found = (
        Remark(
            f"{_count(collection.spellings, 'identifier')} written in several ways, each taken for one woman (write it "
            "in one way; two women need identifiers that differ in more than zeros, case and separators)",
            tuple(" = ".join(names) for names in collection.spellings),
        ),
        Remark(
            f"{_count(doubtful, 'identifier')} that may be wrong (check the pictures)",
            tuple(f"{doubt.patient} {doubt.why}" for doubt in collection.doubts),
        ),
        Remark(f"{_count(collection.ignored_columns, 'column')} of the manifest not read", collection.ignored_columns),
    )
    odd = (Remark(f"{len(images)} {check.heading}", images) for check, images in _odd_images(collection))
    return (*_absent(collection), *(remark for remark in found if remark.items), *odd)


def _odd_images(collection: Collection) -> list[tuple[Check, tuple[str, ...]]]:
    """Return the checks that hold for some images, and which: these are used all the same."""
    return [(check, images) for check in CHECKS if (images := collection.odd_images.get(check.name))]


def _absent(collection: Collection) -> list[Remark]:
    """Say who of splits.csv is gone, and who was recognised although her identifier changed."""
    absent, renamed = collection.recognised.absent, collection.recognised.renamed
    if not absent and not renamed:
        return []
    heading = f"{absent} of {collection.recognised.earlier} patients of splits.csv are not in the manifest"
    recognised = (
        f"; {len({now for now, _ in renamed})} patients of the manifest were recognised by their pictures, or by an "
        "identifier that is written in another way: they keep the split they had"
    )
    return [Remark(heading + (recognised if renamed else ""), tuple(f"{now} was {then}" for now, then in renamed))]


def _count(items: Sized, noun: str) -> str:
    return f"{len(items)} {noun}" + ("" if len(items) == 1 else "s")
