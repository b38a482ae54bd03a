"""What a site should know of its manifest and its pictures: nothing of it stops the work."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sized
from dataclasses import dataclass

from fedcervix.core.plan import Recipe
from site_agent.data.collection import Collection
from site_agent.data.image_pairs import ImagePairs
from site_agent.images.gate import FINDINGS
from site_agent.images.quality import CHECKS
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
    return (*_absent(collection), *(r for r in found if r.items), *_stages(collection), *_odd_images(collection))


def _stages(collection: Collection) -> list[Remark]:
    """Count the pictures of every stage, where the stage of some is known."""
    counts = Counter(image.stage or "unknown" for image in collection.images)
    by_colour = sum(not image.details.stage and bool(image.colour_stage) for image in collection.images)
    if set(counts) <= {"unknown"}:
        return []
    told = ", ".join(f"{stage} {count}" for stage, count in counts.most_common())
    return [Remark(f"pictures by stage: {told}" + (f" ({by_colour} by their colours)" if by_colour else ""), ())]


def of_recipe(collection: Collection, recipe: Recipe) -> tuple[str, ...]:
    """Return how many images a recipe uses, where it uses some stages alone, and how many of those have partners."""
    used = collection.of_stages(recipe.stages)
    lines = []
    if recipe.stages:
        stages = " or ".join(recipe.stages)
        lines.append(f"{len(used.images)} of {len(collection.images)} images are of stage {stages}: no others are used")
    if recipe.positives == "same-stage-visit":
        train = used.contrastive("train")
        found = ImagePairs.among([(image.woman, image.visit, image.stage) for image in train])
        lines.append(
            f"{found.paired} of {len(train)} training images have another one of the same visit and stage; the others "
            "are paired with themselves (manifest columns visit and stage)"
        )
    return tuple(lines)


def _odd_images(collection: Collection) -> Iterator[Remark]:
    """Yield what is odd about some images: they are used all the same, unless the site sets them aside."""
    for check in (*CHECKS, *FINDINGS):
        if images := collection.odd_images.get(check.name):
            yield Remark(f"{_these(images, check.heading)} [{check.name}]", images)
    if other := collection.other_stage:
        yield Remark(_these(other, "pictures whose colours show another stage than the manifest says"), other)
    if aside := collection.set_aside:
        heading = f"{_count(aside, 'picture')} set aside, as set_aside in table [data] of site.toml says"
        yield Remark(heading, tuple(f"{one.image}: {', '.join(one.findings)}" for one in aside))


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


def _these(items: Sized, heading: str) -> str:
    """Return a number and a heading that speaks of pictures or files: of one, if it is one."""
    return f"{len(items)} " + (re.sub(r"\b(picture|file)s\b", r"\1", heading, count=1) if len(items) == 1 else heading)


def _count(items: Sized, noun: str) -> str:
    return f"{len(items)} {noun}" + ("" if len(items) == 1 else "s")
