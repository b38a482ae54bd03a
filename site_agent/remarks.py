"""What a site should know of its manifest's columns and identifiers: nothing of it stops the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedcervix.manifest import at_most
from site_agent.collection import Collection


@dataclass(frozen=True, slots=True)
class Remark:
    """One kind of thing that was found."""

    heading: str
    items: tuple[str, ...]
    """one by one; they name patients or columns"""

    def short(self) -> str:
        """Return heading and first items on one line."""
        return f"{self.heading}: {', '.join(at_most(self.items))}"


def remarks(collection: Collection) -> tuple[Remark, ...]:
    """Return what was found, the gravest first."""
    found = (
        Remark(_renamed(collection), tuple(f"{now} was {then}" for now, then in collection.renamed)),
        Remark(
            f"{_count(collection.spellings, 'identifier')} written in several ways, each taken for one woman (write it "
            "in one way; two women need identifiers that differ in more than zeros, case, blanks, hyphens and dots)",
            tuple(" = ".join(names) for names in collection.spellings),
        ),
        Remark(
            f"{_count(collection.doubts, 'doubt')} about identifiers (look at the pictures of these patients)",
            tuple(f"{doubt.patient} {doubt.why}" for doubt in collection.doubts),
        ),
        Remark(f"{_count(collection.ignored_columns, 'column')} of the manifest not read", collection.ignored_columns),
    )
    return tuple(remark for remark in found if remark.items)


def _renamed(collection: Collection) -> str:
    recognised = len({now for now, _ in collection.renamed})
    return (
        f"{collection.absent_patients} of {collection.earlier_patients} patients of splits.csv are not in the manifest;"
        f" {recognised} of its patients were recognised by their pictures, or by an identifier that is written in "
        "another way, and keep their split"
    )


def _count(items: Sequence[object], noun: str) -> str:
    return f"{len(items)} {noun}" + ("" if len(items) == 1 else "s")
